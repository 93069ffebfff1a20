"""Patient, device, measurements and statements of SCP-ECG files."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from scp_files import scp_bytes, simple_bodies, tag

from einthoven.errors import RecordError
from einthoven.records import read_record

COUNTS = np.zeros((1, 50), int)
DEVICE = b"\0" * 7 + b"\xffMAC5\0\0" + bytes([20, 0, 0]) + bytes(19)
TAGS = {
    0: b"Lovelace\0",
    1: b"Ada\0",
    2: b"P-17\0",
    4: struct.pack("<HB", 18, 2),
    5: struct.pack("<HBB", 1950, 12, 13),
    6: struct.pack("<HB", 1712, 3),
    7: struct.pack("<HB", 150, 3),
    8: b"\2",
    14: DEVICE + b"\1" + b"\0".join([b"", b"", b"1.0", b"2.0", b"GE Healthcare", b""]),
    21: b"Dr House\0",
    25: struct.pack("<HBB", 2020, 12, 12),
    26: bytes([8, 30, 15]),
    27: struct.pack("<H", 5),
    28: struct.pack("<H", 150),
    29: b"\2",
}
BLOCK = struct.pack("<5H3h", 100, 190, 260, 350, 640, 44, -61, 999)
MEASURED = b"\1\1" + bytes(4) + BLOCK + bytes(10) + struct.pack("<H2x3HB", 2, 62, 29999, 443, 1)


def statements(texts: list[bytes], confirmed: int = 0) -> bytes:
    head = struct.pack("<BH5BB", confirmed, 2020, 12, 12, 9, 0, 0, len(texts))
    rows = enumerate(texts, start=1)
    return head + b"".join(struct.pack("<BH", row, len(text)) + text for row, text in rows)


def metadata(
    tags: dict[int, bytes], sections: dict[int, bytes] | None = None, end: bytes = tag(255, b"")
) -> dict[str, str]:
    bodies = simple_bodies(COUNTS, leads=(2,)) | (sections or {})
    bodies[1] = b"".join(tag(number, value) for number, value in tags.items()) + end
    return dict(read_record(scp_bytes(bodies)).metadata)


def test_all_of_it() -> None:
    sections = {7: MEASURED, 8: statements([b"Sinus rhythm\0", b" Normal ECG\0"], 1)}
    assert metadata(TAGS, sections) == {
        "time": "2020-12-12T08:30:15",
        "age": "1.5",
        "sex": "female",
        "height_cm": "171.2",
        "weight_kg": "68.04",
        "device": "GE Healthcare MAC5",
        "filters": "0.05 to 150 Hz, notch 50 Hz",
        "statements": "Sinus rhythm\nNormal ECG",
        "confirmed_by": "Dr House",
        "heart_rate_bpm": "62",
        "pr_ms": "160",
        "qrs_ms": "90",
        "qt_ms": "380",
        "qtc_ms": "443",
        "p_axis_deg": "44",
        "qrs_axis_deg": "-61",
    }


def test_nothing_of_it() -> None:
    assert metadata({}) == metadata({25: bytes(4), 26: b"\xff\xff\xff", 8: b"\0"}) == {}


def test_the_age_follows_from_the_dates() -> None:
    assert metadata({number: TAGS[number] for number in (5, 25)})["age"] == "69"


def test_unconfirmed_statements_have_no_confirmer() -> None:
    assert "confirmed_by" not in metadata(TAGS, {8: statements([b"Sinus rhythm\0"])})


def test_coded_statements_serve_without_text() -> None:
    coded = statements([b"\1NSR\0CERT\0", b"\2free text\0"])
    assert metadata({}, {11: coded})["statements"] == "NSR CERT\nfree text"
    assert metadata({}, {8: statements([b"text\0"]), 11: coded})["statements"] == "text"


@pytest.mark.parametrize(
    ("language", "encoding"), [(0x00, "latin-1"), (0x13, "iso8859-5"), (0x37, "utf-8")]
)
def test_the_language_code_decides_on_the_letters(language: int, encoding: str) -> None:
    text = "Größe" if language != 0x13 else "Ритм"
    device = bytes(16) + bytes([language]) + bytes(20)
    sections = {8: statements([text.encode(encoding) + b"\0"])}
    assert metadata({14: device}, sections)["statements"] == text


def test_wrong_lengths_of_fixed_tags_are_corrected() -> None:
    wrong = b"\x08" + struct.pack("<H", 700) + b"\1" + tag(2, b"P-18\0")
    assert metadata({}, end=wrong + tag(255, b""))["sex"] == "male"
    with pytest.raises(RecordError) as caught:
        metadata({}, end=b"\x02" + struct.pack("<H", 700))
    assert caught.value.field == "tags of section 1"


def lead_measurements(codes: dict[int, int]) -> bytes:
    """Section 10: 26 measurements of each lead, of which the last one is its quality code."""
    leads = (struct.pack("<2H25HH", lead, 52, *[0] * 25, code) for lead, code in codes.items())
    return struct.pack("<2H", len(codes), 62) + b"".join(leads)


def test_quality_codes_of_the_leads() -> None:
    codes = {1: 0xC3FF, 2: 29999, 61: 0b10_01, 3: 1 << 10 | 2 << 12, 200: 2 << 8}
    stated = metadata(TAGS, {10: lead_measurements(codes)})["lead_quality"]
    assert stated.splitlines() == [
        "III: moderate mains noise",
        "III: severe saturation",
        "V1: electrode off",
        "lead 200: severe jumps",
    ]
    for stop in range(0, 100, 7):  # cut off
        metadata(TAGS, {10: lead_measurements(codes)[:stop]})


def test_statements_that_are_cut_off() -> None:
    cut = statements([b"first\0", b"second\0"])[:-9]
    assert metadata({}, {8: cut})["statements"].startswith("first")
