"""Write ECGs as DICOM: the storage class of 12-lead ECGs, or of general or ambulatory ones.

Source: DICOM PS3.3, A.34.3 to A.34.5. A data set is built from a Record alone, so it holds nothing
of another file but what the Record does.
"""

from __future__ import annotations

import datetime as dt
import io
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from einthoven.errors import RecordError
from einthoven.files import replacing
from einthoven.records.dicom import read
from einthoven.records.dicom_metadata import MEASUREMENTS, PLACEHOLDER
from einthoven.records.digital import Step, blocks, check_written, counts_of, step_of
from einthoven.records.file import EcgFile
from einthoven.records.lead_codes import lead_number
from einthoven.records.record import STANDARD_LEADS, Record

_TWELVE_LEADS = "1.2.840.10008.5.1.4.1.1.9.1.1"
_GENERAL = "1.2.840.10008.5.1.4.1.1.9.1.2"
_AMBULATORY = "1.2.840.10008.5.1.4.1.1.9.1.3"
_LONGEST = 16384  # samples of a 12-lead ECG
_MISSING = np.array(-32768, "<i2").tobytes()
_UNITS = {"ms": ("ms", "millisecond"), "deg": ("deg", "degree"), "bpm": ("/min", "per minute")}
_MEANINGS = {
    "heart_rate_bpm": "Heart rate",
    "pr_ms": "PR interval global",
    "qrs_ms": "QRS duration global",
    "qt_ms": "QT interval global",
    "qtc_ms": "QTc interval global",
    "p_axis_deg": "P axis",
    "qrs_axis_deg": "QRS axis",
    "t_axis_deg": "T axis",
}
_BAND = re.compile(r"([\d.]+) to ([\d.]+) Hz")
_NOTCH = re.compile(r"notch ([\d.]+) Hz")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]+")  # a backslash separates values


def write_dicom(path: str | os.PathLike[str], record: Record) -> Step:
    """Write a Record as a DICOM file, and verify it by reading it back.

    A record of the standard twelve leads, of 200 to 1000 Hz and at most 16,384 samples, becomes a
    12-lead ECG, any other of these rates a general ECG, and one from 50 Hz an ambulatory ECG.
    Unique identifiers are new. The file appears when it is complete.

    Parameters
    ----------
    path : path-like
        File to write; its folder is created if it does not exist.
    record : Record
        NaN becomes the padding value. Of the metadata, time, age, sex, height, weight, device,
        filters, statements and measurements are written; a record without time has the date
        1 January 1900, because DICOM demands one.

    Returns
    -------
    Step
        Size of a count, and whether the samples are multiples of it.

    Raises
    ------
    RecordError
        If no storage class allows the rate or the number of leads, or reading back gives another
        record.
    """
    content, step = dicom_content(record)
    check_written(record, read(EcgFile(os.fspath(path), data=content)), step)
    with replacing(Path(path), sync=False) as temporary:
        temporary.write_bytes(content)
    return step


