"""Findings about installations, records, cohorts, stores and backbones' inputs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from einthoven.backbones.registry import create_backbone
from einthoven.cli import main
from einthoven.cohorts import Cohort, open_cohort
from einthoven.doctor import examine, inspect, text_of
from einthoven.errors import BackboneError, CohortError, FileError
from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.records.formats import Stretches
from einthoven.records.quality import Finding
from einthoven.records.wfdb import write_wfdb
from einthoven.signals.pack import pack
from einthoven.signals.prepare import prepare_record
from einthoven.signals.store import Store
from einthoven.tasks import Task

EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def warnings(lines: list[str | Finding]) -> list[str]:
    return [line.text for line in lines if isinstance(line, Finding) and line.level != "note"]


def unusable(lines: list[str | Finding]) -> list[str]:
    return [line.name for line in lines if getattr(line, "level", "") == "unusable"]


def texts(lines: list[str | Finding]) -> list[str]:
    return [text_of(line) for line in lines]


@pytest.fixture
def record(synthetic: Cohort) -> Record:
    """Twelve leads, 10 s at 100 Hz."""
    return read_record(synthetic.paths("test")[0])


def write(file: Path, signal: np.ndarray, leads: tuple[str, ...] = STANDARD_LEADS) -> Path:
    write_wfdb(file, signal, rate=100, leads=leads)
    return file.with_suffix(".hea")


def faster(record: Record, rate: float = 500.0, seconds: float = 10.0) -> Record:
    """Interpolate the record to a higher rate, repeated or cut to a length."""
    times = np.arange(int(seconds * rate)) / rate % record.duration
    old = np.arange(record.signal.shape[1]) / record.rate
    rows = [np.interp(times, old, row) for row in record.signal]
    return replace(record, signal=np.array(rows, np.float32), rate=rate)


def test_a_sound_record_has_no_warning(synthetic: Cohort) -> None:
    lines = examine(synthetic.paths("test")[0])
    assert re.search("12 leads.* 10 s .*100 Hz", lines[0])
    assert any("Einthoven" in line for line in lines)
    assert not warnings(lines)


def flat(signal: np.ndarray) -> np.ndarray:
    signal[7] = 0.0
    return signal


def exchanged(signal: np.ndarray) -> np.ndarray:
    signal[[0, 1]] = signal[[1, 0]]
    return signal


def spike(signal: np.ndarray) -> np.ndarray:
    signal[6, 500:510] += 6.0
    return signal


def offset(signal: np.ndarray) -> np.ndarray:
    signal[7] += 0.9 - np.median(signal[7])
    return signal


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (flat, "V2"),
        (lambda signal: signal * 12, "gain"),
        (lambda signal: signal / 200, "gain"),
        (exchanged, "limb"),
        (spike, "V1"),
    ],
)
def test_damage_of_a_record_is_named(
    tmp_path: Path, record: Record, damage: Callable[[np.ndarray], np.ndarray], finding: str
) -> None:
    lines = warnings(examine(write(tmp_path / "damaged", damage(record.signal.copy()))))
    assert any(finding in line for line in lines)


def recording_of(record: Record) -> Callable[..., Stretches]:
    """Function that reads a record in memory, in place of `read_stretches`."""
    return lambda *_, **__: Stretches(record.duration, (0.0,), (record,))


def test_an_offset_is_a_note(tmp_path: Path, record: Record) -> None:
    lines = examine(write(tmp_path / "offset", offset(record.signal.copy())))
    assert not warnings(lines)
    notes = [line for line in lines if isinstance(line, Finding) and line.level == "note"]
    assert any(line.name == "offset" and "0.90 mV" in line.text for line in notes)


@pytest.mark.parametrize(("factor", "unit"), [(1000, "microvolts"), (1e-3, "volts")])
def test_units_that_look_wrong_are_named(
    record: Record, factor: float, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(record, signal=(record.signal * factor).astype(np.float32))
    monkeypatch.setattr("einthoven.doctor.read_stretches", recording_of(wrong))
    assert any(f" {unit} " in line for line in warnings(examine(Path("x.hea"))))


@pytest.mark.parametrize("lost", [500, 1000])
def test_samples_that_are_not_numbers_are_counted(
    record: Record, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = record.signal.copy()
    signal[:, :lost] = np.nan
    gappy = recording_of(replace(record, signal=signal))
    monkeypatch.setattr("einthoven.doctor.read_stretches", gappy)
    (line,) = [line for line in warnings(examine(Path("x.hea"))) if f"{lost} missing" in line]
    assert all(lead in line for lead in STANDARD_LEADS)


def test_missing_leads_are_named(tmp_path: Path, record: Record) -> None:
    leads = ("I", "II", "V1")
    file = write(tmp_path / "three", record.select(leads).signal, leads)
    lines = examine(file, backbone="mtecg_tiny_100hz")
    assert any("III aVR" in line for line in warnings(lines))
    assert not any("Einthoven" in line for line in texts(lines))


def test_a_page_has_the_findings_but_not_the_name_of_the_file(
    tmp_path: Path, record: Record
) -> None:
    page = tmp_path / "view.html"
    file = write(tmp_path / "Doe_Jane", flat(record.signal.copy()))
    lines = examine(file, backbone="mtecg_tiny_100hz", picture=page)
    assert "Doe_Jane" in lines[0]
    text = page.read_text(encoding="utf-8")
    for line in (lines[0], *warnings(lines)):
        assert line.partition(": ")[2] in text
    assert "Doe_Jane" not in text


def test_pictures_need_one_ecg_and_one_backbone(
    tmp_path: Path, synthetic: Cohort, synthetic_path: Path, synthetic_store: Store
) -> None:
    with pytest.raises(BackboneError, match="backbone="):
        examine(synthetic.paths("test")[0], picture=tmp_path / "view.png")
    with pytest.raises(BackboneError, match="mtecg_large"):
        examine(synthetic.paths("test")[0], backbone="mtecg_large")
    for many in (synthetic_path, Path(synthetic_store.root)):
        with pytest.raises(BackboneError):
            examine(many, backbone="mtecg_tiny_100hz")
        with pytest.raises(BackboneError):
            examine(many, picture=tmp_path / "x.png")


def test_a_table_is_examined_with_the_targets_of_a_task(tmp_path: Path) -> None:
    count = 60
    frame = pd.DataFrame(
        {
            "path": [f"{i}.hea" for i in range(count)],
            "patient": [str(i) for i in range(count)],
            "urgent": ["yes", "no", "no"] * 20,
            "lvef": [None, *range(20, 79)],
        }
    )
    frame.to_csv(file := tmp_path / "own.csv", index=False)
    lines = examine(file, task=Task(kind="binary", target="urgent"))
    (line,) = [line for line in texts(lines) if "urgent:" in line]
    assert re.findall(r"\d+", line) == ["20", "20", "40"]
    lines = examine(file, task=Task(kind="regression", target="lvef", unit="%"))
    (line,) = [line for line in texts(lines) if "lvef:" in line]
    assert re.findall(r"\d+", line) == ["20", "78", "59", "59"]
    with pytest.raises(CohortError) as error:
        examine(file, task=Task(target="urgent"))
    assert "kind='binary'" in error.value.remedy


def test_a_cohort_lists_splits_and_labels_without_positives(synthetic_path: Path) -> None:
    lines = examine(synthetic_path)
    assert "160 records" in lines[0]
    assert re.findall(r"\d+", lines[1]) == ["59", "55", "46"]
    assert any(" in train: " in line for line in warnings(lines))


def test_the_signals_of_a_folder_are_read(record: Record, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, flat(record.signal.copy()))
    write(tmp_path / "three", record.signal[:2], STANDARD_LEADS[:2])
    (tmp_path / "bad.scp").write_bytes(b"x" * 300)
    np.savez(tmp_path / "many.npz", ecgs=np.stack([record.signal] * 70), rate=100.0, unit="mV",
             leads=np.array(STANDARD_LEADS))  # fmt: skip
    lines = examine(tmp_path)
    text = "\n".join(texts(lines))
    assert "74" in lines[0]
    assert "patient" not in text
    assert "train 7" not in text
    assert re.search(r"\b50 of 74\b", text)
    assert re.search(r"WFDB \(\d\)", text)
    assert any("bad.scp" in line for line in warnings(lines))
    assert any("flat" in line for line in warnings(lines))
    of_file = examine(tmp_path / "many.npz")
    assert re.search(r"\b50 of 70\b", "\n".join(texts(of_file)))
    with pytest.raises(BackboneError):
        examine(tmp_path / "many.npz", backbone="mtecg_tiny_100hz")


def test_a_folder_of_which_all_files_are_refused(tmp_path: Path, record: Record) -> None:
    for name in ("a.scp", "b.scp"):
        (tmp_path / name).write_bytes(b"x" * 300)
    assert unusable(examine(tmp_path)) == ["refused"]
    with pytest.raises(SystemExit) as end:
        main(["doctor", str(tmp_path)])
    assert end.value.code == 1
    write(tmp_path / "one", record.signal)
    assert unusable(examine(tmp_path)) == []


def test_one_lead_and_no_negative_zero(tmp_path: Path) -> None:
    signal = np.zeros((1, 1000)) - 0.001
    signal[0, ::100] = -0.02
    lines = examine(write(tmp_path / "one", signal, ("I",)))
    assert ": 1 lead," in lines[0]
    assert not any("-0.00" in line for line in texts(lines))


def test_files_missing_from_a_cohort_are_counted(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "path": list("abcdef"),
            "patient": list("abcdef"),
            "sick": [0, 1, 0, 1, 0, 1],
            "split": ["train", "train", "validation", "validation", "test", "test"],
        }
    )
    table.to_csv(tmp_path / "own.csv", index=False)
    lines = examine(tmp_path / "own.csv")
    assert unusable(lines) == ["no-file"]
    (line,) = warnings(lines)
    assert all(word in line for word in ("6 of 6 ", f"{tmp_path}/a, {tmp_path}/b", "`path`"))
    with pytest.raises(SystemExit) as end:
        main(["doctor", str(tmp_path / "own.csv")])
    assert end.value.code == 1
    for name in "bcdef":
        write(tmp_path / name, np.random.default_rng(0).normal(size=(12, 100)))
    lines = examine(tmp_path / "own.csv")
    assert "no-file" not in unusable(lines)
    (line,) = [line for line in warnings(lines) if f"{tmp_path}/a" in line]
    assert "1 of 6 " in line


def test_a_whole_is_unusable_if_all_of_it_is(tmp_path: Path, record: Record) -> None:
    file = write(tmp_path / "zeros", np.zeros_like(record.signal))
    assert "flat" in unusable(examine(file))
    with pytest.raises(SystemExit) as end:
        main(["doctor", str(file)])
    assert end.value.code == 1
    assert "flat" in unusable(examine(tmp_path))
    write(tmp_path / "sound", record.signal)
    lines = examine(tmp_path)
    assert unusable(lines) == []
    assert any("1 record" in line for line in warnings(lines))


def test_a_recording_under_two_names_is_found(record: Record, tmp_path: Path) -> None:
    """Neither file name, header nor order of leads hides it; flat recordings do not count."""
    backwards = STANDARD_LEADS[::-1]
    write(tmp_path / "one", record.signal)
    write(tmp_path / "two", record.select(backwards).signal, backwards)
    write(tmp_path / "other", 0.9 * record.signal)
    for name in ("flat", "flat-too"):
        write(tmp_path / name, np.zeros_like(record.signal))
    store = pack(open_cohort(tmp_path), tmp_path / "store", workers=1)
    (line,) = warnings(examine(Path(store.root)))
    assert re.search("1 recording,.*'one'.*'two'", line)


# ---------------------------------------------------------------------- a backbone's input


def test_a_record_that_fits_a_backbone_has_no_warning(record: Record) -> None:
    lines = inspect(faster(record), "ecg_fm")
    assert re.search("ecg_fm.* 12 leads", lines[0])
    assert re.search("2 crops.* 12 leads.* 2500 samples", lines[-1])
    assert not warnings(lines)


def test_a_rate_below_that_of_the_backbone_is_named(record: Record) -> None:
    (line,) = warnings(inspect(record, "ecg_fm"))
    assert "100 Hz" in line
    assert "500 Hz" in line
    assert not warnings(inspect(record, "hubert_ecg_small"))  # 500 Hz on the way, 100 in the end


@pytest.mark.parametrize(
    ("backbone", "effect"),
    [
        ("st_mem_tiny", "tokens"),
        ("ecgfounder_12lead", "zero"),
        ("mtecg_tiny_100hz", "zero"),
        ("ecg_fm", "zero"),
    ],
)
def test_the_effect_of_missing_leads_is_that_of_the_backbone(
    record: Record, backbone: str, effect: str
) -> None:
    lines = inspect(record.select(("V1", "II", "I")), backbone)
    (line,) = [line for line in warnings(lines) if "V2 V3 V4 V5 V6" in line]
    assert "leads=('I', 'II', 'V1')" in line
    assert effect in line
    assert re.search(r"\d leads x \d+ samples", lines[-1])


def test_refusals_become_findings(record: Record) -> None:
    (line,) = warnings(inspect(record.select(("I", "II", "V1")), "hubert_ecg_small"))
    assert "V2, V3, V4, V5, V6" in line
    foreign = replace(record.select(("I",)), leads=("MLII",))
    assert unusable(inspect(foreign, "ecg_fm")) == ["refused"]
    with pytest.raises(BackboneError):
        inspect(record, "ecg_fn")


def test_records_of_other_lengths_than_the_window(record: Record) -> None:
    short = faster(record, seconds=6.0)
    (line,) = warnings(inspect(short, "ecgfounder_12lead"))
    assert "10 s" in line
    (line,) = warnings(inspect(short, "st_mem_tiny"))
    assert "2250" in line
    (line,) = warnings(inspect(faster(record, seconds=60.0), "st_mem_tiny"))
    assert re.search("3 .* 9 s .* 33 s ", line)


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
def test_mains_hum_is_removed_or_kept(
    record: Record, backbone: str, mains: int, removed: bool
) -> None:
    clean = faster(record)
    hum = 0.1 * np.sin(2 * np.pi * mains * np.arange(5000) / 500)
    noisy = replace(clean, signal=clean.signal + hum.astype(np.float32))
    (line,) = [line for line in texts(inspect(noisy, backbone)) if "hum" in line]
    assert ("warning" not in line) == removed
    assert not any("hum" in line for line in texts(inspect(clean, backbone)[1:]))


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
def test_an_offset_is_removed_or_kept(record: Record, backbone: str, removed: bool) -> None:
    signal = record.signal - np.median(record.signal, axis=1, keepdims=True)
    still = replace(record, signal=signal)
    moved = replace(record, signal=signal + np.float32(0.5))
    assert not any(" offset" in line for line in texts(inspect(still, backbone)))
    (line,) = [line for line in texts(inspect(moved, backbone)) if " offset" in line]
    assert ("warning" not in line) == removed
    preparation = create_backbone(backbone).preparation
    change = prepare_record(preparation, moved) - prepare_record(preparation, still)
    assert (change.mean().abs().item() < 0.01) == removed


@pytest.mark.parametrize("ending", [".html", ".svg", ".png"])
def test_pictures(tmp_path: Path, record: Record, ending: str) -> None:
    file = tmp_path / f"view{ending}"
    lines = inspect(record.select(EIGHT), "ecg_fm", findings=["an earlier finding"], picture=file)
    assert lines[-1].endswith(str(file))
    if ending == ".png":
        assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        return
    text = file.read_text(encoding="utf-8")
    for lead in STANDARD_LEADS:
        computed = lead in ("III", "aVR", "aVL", "aVF")
        assert re.search(rf">{lead} \(\w+\)<" if computed else f">{lead}<", text)
        assert re.search(rf">{lead}, \w+<", text)
    if ending == ".html":
        assert "an earlier finding" in text
        assert "<script" not in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
        assert record.name not in text


def test_pictures_that_cannot_be_written_are_refused(tmp_path: Path, record: Record) -> None:
    (tmp_path / "file").touch()
    for file in (tmp_path / "view.gif", tmp_path / "file" / "view.png"):
        with pytest.raises(FileError) as error:
            inspect(record, "ecg_fm", picture=file)
        assert error.value.remedy is not None


def test_a_table_shows_the_positives_of_each_label_and_recommends_folds(
    synthetic: Cohort, tmp_path: Path
) -> None:
    paths = [str(path.resolve()) for path in synthetic.paths()]
    table = pd.DataFrame({"path": paths, "patient": synthetic.patients(), "AFIB": 0})
    table.loc[:6, "AFIB"] = 1
    file = tmp_path / "own.csv"
    table.to_csv(file, index=False)
    (line,) = [line for line in texts(examine(file)) if "AFIB:" in line]
    patients = table.loc[:6, "patient"].nunique()
    assert re.findall(r"\d+", line) == ["7", str(patients), str(len(table) - 7)]
    assert any("folds=5" in line for line in texts(examine(file)))
    pd.concat([table] * 15).assign(record=range(15 * len(table))).to_csv(file, index=False)
    assert not any("folds=5" in line for line in texts(examine(file)))
