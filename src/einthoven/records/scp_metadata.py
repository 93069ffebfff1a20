"""Patient, device, measurements and statements of an SCP-ECG file (sections 1, 7, 8, 10 and 11)."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Mapping

from einthoven.records.lead_codes import LEADS
from einthoven.records.metadata import age_at, filters_text, iso_time, lead_fault, metadata
from einthoven.records.scp_sections import Section, Sections

_END = 255  # tag behind the last one
_FIXED_SIZES = {4: 3, 5: 4, 6: 3, 7: 3, 8: 1, 25: 4, 26: 3, 27: 2, 28: 2, 29: 1}
_YEARS = {1: 1.0, 2: 1 / 12, 3: 7 / 365.25, 4: 1 / 365.25, 5: 1 / 8766}
_CENTIMETRES = {1: 1.0, 2: 2.54, 3: 0.1}
_KILOGRAMS = {1: 1.0, 2: 0.001, 3: 0.45359237, 4: 0.028349523125}
_SEXES = {1: "male", 2: "female"}
_NOT_MEASURED = 29999
_CONFIRMED = 1
_QUALITY = 25  # place of the quality code among the measurements of a lead
_FAULTS = {  # by their first of two bits in the quality code; the pacemaker's (12) is no fault
    0: "mains noise",
    2: "saturation",
    4: "baseline wander",
    6: "muscle noise",
    8: "jumps",
    10: "electrode off",
    14: "exchanged",
}
_GRADES = {1: "moderate", 2: "severe"}  # 0 is none, 3 unknown
_UNGRADED = ("electrode off", "exchanged")  # 1 is yes
_ENCODINGS = {
    0x03: "iso8859-2",
    0x07: "utf-16-le",
    0x0B: "iso8859-4",
    0x0F: "shift-jis",
    0x13: "iso8859-5",
    0x17: "euc-jp",
    0x1B: "iso8859-6",
    0x23: "iso8859-7",
    0x27: "gb2312",
    0x2B: "iso8859-8",
    0x2F: "cp949",
    0x33: "iso8859-11",
    0x37: "utf-8",
    0x3B: "iso8859-15",
}
"""By the language code of tag 14; Latin 1 without one."""


def patient_of(sections: Sections) -> str | None:
    """Identifier of the patient, in section 1."""
    tags = _tags(sections.get(1))
    return _text(tags.get(2, b""), _encoding(tags)) or None


def metadata_of(sections: Sections) -> dict[str, str]:
    """Metadata of a Record; names of persons are left out, but that of who confirmed."""
    tags = _tags(sections.get(1))
    encoding = _encoding(tags)
    date = _date(tags.get(25))
    statements, confirmed = _statements(sections, encoding)
    return metadata(
        time=iso_time(date, _time(tags.get(26))),
        age=_measure(tags.get(4), _YEARS) or age_at(_date(tags.get(5)), date),
        sex=_SEXES.get(_integer(tags.get(8), "B")),
        height_cm=_measure(tags.get(6), _CENTIMETRES),
        weight_kg=_measure(tags.get(7), _KILOGRAMS),
        device=_device(tags.get(14, b""), encoding),
        filters=_filters(tags),
        statements=statements,
        lead_quality=_lead_quality(sections.get(10)),
        confirmed_by=_text(tags.get(21, b""), encoding) if confirmed else None,
        **_measurements(sections.get(7)),
    )


# ------------------------------------------------------------------ section 1


def _tags(section: Section | None) -> dict[int, bytes]:
    """Values of section 1 by tag; the first one of a tag that is repeated."""
    if section is None:
        return {}
    # Some devices write wrong lengths for tags whose length is fixed.
    tags = _walk(section.body, {}) or _walk(section.body, _FIXED_SIZES)
    if tags is None:
        raise section.refusal("tags", None, "are longer than the section")
    return tags


def _walk(body: bytes, sizes: Mapping[int, int]) -> dict[int, bytes] | None:
    """Values by tag, up to the tag that ends the section; None if a value is longer than it."""
    tags: dict[int, bytes] = {}
    position = 0
    while position + 3 <= len(body) and body[position] != _END:
        tag, length = struct.unpack_from("<BH", body, position)
        start = position + 3
        position = start + sizes.get(tag, length)
        if position > len(body):
            return None
        tags.setdefault(tag, body[start:position])
    return tags


def _encoding(tags: Mapping[int, bytes]) -> str:
    return _ENCODINGS.get(_integer(tags.get(14, b"")[16:], "B"), "latin-1")


def _text(value: bytes, encoding: str) -> str:
    return value.decode(encoding, "replace").split("\0")[0].strip()


def _fields(value: bytes | None, layout: str) -> tuple[int, ...]:
    """Little-endian fields of a value; empty if it is missing or too short."""
    try:
        return struct.unpack_from("<" + layout, value or b"")
    except struct.error:
        return ()


def _integer(value: bytes | None, layout: str) -> int:
    return next(iter(_fields(value, layout)), 0)


def _measure(value: bytes | None, units: Mapping[int, float]) -> float | None:
    """Number with a unit, in years, centimetres or kilograms; None without a known unit."""
    fields = _fields(value, "HB")
    if not fields or not fields[0] or fields[1] not in units:
        return None
    return round(fields[0] * units[fields[1]], 2)


def _date(value: bytes | None) -> dt.date | None:
    try:
        return dt.date(*_fields(value, "HBB"))
    except (TypeError, ValueError):  # missing, or not filled in
        return None


def _time(value: bytes | None) -> dt.time | None:
    fields = _fields(value, "BBB")
    try:
        return dt.time(fields[0], fields[1], fields[2]) if fields else None
    except ValueError:
        return None


def _device(value: bytes, encoding: str) -> str:
    """Manufacturer and model."""
    texts = value[36:].split(b"\0")
    manufacturer = _text(texts[4], encoding) if len(texts) > 4 else ""
    return f"{manufacturer} {_text(value[8:14], encoding)}".strip()


def _filters(tags: Mapping[int, bytes]) -> str:
    high_pass, low_pass = _integer(tags.get(27), "H") / 100, _integer(tags.get(28), "H")
    notches = _integer(tags.get(29), "B")
    notch = "60" if notches & 1 else "50" if notches & 2 else None
    return filters_text(f"{high_pass:g}" if high_pass else None, str(low_pass or ""), notch)


# ------------------------------------------------------------------ sections 7, 8, 10 and 11


def _measurements(section: Section | None) -> dict[str, int | None]:
    """Global measurements: of the first block, the reference beat's, and of all beats."""
    if section is None:
        return {}
    body = section.body
    blocks, spikes = _fields(body, "BB") or (0, 0)
    first = _fields(body[6:], "5H3h") if blocks else ()
    onset, _, begin, end, offset, p_axis, qrs_axis, t_axis = first or [_NOT_MEASURED] * 8
    behind = 6 + 16 * blocks + 10 * spikes
    beats = _integer(body[behind:], "H")
    rate, _, corrected = _fields(body[behind + 2 + beats :], "HHH") or (0, 0, 0)
    return {
        "heart_rate_bpm": _measured(rate),
        "pr_ms": _interval(onset, begin),
        "qrs_ms": _interval(begin, end),
        "qt_ms": _interval(begin, offset),
        "qtc_ms": _measured(corrected),
        "p_axis_deg": _axis(p_axis),
        "qrs_axis_deg": _axis(qrs_axis),
        "t_axis_deg": _axis(t_axis),
    }


