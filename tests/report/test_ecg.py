"""ECGs on paper, and before and after preparation: true to scale, without names of patients."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from einthoven.records.record import Record
from einthoven.report.ecg import ecg_paper
from einthoven.report.page import before_and_after

RATE = 500
Make = Callable[..., Record]


def pulse() -> np.ndarray:
    """1 mV from 3 s to 4 s."""
    time = np.arange(10 * RATE) / RATE
    return ((time >= 3) & (time < 4)).astype(np.float32)


class Sheet:
    """A drawn ECG, measured in millimetres."""

    def __init__(self, svg: str) -> None:
        self.root = ElementTree.fromstring(svg)
        width, height = (float(self.root.attrib[key][:-2]) for key in ("width", "height"))
        box = [float(each) for each in self.root.attrib["viewBox"].split()]
        self.scale = width / box[2]
        assert height / box[3] == pytest.approx(self.scale, rel=1e-3)

    def group(self, pattern: str) -> list[np.ndarray]:
        """The points of every path of the groups of that name, y upwards."""
        name = f"(ecg|doctor)-{pattern}"
        nodes = [node for node in self.root.iter() if re.fullmatch(name, node.get("id") or "")]
        return [points(path.attrib["d"]) * self.scale for node in nodes for path in paths(node)]


def paths(node: ElementTree.Element) -> list[ElementTree.Element]:
    return [each for each in node.iter() if each.tag.endswith("path")]


def points(path: str) -> np.ndarray:
    numbers = [float(each) for each in re.findall(r"-?\d+\.?\d*", path)]
    return np.array(numbers).reshape(-1, 2) * [1, -1]


def test_a_second_is_25_mm_and_a_millivolt_10_mm(make_record: Make) -> None:
    sheet = Sheet(ecg_paper(make_record(pulse())))
    (rhythm,) = sheet.group("strip-3-0")
    up = rhythm[rhythm[:, 1] > rhythm[:, 1].max() - 1]
    assert np.ptp(rhythm[:, 0]) == pytest.approx(250, rel=0.01)
    assert np.ptp(rhythm[:, 1]) == pytest.approx(10, rel=0.01)
    assert np.ptp(up[:, 0]) == pytest.approx(25, rel=0.01)
    assert up[0, 0] - rhythm[0, 0] == pytest.approx(75, rel=0.01)


def test_calibration_is_1_mv_for_200_ms_and_stands_on_the_grid(make_record: Make) -> None:
    sheet = Sheet(ecg_paper(make_record(pulse())))
    calibrations = sheet.group(r"calibration-\d")
    assert len(calibrations) == 4
    large = np.unique(np.round(sheet.group("grid-5")[0][:, 1], 2))
    for x, y in (each.T for each in calibrations):
        assert np.ptp(y) == pytest.approx(10, rel=0.01)
        assert np.ptp(x[y > y.max() - 1]) == pytest.approx(5, rel=0.01)
        assert np.abs(large - y.min()).min() < 0.05


def test_the_grid_has_squares_of_1_and_5_mm(make_record: Make) -> None:
    sheet = Sheet(ecg_paper(make_record()))
    for step in (1, 5):
        upright = np.unique(np.round(sheet.group(f"grid-{step}")[0][:, 0], 2))
        assert np.allclose(np.diff(upright), step, atol=0.02)


def test_standard_layout_shows_columns_one_after_the_other(make_record: Make) -> None:
    sheet = Sheet(ecg_paper(make_record(pulse())))
    one, augmented = sheet.group("strip-0-0")[0], sheet.group("strip-0-1")[0]
    assert augmented[0, 0] - one[0, 0] == pytest.approx(62.5, rel=0.01)
    # Lead II is high from 3 s to 4 s, which its short strip, up to 2.5 s, does not show.
    (short,) = sheet.group("strip-1-0")
    assert np.ptp(short[:, 1]) < 0.05


@pytest.mark.parametrize("depth", [0.5, 1.5, 1.8, 2.3])
def test_deep_waves_of_the_last_row_stay_on_the_paper(make_record: Make, depth: float) -> None:
    sheet = Sheet(ecg_paper(make_record(-depth * pulse())))
    (rhythm,), (grid,) = sheet.group("strip-3-0"), sheet.group("grid-1")
    assert np.ptp(rhythm[:, 1]) == pytest.approx(10 * depth, rel=0.01)
    assert rhythm[:, 1].min() > grid[:, 1].min()


def test_unknown_samples_leave_a_gap(make_record: Make) -> None:
    signal = pulse()
    signal[2500:3000] = np.nan
    drawn = ecg_paper(make_record(signal))
    root = ElementTree.fromstring(drawn)
    strip = next(node for node in root.iter() if node.get("id") == "ecg-strip-3-0")
    assert paths(strip)[0].attrib["d"].count("M") == 2
    ecg_paper(make_record(np.nan))


def test_small_drawings_keep_the_extremes_of_every_10_ms(make_record: Make) -> None:
    """A pacing spike of one sample, and a gap, in noise at 500 Hz; records of 100 Hz stay."""
    signal = np.random.default_rng(0).normal(0, 0.02, 10 * RATE).astype(np.float32)
    signal[1713], signal[3000:3500] = 2.0, np.nan
    record = make_record(signal)
    whole, small = (ecg_paper(record, small=small) for small in (False, True))
    assert len(small) < 0.6 * len(whole)
    rows = [Sheet(drawing).group("strip-3-0") for drawing in (whole, small)]
    (full,), (thin,) = rows
    assert full.min(axis=0) == pytest.approx(thin.min(axis=0), abs=0.3)  # mm
    assert full.max(axis=0) == pytest.approx(thin.max(axis=0), abs=0.3)
    tops = [row[row[:, 1].argmax(), 0] for row in (full, thin)]
    assert tops[0] == pytest.approx(tops[1], abs=0.3)
    slow = make_record(signal[::5], rate=100.0)
    assert ecg_paper(slow, small=True) == ecg_paper(slow)


def test_names_are_not_printed_and_titles_are_text(make_record: Make) -> None:
    drawn = ecg_paper(make_record(), title='<script>$x$ "a"')
    assert "MRN-4711" not in drawn
    assert "Jane" not in drawn
    assert "<script" not in drawn
    assert "&lt;script&gt;$x$" in drawn
    assert "25 mm/s" in drawn


def before_after(record: Record, prepared: np.ndarray, file: Path, start: float = 0.0) -> str:
    signal = prepared.astype(np.float32)
    before_and_after(record, signal, ("II", "V1"), rate=100.0, file=file, start=start)
    return file.read_text()


def strips(svg: str) -> list[np.ndarray]:
    """The traces of the first lead before and after."""
    sheet = Sheet(svg)
    return [sheet.group(f"strip-{row}-0")[0] for row in (0, 1)]


def test_a_crop_lies_below_the_stretch_that_it_was_cut_from(
    make_record: Make, tmp_path: Path
) -> None:
    beat = np.zeros(5000)
    beat[2000:2010] = 1.2  # at 4 s
    prepared = np.zeros((2, 500))
    prepared[0, 100] = 3.0  # 1 s after the crop's beginning at 3 s
    svg = before_after(make_record(beat), prepared, tmp_path / "x.svg", start=3.0)
    before, after = strips(svg)
    assert np.ptp(before[:, 0]) == pytest.approx(250, rel=0.01)
    assert np.ptp(after[:, 0]) == pytest.approx(125, rel=0.01)
    assert np.ptp(before[:, 1]) == pytest.approx(12, abs=0.2)
    tops = [points[points[:, 1].argmax(), 0] for points in (before, after)]
    assert tops[0] == pytest.approx(tops[1], abs=0.6)
    assert before[:, 1].max() > after[:, 1].max()


def test_gaps_and_names_are_left_out(make_record: Make, tmp_path: Path) -> None:
    record = make_record(0.5 * np.sin(np.arange(5000) / 40))
    signal = record.signal.copy()
    signal[:, 1000:2000] = np.nan
    gone = Record.create(signal, 500.0, leads=record.leads, name=record.name, patient="Jane Doe")
    page = before_after(gone, np.zeros((2, 1000)), tmp_path / "x.html")
    assert not re.search(r"\bnan\b", page, flags=re.IGNORECASE)
    assert "MRN-4711" not in page
    assert "Jane" not in page
