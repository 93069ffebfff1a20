"""Contract of readers, for every suffix of every registered format.

A new format adds one entry to `SOUND`: a function that writes a small sound file of it. Formats
that share a suffix have one each, `.xml GE MUSE` for instance.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from array_files import (
    sound_csv,
    sound_h5,
    sound_hdf5,
    sound_mat,
    sound_npy,
    sound_npz,
    sound_tsv,
)
from dicom_files import sound_dicom
from edf_files import sound_bdf, sound_edf
from ishne_files import sound_ishne
from scp_files import sound_scp
from xml_files import sound_aecg, sound_cardiosoft, sound_muse, sound_philips

from einthoven.errors import RecordError
from einthoven.records import FORMATS, EcgFile, formats, read_record
from einthoven.records.formats import format_of, read_excerpt, read_stretches
from einthoven.records.wfdb import write_wfdb


def sound_wfdb(folder: Path) -> Path:
    signal = np.random.default_rng(5).normal(0, 0.5, (3, 200)).astype(np.float32)
    write_wfdb(folder / "sound", signal, rate=250, leads=["I", "II", "V6"], comments=["Age: 70"])
    return folder / "sound.hea"


def sound_dat(folder: Path) -> Path:
    return sound_wfdb(folder).with_suffix(".dat")


def sound_mat_of_wfdb(folder: Path) -> Path:
    header = sound_wfdb(folder)
    body = header.with_suffix(".dat")
    matlab = np.array([30, 3, 200, 0, 4], "<i4").tobytes() + b"val\0" + body.read_bytes()
    body.unlink()
    header.with_suffix(".mat").write_bytes(matlab)
    header.write_text(header.read_text().replace("sound.dat 16", "sound.mat 16+24"))
    return header.with_suffix(".mat")


SOUND: dict[str, Callable[[Path], Path]] = {
    ".hea": sound_wfdb,
    ".dat": sound_dat,
    ".mat WFDB": sound_mat_of_wfdb,
    ".mat": sound_mat,
    ".dcm": sound_dicom,
    ".h5": sound_h5,
    ".hdf5": sound_hdf5,
    ".npy": sound_npy,
    ".npz": sound_npz,
    ".csv": sound_csv,
    ".tsv": sound_tsv,
    ".ecg": sound_ishne,
    ".edf": sound_edf,
    ".bdf": sound_bdf,
    ".scp": sound_scp,
    ".xml HL7 aECG": sound_aecg,
    ".xml GE MUSE": sound_muse,
    ".xml GE CardioSoft": sound_cardiosoft,
    ".xml Philips Sierra": sound_philips,
}

OF_SEVERAL_FILES = {"WFDB", "CSV", "NumPy"}
READERS = {
    name: entry.read
    for entry in FORMATS
    for suffix in entry.suffixes
    for name in (suffix, f"{suffix} {entry.name}")
    if name in SOUND
}
every_reader = pytest.mark.parametrize("suffix", sorted(SOUND))


def assert_refused(suffix: str, path: Path, at_fault: Path | None = None) -> None:
    for read in (READERS[suffix], lambda file: read_record(file.name)):
        with pytest.raises(RecordError) as caught:
            read(EcgFile.of(path))
        assert (at_fault or path).stem in Path(caught.value.file).name
        assert caught.value.file in str(caught.value)
        assert caught.value.remedy


def test_every_reader_has_a_sound_file() -> None:
    for entry in FORMATS:
        for suffix in entry.suffixes:
            assert suffix == suffix.lower()
            assert suffix.startswith(".")
            assert suffix in SOUND or f"{suffix} {entry.name}" in SOUND
    assert set(READERS) == set(SOUND)


@every_reader
def test_record_invariants(suffix: str, tmp_path: Path) -> None:
    path = SOUND[suffix](tmp_path)
    record = read_record(path)
    assert record.signal.dtype == np.float32
    assert record.signal.ndim == 2
    assert record.signal.flags.c_contiguous
    assert not record.signal.flags.writeable
    assert record.rate > 0
    assert len(record.leads) == len(set(record.leads)) == len(record.signal)
    assert record.name
    assert Path(record.source).exists()
    assert len(record.source_hash) == 64
    assert all(isinstance(key, str) for key in record.metadata)


@every_reader
def test_reading_twice_gives_the_same(suffix: str, tmp_path: Path) -> None:
    path = SOUND[suffix](tmp_path)
    once, twice = format_of(path).read(EcgFile.of(path)), read_record(str(path))
    np.testing.assert_array_equal(once.signal, twice.signal)
    assert once.source_hash == twice.source_hash


@every_reader
def test_stretches_of_a_long_recording(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = SOUND[suffix](tmp_path)
    whole = read_record(path)
    assert read_stretches(path, 10).duration == whole.duration
    np.testing.assert_array_equal(read_excerpt(path).signal, whole.signal)
    monkeypatch.setattr(formats, "EXCERPT", 40 / whole.rate)
    stretches = read_stretches(path, 2)
    assert (stretches.duration, stretches.starts[0]) == (whole.duration, 0)
    for start, record in zip(stretches.starts, stretches.records, strict=True):
        first = round(start * whole.rate)
        np.testing.assert_array_equal(record.signal, whole.signal[:, first : first + 20])
        assert record.metadata["excerpt"].startswith(f"{start:g} to ")


def test_a_format_with_parts_states_its_duration() -> None:
    assert all((x.read_part is None) == (x.duration is None) for x in FORMATS)


@every_reader
def test_a_part_equals_the_whole(suffix: str, tmp_path: Path) -> None:
    path = SOUND[suffix](tmp_path)
    whole = read_record(path)
    part = read_record(path, start=20 / whole.rate, stop=50 / whole.rate)
    np.testing.assert_array_equal(part.signal, whole.signal[:, 20:50])
    assert (part.rate, part.leads) == (whole.rate, whole.leads)
    assert not part.signal.flags.writeable
    with pytest.raises(RecordError):
        read_record(path, start=whole.duration)


@every_reader
def test_the_folder_does_not_matter(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = SOUND[suffix](tmp_path)
    whole = read_record(path)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_record(path.name).signal, whole.signal)


@every_reader
def test_bytes_equal_the_file(suffix: str, tmp_path: Path) -> None:
    path = SOUND[suffix](tmp_path)
    if format_of(path).name in OF_SEVERAL_FILES:
        with pytest.raises(RecordError):
            read_record(path.read_bytes())
    else:
        once, twice = read_record(path), read_record(path.read_bytes())
        np.testing.assert_array_equal(once.signal, twice.signal)
        assert (once.rate, once.leads, once.metadata) == (twice.rate, twice.leads, twice.metadata)
        assert once.source_hash == twice.source_hash


@every_reader
def test_missing_file(suffix: str, tmp_path: Path) -> None:
    assert_refused(suffix, tmp_path / f"gone{suffix.split()[0]}")


@every_reader
def test_empty_file(suffix: str, tmp_path: Path) -> None:
    path = SOUND[suffix](tmp_path)
    path.write_bytes(b"")
    assert_refused(suffix, path)


@every_reader
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_file(suffix: str, tmp_path: Path, share: float) -> None:
    path = SOUND[suffix](tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share) - 8])
    assert_refused(suffix, path)


@every_reader
def test_random_bytes(suffix: str, tmp_path: Path) -> None:
    path = SOUND[suffix](tmp_path)
    for seed in range(20):
        path.write_bytes(np.random.default_rng(seed).bytes(1 + 53 * seed))
        assert_refused(suffix, path)


@every_reader
def test_changed_bytes(suffix: str, tmp_path: Path) -> None:
    """A record, which may be another one, or a RecordError: nothing else."""
    path = SOUND[suffix](tmp_path)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(100):
        changed = bytearray(data)
        for place in rng.integers(min(len(data), 3000), size=rng.integers(1, 6)):
            changed[place] = rng.choice([0, 1, 127, 255, rng.integers(256)])
        path.write_bytes(changed)
        with suppress(RecordError):
            assert read_record(path).signal.size


@every_reader
def test_a_folder_of_that_name(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / f"folder{suffix.split()[0]}"
    folder.mkdir()
    assert_refused(suffix, folder)
