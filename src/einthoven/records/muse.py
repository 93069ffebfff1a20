"""GE MUSE XML, root element `RestingECG`.

A MUSE file has an averaged beat and a rhythm. It stores the eight independent leads as 16-bit
integers in base64; III, aVR, aVL and aVF follow from I and II. The CRC-32 of a lead is that of its
decoded bytes, which holds for all 48 leads of three files of MUSE 9.
"""

from __future__ import annotations

import datetime as dt
import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from einthoven.records.file import EcgFile
from einthoven.records.limb_leads import derive_limb_leads
from einthoven.records.metadata import (
    age_at,
    filters_text,
    iso_time,
    lead_fault,
    metadata,
    sex_of,
)
from einthoven.records.record import Record, canonical_lead
from einthoven.records.xml import (
    add_lead,
    check_number_of_leads,
    count,
    date_of,
    decode_base64,
    figure,
    format_name,
    interpretation,
    interval,
    millivolts,
    number,
    parse,
    reported_age,
    stack,
    text_of,
    time_of,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

NAME = "GE MUSE"

_EXPORT = "export the ECG again"
_UNITS = {"MICROVOLTS": "uV", "MILLIVOLTS": "mV", "NANOVOLTS": "nV"}
_YEARS = {"YEARS": 1.0, "MONTHS": 1 / 12, "WEEKS": 7 / 365.25, "DAYS": 1 / 365.25}
_TRUE = ("true", "yes", "1")
_INTERVALS = {
    "heart_rate_bpm": "VentricularRate",
    "pr_ms": "PRInterval",
    "qrs_ms": "QRSDuration",
    "qt_ms": "QTInterval",
    "qtc_ms": "QTCorrected",
}
_AXES = {"p_axis_deg": "PAxis", "qrs_axis_deg": "RAxis", "t_axis_deg": "TAxis"}


def recognises(head: bytes) -> bool:
    """Whether the first bytes of a file have the root element of this format."""
    return format_name(head) == NAME


def read(file: EcgFile) -> Record:
    """Read the rhythm of a MUSE file, in millivolts.

    Parameters
    ----------
    file : EcgFile
        The file, on disk or in memory.

    Returns
    -------
    Record
        The rhythm with the most leads, and of those the one with the highest rate. Limb leads that
        follow from two others come last, with their names under `derived_leads`. NaN in a lead that
        the file declares off (`left_out` names it).

    Raises
    ------
    RecordError
        If the file has no rhythm, or a lead without rate or unit, with another number of samples
        than announced, or with a wrong checksum; or if all leads are off.
    """
    root = parse(file, NAME)
    rhythms = [
        _rhythm(file, waveform)
        for waveform in root.iterfind("Waveform")
        if text_of(waveform, "WaveformType").lower() == "rhythm"
    ]
    if not rhythms:
        kinds = ", ".join(text_of(each, "WaveformType") for each in root.iterfind("Waveform"))
        reason = "no rhythm: an averaged beat is no tracing"
        raise file.refusal("waveforms", kinds, reason, remedy=f"{_EXPORT} with its rhythm")
    rate, leads = max(rhythms, key=lambda rhythm: (len(rhythm[1]), rhythm[0]))
    off = [lead for lead, values in leads.items() if np.isnan(values).all()]
    if len(off) == len(leads) > 0:
        raise file.refusal("LeadOff", "TRUE", "of every lead: no electrode was on", remedy=_EXPORT)
    record = Record.create(
        stack(file, leads),
        rate,
        leads=leads,
        name=file.label,
        patient=text_of(root, "PatientDemographics/PatientID") or None,
        source=file.name,
        source_hash=file.sha256,
        metadata=_metadata(root)
        | metadata(
            left_out=", ".join(f"{lead}: lead off" for lead in off),
            lead_quality=_lead_quality(root),
        ),
    )
    return derive_limb_leads(record)


def _rhythm(file: EcgFile, waveform: Element) -> tuple[float, dict[str, NDArray[np.float32]]]:
    """Rate in Hz, and millivolts by lead."""
    base = number(file, "SampleBase", text_of(waveform, "SampleBase"), positive=True)
    exponent = number(file, "SampleExponent", text_of(waveform, "SampleExponent") or "0")
    if abs(exponent) > 9:
        reason = "no ECG has such a sampling rate"
        raise file.refusal("SampleExponent", exponent, reason, remedy=_EXPORT)
    if text_of(waveform, "SampleType") not in ("", "CONTINUOUS_SAMPLES"):
        kind = text_of(waveform, "SampleType")
        raise file.refusal("SampleType", kind, "is not supported", remedy=_EXPORT)
    leads: dict[str, NDArray[np.float32]] = {}
    for element in waveform.iterfind("LeadData"):
        lead = canonical_lead(text_of(element, "LeadID"))
        values = _lead(file, lead, element)
        is_off = text_of(element, "LeadOff").lower() in _TRUE
        add_lead(file, leads, lead, np.full_like(values, np.nan) if is_off else values)
    check_number_of_leads(file, "NumberofLeads", text_of(waveform, "NumberofLeads"), leads)
    return base * 10**exponent, leads


def _lead_quality(root: Element) -> list[str]:
    """Leads of which the device states that their baseline sways."""
    swaying = [
        canonical_lead(text_of(element, "LeadID"))
        for waveform in root.iterfind("Waveform")
        if text_of(waveform, "WaveformType").lower() == "rhythm"
        for element in waveform.iterfind("LeadData")
        if text_of(element, "BaselineSway").lower() in _TRUE
    ]
    return [lead_fault(lead, "baseline wander") for lead in dict.fromkeys(swaying)]


def _lead(file: EcgFile, lead: str, element: Element) -> NDArray[np.float64]:
    def field(name: str) -> str:
        return f"{name} of {lead}"

    for name, usual in (
        ("LeadSampleSize", "2"),
        ("LeadTimeOffset", "0"),
        ("LeadOffsetFirstSample", "0"),
        ("FirstSampleBaseline", "0"),
    ):
        value = text_of(element, name)
        if value and figure(value) != float(usual):
            reason = f"only {usual} is supported"
            raise file.refusal(field(name), value, reason, remedy=_EXPORT)
    scale = number(
        file,
        field("LeadAmplitudeUnitsPerBit"),
        text_of(element, "LeadAmplitudeUnitsPerBit"),
        positive=True,
    )
    unit = text_of(element, "LeadAmplitudeUnits")
    scale *= millivolts(file, field("LeadAmplitudeUnits"), _UNITS.get(unit.upper(), unit))
    data = decode_base64(file, field("WaveFormData"), element.findtext("WaveFormData"))
    samples = count(file, field("LeadSampleCountTotal"), text_of(element, "LeadSampleCountTotal"))
    if 2 * samples != len(data):
        reason = f"the file has {len(data) / 2:g} samples"
        raise file.refusal(field("LeadSampleCountTotal"), samples, reason, remedy=_EXPORT)
    checksum = text_of(element, "LeadDataCRC32")
    if checksum and figure(checksum) != zlib.crc32(data):
        reason = f"the samples have {zlib.crc32(data)}: they are damaged"
        raise file.refusal(field("LeadDataCRC32"), checksum, reason, remedy=_EXPORT)
    return scale * np.frombuffer(data, "<i2").astype(np.float64)


# ------------------------------------------------------------------ metadata


def _metadata(root: Element) -> dict[str, str]:
    patient, test = root.find("PatientDemographics"), root.find("TestDemographics")
    day = _date(text_of(test, "AcquisitionDate"))
    years = _YEARS.get(text_of(patient, "AgeUnits").upper())
    age = reported_age(text_of(patient, "PatientAge"), years)
    device = text_of(test, "AcquisitionDevice")
    reader = (text_of(test, "OverreaderFirstName"), text_of(test, "OverreaderLastName"))
    confirmed = text_of(test, "Status").upper() == "CONFIRMED"
    return metadata(
        time=iso_time(day, time_of(text_of(test, "AcquisitionTime"))),
        age=age_at(_date(text_of(patient, "DateofBirth")), day) if age is None else age,
        sex=sex_of(text_of(patient, "Gender")),
        height_cm=interval(text_of(patient, "HeightCM")),
        weight_kg=interval(text_of(patient, "WeightKG")),
        confirmed_by=" ".join(filter(None, reader)) if confirmed else None,
        device=device and f"GE {device}",
        filters=_filters(root),
        **interpretation(_statements(root, "OriginalDiagnosis"), _statements(root, "Diagnosis")),
        **{key: interval(_measurement(root, name)) for key, name in _INTERVALS.items()},
        **{key: figure(_measurement(root, name)) for key, name in _AXES.items()},
    )


def _date(text: str) -> dt.date | None:
    """Date as MUSE writes it: month-day-year."""
    return date_of(text, "%m-%d-%Y")


def _measurement(root: Element, name: str) -> str:
    """Measurement of the device, else the one that a reader may have edited."""
    return text_of(root, f"OriginalRestingECGMeasurements/{name}") or text_of(
        root, f"RestingECGMeasurements/{name}"
    )


def _statements(root: Element, section: str) -> list[str]:
    """Statements: texts up to the one that ends a line."""
    lines, words = [], []
    for statement in root.iterfind(f"{section}/DiagnosisStatement"):
        words.append(text_of(statement, "StmtText"))
        if any(each.text == "ENDSLINE" for each in statement.iterfind("StmtFlag")):
            lines.append(" ".join(filter(None, words)))
            words = []
    return list(filter(None, [*lines, " ".join(filter(None, words))]))


def _filters(root: Element) -> str:
    """Filters of the rhythm. The high pass is written in hundredths of a hertz."""
    waveform = next(root.iterfind("Waveform[WaveformType='Rhythm']"), None)
    high_pass = figure(text_of(waveform, "HighPassFilter"))
    return filters_text(
        f"{high_pass / 100:g}" if high_pass else None,
        text_of(waveform, "LowPassFilter"),
        text_of(waveform, "ACFilter"),
    )
