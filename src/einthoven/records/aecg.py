"""HL7 annotated ECG (aECG), as the FDA receives it and many carts export it.

Source: HL7 Version 3 Implementation Guide, Annotated ECG, 21 March 2005. A lead is a sequence with
`value = origin + scale * digit`; a sequence of times beside it has the sampling interval.
"""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from einthoven.records.file import EcgFile
from einthoven.records.lead_codes import lead_of_text
from einthoven.records.metadata import age_at, filters_text, iso_time, metadata, sex_of
from einthoven.records.rates import roundest_rate
from einthoven.records.record import Record
from einthoven.records.xml import (
    add_lead,
    attribute_of,
    date_of,
    figure,
    first_interval,
    format_name,
    millivolts,
    number,
    parse,
    reported_age,
    samples,
    stack,
    text_of,
    time_of,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

NAME = "HL7 aECG"

_EXPORT = "export the ECG again"
_CODE = "MDC_ECG_"
_LEAD = f"{_CODE}LEAD_"
_TIMES = {"TIME_ABSOLUTE", "TIME_RELATIVE"}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_MICROSECONDS = 2e-6  # s; intervals written in microseconds or finer were rounded to them
_AGE = "21612-7"  # LOINC: reported age
_YEARS = {"a": 1.0, "mo": 1 / 12, "wk": 7 / 365.25, "d": 1 / 365.25}
_INTERVALS = {
    "heart_rate_bpm": ("HEART_RATE",),
    "pr_ms": ("TIME_PD_PR",),
    "qrs_ms": ("TIME_PD_QRS",),
    "qt_ms": ("TIME_PD_QT",),
    "qtc_ms": ("TIME_PD_QTC", "TIME_PD_QTCB", "TIME_PD_QTCF"),
}
_AXES = {
    "p_axis_deg": "ANGLE_P_FRONT",
    "qrs_axis_deg": "ANGLE_QRS_FRONT",
    "t_axis_deg": "ANGLE_T_FRONT",
}
_MINIMUM_SHARE = 0.2  # of a tracing in several parts; four groups of three leads have a quarter


class _Part(NamedTuple):
    """Leads that were sampled at the same times, in millivolts."""

    start: float | None
    rate: float
    leads: dict[str, NDArray[np.float32]]
    others: tuple[str, ...]


def recognises(head: bytes) -> bool:
    """Whether the first bytes of a file have the root element of this format."""
    return format_name(head) == NAME


def read(file: EcgFile) -> Record:
    """Read the rhythm of an HL7 annotated ECG, in millivolts.

    Parameters
    ----------
    file : EcgFile
        The file, on disk or in memory.

    Returns
    -------
    Record
        The series with the code RHYTHM; averaged beats are never returned. NaN where a tracing
        that is stored in several parts has no samples of a lead.

    Raises
    ------
    RecordError
        If the file has no rhythm, or several of which none is named (`ecg.xml::1`); if it has no
        sampling interval or unit, no lead, or leads that differ in length.
    """
    root = parse(file, NAME)
    series = _rhythm(file, root)
    parts = [_part(file, each) for each in series.iterfind("component/sequenceSet")]
    if not parts:
        raise file.refusal("sequence set", None, "is missing: no samples", remedy=_EXPORT)
    if len({part.rate for part in parts}) > 1:
        rates = ", ".join(f"{rate:g}" for rate in sorted({part.rate for part in parts})[:5])
        raise file.refusal("sampling rate", rates, "differs between parts", remedy=_EXPORT)
    leads = parts[0].leads if len(parts) == 1 else _joined(file, parts)
    return Record.create(
        stack(file, leads),
        parts[0].rate,
        leads=leads,
        name=file.label,
        patient=_patient(root),
        source=file.name,
        source_hash=file.sha256,
        metadata=_metadata(root, series) | metadata(left_out=_left_out(parts)),
    )


_SERIES = re.compile(rb"<(?:[^\s<>]{1,99}:)?series[\s>/]")  # in any encoding that contains ASCII


def members(file: EcgFile) -> list[str]:
    """Numbers of the rhythms in the order of the file, from 1; one record otherwise."""
    if len(_SERIES.findall(file.content)) == 1:
        return [""]  # without parsing the file twice
    numbers = [str(number) for number, _ in enumerate(_rhythms(file, parse(file, NAME)), start=1)]
    return numbers if len(numbers) > 1 else [""]


def _rhythm(file: EcgFile, root: Element) -> Element:
    rhythms = _rhythms(file, root)
    if len(rhythms) == 1 and not file.member:
        return rhythms[0]
    if file.member not in {str(number + 1) for number in range(len(rhythms))}:
        raise file.unknown_member(len(rhythms), example="1")
    return rhythms[int(file.member) - 1]


def _rhythms(file: EcgFile, root: Element) -> list[Element]:
    every = root.findall("component/series")
    codes = [attribute_of(series, "code", "code") for series in every]
    # A series without a code is a rhythm; averaged beats always say so.
    rhythms = [series for series, code in zip(every, codes, strict=True) if code in ("RHYTHM", "")]
    if not every:
        raise file.refusal("series", None, "is missing: no samples", remedy=_EXPORT)
    if not rhythms:
        reason = "no rhythm: averaged beats are no tracing"
        remedy = f"{_EXPORT} with its rhythm"
        raise file.refusal("series", ", ".join(codes), reason, remedy=remedy)
    return rhythms


# ------------------------------------------------------------------ samples


def _part(file: EcgFile, sequence_set: Element) -> _Part:
    """Leads of a sequence set, with the rate and the start that its times have."""
    start = rate = None
    leads: dict[str, NDArray[np.float32]] = {}
    others = []
    for sequence in sequence_set.iterfind("component/sequence"):
        code = attribute_of(sequence, "code", "code")
        value = sequence.find("value")
        lead = _lead_name(code)
        if code in _TIMES and value is not None:
            start, rate = _start(code, value.find("head")), _rate(file, value)
        elif value is not None and lead:
            add_lead(file, leads, lead, _lead(file, lead, value))
        else:
            others.append(code)
    if rate is None:
        reason = "is missing: no sequence of times"
        raise file.refusal("sampling interval", None, reason, remedy=_EXPORT)
    if not leads:
        reason = f"no sequence is a lead; a lead is {_LEAD}I, ..."
        raise file.refusal("leads", ", ".join(others), reason, remedy=_EXPORT)
    stack(file, leads)
    return _Part(start, rate, leads, tuple(others))


def _lead_name(code: str) -> str:
    """Name of a lead by its code; empty for anything else.

    `MDC_ECG_LEAD_dV1` was computed from other electrodes and is not the lead V1.
    """
    name = code.removeprefix(_LEAD)
    computed = lead_of_text(name[1:]) if name[:1] == "d" else None
    if computed:
        return f"{computed}-cal"
    return lead_of_text(name) or (name if code.startswith(_LEAD) else "")


def _rate(file: EcgFile, value: Element) -> float:
    """Samples a second of a sequence of times."""
    text = attribute_of(value, "increment", "value")
    increment = number(file, "sampling interval", text, positive=True)
    unit = attribute_of(value, "increment", "unit")
    if unit not in _SECONDS:
        reason = "is no unit of time" if unit else "is missing"
        raise file.refusal("unit of the sampling interval", unit, reason, remedy=_EXPORT)
    for name in ("period", "denominator"):
        if attribute_of(value, name, "value") not in ("", "1"):
            reason = "times that repeat are not supported"
            raise file.refusal(name, attribute_of(value, name, "value"), reason, remedy=_EXPORT)
    seconds = increment * _SECONDS[unit]
    resolution = 10.0 ** int(Decimal(text).as_tuple().exponent) * _SECONDS[unit]
    # 0.001667 s are 600 Hz; 0.002 s are exact.
    rate = roundest_rate(seconds, resolution) if resolution < _MICROSECONDS else 1 / seconds
    return float(f"{rate:.10g}")


def _start(code: str, head: Element | None) -> float | None:
    """Start of a sequence of times, in seconds from any fixed origin; None if it is not stated."""
    text, unit = attribute_of(head, ".", "value"), attribute_of(head, ".", "unit")
    if code == "TIME_RELATIVE":
        value = figure(text)
        return None if value is None or unit not in _SECONDS else value * _SECONDS[unit]
    day, time = _moment(text)
    if day is None:
        return None
    return (dt.datetime.combine(day, time or dt.time()) - dt.datetime(1970, 1, 1)).total_seconds()


def _lead(file: EcgFile, lead: str, value: Element) -> NDArray[np.float64]:
    """Millivolts of a lead."""
    scale, origin = (_voltage(file, lead, name, value) for name in ("scale", "origin"))
    digits = samples(file, f"digits of {lead}", value.findtext("digits"))
    if scale == 0:
        raise file.refusal(f"scale of {lead}", 0, "makes every sample 0", remedy=_EXPORT)
    return origin + scale * digits


def _voltage(file: EcgFile, lead: str, name: str, value: Element) -> float:
    field = f"{name} of {lead}"
    quantity = number(file, field, attribute_of(value, name, "value"))
    return quantity * millivolts(file, f"unit of the {field}", attribute_of(value, name, "unit"))


def _joined(file: EcgFile, parts: list[_Part]) -> dict[str, NDArray[np.float32]]:
    """Parts of a tracing, such as four groups of three leads one after the other, as one."""
    if any(part.start is None for part in parts):
        reason = "is not stated for each of several parts"
        raise file.refusal("start of a sequence set", None, reason, remedy=_EXPORT)
    lengths = [len(next(iter(part.leads.values()))) for part in parts]
    first = min(part.start or 0 for part in parts)
    starts = [round(((part.start or 0) - first) * part.rate) for part in parts]
    total = max(start + length for start, length in zip(starts, lengths, strict=True))
    names = {lead for part in parts for lead in part.leads}
    stored = sum(len(part.leads) * length for part, length in zip(parts, lengths, strict=True))
    if total * len(names) * _MINIMUM_SHARE > stored:
        reason = "parts too far from each other for one tracing"
        raise file.refusal("start of a sequence set", total / parts[0].rate, reason, remedy=_EXPORT)
    leads: dict[str, NDArray[np.float32]] = {}
    for part, start in zip(parts, starts, strict=True):
        for lead, values in part.leads.items():
            if lead not in leads:
                leads[lead] = np.full(total, np.nan, np.float32)
            place = leads[lead][start : start + len(values)]
            if not np.isnan(place).all():
                reason = "parts overlap in this lead"
                raise file.refusal("leads", lead, reason, remedy=_EXPORT)
            place[:] = values
    return leads


# ------------------------------------------------------------------ metadata


def _left_out(parts: list[_Part]) -> str:
    codes = dict.fromkeys(code or "without a code" for part in parts for code in part.others)
    return ", ".join(f"{code}: no ECG lead" for code in codes)


def _patient(root: Element) -> str | None:
    subject = root.find("componentOf/timepointEvent/componentOf/subjectAssignment/subject")
    identifier = attribute_of(subject, "trialSubject/id", "extension")
    # Mindray writes it into an element of its own.
    return identifier or text_of(subject, "trialSubject/*/PatientID") or None


def _metadata(root: Element, series: Element) -> dict[str, str]:
    person = root.find(".//subjectDemographicPerson")
    starts = (
        attribute_of(series, "effectiveTime/low", "value"),
        attribute_of(root, "effectiveTime/low", "value"),
        attribute_of(root, "effectiveTime/center", "value"),
    )
    day, time = next((moment for moment in map(_moment, starts) if moment[0]), (None, None))
    birth, _ = _moment(attribute_of(person, "birthTime", "value"))
    author = series.find("author/seriesAuthor")
    device = (
        text_of(author, "manufacturerOrganization/name"),
        text_of(author, "manufacturedSeriesDevice/manufacturerModelName"),
    )
    annotations = _annotations(series)
    age = _age(root)
    return metadata(
        time=iso_time(day, time),
        age=age_at(birth, day) if age is None else age,
        sex=sex_of(attribute_of(person, "administrativeGenderCode", "code")),
        statements=_statements(series),
        device=" ".join(filter(None, device)),
        filters=_filters(series),
        **{
            key: first_interval(annotations.get(code, "") for code in codes)
            for key, codes in _INTERVALS.items()
        },
        **{key: figure(annotations.get(code, "")) for key, code in _AXES.items()},
    )


def _moment(text: str) -> tuple[dt.date | None, dt.time | None]:
    """Date and time of day in text such as `20021122091000.000`; None where it has none."""
    match = re.fullmatch(
        r"(\d{8})(?:(\d\d)(\d\d)(?:(\d\d)(?:\.(\d{1,6})\d*)?)?)?(?:[-+]\d{4})?", text, re.ASCII
    )
    if match is None:
        return None, None
    date, hour, minute, second, fraction = match.groups()
    day = date_of(date, "%Y%m%d")
    if hour is None:
        return day, None
    return day, time_of(f"{hour}:{minute}:{second or '00'}.{(fraction or '').ljust(6, '0')}")


def _age(root: Element) -> float | None:
    """Reported age in years."""
    for observation in root.iterfind("controlVariable/relatedObservation"):
        if attribute_of(observation, "code", "code") == _AGE:
            years = _YEARS.get(attribute_of(observation, "value", "unit"))
            return reported_age(attribute_of(observation, "value", "value"), years)
    return None


def _statements(series: Element) -> list[str]:
    """Statements of the device, in the order of the file, each once."""
    texts = [
        text_of(annotation, "value")
        for annotation in series.iterfind("subjectOf/annotationSet//annotation")
        if attribute_of(annotation, "code", "code") == f"{_CODE}INTERPRETATION_STATEMENT"
    ]
    return list(dict.fromkeys(filter(None, texts)))


def _annotations(series: Element) -> dict[str, str]:
    """Values of the annotations of the whole tracing, else of its averaged beat, by their codes.

    Annotations inside others belong to single beats or leads.
    """
    values: dict[str, str] = {}
    for path in ("subjectOf", "derivation/derivedSeries/subjectOf"):
        for annotation in series.iterfind(f"{path}/annotationSet/component/annotation"):
            code = attribute_of(annotation, "code", "code").upper().removeprefix(_CODE)
            values.setdefault(code, attribute_of(annotation, "value", "value"))
    return values


def _filters(series: Element) -> str:
    """Filters of the device: `0.05 to 150 Hz, notch 60 Hz`."""
    cutoffs = {}
    for variable in series.iterfind("controlVariable/controlVariable"):
        code = attribute_of(variable, "code", "code").rpartition("FILTER_")[2]
        value = variable.find("component/controlVariable/value")
        if attribute_of(value, ".", "unit") == "Hz":
            cutoffs[code] = attribute_of(value, ".", "value")
    return filters_text(cutoffs.get("HIGH_PASS"), cutoffs.get("LOW_PASS"), cutoffs.get("NOTCH"))
