"""Statements of an ECG file about its recording, under the same names for every format."""

from __future__ import annotations

import datetime as dt
import re
from typing import NamedTuple

KEYS = {
    "time": "start of the recording, ISO 8601, local time of the device: 2024-05-17T09:30:00",
    "age": "age of the patient in years",
    "sex": "male or female",
    "height_cm": "height of the patient",
    "weight_kg": "weight of the patient",
    "statements": "the device's own interpretation, one statement a line",
    "severity": "the device's summary of its statements, such as ABNORMAL ECG",
    "edited_statements": "the interpretation as a person edited it, where it differs",
    "lead_quality": "the device's judgement of its leads, one a line: V3: severe baseline wander",
    "confirmed_by": "who confirmed the interpretation; absent if nobody has",
    "device": "manufacturer and model of the device",
    "filters": "filters of the device, such as 0.05 to 150 Hz, notch 50 Hz",
    "heart_rate_bpm": "the device's measurements: ventricular rate",
    "pr_ms": "PR interval",
    "qrs_ms": "QRS duration",
    "qt_ms": "QT interval",
    "qtc_ms": "corrected QT interval, by the device's own formula",
    "p_axis_deg": "frontal axis of the P wave",
    "qrs_axis_deg": "frontal axis of the QRS complex",
    "t_axis_deg": "frontal axis of the T wave",
    "left_out": "channels that are not in the record or have no valid sample, and the reason",
    "repaired_leads": "leads with invalid samples that were computed from others, and their number",
    "padding_s": "seconds of zeros before and after the recording that are left out: 1.45 1.45",
    "excerpt": "the part of a long recording that was read: 42900 to 43500 s of 86400 s",
    "derived_leads": "leads that were computed from others (`limb_leads`)",
}
"""Names with the same meaning in every format; all values are text. A format may add its own."""

FAULTS = (
    *("baseline wander", "mains noise", "muscle noise", "noise", "jumps", "saturation"),
    *("QRS cut off", "electrode off", "exchanged", "not measured", "questionable", "unzeroed"),
)
"""Faults of a lead that devices state, as `lead_quality` names them."""
MILD, GRAVE = ("slight", "mild", "moderate", "intermittent"), ("frequent", "severe")
"""Grades of a fault; a file may state none."""
_LEAD_FAULT = re.compile(
    rf"(?P<lead>.+?): (?P<text>((?P<grade>{'|'.join(MILD + GRAVE)}) )?({'|'.join(FAULTS)}))"
)
_HARMLESS = ("unzeroed",)  # as an offset

_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}


def metadata(**values: object) -> dict[str, str]:
    """Metadata of a Record: values as text, without those that the file leaves empty.

    Parameters
    ----------
    **values
        Values by the names in `KEYS`. None, blank text and NaN are left out; a whole float loses
        its decimals; several lines may be passed as a list.

    Raises
    ------
    KeyError
        For a name that is not in `KEYS`.
    """
    texts = {}
    for key, value in values.items():
        KEYS[key]  # a reader with a misspelt name fails in its first test
        text = _text(value)
        if text:
            texts[key] = text
    return texts


class LeadFault(NamedTuple):
    """A fault that the device states of a lead: `severe baseline wander`."""

    lead: str
    text: str
    is_mild: bool


def lead_fault(lead: str, fault: str, grade: str = "") -> str:
    """Line of `lead_quality`; the fault is one of `FAULTS`, and an unknown grade is left out."""
    assert fault in FAULTS
    return f"{lead}: {grade} {fault}" if grade in MILD + GRAVE else f"{lead}: {fault}"


def lead_faults(text: str) -> list[LeadFault]:
    """Faults of the lines of `lead_quality`; lines of another form are passed over."""
    matches = map(_LEAD_FAULT.fullmatch, text.splitlines())
    return [
        LeadFault(x["lead"], x["text"], x["grade"] in MILD or x["text"] in _HARMLESS)
        for x in matches
        if x is not None
    ]


def sex_of(text: object) -> str:
    """`male` or `female` for the spellings M, F, male and female; empty for any other."""
    return _SEXES.get(str(text).strip().lower(), "")


def age_at(birth: dt.date | None, date: dt.date | None) -> int | None:
    """Completed years from birth to a date; None if either is missing or birth comes later."""
    if birth is None or date is None or birth > date:
        return None
    return date.year - birth.year - ((date.month, date.day) < (birth.month, birth.day))


def iso_time(date: dt.date | None, time: dt.time | None = None) -> str:
    """ISO 8601 text of a date and a time of day, without the zone; empty without a date."""
    if date is None:
        return ""
    if time is None:
        return date.isoformat()
    return dt.datetime.combine(date, time.replace(tzinfo=None)).isoformat(timespec="seconds")


def filters_text(high_pass: str | None, low_pass: str | None, notch: str | None) -> str:
    """Text of the key `filters` from cut-off frequencies in Hz; empty without any."""
    if high_pass and low_pass:
        band = f"{high_pass} to {low_pass} Hz"
    else:
        band = f"above {high_pass} Hz" if high_pass else f"below {low_pass} Hz" if low_pass else ""
    return ", ".join(filter(None, (band, notch and f"notch {notch} Hz")))


def _text(value: object) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        return "\n".join(filter(None, map(_text, value)))
    return str(value).strip()
