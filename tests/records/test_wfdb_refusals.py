"""Each field of a sound record made wrong in turn: a RecordError names file, field and remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from einthoven.errors import RecordError
from einthoven.records import read_record

HEADER_FAULTS = [
    ("1000(0)/mV", "0(0)/mV", "gain of lead I"),
    ("1000(0)/mV", "/mV", "gain of lead I"),
    ("1000(0)/mV", "nan/mV", "gain of lead I"),
    ("1000(0)/mV", "inf(0)/mV", "gain of lead I"),
    ("1000(0)/mV", "1_000/mV", "gain of lead I"),
    ("1000(0)/mV", "1e999/mV", "gain of lead I"),
    ("1000(0)/mV", "1000(x)/mV", "baseline of lead I"),
    ("1000(0)/mV", "1000(0)/furlong", "units of lead I"),
    ("demo.dat 16 1000", "demo.dat 17 1000", "format of lead I"),
    ("demo.dat 16 1000", "demo.dat sixteen 1000", "format of lead I"),
    ("demo.dat 16 1000", "demo.dat 16x0 1000", "format of lead I"),
    ("demo.dat", "../demo.dat", "signal file"),
    ("demo.dat", "..\\demo.dat", "signal file"),
    ("demo.dat", "/etc/passwd", "signal file"),
    ("demo.dat", "C:\\demo.dat", "signal file"),
    ("demo.dat", "~", "signal file"),
    ("demo.dat", "-", "signal file"),
    ("demo.dat", "gone.dat", "signal file"),
    ("demo 3 100 50", "demo 3", "sampling rate"),
    ("demo 3 100 50", "demo 3 0 50", "sampling rate"),
    ("demo 3 100 50", "demo 3 nan 50", "sampling rate"),
    ("demo 3 100 50", "demo 3 fast 50", "sampling rate"),
    ("demo 3 100 50", "demo 4 100 50", "number of leads"),
    ("demo 3 100 50", "demo 0 100 50", "number of leads"),
    ("demo 3 100 50", "demo three 100 50", "number of leads"),
    ("demo 3 100 50", "demo 99999999999999999999 100 50", "number of leads"),
    ("demo 3 100 50", "demo 3 100 5.5", "number of samples"),
    ("demo 3 100 50", "demo 3 100 51", "size of the signal file"),
    ("demo 3 100 50", "demo 3 100 49", "size of the signal file"),
    ("demo 3 100 50", "demo 3 100 99999999999999999", "size of the signal file"),
    ("demo 3 100 50", "demo 3 0.001 50", "sampling rate"),
    ("demo 3 100 50", f"demo 3 {'9' * 5000} 50", "sampling rate"),
    ("demo 3 100 50", f"demo 3 100 {'9' * 5000}", "number of samples"),
    ("demo.dat 16 1000", f"demo.dat 16x{'9' * 5000} 1000", "format of lead I"),
    ("1000(0)/mV", f"{'9' * 5000}(0)/mV", "gain of lead I"),
    ("1000(0)/mV", f"1000({'9' * 5000})/mV", "baseline of lead I"),
    (" 0 II\n", " 0 i\n", "leads"),
    (" 0 II\n", " 0\n", "lead name"),
    ("demo.dat 16 1000(0)/mV", "demo.dat 16+2 1000(0)/mV", "format"),
]


@pytest.mark.parametrize(("old", "new", "field"), HEADER_FAULTS)
def test_header_fault(edit: Callable[[str, str], Path], old: str, new: str, field: str) -> None:
    path = edit(old, new)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert caught.value.field == field
    assert str(path.parent) in caught.value.file
    assert caught.value.file in str(caught.value)
    assert caught.value.remedy in str(caught.value)


def lead_line(samples: np.ndarray, row: int, **changes: object) -> str:
    fields = {
        "start": "demo.dat 16 1000(0)/mV",
        "resolution": 16,
        "zero": 0,
        "initial": int(samples[row, 0]),
        "checksum": int(samples[row].sum(dtype=np.int64)) % 65536,
        "block": 0,
        "lead": ("I", "II", "V1")[row],
    }
    return " ".join(map(str, (fields | changes).values()))


@pytest.mark.parametrize("row", [0, 1, 2])
@pytest.mark.parametrize("field", ["initial", "checksum"])
@pytest.mark.parametrize("step", [1, -1])
def test_value_off_by_one(
    edit: Callable[[str, str], Path], samples: np.ndarray, row: int, field: str, step: int
) -> None:
    true = {"initial": samples[row, 0], "checksum": samples[row].sum(dtype=np.int64) % 65536}
    wrong = lead_line(samples, row, **{field: int(true[field]) + step})
    path = edit(lead_line(samples, row), wrong)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    name = {"initial": "initial value", "checksum": "checksum"}[field]
    assert caught.value.field == f"{name} of lead {('I', 'II', 'V1')[row]}"
    assert caught.value.value == int(true[field]) + step


@pytest.mark.parametrize(
    ("word", "field"),
    [("zero", "ADC zero"), ("initial", "initial value"), ("checksum", "checksum")],
)
def test_an_invalid_number_does_not_become_the_lead_name(
    edit: Callable[[str, str], Path], samples: np.ndarray, word: str, field: str
) -> None:
    path = edit(lead_line(samples, 1), lead_line(samples, 1, **{word: "x"}))
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert caught.value.field == field


def test_a_flipped_bit_anywhere_is_found(record: Path) -> None:
    sound = record.with_suffix(".dat").read_bytes()
    for position in range(0, len(sound), 7):
        damaged = bytearray(sound)
        damaged[position] ^= 1 << (position % 8)
        record.with_suffix(".dat").write_bytes(damaged)
        with pytest.raises(RecordError, match=r"checksum|initial"):
            read_record(record)


@pytest.mark.parametrize("change", [-300, -2, -1, 1, 2, 300])
def test_a_signal_file_of_another_size(record: Path, change: int) -> None:
    path = record.with_suffix(".dat")
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    with pytest.raises(RecordError) as caught:
        read_record(record)
    assert caught.value.field == "size of the signal file"
    assert caught.value.file == str(path)
    assert caught.value.value == 300 + change


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"# only a comment\n", b"\x00\x01\x02", bytes(range(256)) * 4]
)
def test_headers_without_a_record_line(record: Path, content: bytes) -> None:
    record.write_bytes(content)
    with pytest.raises(RecordError) as caught:
        read_record(record)
    assert caught.value.field == "header"


def test_a_header_cut_anywhere_is_refused_or_whole(record: Path) -> None:
    text = record.read_bytes()
    whole = read_record(record).signal
    end = text.index(b"V1") + 2
    for cut in range(end):
        record.write_bytes(text[:cut])
        with pytest.raises(RecordError):
            read_record(record).select(["I", "II", "V1"])
    record.write_bytes(text[:end])
    np.testing.assert_array_equal(read_record(record).signal, whole)


def test_a_signal_file_without_its_header_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.mat").write_bytes(b"of another format")
    with pytest.raises(RecordError, match=r"(?s)other\.mat: .*other\.hea"):
        read_record(tmp_path / "other.mat")


def test_folders_pipes_and_missing_files(record: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.hea").mkdir()
    os.mkfifo(tmp_path / "pipe.hea")
    for name in ("folder.hea", "pipe.hea", "gone.hea", "null\0.hea"):
        with pytest.raises(RecordError) as caught:
            read_record(tmp_path / name)
        assert caught.value.field in ("header", "")
    record.with_suffix(".dat").unlink()
    os.mkfifo(record.with_suffix(".dat"))
    with pytest.raises(RecordError, match=r"demo\.dat"):
        read_record(record)


def test_a_link_out_of_the_folder_is_refused(record: Path, tmp_path: Path) -> None:
    store, links = tmp_path / "store", tmp_path / "links"
    store.mkdir()
    links.mkdir()
    record.rename(links / "demo.hea")
    record.with_suffix(".dat").rename(store / "blob")
    (links / "demo.dat").symlink_to(store / "blob")
    for root in (None, links):
        with pytest.raises(RecordError, match="outside") as caught:
            read_record(links / "demo", root=root)
        assert caught.value.field == "signal file"


def test_links_are_followed_within_a_cohort_and_from_a_linked_header(
    record: Path, tmp_path: Path
) -> None:
    """git-annex, DVC and `ln -s` leave links, of the signals alone or of both files."""
    whole = read_record(record)
    objects, ecgs = tmp_path / "cohort" / ".git" / "objects", tmp_path / "cohort" / "ecgs"
    objects.mkdir(parents=True)
    ecgs.mkdir()
    record.with_suffix(".dat").rename(objects / "KEY1")
    (ecgs / "demo.dat").symlink_to("../.git/objects/KEY1")
    (ecgs / "demo.hea").write_bytes(record.read_bytes())
    np.testing.assert_array_equal(
        read_record(ecgs / "demo", root=tmp_path / "cohort").signal, whole.signal
    )
    record.rename(objects / "KEY2")
    (ecgs / "demo.hea").unlink()
    (ecgs / "demo.hea").symlink_to("../.git/objects/KEY2")
    assert read_record(ecgs / "demo").source_hash == whole.source_hash


def test_a_link_inside_the_folder_is_followed(record: Path) -> None:
    record.with_suffix(".dat").rename(record.with_name("blob"))
    record.with_suffix(".dat").symlink_to("blob")
    assert read_record(record).leads == ("I", "II", "V1")


def test_a_linked_subfolder_does_not_lead_out(
    record: Path, tmp_path: Path, edit: Callable[[str, str], Path]
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    record.write_text(record.read_text().replace("demo.dat", "sub/demo.dat"))
    record.rename(inner / "demo.hea")
    (inner / "sub").symlink_to(tmp_path)
    with pytest.raises(RecordError, match="outside"):
        read_record(inner / "demo")


@pytest.mark.parametrize(("position", "value"), [(0, 10), (4, 11), (8, 7501), (12, 1), (16, 5)])
def test_a_matlab_header_that_disagrees(
    shared: Path, tmp_path: Path, position: int, value: int
) -> None:
    folder = shared / "data" / "samples" / "cpsc2018"
    (tmp_path / "A0001.hea").write_bytes((folder / "A0001.hea").read_bytes())
    data = bytearray((folder / "A0001.mat").read_bytes())
    data[position : position + 4] = value.to_bytes(4, "little")
    (tmp_path / "A0001.mat").write_bytes(data)
    with pytest.raises(RecordError) as caught:
        read_record(tmp_path / "A0001.mat")
    assert caught.value.field == "MATLAB v4 header"


def test_an_absurd_gain_does_not_become_infinite_voltage(
    edit: Callable[[str, str], Path],
) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(edit("1000(0)/mV", "1e-300/mV"))
    assert caught.value.field == "signal"


def test_a_damaged_header_is_refused_or_says_the_same(record: Path) -> None:
    sound, whole = record.read_bytes(), read_record(record)
    rng = np.random.default_rng(11)
    for _ in range(400):
        damaged = bytearray(sound)
        damaged[rng.integers(len(sound))] = rng.integers(256)
        record.write_bytes(damaged)
        try:
            read = read_record(record)
        except RecordError:
            continue
        assert read.signal.shape == whole.signal.shape