def dicom_content(record: Record, *, is_anonymous: bool = False) -> tuple[bytes, Step]:
    """Bytes of the DICOM file of a Record, and the size of a count; errors as `write_dicom`.

    `is_anonymous` is stated in the file: archives tell such files from those without a name.
    """
    step = step_of(record.signal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns about unusual, valid values
        dataset = _data_set(record, step.microvolts)
        if is_anonymous:
            dataset.PatientIdentityRemoved = "YES"
            dataset.DeidentificationMethod = "einthoven: signal, numbers and codes only"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue(), step


def _storage_class(record: Record) -> str:
    leads, samples = record.signal.shape
    if 200 <= record.rate <= 1000 and leads <= 24:
        is_standard = sorted(record.leads) == sorted(STANDARD_LEADS) and samples <= _LONGEST
        return _TWELVE_LEADS if is_standard else _GENERAL
    if 50 <= record.rate <= 1000 and leads <= 12:
        return _AMBULATORY
    raise RecordError(
        record.source or record.name,
        "sampling rate",
        record.rate,
        f"with {leads} leads: DICOM allows 50 to 1000 Hz, and 24 leads from 200 Hz, 12 below",
        remedy="write WFDB or CSV",
    )


def _data_set(record: Record, microvolts: float) -> Dataset:
    values = record.metadata
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = _storage_class(record), generate_uid(None)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(None), generate_uid(None)
    dataset.Modality, dataset.InstanceNumber, dataset.SeriesNumber = "ECG", 1, 1
    dataset.PatientName = dataset.PatientBirthDate = dataset.ReferringPhysicianName = ""
    dataset.StudyID = dataset.AccessionNumber = ""
    dataset.PatientID = _text(record.patient or "")
    dataset.PatientSex = {"male": "M", "female": "F"}.get(values.get("sex", ""), "")
    dataset.Manufacturer = _text(values.get("device", ""))
    _add_time(dataset, values.get("time", ""))
    _add_body(dataset, values)
    dataset.AcquisitionContextSequence = []
    annotations = [*_statements(values), *_measurements(values)]
    if annotations:
        dataset.WaveformAnnotationSequence = annotations
    dataset.WaveformSequence = [_group(record, microvolts)]
    return dataset


def _text(value: str, longest: int = 64) -> str:
    return _CONTROL.sub(" ", value).strip()[:longest]


def _add_time(dataset: Dataset, time: str) -> None:
    try:
        moment = dt.datetime.fromisoformat(time)
    except ValueError:
        moment = dt.datetime.combine(PLACEHOLDER, dt.time())
        dataset.StudyDate = dataset.StudyTime = ""
    else:
        dataset.StudyDate, dataset.StudyTime = f"{moment:%Y%m%d}", f"{moment:%H%M%S}"
    dataset.ContentDate, dataset.ContentTime = f"{moment:%Y%m%d}", f"{moment:%H%M%S}"
    dataset.AcquisitionDateTime = f"{moment:%Y%m%d}" + f"{moment:%H%M%S}" * ("T" in time)


def _add_body(dataset: Dataset, values: Mapping[str, str]) -> None:
    age, height, weight = map(_number, map(values.get, ("age", "height_cm", "weight_kg")))
    if age is not None and 0 <= age < 1000:
        months = round(12 * age)
        dataset.PatientAge = f"{int(age):03}Y" if age.is_integer() else f"{months:03}M"
        if months > 999:
            dataset.PatientAge = f"{int(age):03}Y"
    if height:
        dataset.PatientSize = f"{height / 100:.10g}"
    if weight:
        dataset.PatientWeight = f"{weight:.10g}"


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


# ---------------------------------------------------------------------- sequences


def _group(record: Record, microvolts: float) -> Dataset:
    group = Dataset()
    group.MultiplexGroupTimeOffset = "0"
    group.WaveformOriginality = "ORIGINAL"
    group.NumberOfWaveformChannels, group.NumberOfWaveformSamples = record.signal.shape
    group.SamplingFrequency = _decimal(record, "sampling rate", record.rate)
    group.MultiplexGroupLabel = "RHYTHM"
    group.ChannelDefinitionSequence = [_channel(record, lead, microvolts) for lead in record.leads]
    group.WaveformBitsAllocated, group.WaveformSampleInterpretation = 16, "SS"
    digital = np.empty(record.signal.shape, "<i2")
    for part, stored in zip(blocks(record.signal), blocks(digital), strict=True):
        stored[:] = np.nan_to_num(counts_of(part, microvolts), nan=-32768)
    if np.isnan(record.signal).any():
        group.add_new("WaveformPaddingValue", "OW", _MISSING)
    group.add_new("WaveformData", "OW", digital.T.tobytes())
    return group


def _channel(record: Record, lead: str, microvolts: float) -> Dataset:
    channel = Dataset()
    code = lead_number(lead)
    source = (f"2:{code}", "MDC") if code else (_text(lead, 16), "99EINTHOVEN")
    channel.ChannelLabel = _text(lead, 16)
    channel.ChannelSourceSequence = [_code(*source, _meaning(lead))]
    channel.ChannelSensitivity = _decimal(record, "step", microvolts)
    channel.ChannelSensitivityUnitsSequence = [_code("uV", "UCUM", "microvolt")]
    channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = "1", "0"
    channel.ChannelSampleSkew, channel.WaveformBitsStored = "0", 16
    filters = record.metadata.get("filters", "")
    if band := _BAND.search(filters):
        channel.FilterLowFrequency, channel.FilterHighFrequency = band[1][:16], band[2][:16]
    if notch := _NOTCH.search(filters):
        channel.NotchFilterFrequency = notch[1][:16]
    return channel


def _meaning(lead: str) -> str:
    name = lead.removesuffix("-cal")
    return f"Derived Lead {name}" if name != lead else f"Lead {name}"


def _decimal(record: Record, field: str, value: float) -> str:
    """Decimal string of at most 16 characters. RecordError for a number that needs more."""
    for digits in range(15, 5, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            break
    if not math.isclose(float(text), value, rel_tol=1e-9):
        raise RecordError(
            record.source or record.name,
            field,
            value,
            "cannot be written in 16 characters",
            remedy="write WFDB or CSV",
        )
    return text


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning[:64]
    return item


def _statements(values: Mapping[str, str]) -> Iterator[Dataset]:
    for line in values.get("statements", "").splitlines():
        item = Dataset()
        item.AnnotationGroupNumber, item.ReferencedWaveformChannels = 0, [1, 0]
        item.UnformattedTextValue = _text(line, 1024)
        yield item


def _measurements(values: Mapping[str, str]) -> Iterator[Dataset]:
    for key, codes in MEASUREMENTS.items():
        value = _number(values.get(key))
        if value is not None:
            item = Dataset()
            code = next(code for code in codes if code.startswith("2:"))
            item.ConceptNameCodeSequence = [_code(code, "MDC", _MEANINGS[key])]
            unit, meaning = _UNITS[key.rpartition("_")[2]]
            item.MeasurementUnitsCodeSequence = [_code(unit, "UCUM", meaning)]
            item.ReferencedWaveformChannels, item.AnnotationGroupNumber = [1, 0], 1
            item.NumericValue = f"{value:.10g}"
            yield item
