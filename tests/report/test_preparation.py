"""Before and after preparation on one sheet: true to scale and aligned in time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from einthoven.records.record import Record
from einthoven.report.page import before_and_after

Make = Callable[..., Record]
LEADS = ("II", "V1")


def strip(svg: str, row: int) -> np.ndarray:
    """The points of a row's trace in mm, y upwards."""
    root = ElementTree.fromstring(svg)
    mm = float(root.attrib["width"][:-2]) / float(root.attrib["viewBox"].split()[2])
    (group,) = [n for n in root.iter() if n.get("id") == f"doctor-strip-{row}-0"]
    (path,) = [n for n in group.iter() if n.tag.endswith("path")]
    numbers = [float(each) for each in re.findall(r"-?\d+\.?\d*", path.attrib["d"])]
    return np.array(numbers).reshape(-1, 2) * [mm, -mm]


def drawn(record: Record, prepared: np.ndarray, file: Path, **options: float) -> str:
    before_and_after(
        record, prepared.astype(np.float32), LEADS, file=file,
        **({"rate": 100.0} | options),
    )  # fmt: skip
    return file.read_text()


def test_a_crop_lies_below_the_stretch_that_it_was_cut_from(
    make_record: Make, tmp_path: Path
) -> None:
    beat = np.zeros(5000)
    beat[2000:2010] = 1.2  # at 4 s
    prepared = np.zeros((2, 500))
    prepared[0, 100] = 3.0  # 1 s after the crop's beginning at 3 s
    svg = drawn(make_record(beat), prepared, tmp_path / "x.svg", start=3.0)
    before, after = strip(svg, 0), strip(svg, 1)
    assert np.ptp(before[:, 0]) == pytest.approx(250, rel=0.01)
    assert np.ptp(after[:, 0]) == pytest.approx(125, rel=0.01)
    assert np.ptp(before[:, 1]) == pytest.approx(12, abs=0.2)
    tops = [points[points[:, 1].argmax(), 0] for points in (before, after)]
    assert tops[0] == pytest.approx(tops[1], abs=0.6)
    assert before[:, 1].max() > after[:, 1].max()


@pytest.mark.parametrize(
    ("millivolts", "units", "caption"),
    [
        (1.0, 1.5, "recorded: 10 mm/mV, 500 Hz · prepared: 10 mm/unit, 100 Hz"),
        (3.5, 12.0, "recorded: 5 mm/mV, 500 Hz · prepared: 1 mm/unit, 100 Hz"),
        (900.0, 0.0, "recorded: 0.02 mm/mV, 500 Hz · prepared: 10 mm/unit, 100 Hz"),
    ],
)
def test_tall_signals_are_drawn_smaller(
    make_record: Make, tmp_path: Path, millivolts: float, units: float, caption: str
) -> None:
    wave = np.sin(np.arange(5000) / 50)
    prepared = units * np.sin(np.arange(1000) / 10) * np.ones((2, 1))
    svg = drawn(make_record(millivolts * wave), prepared, tmp_path / "x.svg")
    assert caption in svg
    assert np.ptp(strip(svg, 0)[:, 1]) <= 41
    assert np.ptp(strip(svg, 1)[:, 1]) <= 41


def test_a_long_recording_is_shown_where_the_crop_is(make_record: Make, tmp_path: Path) -> None:
    beat = np.zeros(60 * 500)
    beat[20_000:20_010] = 1.0  # at 40 s
    prepared = np.zeros((2, 1000))
    prepared[0, 300] = 1.0
    svg = drawn(make_record(beat, seconds=60.0), prepared, tmp_path / "x.svg", start=37.0)
    before, after = strip(svg, 0), strip(svg, 1)
    assert np.ptp(before[:, 0]) == pytest.approx(250, rel=0.01)
    tops = [points[points[:, 1].argmax(), 0] for points in (before, after)]
    assert tops[0] == pytest.approx(tops[1], abs=0.6)


def test_gaps_and_names_are_left_out(make_record: Make, tmp_path: Path) -> None:
    record = make_record(0.5 * np.sin(np.arange(5000) / 40))
    signal = record.signal.copy()
    signal[:, 1000:2000] = np.nan
    gone = Record.create(signal, 500.0, leads=record.leads, name=record.name, patient="Jane Doe")
    page = drawn(gone, np.zeros((2, 1000)), tmp_path / "x.html")
    assert not re.search(r"\bnan\b", page, flags=re.IGNORECASE)
    assert "MRN-4711" not in page
    assert "Jane" not in page
