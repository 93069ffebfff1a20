"""WFDB headers: text in, checked values out. Nothing is guessed, so much is refused.

Source: the WFDB Applications Guide, header(5) and signal(5).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from einthoven.errors import RecordError
from einthoven.records.record import canonical_lead

FORMATS = frozenset(
    ("8", "16", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524")
)
"""Storage formats of signal(5) that a header may name."""

_UNITS = {"mv": "mV", "uv": "uV", "\u00b5v": "uV", "\u03bcv": "uV", "v": "V"}
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_CALIBRATION = re.compile(r"([^(/]*)(?:\(([^)]*)\))?(?:/(.*))?")
_ENCODING = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?", re.ASCII)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class LeadSpec(NamedTuple):
    """One signal line of a header.

    `gain` is units of the file per `units` (mV, uV or V); `baseline` the digital value of 0 V;
    `initial` and `checksum` are None where the header leaves them out; `fmt` is the format field
    as it stands (`16`, `16+24`, `212`).
    """

    name: str
    gain: float
    baseline: int
    units: str
    initial: int | None
    checksum: int | None
    file: str
    fmt: str


class Encoding(NamedTuple):
    """A format field taken apart: `16+24` is format 16 after 24 bytes."""

    code: str
    per_frame: int
    skew: int
    offset: int


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
    recorded : str
        Base time and date as they stand, in whatever form.
    segments : tuple of (str, int)
        Name and length of each segment of a multi-segment record; empty otherwise.
    """

    name: str
    rate: float
    samples: int
    leads: tuple[LeadSpec, ...]
    comments: dict[str, str]
    recorded: str = ""
    segments: tuple[tuple[str, int], ...] = ()


