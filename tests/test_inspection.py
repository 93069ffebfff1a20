"""What a backbone is given of a record is said beforehand, and every warning can fire."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.errors import BackboneError, FileError
from einthoven.inspection import inspect
from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.signals.prepare import prepare_record

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def warnings(lines: list[str]) -> list[str]:
    return [line for line in lines if "warning" in line]


@pytest.fixture
def record(synthetic: Cohort) -> Record:
    """Twelve leads, 10 s at 100 Hz."""
    return read_record(synthetic.paths("test")[0])


def faster(record: Record, rate: float = 500.0, seconds: float = 10.0) -> Record:
    """The record at a higher rate, repeated or cut to a length."""
    times = np.arange(int(seconds * rate)) / rate % record.duration
    old = np.arange(record.signal.shape[1]) / record.rate
    rows = [np.interp(times, old, row) for row in record.signal]
    return replace(record, signal=np.array(rows, np.float32), rate=rate)


def test_a_record_that_suits_has_no_warning(record: Record) -> None:
    lines = inspect(faster(record), "ecg_fm")
    assert lines[0].startswith("for ecg_fm: 12 leads; linear resampling to 500 Hz; ")
    assert "2 crops of 12 leads x 2500 samples, mean -0.000" in lines[-1].replace("+", "-")
    assert not warnings(lines)


def test_a_rate_below_the_backbone_s_is_named(record: Record) -> None:
    (found,) = warnings(inspect(record, "ecg_fm"))
    assert "100 Hz is below the 500 Hz of ecg_fm" in found
    assert "nothing above 50 Hz" in found
    assert not warnings(inspect(record, "hubert_ecg_small"))  # 500 Hz on the way, 100 in the end


def test_leads_that_follow_are_computed_and_said(record: Record) -> None:
    lines = inspect(record.select(EIGHT), "hubert_ecg_small")
    assert "leads III aVR aVL aVF follow from the others and are computed" in lines[1]
    assert not warnings(lines)
    assert "3 crops of 12 leads x 500 samples" in lines[-1]


@pytest.mark.parametrize(
    ("backbone", "said"),
    [
        ("st_mem_tiny", "it makes no tokens of the missing ones"),
        ("ecgfounder_12lead", "the channels of the missing ones are zero"),
        ("mtecg_tiny_100hz", "it works as if the missing ones were zero"),
        ("ecg_fm", "as half of them were in its pretraining"),
    ],
)
def test_leads_that_do_not_follow_are_the_backbone_s_policy(
    record: Record, backbone: str, said: str
) -> None:
    lines = inspect(record.select(("V1", "II", "I")), backbone)
    found = [line for line in warnings(lines) if "do not follow" in line]
    assert len(found) == 1
    assert "leads V2 V3 V4 V5 V6 are missing and do not follow" in found[0]
    assert "--leads I,II,V1" in found[0]
    assert said in found[0]
    assert any("crops of" in line or "crop of" in line for line in lines)


def test_a_refusal_is_a_finding(record: Record) -> None:
    (found,) = warnings(inspect(record.select(("I", "II", "V1")), "hubert_ecg_small"))
    assert "leaves out V2, V3, V4, V5, V6" in found
    assert "missing_leads='mean' or 'zero'" in found
    strange = replace(record.select(("I",)), leads=("MLII",))
    (found,) = warnings(inspect(strange, "ecg_fm"))
    assert "has none of the leads of ecg_fm" in found
    with pytest.raises(BackboneError, match="unknown backbone"):
        inspect(record, "ecg_fn")


def test_records_that_are_too_short_or_too_long_for_the_window(record: Record) -> None:
    short = faster(record, seconds=6.0)
    (found,) = warnings(inspect(short, "ecgfounder_12lead"))
    assert "6 s are less than the window of 10 s, which zeros fill up" in found
    (found,) = warnings(inspect(short, "st_mem_tiny"))
    assert "is shorter than the window of 2250" in found
    (found,) = warnings(inspect(faster(record, seconds=60.0), "st_mem_tiny"))
    assert "3 evaluation crops of 9 s leave out 33 s of the record's 60 s" in found


@pytest.mark.parametrize(
    ("backbone", "mains", "removed"),
    [
        ("st_mem_tiny", 50, True),  # a low-pass
        ("ecgfounder_12lead", 50, True),  # a notch
        ("hubert_ecg_small", 60, True),  # a lower rate
        ("mtecg_tiny", 50, False),
        ("ecg_fm", 60, False),
    ],
)
def test_the_mains_stay_or_go(record: Record, backbone: str, mains: int, removed: bool) -> None:
    clean = faster(record)
    hum = 0.1 * np.sin(2 * np.pi * mains * np.arange(5000) / 500)
    noisy = replace(clean, signal=clean.signal + hum.astype(np.float32))
    lines = [line for line in inspect(noisy, backbone) if f" {mains} Hz out" in line]
    assert len(lines) == 1
    assert ("warning" not in lines[0]) == removed
    assert not any(f" {mains} Hz out" in line for line in inspect(clean, backbone))


@pytest.mark.parametrize(
    ("backbone", "removed"),
    [
        ("st_mem_tiny", True),  # a band-pass
        ("ecg_fm", True),  # every lead is standardised
        ("hubert_ecg_small", True),
        ("mtecg_tiny_100hz", False),
        ("s4_small", False),
    ],
)
def test_an_offset_stays_or_goes(record: Record, backbone: str, removed: bool) -> None:
    signal = record.signal - np.median(record.signal, axis=1, keepdims=True)
    still = replace(record, signal=signal)
    moved = replace(record, signal=signal + np.float32(0.5))
    assert not any(" offset " in line for line in inspect(still, backbone))
    (said,) = [line for line in inspect(moved, backbone) if " offset " in line]
    assert ("warning" not in said) == removed
    still_input = prepare_record(create_backbone(backbone).preparation, still)
    moved_input = prepare_record(create_backbone(backbone).preparation, moved)
    change = (moved_input - still_input).mean().abs().item()
    assert (change < 0.01) == removed


def test_flat_leads_and_lost_samples(record: Record) -> None:
    signal = faster(record).signal.copy()
    signal[7] = 0.4
    flat = replace(faster(record), signal=signal)
    (found,) = warnings(inspect(flat, "ecg_fm"))
    assert "V2 is flat, and 0 is what is made of it" in found
    (found,) = warnings(inspect(flat, "hubert_ecg_small"))
    assert "V2 is flat, and -0.989 is what is made of it" in found
    signal[7, 100:200] = np.nan
    lost = replace(flat, signal=signal)
    (found,) = warnings(inspect(lost, "hubert_ecg_small"))
    assert "V2: the mean of the crop for values that are not numbers" in found
    (found,) = warnings(inspect(lost, "ecg_fm"))
    assert "NaN or infinity in 2 of the records" in found


@pytest.mark.parametrize("ending", [".html", ".svg", ".png"])
def test_a_picture_of_each_kind(tmp_path: Path, record: Record, ending: str) -> None:
    file = tmp_path / f"view{ending}"
    lines = inspect(record.select(EIGHT), "ecg_fm", findings=["what was known"], picture=file)
    assert lines[-1] == f"  picture: {file}"
    if ending == ".png":
        assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        return
    text = file.read_text()
    assert text.startswith("<!DOCTYPE html>" if ending == ".html" else "<svg")
    for lead in STANDARD_LEADS:
        computed = lead in ("III", "aVR", "aVL", "aVF")
        assert f">{lead} (computed)<" in text if computed else f">{lead}<" in text
        assert f">{lead}, prepared<" in text
    if ending == ".html":
        assert "what was known" in text
        assert "100 Hz is below the 500 Hz" in text
        assert "<script" not in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
        assert record.name not in text


def test_a_picture_of_another_kind_is_refused(tmp_path: Path, record: Record) -> None:
    with pytest.raises(FileError, match=r"\.gif"):
        inspect(record, "ecg_fm", picture=tmp_path / "view.gif")
    with pytest.raises(FileError, match="cannot be written"):
        inspect(record, "ecg_fm", picture=tmp_path / "absent" / "view.png")
