"""DICOM files that are written: they read back, and pydicom finds what the standard demands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from einthoven.errors import RecordError
from einthoven.records import STANDARD_LEADS, Record, read_record
from einthoven.records.dicom_write import write_dicom
from einthoven.records.metadata import KEYS

STATEMENTS = {
    "time": "2024-05-17T09:30:15",
    "age": "71",
    "sex": "female",
    "height_cm": "171",
    "weight_kg": "70.5",
    "statements": "Sinus rhythm\nÜberleitung verzögert",
    "device": "ACME Cart 1",
    "filters": "0.05 to 150 Hz, notch 50 Hz",
    "heart_rate_bpm": "72",
    "pr_ms": "160",
    "qrs_ms": "98",
    "qt_ms": "400",
    "qtc_ms": "438",
    "p_axis_deg": "40",
    "qrs_axis_deg": "-61",
    "t_axis_deg": "30",
}
TWELVE, GENERAL, AMBULATORY = (f"1.2.840.10008.5.1.4.1.1.9.1.{number}" for number in (1, 2, 3))


def ecg(
    leads: tuple[str, ...] = STANDARD_LEADS,
    rate: float = 500,
    samples: int = 400,
    step: float = 2.5,
) -> Record:
    counts = np.random.default_rng(3).integers(-800, 800, (len(leads), samples))
    signal = (counts * step * 1e-3).astype(np.float32)
    return replace(
        Record.create(signal, rate, leads=leads, name="mine", patient="P7"), metadata=STATEMENTS
    )


def test_round_trip(tmp_path: Path) -> None:
    record = ecg()
    step = write_dicom(tmp_path / "new" / "mine.dcm", record)
    back = read_record(tmp_path / "new" / "mine.dcm")
    assert step == (2.5, True)
    np.testing.assert_array_equal(back.signal, record.signal)
    assert (back.leads, back.rate, back.patient) == (STANDARD_LEADS, 500, "P7")
    assert back.metadata == STATEMENTS
    assert set(STATEMENTS) <= set(KEYS)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine.dcm"]


def test_elements_of_a_12_lead_ecg(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mine.dcm", ecg())
    dataset = pydicom.dcmread(tmp_path / "mine.dcm")
    assert (dataset.SOPClassUID, dataset.Modality) == (TWELVE, "ECG")
    group = dataset.WaveformSequence[0]
    assert (group.WaveformBitsAllocated, group.WaveformSampleInterpretation) == (16, "SS")
    channel = group.ChannelDefinitionSequence[3]
    source, unit = channel.ChannelSourceSequence[0], channel.ChannelSensitivityUnitsSequence[0]
    assert (source.CodeValue, source.CodingSchemeDesignator, unit.CodeValue) == (
        "2:62",
        "MDC",
        "uV",
    )
    stored = dataset.waveform_array(0)
    np.testing.assert_allclose(stored.T / 1000, ecg().signal, rtol=1e-6, atol=1e-9)
    uids = {dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID}
    write_dicom(tmp_path / "mine.dcm", ecg())
    assert len(uids) == 3
    assert pydicom.dcmread(tmp_path / "mine.dcm").SOPInstanceUID not in uids


@pytest.mark.parametrize(
    ("record", "storage"),
    [
        (ecg(("I", "II")), GENERAL),
        (ecg(STANDARD_LEADS[::-1]), TWELVE),
        (ecg(samples=16385), GENERAL),
        (ecg(("I", "V4R", "V1-cal", "MLII")), GENERAL),
        (ecg(rate=100), AMBULATORY),
        (ecg(("I",), rate=1e6 / 1667), GENERAL),
    ],
)
def test_storage_classes(record: Record, storage: str, tmp_path: Path) -> None:
    write_dicom(tmp_path / "mine.dcm", record)
    back = read_record(tmp_path / "mine.dcm")
    assert pydicom.dcmread(tmp_path / "mine.dcm").SOPClassUID == storage
    assert back.leads == record.leads
    assert back.rate == pytest.approx(record.rate, rel=1e-9)
    np.testing.assert_array_equal(back.signal, record.signal)


@pytest.mark.parametrize("record", [ecg(rate=40), ecg(rate=2000)])
def test_rates_that_dicom_does_not_allow(record: Record, tmp_path: Path) -> None:
    with pytest.raises(RecordError) as caught:
        write_dicom(tmp_path / "mine.dcm", record)
    assert caught.value.field == "sampling rate"
    assert not list(tmp_path.iterdir())


def test_missing_samples(tmp_path: Path) -> None:
    signal = ecg().signal.copy()
    signal[2, 5:9] = np.nan
    write_dicom(tmp_path / "mine.dcm", replace(ecg(), signal=signal))
    np.testing.assert_array_equal(read_record(tmp_path / "mine.dcm").signal, signal)


def test_samples_that_are_multiples_of_no_step(tmp_path: Path) -> None:
    signal = np.random.default_rng(1).normal(0, 1, (12, 400)).astype(np.float32)
    step = write_dicom(tmp_path / "mine.dcm", replace(ecg(), signal=signal))
    assert not step.is_exact
    back = read_record(tmp_path / "mine.dcm").signal
    assert 0 < np.abs(back - signal).max() <= 0.51e-3 * step.microvolts
    assert step.microvolts <= 0.2


def test_without_statements(tmp_path: Path) -> None:
    write_dicom(tmp_path / "mine.dcm", replace(ecg(), metadata={}, patient=None))
    back = read_record(tmp_path / "mine.dcm")
    assert (back.metadata, back.patient) == ({}, None)


def test_texts_that_dicom_would_split_or_refuse(tmp_path: Path) -> None:
    odd = {
        "device": "A\\B\x07" + "C" * 99,
        "statements": "a\\b",
        "age": "1.5",
        "weight_kg": "heavy",
    }
    write_dicom(tmp_path / "mine.dcm", replace(ecg(), metadata=odd, patient="1\\2"))
    back = read_record(tmp_path / "mine.dcm")
    assert back.patient == "1 2"
    assert back.metadata == {"device": "A B " + "C" * 60, "statements": "a b", "age": "1.5"}