class _FieldError(Exception):
    """An invalid field; the caller adds the file and the lead."""

    def __init__(self, field: str, value: object, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.field, self.value, self.reason, self.remedy = field, value, reason, remedy


def parse_header(data: bytes, file: str) -> Header:
    """Read the bytes of a header.

    Parameters
    ----------
    data : bytes
        The content of the `.hea` file.
    file : str
        Its path, for messages.

    Returns
    -------
    Header

    Raises
    ------
    RecordError
        Naming the field: text, counts, sampling rate, length, gain, units, format, lead names
        and the names of signal files are all checked.
    """
    try:
        return _header(_text(data))
    except _FieldError as fault:
        raise RecordError(
            file, fault.field, fault.value, fault.reason, remedy=fault.remedy
        ) from None


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # Old headers hold a Latin-1 micro sign or name; random bytes hold control characters.
        text = data.decode("latin-1")
    if not text.strip() or _CONTROL.search(text):
        reason = "is not text" if text.strip() else "is empty"
        raise _FieldError("header", data[:16], reason, "fetch the header again from its source")
    return text.replace("\r", "\n")


def _header(text: str) -> Header:
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    comments = _comments(line[1:] for line in lines if line[0] == "#")
    lines = [line for line in lines if line[0] != "#"]
    if not lines:
        raise _FieldError(
            "header", "", "has no record line", "fetch the header again from its source"
        )
    words = lines[0].split(None, 4)
    words += [""] * (5 - len(words))
    name, _, segments = words[0].partition("/")
    rate, samples = _rate(words[2]), _count("number of samples", words[3])
    expected = _count("number of segments", segments) if segments else None
    leads = _count("number of leads", words[1])
    if expected is None:
        _check_lines(lines, "number of leads", leads)
    else:
        _check_lines(lines, "number of segments", expected)
    return Header(
        name=name,
        rate=rate,
        samples=samples,
        leads=_leads(lines[1:]) if expected is None else (),
        comments=comments,
        recorded=words[4],
        segments=() if expected is None else tuple(_segment(line) for line in lines[1:]),
    )


def _check_lines(lines: list[str], field: str, expected: int) -> None:
    if len(lines) - 1 != expected:
        raise _FieldError(
            field,
            expected,
            f"the record line announces {expected}, {len(lines) - 1} lines follow",
            "fetch the header again, or make the record line agree with the lines below it",
        )


def _comments(lines: Iterable[str]) -> dict[str, str]:
    comments: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        key = key.strip() if colon and key.strip() else "comments"
        value = value.strip() if key != "comments" else line.strip()
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


@lru_cache(maxsize=256)
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
    name, _, length = line.partition(" ")
    if (
        not _INTEGER.fullmatch(length.strip())
        or int(length) < 0
        or not re.fullmatch(r"[-\w]+|~", name)
    ):
        raise _FieldError(
            "segment",
            line,
            "must be the name of a record of this folder and its number of samples",
            "correct the line, or convert the record to a single segment",
        )
    return name, int(length)


def _leads(lines: list[str]) -> tuple[LeadSpec, ...]:
    leads = tuple(_lead(line) for line in lines)
    names = {lead.name.lower() for lead in leads}
    if len(names) != len(leads):
        spelled = [lead.name.lower() for lead in leads]
        twice = next(lead.name for lead in leads if spelled.count(lead.name.lower()) > 1)
        raise _FieldError(
            "leads",
            twice,
            "a lead name that is repeated",
            "use a different lead name in each signal line; case is ignored",
        )
    for file in {lead.file for lead in leads}:
        _check_file(file)
    return leads


def _lead(line: str) -> LeadSpec:
    file, fmt, calibration, zero, initial, checksum, name = _fields(line)
    name = canonical_lead(name)
    try:
        gain, baseline, units = _calibration(calibration)
        encoding(fmt)
    except _FieldError as fault:
        fault.field = f"{fault.field} of lead {name}"
        raise
    # header(5): a baseline that is left out is the ADC zero.
    return LeadSpec(
        name, gain, zero if baseline is None else baseline, units, initial, checksum, file, fmt
    )


_NUMBERS = ("ADC resolution", "ADC zero", "initial value", "checksum", "block size")


def _fields(line: str) -> tuple[str, str, str, int, int | None, int | None, str]:
    """File, format, calibration, ADC zero, initial value, checksum and lead name of a line."""
    try:  # The complete line, which is what nearly every header holds.
        file, fmt, calibration, *words, name = line.split(None, 8)
        _, zero, initial, checksum, _ = map(int, words)
        return file, fmt, calibration, zero, initial, checksum, name
    except ValueError:
        return _short_fields(line.split())


def _short_fields(words: list[str]) -> tuple[str, str, str, int, int | None, int | None, str]:
    """Parse a signal line that leaves out some of the optional numbers."""
    if len(words) < 3:
        raise _FieldError(
            "gain",
            " ".join(words),
            "is missing",
            "write gain and units after the format (1000/mV); they are never guessed",
        )
    numbers: list[int | None] = []
    for word in words[3:8]:
        if not _INTEGER.fullmatch(word):
            break
        numbers.append(int(word))
    count, name = len(numbers), " ".join(words[3 + len(numbers) :])
    if count < 5 and len(words) > 8:
        raise _FieldError(
            _NUMBERS[count], words[3 + count], "must be a whole number", "correct the signal line"
        )
    if not name:
        raise _FieldError(
            "lead name", words[-1], "is missing", "end the signal line with the name of its lead"
        )
    numbers += [None] * (5 - count)
    return words[0], words[1], words[2], numbers[1] or 0, numbers[2], numbers[3], name


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
    known = _UNITS.get((units or "mV").lower())
    if known is None:
        raise _FieldError(
            "units", units, "not a unit of voltage known here: mV, uV, V", "convert the lead to mV"
        )
    if baseline is not None and not _INTEGER.fullmatch(baseline):
        raise _FieldError(
            "baseline", baseline, "must be a whole number", "correct it: gain(baseline)/units"
        )
    return gain, None if baseline is None else int(baseline), known


@lru_cache(maxsize=256)
def encoding(fmt: str) -> Encoding:
    """Take a format field apart: code, samples a frame, skew and byte offset."""
    match = _ENCODING.fullmatch(fmt)
    if match is None or match[1] not in FORMATS or match[2] == "0":
        raise _FieldError(
            "format",
            fmt,
            f"not a WFDB format; known are {', '.join(sorted(FORMATS, key=int))}",
            "fetch the header again, or convert the record to format 16",
        )
    return Encoding(match[1], int(match[2] or 1), int(match[3] or 0), int(match[4] or 0))


def _check_file(file: str) -> None:
    """Refuse names that reach outside the header's folder; links are followed when opening."""
    parts = file.replace("\\", "/").split("/")
    if file in ("~", "-") or ":" in file or not all(parts) or ".." in parts:
        raise _FieldError(
            "signal file",
            file,
            "must lie in the header's folder",
            "move the signal file next to its header and name it without a folder",
        )
