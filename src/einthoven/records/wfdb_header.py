"""WFDB headers: text in, checked values out. Nothing is guessed, so much is refused.

Source: the WFDB Applications Guide, header(5) and signal(5).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from einthoven.errors import RecordError
from einthoven.records.record import canonical_lead

# Storage formats of signal(5) that a header may name.
_FORMATS = ("8", "16", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524")
_UNITS = {"mv": "mV", "uv": "uV", "\u00b5v": "uV", "\u03bcv": "uV", "v": "V"}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_CALIBRATION = re.compile(r"([^(/]*)(?:\(([^)]*)\))?(?:/(.*))?")
_ENCODING = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?", re.ASCII)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SEGMENT = re.compile(r"([-\w]+|~)\s+(\d{1,18})")
_NUMBERS = ("ADC resolution", "ADC zero", "initial value", "checksum", "block size")
_REFETCH = "fetch the header again from its source"


class Encoding(NamedTuple):
    """A format field taken apart: `16+24` is format 16 after 24 bytes."""

    code: str
    per_frame: int
    skew: int
    offset: int


class LeadSpec(NamedTuple):
    """One signal line of a header.

    `gain` is units of the file per `units` (mV, uV or V); `baseline` the digital value of 0 V;
    `initial` and `checksum` are None where the header leaves them out.
    """

    name: str
    gain: float
    baseline: int
    units: str
    initial: int | None
    checksum: int | None
    file: str
    encoding: Encoding


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
        Frames in every lead.
    leads : tuple of LeadSpec
        One a signal line; empty for a record of several segments.
    comments : dict of str to str
        The lines `#Age: 85` as `{"Age": "85"}`; lines without a colon under `comments`.
    segments : tuple of (str, int)
        Name and length of each segment of a multi-segment record; empty otherwise.
    """

    name: str
    rate: float
    samples: int
    leads: tuple[LeadSpec, ...]
    comments: dict[str, str]
    segments: tuple[tuple[str, int], ...] = ()


class _FieldError(Exception):
    """An invalid field; the caller adds the file and the lead."""

    def __init__(self, field: str, value: object, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.field, self.value, self.reason, self.remedy = field, value, reason, remedy


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
        raise RecordError(
            file, error.field, error.value, error.reason, remedy=error.remedy
        ) from None


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Old headers hold a Latin-1 micro sign or name; random bytes hold control characters.
        text = data.decode("latin-1")
    if _CONTROL.search(text):
        raise _FieldError("header", data[:16], "is not text", _REFETCH)
    return text.replace("\r", "\n")


def _header(text: str) -> Header:
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    comments = _comments(line[1:] for line in lines if line[0] == "#")
    lines = [line for line in lines if line[0] != "#"]
    if not lines:
        raise _FieldError("header", "", "has no record line", _REFETCH)
    words = lines.pop(0).split()
    name, _, segments = words[0].partition("/")
    leads, rate, samples = (words[1:] + [""] * 3)[:3]
    hertz, length = _rate(rate), _count("number of samples", samples)
    field, count = ("number of segments", segments) if segments else ("number of leads", leads)
    if _count(field, count) != len(lines):
        raise _FieldError(
            field,
            int(count),
            f"the record line announces {count}, {len(lines)} lines follow",
            "fetch the header again, or make the record line agree with the lines below it",
        )
    if segments:
        return Header(name, hertz, length, (), comments, tuple(map(_segment, lines)))
    return Header(name, hertz, length, _leads(lines), comments)


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
    leads = tuple(map(_lead, lines))
    names = [lead.name.lower() for lead in leads]
    for lead in leads:
        if names.count(lead.name.lower()) > 1:
            raise _FieldError(
                "leads",
                lead.name,
                "a lead name that is repeated",
                "use a different lead name in each signal line; case is ignored",
            )
    for file in {lead.file for lead in leads}:
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
    if not name:
        raise _FieldError(
            "lead name", words[-1], "is missing", "end the signal line with the name of its lead"
        )
    _, zero, initial, checksum, *_ = [*numbers, None, None, None, None]
    try:
        gain, baseline, units = _calibration(words[2])
        encoding = _encoding(words[1])
    except _FieldError as error:
        error.field = f"{error.field} of lead {name}"
        raise
    if baseline is None:  # header(5): a baseline that is left out is the ADC zero.
        baseline = zero or 0
    return LeadSpec(name, gain, baseline, units, initial, checksum, words[0], encoding)


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
