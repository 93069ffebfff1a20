"""WFDB headers: text in, checked values out. Nothing is guessed, so much is refused.

Source: the WFDB Applications Guide, header(5) and signal(5).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from einthoven.errors import RecordError
from einthoven.records.record import STANDARD_LEADS, canonical_lead

# Storage formats of signal(5) that a header may name.
_FORMATS = ("8", "16", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524")
_UNITS = {"mv": "mV", "uv": "uV", "\u00b5v": "uV", "\u03bcv": "uV", "v": "V"}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_CALIBRATION = re.compile(r"([^(/]*)(?:\(([^)]*)\))?(?:/(.*))?")
_ENCODING = re.compile(r"(\d{1,9})(?:x(\d{1,9}))?(?::(\d{1,9}))?(?:\+(\d{1,9}))?", re.ASCII)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SEGMENT = re.compile(r"([-\w]+|~)\s+(\d{1,18})")
_NUMBERS = ("ADC resolution", "ADC zero", "initial value", "checksum", "block size")
PATIENT = "patient: "
"""Start of the comment in which `write_wfdb` names the patient; no other form counts."""
_REFETCH = "fetch the header again from its source"


class Encoding(NamedTuple):
    """A format field taken apart: `16+24` is format 16 after 24 bytes."""

    code: str
    per_frame: int
    skew: int
    offset: int


class _FieldError(Exception):
    """An invalid field; the caller adds the file and the lead."""

    def __init__(self, field: str, value: object, reason: str, remedy: str) -> None:
        super().__init__(field, value, reason, remedy)
        self.field, self.value, self.reason, self.remedy = field, value, reason, remedy


class LeadSpec(NamedTuple):
    """One signal line of a header.

    `gain` is units of the file per `units` (mV, uV or V); `baseline` the digital value of 0 V;
    `initial` and `checksum` are None where the header leaves them out. `fault` is the reason why
    the signal is not read, such as the unit of a blood pressure.
    """

    name: str
    gain: float
    baseline: int
    units: str
    initial: int | None
    checksum: int | None
    file: str
    encoding: Encoding | None
    fault: _FieldError | None = None


@dataclass(frozen=True)
class Header:
    """A WFDB header.

    Attributes
    ----------
    name : str
        Record name.
    rate : float
        Frames a second (Hz).
    samples : int
        Frames in every lead; 0 if the header of a single segment leaves them out.
    leads : tuple of LeadSpec
        One a signal line, also of signals that are no ECG leads; empty for a record of several
        segments.
    comments : dict of str to str
        The lines `#Age: 85` as `{"Age": "85"}`; lines without a colon under `comments`.
    segments : tuple of (str, int)
        Name and length of each segment of a multi-segment record; empty otherwise.
    patient : str
        Patient of the only line `#patient: 17`, which is then none of the comments; else empty.
    """

    name: str
    rate: float
    samples: int
    leads: tuple[LeadSpec, ...]
    comments: dict[str, str]
    segments: tuple[tuple[str, int], ...] = ()
    patient: str = ""

    @property
    def rows(self) -> list[int]:
        """Places of the ECG leads among the signals."""
        return [row for row, lead in enumerate(self.leads) if lead.fault is None]

    def require_leads(self, file: str) -> None:
        """Raise RecordError if none of the signals is an ECG lead."""
        if self.leads and not self.rows:
            raise refusal(file, self.leads[0].fault)


def parse_header(data: bytes, file: str) -> Header:
    """Parse the bytes of the `.hea` file at `file`.

    Raises
    ------
    RecordError
        Naming the field: text, counts, sampling rate, length, gain, units, format, lead names
        and the names of signal files are all checked.
    """
    try:
        return _header(_text(data))
    except _FieldError as error:
        raise refusal(file, error) from None


def refusal(file: str, fault: _FieldError | None) -> RecordError:
    """RecordError about a field of the header at `file`."""
    assert fault is not None
    return RecordError(file, fault.field, fault.value, fault.reason, remedy=fault.remedy)


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Old headers hold a Latin-1 micro sign or name; random bytes hold control characters.
        text = data.decode("latin-1")
    if _CONTROL.search(text):
        raise _FieldError("header", data[:16], "is not text", _REFETCH)
    return text.replace("\r", "\n")


def patient_of(notes: Sequence[str]) -> str:
    """Patient of the only comment, without its `#`, that names one; else empty."""
    patients = [note.removeprefix(PATIENT) for note in notes if note.startswith(PATIENT)]
    return patients[0] if len(patients) == 1 else ""  # several contradict each other


def _header(text: str) -> Header:
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    notes = [line[1:] for line in lines if line[0] == "#"]
    patient = patient_of(notes)
    comments = _comments(note for note in notes if not (patient and note.startswith(PATIENT)))
    lines = [line for line in lines if line[0] != "#"]
    if not lines:
        raise _FieldError("header", "", "has no record line", _REFETCH)
    words = lines.pop(0).split()
    name, _, segments = words[0].rpartition("/") if "/" in words[0] else (words[0], "", "")
    if segments and any(len(line.split()) > 2 for line in lines):
        # Signals follow: this is a record whose name holds a folder, as in PTB-XL+.
        name, segments = segments, ""
    leads, rate, samples = (words[1:] + [""] * 3)[:3]
    hertz = _rate(rate)
    # header(5): the number of samples may be left out, or 0.
    length = 0 if samples in ("", "0") else _count("number of samples", samples)
    field, count = ("number of segments", segments) if segments else ("number of leads", leads)
    if _count(field, count) != len(lines):
        raise _FieldError(
            field,
            int(count),
            f"the record line announces {count}, {len(lines)} lines follow",
            "fetch the header again, or make the record line agree with the lines below it",
        )
    if segments:
        parts = tuple(map(_segment, lines))
        length = length or sum(n for _, n in parts)
        return Header(name, hertz, length, (), comments, parts, patient)
    return Header(name, hertz, length, _leads(lines), comments, patient=patient)


def _comments(lines: Iterable[str]) -> dict[str, str]:
    comments: dict[str, str] = {}
    for line in lines:
        key, colon, value = map(str.strip, line.partition(":"))
        if not (colon and key):
            key, value = "comments", line.strip()
        # A repeated key keeps every value: a second `#Dx` must not hide the first.
        comments[key] = f"{comments[key]}\n{value}" if key in comments else value
    return comments


def _count(field: str, text: str) -> int:
    if not _INTEGER.fullmatch(text) or int(text) <= 0:
        raise _FieldError(
            field,
            text,
            "must be a positive whole number" if text else "is missing",
            "correct the record line: name, number of leads, sampling rate, number of samples",
        )
    return int(text)


def _rate(text: str) -> float:
    rate = _number(text.partition("/")[0])
    if rate is None or rate <= 0:
        raise _FieldError(
            "sampling rate",
            text,
            "must be a positive finite number of hertz" if text else "is missing",
            "write the rate as the third field of the record line; it is never guessed",
        )
    return rate


def _number(text: str) -> float | None:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else None


def _segment(line: str) -> tuple[str, int]:
    match = _SEGMENT.fullmatch(line)
    if match is None:
        raise _FieldError(
            "segment",
            line,
            "must be the name of a record of this folder and its number of samples",
            "correct the line, or convert the record to a single segment",
        )
    return match[1], int(match[2])


def _leads(lines: list[str]) -> tuple[LeadSpec, ...]:
    leads = _with_own_names(tuple(map(_lead, lines)))
    # Signals that are stored at another rate than the standard leads, such as respiration.
    standard = {
        lead.encoding.per_frame
        for lead in leads
        if lead.encoding and lead.fault is None and lead.name in STANDARD_LEADS
    }
    if len(standard) == 1:
        leads = tuple(
            lead._replace(fault=_rate_fault(lead))
            if lead.fault is None and lead.encoding and lead.encoding.per_frame not in standard
            else lead
            for lead in leads
        )
    for file in {lead.file for lead in leads if lead.fault is None}:
        # Names that reach outside the header's folder; links are checked when opening.
        parts = file.replace("\\", "/").split("/")
        if file in ("~", "-") or ":" in file or not all(parts) or ".." in parts:
            raise _FieldError(
                "signal file",
                file,
                "must lie in the header's folder",
                "move the signal file next to its header and name it without a folder",
            )
    return leads


def _rate_fault(lead: LeadSpec) -> _FieldError:
    return _FieldError(
        f"format of lead {lead.name}",
        lead.encoding and lead.encoding.per_frame,
        "has another sampling rate than the standard leads",
        "resample the record to one rate for all leads, with WFDB's xform",
    )


def _with_own_names(leads: tuple[LeadSpec, ...]) -> tuple[LeadSpec, ...]:
    """Refuse a standard lead that is there twice; pass over other signals of the same name."""
    names = [lead.name.lower() for lead in leads if lead.fault is None]
    checked = []
    for lead in leads:
        if lead.fault is None and names.count(lead.name.lower()) > 1:
            fault = _FieldError(
                "leads",
                lead.name,
                "a lead name that is repeated",
                "use a different lead name in each signal line; case is ignored",
            )
            if lead.name in STANDARD_LEADS:
                raise fault
            lead = lead._replace(fault=fault)
        checked.append(lead)
    return tuple(checked)


def _lead(line: str) -> LeadSpec:
    words = line.split(None, 8)
    if len(words) < 3:
        raise _FieldError(
            "gain",
            line,
            "is missing",
            "write gain and units after the format (1000/mV); they are never guessed",
        )
    numbers = [int(word) for word in takewhile(_INTEGER.fullmatch, words[3:8])]
    name = canonical_lead(" ".join(words[3 + len(numbers) :]))
    if len(numbers) < 5 and len(words) > 8:
        field, word = _NUMBERS[len(numbers)], words[3 + len(numbers)]
        raise _FieldError(field, word, "must be a whole number", "correct the signal line")
    _, zero, initial, checksum, *_ = [*numbers, None, None, None, None]
    spec = LeadSpec(name, math.nan, 0, "", initial, checksum, words[0], None)
    try:
        spec = spec._replace(encoding=_encoding(words[1]))
        gain, baseline, units = _calibration(words[2])
    except _FieldError as error:
        fault = _FieldError(f"{error.field} of lead {name or words[0]}", *error.args[1:])
        if name in STANDARD_LEADS:
            raise fault from None
        return spec._replace(units=words[2].partition("/")[2], fault=fault)
    if not name:
        raise _FieldError(
            "lead name", words[-1], "is missing", "end the signal line with the name of its lead"
        )
    if baseline is None:  # header(5): a baseline that is left out is the ADC zero.
        baseline = zero or 0
    return spec._replace(gain=gain, baseline=baseline, units=units)


@lru_cache(maxsize=1024)
def _calibration(text: str) -> tuple[float, int | None, str]:
    """Gain, baseline and units of `1000(0)/mV`."""
    match = _CALIBRATION.fullmatch(text)
    gain_text, baseline, units = match.groups() if match else (text, None, None)
    gain = _number(gain_text)
    if not gain:
        raise _FieldError(
            "gain",
            text,
            "must be a finite number of steps a unit, not 0" if gain_text else "is missing",
            "write the gain and units, such as 1000/mV; WFDB's default of 200 is not assumed",
        )
    # header(5) defines millivolts for a line with a gain but no units.
    unit = _UNITS.get((units or "mV").lower())
    if unit is None:
        raise _FieldError(
            "units", units, "not one of the units mV, uV and V", "convert the lead to mV"
        )
    if baseline is not None and not _INTEGER.fullmatch(baseline):
        raise _FieldError(
            "baseline", baseline, "must be a whole number", "correct it: gain(baseline)/units"
        )
    return gain, None if baseline is None else int(baseline), unit


@lru_cache(maxsize=256)
def _encoding(fmt: str) -> Encoding:
    match = _ENCODING.fullmatch(fmt)
    if match is None or match[1] not in _FORMATS or match[2] == "0":
        raise _FieldError(
            "format",
            fmt,
            f"not a WFDB format; they are {', '.join(_FORMATS)}",
            "fetch the header again, or convert the record to format 16",
        )
    return Encoding(match[1], int(match[2] or 1), int(match[3] or 0), int(match[4] or 0))