def _measured(value: int) -> int | None:
    return value if 0 < value < _NOT_MEASURED else None


def _interval(start: int, stop: int) -> int | None:
    return stop - start if start < stop < _NOT_MEASURED else None


def _axis(value: int) -> int | None:
    return value if -180 <= value <= 180 else None


def _lead_quality(section: Section | None) -> list[str]:
    """Faults of the leads, by the quality codes of section 10."""
    lines: list[str] = []
    body = section.body if section else b""
    position = 4
    for _ in range(_integer(body, "H")):
        lead, length = _fields(body[position:], "HH") or (0, 0)
        values = body[position + 4 : position + 4 + length]
        code = _integer(values[2 * _QUALITY :], "H")
        for bit, fault in _FAULTS.items() if code != _NOT_MEASURED else ():
            if grade := _GRADES.get(code >> bit & 3):
                name = LEADS.get(lead, f"lead {lead}")
                lines.append(lead_fault(name, fault, "" if fault in _UNGRADED else grade))
        position += 4 + length
    return lines


def _statements(sections: Sections, encoding: str) -> tuple[list[str], bool]:
    """Statements of section 8, else those of section 11, and whether they are confirmed."""
    for number, skipped in ((8, 0), (11, 1)):  # in section 11 a byte on their kind precedes them
        section = sections.get(number)
        body = section.body if section else b""
        header = _fields(body, "BH6B")
        statements = []
        position = 9
        for _ in range(header[-1] if header else 0):
            length = _integer(body[position + 1 :], "H")
            value = body[position + 3 + skipped : position + 3 + length]
            parts = value.decode(encoding, "replace").split("\0")
            statements.append(" ".join(part.strip() for part in parts if part.strip()))
            position += 3 + length
        if any(statements):
            return statements, header[0] == _CONFIRMED
    return [], False
