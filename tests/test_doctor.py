"""The doctor names what is wrong, and is silent about what is not."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import Cohort, open_cohort
from einthoven.doctor import examine, installation
from einthoven.errors import BackboneError, CohortError, RecordError
from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.records.wfdb import write_wfdb
from einthoven.signals.pack import pack
from einthoven.signals.store import Store
from einthoven.version import __version__


def warnings(lines: list[str]) -> list[str]:
    return [line for line in lines if "warning" in line]


@pytest.fixture
def record(synthetic: Cohort) -> Record:
    return read_record(synthetic.paths("test")[0])


def write(file: Path, signal: np.ndarray, leads: tuple[str, ...] = STANDARD_LEADS) -> Path:
    write_wfdb(file, signal, rate=100, leads=leads)
    return file.with_suffix(".hea")


def test_the_installation_is_described() -> None:
    lines = installation()
    assert lines[0] == f"einthoven {__version__}"
    assert any(line.strip().startswith("torch ") for line in lines)
    assert any(line.startswith("GPU:") for line in lines)
    (compiled,) = [
        line for line in lines if line.startswith("bootstrap and preparation of signals")
    ]
    assert ("compiled (extra" in compiled) == bool(find_spec("numba"))


def test_a_sound_record_has_no_warning(synthetic: Cohort) -> None:
    lines = examine(synthetic.paths("test")[0])
    assert "12 leads, 10 s at 100 Hz" in lines[0]
    assert any("Einthoven's law" in line for line in lines)
    assert not warnings(lines)


def test_a_flat_lead_and_a_wrong_gain_are_named(tmp_path: Path, record: Record) -> None:
    signal = record.signal.copy()
    signal[7] = 0.0
    found = warnings(examine(write(tmp_path / "flat", signal)))
    assert len(found) == 1
    assert "V2 is flat" in found[0]
    loud = warnings(examine(write(tmp_path / "loud", record.signal * 12)))
    assert any("check gain" in line for line in loud)
    quiet = warnings(examine(write(tmp_path / "quiet", record.signal / 200)))
    assert any("check gain" in line for line in quiet)


def test_exchanged_limb_leads_break_einthoven_s_law(tmp_path: Path, record: Record) -> None:
    signal = record.signal.copy()
    signal[[0, 1]] = signal[[1, 0]]
    found = warnings(examine(write(tmp_path / "exchanged", signal)))
    assert any("limb leads do not fit" in line for line in found)


@pytest.mark.parametrize(("factor", "unit"), [(1000, "microvolts"), (1e-3, "volts")])
def test_units_that_look_wrong_are_named(
    record: Record, factor: float, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(record, signal=(record.signal * factor).astype(np.float32))
    monkeypatch.setattr("einthoven.doctor.read_record", lambda path: wrong)
    (found,) = [line for line in warnings(examine(Path("x.hea"))) if "check gain" in line]
    assert found.endswith(f"the values look like {unit} that are called millivolts")


def test_an_artefact_in_one_lead_is_named(tmp_path: Path, record: Record) -> None:
    signal = record.signal.copy()
    signal[6, 500:510] += 6.0
    found = warnings(examine(write(tmp_path / "artefact", signal)))
    assert found == ["  warning: V1 further than 5 mV from the median: artefacts?"]


def test_an_offset_is_named(tmp_path: Path, record: Record) -> None:
    signal = record.signal.copy()
    signal[7] += 0.9 - np.median(signal[7])
    found = warnings(examine(write(tmp_path / "offset", signal)))
    assert found == ["  warning: V2 at rest up to 0.90 mV from zero: an offset"]


def test_missing_leads_are_named(tmp_path: Path, record: Record) -> None:
    leads = ("I", "II", "V1")
    file = write(tmp_path / "three", record.select(leads).signal, leads)
    lines = examine(file, backbone="mtecg_tiny_100hz")
    assert any("leads III aVR" in line for line in warnings(lines))
    assert not any("Einthoven's law" in line for line in lines)


@pytest.mark.parametrize("lost", [0.5, 1.0])
def test_samples_that_are_no_numbers_are_counted(
    tmp_path: Path, record: Record, lost: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = record.signal.copy()
    signal[:, : int(lost * 1000)] = np.nan
    broken = Record(
        signal=signal, rate=100.0, leads=STANDARD_LEADS, name="x", patient=None,
        source="x", source_hash="0" * 64, metadata={},
    )  # fmt: skip
    monkeypatch.setattr("einthoven.doctor.read_record", lambda path: broken)
    found = warnings(examine(tmp_path / "x.hea"))
    assert len([line for line in found if "samples that are not numbers" in line]) == 12
    assert f"{int(lost * 1000)} samples" in found[0]


def test_a_backbone_s_view_with_a_picture(tmp_path: Path, synthetic: Cohort) -> None:
    picture = tmp_path / "view.png"
    lines = examine(synthetic.paths("test")[0], backbone="mtecg_tiny_100hz", picture=picture)
    assert any("1 crop of 12 leads x 1000 samples" in line for line in lines)
    assert lines[-1] == f"  picture: {picture}"
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not warnings(lines)


def test_a_page_has_the_findings_and_not_the_file_s_name(tmp_path: Path, record: Record) -> None:
    signal = record.signal.copy()
    signal[7] = 0.0
    page = tmp_path / "view.html"
    file = write(tmp_path / "Doe_Jane", signal)
    lines = examine(file, backbone="mtecg_tiny_100hz", picture=page)
    assert "Doe_Jane" in lines[0]
    text = page.read_text()
    assert "V2 is flat" in text
    assert "12 leads, 10 s at 100 Hz" in text
    assert "Doe_Jane" not in text


def test_a_picture_without_a_backbone_is_refused(tmp_path: Path, synthetic: Cohort) -> None:
    with pytest.raises(BackboneError, match="add --backbone"):
        examine(synthetic.paths("test")[0], picture=tmp_path / "view.png")
    with pytest.raises(BackboneError, match="unknown backbone"):
        examine(synthetic.paths("test")[0], backbone="mtecg_large")


def test_a_backbone_s_view_of_many_ecgs_is_refused(
    tmp_path: Path, synthetic_path: Path, synthetic_store: Store
) -> None:
    for many in (synthetic_path, Path(synthetic_store.root)):
        for asked in ({"backbone": "mtecg_tiny_100hz"}, {"picture": tmp_path / "x.png"}):
            with pytest.raises(BackboneError, match="holds many ECGs"):
                examine(many, **asked)  # type: ignore[arg-type]


def test_a_cohort_s_splits_and_absent_labels(synthetic_path: Path) -> None:
    lines = examine(synthetic_path)
    assert "160 records" in lines[0]
    assert "train 59, validation 55, test 46" in lines[1]
    assert any("train has no record of" in line for line in warnings(lines))
    assert not any("no file" in line for line in lines)


def test_files_that_a_cohort_lacks(tmp_path: Path, synthetic: Cohort) -> None:
    table = pd.DataFrame(
        {
            "path": [f"{name}" for name in "abcdef"],
            "patient": list("abcdef"),
            "sick": [0, 1, 0, 1, 0, 1],
            "split": ["train", "train", "validation", "validation", "test", "test"],
        }
    )
    table.to_csv(tmp_path / "own.csv", index=False)
    found = warnings(examine(tmp_path / "own.csv"))
    assert len(found) == 1
    assert "6 records have no file" in found[0]
    for name in "bcdef":
        write(tmp_path / name, np.random.default_rng(0).normal(size=(12, 100)))
    found = warnings(examine(tmp_path / "own.csv"))
    assert "1 records have no file" in found[0]


def test_a_plain_folder_of_records(synthetic_path: Path) -> None:
    lines = examine(synthetic_path / "records100" / "00000")
    assert "160 records" in lines[0]
    assert not warnings(lines)


def test_a_store(synthetic_store: Store) -> None:
    lines = examine(Path(synthetic_store.root))
    assert "160 records" in lines[0]
    assert any("160 records at 100 Hz" in line for line in lines)
    assert not warnings(lines)


def test_a_recording_under_two_names(record: Record, tmp_path: Path) -> None:
    """Another file, header and order of leads; a flat one is no recording."""
    backwards = STANDARD_LEADS[::-1]
    write(tmp_path / "one", record.signal)
    write(tmp_path / "two", record.select(backwards).signal, backwards)
    write(tmp_path / "other", 2 * record.signal)
    for name in ("flat", "flat too"):
        write(tmp_path / name.replace(" ", "-"), np.zeros_like(record.signal))
    store = pack(open_cohort(tmp_path), tmp_path / "store", workers=1)
    (said,) = [line for line in warnings(examine(Path(store.root))) if "more than once" in line]
    assert "1 recordings are there more than once" in said
    assert "'one' and 'two'" in said


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        examine(tmp_path / "absent.hea")
    with pytest.raises(CohortError, match="missing"):
        examine(tmp_path / "absent.csv")
