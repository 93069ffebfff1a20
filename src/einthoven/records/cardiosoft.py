"""GE CardioSoft XML, root element `CardiologyXML`; the UK Biobank's resting ECGs are of this kind.

`StripData` has the tracing as integers between commas, `Resolution` the microvolts of one.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from einthoven.records.file import EcgFile
from einthoven.records.metadata import age_at, filters_text, iso_time, metadata, sex_of
from einthoven.records.record import Record, canonical_lead
from einthoven.records.xml import (
    add_lead,
    attribute_of,
    check_number_of_leads,
    count,
    date_of,
    figure,
    format_name,
    interpretation,
    interval,
    millivolts,
    number,
    parse,
    samples,
    stack,
    statements_of,
    text_of,
    time_of,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

NAME = "GE CardioSoft"

_EXPORT = "export the ECG again"
_PER_COUNT = "VperLsb"
_INTERVALS = {
    "heart_rate_bpm": "VentricularRate",
    "pr_ms": "PQInterval",
    "qrs_ms": "QRSDuration",
    "qt_ms": "QTInterval",
    "qtc_ms": "QTCInterval",
}
_AXES = {"p_axis_deg": "PAxis", "qrs_axis_deg": "RAxis", "t_axis_deg": "TAxis"}


def recognises(head: bytes) -> bool:
    """Whether the first bytes of a file have the root element of this format."""
    return format_name(head) == NAME


def read(file: EcgFile) -> Record:
    """Read the resting ECG of a CardioSoft file, in millivolts.

    Parameters
    ----------
    file : EcgFile
        The file, on disk or in memory.

    Returns
    -------
    Record
        The leads of `StripData`; neither averaged beats nor the full disclosure.

    Raises
    ------
    RecordError
        If the file has no such tracing, as that of an exercise test, or a lead with another number
        of samples than announced; if rate, resolution or their units are missing.
    """
    root = parse(file, NAME)
    strip = root.find("StripData")
    if strip is None:
        kind = text_of(root, "ObservationType")
        reason = "no StripData: only resting ECGs are supported"
        raise file.refusal("ObservationType", kind, reason, remedy="export a resting ECG")
    resolution = _resolution(file, strip)
    leads: dict[str, NDArray[np.float32]] = {}
    total = count(file, "ChannelSampleCountTotal", text_of(strip, "ChannelSampleCountTotal"))
    for element in strip.iterfind("WaveformData"):
        lead = canonical_lead(element.get("lead") or "")
        values = samples(file, f"WaveformData of {lead}", element.text, ",")
        if len(values) != total:
            reason = f"lead {lead} has {len(values)}"
            raise file.refusal("ChannelSampleCountTotal", total, reason, remedy=_EXPORT)
        add_lead(file, leads, lead, resolution * values)
    check_number_of_leads(file, "NumberOfLeads", text_of(strip, "NumberOfLeads"), leads)
    return Record.create(
        stack(file, leads),
        _rate(file, strip),
        leads=leads,
        name=file.label,
        patient=text_of(root, "PatientInfo/PID") or None,
        source=file.name,
        source_hash=file.sha256,
        metadata=_metadata(root),
    )


def _rate(file: EcgFile, strip: Element) -> float:
    unit = attribute_of(strip, "SampleRate", "units")
    if unit != "Hz":
        raise file.refusal("units of SampleRate", unit, "must be Hz", remedy=_EXPORT)
    return number(file, "SampleRate", text_of(strip, "SampleRate"), positive=True)


def _resolution(file: EcgFile, strip: Element) -> float:
    """Millivolts of a count."""
    unit = attribute_of(strip, "Resolution", "units").replace(_PER_COUNT, "V")
    return number(file, "Resolution", text_of(strip, "Resolution"), positive=True) * millivolts(
        file, "units of Resolution", unit
    )


# ------------------------------------------------------------------ metadata


def _metadata(root: Element) -> dict[str, str]:
    patient, measurements = root.find("PatientInfo"), root.find("RestingECGMeasurements")
    day, time = _moment(root.find("ObservationDateTime"))
    birth, _ = _moment(patient.find("BirthDateTime") if patient is not None else None)
    reported = figure(_of_unit(patient, "Age", "YEARS"))
    device = root.find("ClinicalInfo/DeviceInfo")
    original, edited = (
        statements_of(root.findall(f"Interpretation/{section}/{section}Text"), ".")
        for section in ("Diagnosis", "Conclusion")
    )
    return metadata(
        time=iso_time(day, time),
        age=age_at(birth, day) if reported is None else reported,
        sex=sex_of(text_of(patient, "Gender")),
        height_cm=interval(_of_unit(patient, "Height", "CENTIMETERS")),
        weight_kg=interval(_of_unit(patient, "Weight", "KILOGRAMS")),
        device=" ".join(
            filter(None, ("GE", text_of(device, "Desc"), text_of(device, "SoftwareVer")))
        ),
        filters=_filters(root),
        **interpretation(original, edited),
        **{key: interval(text_of(measurements, name)) for key, name in _INTERVALS.items()},
        **{key: figure(text_of(measurements, name)) for key, name in _AXES.items()},
    )


def _of_unit(element: Element | None, name: str, unit: str) -> str:
    """Text of an element that has this unit; empty with another."""
    fits = attribute_of(element, name, "units").upper() == unit
    return text_of(element, name) if fits else ""


def _moment(element: Element | None) -> tuple[dt.date | None, dt.time | None]:
    """Date and time of day of an element; None where they are missing or impossible."""
    parts = [
        [text_of(element, name) for name in names]
        for names in (("Year", "Month", "Day"), ("Hour", "Minute", "Second"))
    ]
    time = ":".join(part.zfill(2) for part in parts[1]) if all(parts[1]) else ""
    return date_of("-".join(parts[0])), time_of(time)


def _filters(root: Element) -> str:
    settings = root.find("FilterSetting")
    notches = [hertz for hertz in ("50", "60") if text_of(settings, f"Filter{hertz}Hz") == "Yes"]
    return filters_text(
        _of_unit(settings, "HighPass", "HZ"),
        _of_unit(settings, "LowPass", "HZ"),
        " ".join(notches),
    )
