"""What is written reads back, and nothing half-written carries a record's name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from einthoven.errors import FileError, RecordError
from einthoven.records import read_record
from einthoven.records.wfdb import write_wfdb


def signal(leads: int = 2, samples: int = 40) -> np.ndarray:
    steps = np.random.default_rng(1).integers(-32767, 32768, (leads, samples))
    return (steps / 1000.0).astype(np.float32)


def test_round_trip_is_exact_in_microvolts(tmp_path: Path) -> None:
    mine = signal()
    mine[1, 3] = np.nan
    write_wfdb(
        tmp_path / "mine.hea", mine, rate=257.5, leads=["AVR", "V1"], comments=["Age: 85", "a note"]
    )
    record = read_record(tmp_path / "mine")
    np.testing.assert_array_equal(record.signal, mine)
    assert (record.rate, record.leads, record.name) == (257.5, ("aVR", "V1"), "mine")
    assert record.metadata == {"Age": "85", "comments": "a note"}
    assert np.fromfile(tmp_path / "mine.dat", "<i2")[2 * 3 + 1] == -32768
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.dat", "mine.hea"]


def test_the_patient_is_read_back(tmp_path: Path) -> None:
    write_wfdb(tmp_path / "a", signal(), rate=500, leads=["I", "II"], patient="SBJ 123")
    record = read_record(tmp_path / "a")
    assert (record.patient, record.metadata) == ("SBJ 123", {})
    write_wfdb(
        tmp_path / "b", signal(), rate=500, leads=["I", "II"], comments=["patient: male, 65"]
    )
    record = read_record(tmp_path / "b")
    assert (record.patient, record.metadata) == (None, {"patient": "male, 65"})
    header = tmp_path / "a.hea"
    header.write_text(header.read_text() + "#patient: 17\n")
    record = read_record(tmp_path / "a")
    assert (record.patient, record.metadata) == (None, {"patient": "SBJ 123\n17"})


def test_the_wfdb_package_reads_it(tmp_path: Path) -> None:
    wfdb = pytest.importorskip("wfdb")
    write_wfdb(tmp_path / "mine", signal(), rate=500, leads=["I", "II"])
    theirs = wfdb.rdrecord(str(tmp_path / "mine"))
    np.testing.assert_array_equal(theirs.p_signal.T.astype(np.float32), signal())
    stored = wfdb.rdrecord(str(tmp_path / "mine"), physical=False)
    assert (theirs.fs, theirs.checksum) == (500, stored.calc_checksum())


def test_ptbxl_survives_a_round_trip(ptbxl_60: Path, tmp_path: Path) -> None:
    source = read_record(ptbxl_60 / "records100" / "00000" / "00007_lr")
    write_wfdb(tmp_path / "00007_lr", source.signal, rate=source.rate, leads=source.leads)
    theirs = (ptbxl_60 / "records100" / "00000" / "00007_lr.dat").read_bytes()
    assert (tmp_path / "00007_lr.dat").read_bytes() == theirs


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"signal_mv": np.full((2, 3), 32.768)}, "signal of lead I"),
        ({"signal_mv": np.full((2, 3), -32.768)}, "signal of lead I"),
        ({"signal_mv": np.array([[0.0], [np.inf]])}, "signal of lead II"),
        ({"signal_mv": np.zeros((3, 3))}, "shape of the signal"),
        ({"signal_mv": np.zeros(2)}, "shape of the signal"),
        ({"signal_mv": np.zeros((2, 0))}, "shape of the signal"),
        ({"rate": 0}, "sampling rate"),
        ({"rate": float("nan")}, "sampling rate"),
        ({"leads": ["I", "i"]}, "leads"),
        ({"leads": ["I", "a b"]}, "leads"),
        ({"leads": ["I", ""]}, "leads"),
        ({"comments": ["fine", "two\nlines"]}, "comments"),
    ],
)
def test_unwritable_records(tmp_path: Path, changes: dict[str, object], field: str) -> None:
    arguments = {"signal_mv": signal(), "rate": 100, "leads": ["I", "II"]} | changes
    with pytest.raises(RecordError) as caught:
        write_wfdb(tmp_path / "mine", **arguments)  # type: ignore[arg-type]
    assert caught.value.field == field
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a b", "", "a\nb", "x.y"])
def test_invalid_record_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordError, match="name ="):
        write_wfdb(f"{tmp_path}/{name}", signal(), rate=100, leads=["I", "II"])


def test_a_folder_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="mine"):
        write_wfdb(tmp_path / "file" / "mine", signal(), rate=100, leads=["I", "II"])


def test_an_interrupted_write_leaves_no_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def interrupted(source: Path, target: Path) -> None:
        if target.suffix == ".hea":
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_wfdb(tmp_path / "mine", signal(), rate=100, leads=["I", "II"])
    assert [p.name for p in tmp_path.iterdir()] == ["mine.dat"]


@pytest.mark.parametrize("microvolts", [0.5, 2.5, 4.88])
def test_steps_of_another_size(microvolts: float, tmp_path: Path) -> None:
    counts = np.random.default_rng(1).integers(-32767, 32768, (2, 40))
    mine = (counts * microvolts / 1000).astype(np.float32)
    write_wfdb(tmp_path / "mine", mine, rate=500, leads=["I", "II"], microvolts=microvolts)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "mine.dat", "<i2"), counts.T.ravel())
    np.testing.assert_allclose(read_record(tmp_path / "mine").signal, mine, rtol=1e-7)
    with pytest.raises(RecordError):
        write_wfdb(tmp_path / "x", mine, rate=500, leads=["I", "II"], microvolts=microvolts / 2)
