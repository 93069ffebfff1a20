"""Numbers of leads in SCP-ECG, which DICOM and ISO/IEEE 11073 (MDC) use as well, and their names.

Sources: EN 1064 / ISO 11073-91064, table of lead identifications; DICOM PS3.16, CID 3001.
"""

from __future__ import annotations

import re

LEADS = {
    1: "I",
    2: "II",
    **{number: f"V{number - 2}" for number in range(3, 10)},
    **{number: f"V{number - 8}R" for number in range(10, 16)},
    16: "X",
    17: "Y",
    18: "Z",
    19: "CC5",
    20: "CM5",
    # Computed from other electrodes, such as EASI: not the leads of these names.
    31: "I-cal",
    32: "II-cal",
    **{number: f"V{number - 32}-cal" for number in range(33, 39)},
    61: "III",
    62: "aVR",
    63: "aVL",
    64: "aVF",
    65: "-aVR",
    66: "V8",
    67: "V9",
    68: "V8R",
    69: "V9R",
    70: "D",  # Nehb's three
    71: "A",
    72: "J",
    91: "MCL",
    **{number: f"MCL{number - 91}" for number in range(92, 98)},
    111: "III-cal",
    112: "aVR-cal",
    113: "aVL-cal",
    114: "aVF-cal",
    131: "ES",  # EASI
    132: "AS",
    133: "AI",
}
"""Name of a lead by its number."""

_NUMBERS = {name: number for number, name in LEADS.items()}
_CODE = re.compile(r"(?:5\.6\.3-9-|2: ?)(\d{1,3})")
_MDC_PARTITION = 2 << 16  # 131073 is 2:1
_PREFIX = re.compile(
    r"(?:mdc_ecg_lead_|(?:ecg|ekg|lead|derived)(?:[\s:_]|-(?!aVR))*)*", re.IGNORECASE
)
_PLAIN = {
    name.lower(): name
    for name in LEADS.values()
    if re.fullmatch(r"I{1,3}|aV[RLF]|-aVR|V\d[R]?", name)
}


def lead_number(name: str) -> int | None:
    """Number of a lead in its standard spelling; None for one without a number."""
    return _NUMBERS.get(name)


def lead_of_code(code: str) -> str | None:
    """Lead of a code of SCP-ECG (`5.6.3-9-1`) or MDC (`2:1`, `131073`); None if it is none."""
    match = _CODE.fullmatch(code)
    if match:
        return LEADS.get(int(match[1]))
    if code.isascii() and code.isdigit() and len(code) == len(str(_MDC_PARTITION)):
        return LEADS.get(int(code) - _MDC_PARTITION)
    return None


def lead_of_text(text: str) -> str | None:
    """Lead of a text such as `Lead I (Einthoven)`, `aVR, augmented voltage, right` or `V1`.

    Only names that mean an ECG lead everywhere count: an `X` or `A` may be anything.
    """
    prefix = _PREFIX.match(text)
    begin = prefix.end() if prefix else 0
    name = re.split(r"[(,]", text[begin:])[0].strip().replace("\N{MINUS SIGN}", "-").lower()
    lead = _PLAIN.get(name)
    return f"{lead}-cal" if lead and "derived" in text[:begin].lower() else lead
