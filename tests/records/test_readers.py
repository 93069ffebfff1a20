"""Dispatch by suffix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from einthoven.errors import RecordError
from einthoven.records import READERS, read_record


@pytest.mark.parametrize("suffix", ["", ".hea", ".dat"])
def test_a_wfdb_record_has_three_names(record: Path, suffix: str) -> None:
    read = read_record(record.with_suffix(suffix))
    assert (read.name, read.leads, read.source) == ("demo", ("I", "II", "V1"), str(record))


def test_a_record_name_may_hold_a_dot(record: Path) -> None:
    record.rename(record.with_name("visit.2.hea"))
    assert read_record(record.with_name("visit.2")).name == "demo"


@pytest.mark.parametrize("name", ["ecg.docx", "ecg", "ecg.hea.gz"])
def test_unknown_suffix_names_the_known_formats(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / name)
    assert caught.value.field == "suffix"
    assert all(suffix in str(caught.value) for suffix in READERS)


def test_a_matlab_file_without_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "exam.mat").write_bytes(bytes(200))
    with pytest.raises(RecordError, match=r"exam\.hea"):
        read_record(tmp_path / "exam.mat")


def test_readers_load_no_format_before_its_first_file() -> None:
    code = "import sys, einthoven.records; print('wfdb' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]
