"""Dispatch by suffix, and formats from outside the package."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from einthoven.cohorts import open_cohort
from einthoven.errors import RecordError
from einthoven.inference import predict_record
from einthoven.models import load_model
from einthoven.records import (
    FORMATS,
    STANDARD_LEADS,
    EcgFile,
    Format,
    Record,
    formats,
    read_record,
    register_format,
)
from einthoven.signals.pack import pack


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_a_wfdb_record_has_three_names(record: Path, suffix: str) -> None:
    read = read_record(record.with_suffix(suffix))
    assert (read.name, read.leads, read.source) == ("demo", ("I", "II", "V1"), str(record))


def test_a_record_name_may_hold_a_dot(record: Path) -> None:
    record.rename(record.with_name("visit.2.hea"))
    assert read_record(record.with_name("visit.2")).name == "demo"


@pytest.mark.parametrize("name", ["ecg.docx", "ecg", "ecg.hea.gz"])
def test_unknown_suffix_names_the_known_formats(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / name)
    assert caught.value.field == "format"
    assert all(entry.name in str(caught.value) for entry in FORMATS)


@pytest.mark.parametrize("name", ["ecg", "ecg.hea", "ecg.dat", "ecg.docx"])
def test_the_message_of_a_missing_file_names_its_path_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / name)
    assert caught.value.problem.count(str(tmp_path / name)) == 1


def test_a_matlab_file_without_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "exam.mat").write_bytes(bytes(200))
    with pytest.raises(RecordError, match=r"exam\.hea"):
        read_record(tmp_path / "exam.mat")


def test_readers_load_no_format_before_its_first_file() -> None:
    code = "import sys, einthoven.records; print('wfdb' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


def read_lines(file: EcgFile) -> Record:
    """Reader of a format of this test: twelve columns of mV at 100 Hz."""
    values = np.loadtxt(io.BytesIO(file.content), dtype=np.float32).T
    return Record.create(
        values,
        100,
        leads=STANDARD_LEADS,
        name=file.label,
        source=file.name,
        source_hash=file.sha256,
    )


def test_a_format_from_outside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read, found in a folder, packed from a table, and predicted."""
    monkeypatch.setattr(formats, "FORMATS", list(formats.FORMATS))
    register_format(Format("lines", (".lines",), read_lines))
    signal = np.random.default_rng(0).standard_normal((12, 1000)).round(3)
    for patient in ("a", "b"):
        np.savetxt(tmp_path / f"{patient}.lines", signal.T)
    assert read_record(tmp_path / "a.lines").rate == 100
    assert open_cohort(tmp_path).ids().tolist() == ["a.lines", "b.lines"]

    table = tmp_path / "table.csv"
    table.write_text("path,patient,label\na.lines,a,0\nb.lines,b,1\n")
    store = pack(open_cohort(table), tmp_path / "store", workers=1)
    np.testing.assert_array_equal(store.record("b.lines").signal, signal.astype(np.float32))
    assert not store.index["notes"].str.contains("rounded").any()

    for name in ("a.lines", "b.lines"):
        prediction = predict_record(load_model(), read_record(tmp_path / name))
        assert np.isfinite(list(prediction.probabilities.values())).all()
