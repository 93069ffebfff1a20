"""Statements of a DICOM data set about its ECG: patient, time, device, filters, interpretation."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from einthoven.records.metadata import age_at, filters_text, iso_time, metadata, sex_of

_DAYS = {"D": 1, "W": 7, "M": 30.4375, "Y": 365.25}
PLACEHOLDER = dt.date(1900, 1, 1)
"""Date of files whose dates were removed, since DICOM demands one; nothing was recorded then."""
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_LONGEST = 5000  # ms; SCP-ECG writes 29999 for an interval that was not measured
_LARGEST_ANGLE = 360  # degrees; 999 for an axis that is not defined
MEASUREMENTS = {
    "heart_rate_bpm": ("5.10.2.5-1", "2:16770"),
    "pr_ms": ("5.13.5-7", "2:15872", "2:16144"),
    "qrs_ms": ("5.13.5-9", "2:16156"),
    "qt_ms": ("5.13.5-11", "2:16160"),
    "qtc_ms": ("5.10.2.5-5", "2:15876", "2:15880", "2:15892"),
    "p_axis_deg": ("5.10.3-11", "2:16128"),
    "qrs_axis_deg": ("5.10.3-13", "2:16132"),
    "t_axis_deg": ("5.10.3-15", "2:16136"),
}
"""Codes of SCP-ECG and MDC for the global measurements."""
_EMPTY = Dataset()
_KEYS = {code: key for key, codes in MEASUREMENTS.items() for code in codes}
_RATES = ("heart rate", "ventricular rate", "ventricular heart rate")


def text(item: Dataset, keyword: str) -> str:
    """Text of an element without blanks and nulls; empty if it is absent."""
    value = item.get(keyword)
    if isinstance(value, MultiValue):
        value = "\\".join(map(str, value))  # as it is stored
    return "" if value is None else str(value).strip(" \0\r\n\t")


def number(item: Dataset, keyword: str) -> float | None:
    """Number of an element; None if it is absent, empty or not one number."""
    try:
        return float(text(item, keyword))
    except (ValueError, OverflowError):
        return None


def first(item: Dataset, keyword: str) -> Dataset:
    """First item of a sequence; an empty one if there is none."""
    return next(iter(item.get(keyword) or ()), _EMPTY)


def statements_of(
    dataset: Dataset, group: Dataset, left_out: list[str], lead_quality: list[str]
) -> dict[str, str]:
    """Metadata of a Record, from a data set and the multiplex group that was read.

    `left_out` are its channels that are no ECG lead or have no valid sample, with the reason, and
    `lead_quality` the faults of others.
    """
    date, time = _recorded(dataset)
    statements, measurements = _annotations(dataset)
    return metadata(
        time=iso_time(date, time),
        age=_age(dataset, date),
        sex=sex_of(text(dataset, "PatientSex")),
        height_cm=_positive(dataset, "PatientSize", 100),  # metres
        weight_kg=_positive(dataset, "PatientWeight"),
        device=" ".join(_device(dataset)),
        filters=_filters(group),
        left_out=left_out,
        lead_quality=lead_quality,
        statements=statements,
        **measurements,
    )


def _recorded(dataset: Dataset) -> tuple[dt.date | None, dt.time | None]:
    """Start of the recording; the time of day is None if it is not stated."""
    moment = text(dataset, "AcquisitionDateTime")
    pairs = [
        (moment[:8], re.split(r"[+-]", moment[8:])[0]),
        *(
            (text(dataset, f"{event}Date"), text(dataset, f"{event}Time"))
            for event in ("Acquisition", "Content", "Study")
        ),
    ]
    for day, clock in pairs:
        date = _date(day)
        if date is not None and date > PLACEHOLDER:
            return date, _clock(clock)
    return None, None


def _date(digits: str) -> dt.date | None:
    try:
        return dt.datetime.strptime(digits.replace(".", "")[:8], "%Y%m%d").date()
    except ValueError:
        return None


def _clock(digits: str) -> dt.time | None:
    if not digits:
        return None
    try:
        return dt.datetime.strptime(digits.replace(":", "")[:6].ljust(6, "0"), "%H%M%S").time()
    except ValueError:
        return None


def _age(dataset: Dataset, recorded: dt.date | None) -> float | None:
    """Years: as stated, or since the date of birth."""
    match = re.fullmatch(r"(\d{1,3})([DWMY])", text(dataset, "PatientAge"))
    if match:
        years = int(match[1]) * _DAYS[match[2]] / _DAYS["Y"]
        return float(int(match[1])) if match[2] == "Y" else round(years, 2)
    return age_at(_date(text(dataset, "PatientBirthDate")), recorded)


def _positive(dataset: Dataset, keyword: str, factor: float = 1) -> float | None:
    value = number(dataset, keyword)
    return round(value * factor, 3) if value and 0 < value < 1000 else None


def _device(dataset: Dataset) -> Iterator[str]:
    for keyword in ("Manufacturer", "ManufacturerModelName"):
        name = text(dataset, keyword)
        if name and name.lower() != "unknown":
            yield name


def _filters(group: Dataset) -> str:
    """Filters of the first channel; a notch of 0 Hz is none."""
    channel = first(group, "ChannelDefinitionSequence")
    low, high, notch = (
        None if cutoff is None else f"{cutoff:g}"
        for cutoff in (
            number(channel, "FilterLowFrequency"),
            number(channel, "FilterHighFrequency"),
            number(channel, "NotchFilterFrequency") or None,
        )
    )
    return filters_text(low, high, notch)


def _annotations(dataset: Dataset) -> tuple[list[str], dict[str, float]]:
    """Statements, and global measurements, of the Waveform Annotation Sequence."""
    statements: list[str] = []
    measurements: dict[str, float] = {}
    for item in dataset.get("WaveformAnnotationSequence") or ():
        if "ReferencedSamplePositions" in item or "ReferencedTimeOffsets" in item:
            continue  # a wave or beat
        name = first(item, "ConceptNameCodeSequence")
        if "NumericValue" in item:
            key, value = _measurement(item, name)
            if key and value is not None:
                measurements.setdefault(key, value)
            continue
        statement = (
            text(item, "UnformattedTextValue")
            or text(first(item, "ConceptCodeSequence"), "CodeMeaning")
            or text(name, "CodeMeaning")
        )
        if statement and statement not in statements:
            statements.append(statement)
    return statements, measurements


def _measurement(item: Dataset, name: Dataset) -> tuple[str, float | None]:
    """Key and value of a measurement of all leads; an empty key for any other."""
    key = _KEYS.get(text(name, "CodeValue").replace(" ", ""), "")
    if text(name, "CodeMeaning").lower() in _RATES:
        key = "heart_rate_bpm"
    channels = item.get("ReferencedWaveformChannels") or ()
    if list(channels)[1:2] not in ([], [0]):  # pairs of group and channel; channel 0 is all
        return "", None
    value = number(item, "NumericValue")
    if not key or value is None:
        return "", None
    unit = text(first(item, "MeasurementUnitsCodeSequence"), "CodeValue")
    if key.endswith("_ms"):
        value *= _MILLISECONDS.get(unit, float("nan"))
        return key, value if 0 < value < _LONGEST else None
    if key.endswith("_deg"):  # real files give the unit of axes as ms
        return key, value if abs(value) <= _LARGEST_ANGLE else None
    return key, value if 0 < value < _LARGEST_ANGLE else None
