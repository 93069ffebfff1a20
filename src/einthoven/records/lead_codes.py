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

_LIMB = {"i", "ii", "iii", "avr", "avl", "avf"}
_LEAD = re.compile(r"(ml)?(i{1,3}|v\d{1,2}r?)|c\d{1,2}r|mcl\d?r?|c[cm]5|av[rlf]")
_INVERSION = re.compile(
    r"\b(inv(ert\w*|ers\w*)?|neg(ative|ated)?|revers\w*|flip\w*|minus)\b|[(\[]\s*-\s*[)\]]"
)


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

    Only names that mean an ECG lead everywhere count: an `X` or `A` may be anything. A text whose
    further words name another lead or an inversion, such as `V4 (V4R)` or `I (inv)`, is a lead of
    that whole name, and not `V4` or `I`.
    """
    prefix = _PREFIX.match(text)
    begin = prefix.end() if prefix else 0
    name, *further = re.split(r"(?=[(\[,])", text[begin:], maxsplit=1)
    lead = _PLAIN.get(_plain(name))
    if lead and further and _is_another(lead, further[0]):
        return text[begin:].strip()
    return f"{lead}-cal" if lead and "derived" in text[:begin].lower() else lead


def _plain(name: str) -> str:
    return name.strip().replace("\N{MINUS SIGN}", "-").lower()


def _is_another(lead: str, further: str) -> bool:
    """Whether words behind the name of a lead name another one or an inversion.

    Two limb leads behind a third are its formula: `III (II - I)`.
    """
    words = _plain(further)
    terms = set(re.findall(r"-?[a-z]\w*", words))
    others = {word.lstrip("-") for word in terms if _LEAD.fullmatch(word.lstrip("-"))}
    others -= {lead.lower()}
    if len(others) > 1 and {lead.lower(), *others} <= _LIMB:
        return False
    inverted = f"-{lead.lower()}" in terms or _INVERSION.search(words) is not None
    return bool(others) or inverted
