"""The 71 SCP-ECG statements of PTB-XL, the simulated ones, and their combinations."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

from einthoven.cohorts.synthetic.signs import INFARCTIONS, SIGNS
from einthoven.errors import CohortError

STATEMENTS_FILE = Path(__file__).with_name("scp_statements.csv")
"""The table that every synthetic cohort has, in PTB-XL's columns."""

with STATEMENTS_FILE.open(encoding="utf-8", newline="") as _file:
    STATEMENTS = {row[""]: row for row in csv.DictReader(_file)}

# Exactly one of these is the rhythm of a record.
RHYTHMS = ("SR", "SBRAD", "STACH", "SARRH", "AFIB", "AFLT", "PACE")
_ECTOPY = ("PVC", "PAC", "BIGU")
_BEATS = tuple(SIGNS)

# Pairs (left, right): no code on the left occurs with another code on the right.
_EXCLUSIVE: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (RHYTHMS, RHYTHMS),
    (("NORM",), (*_BEATS, *_ECTOPY, "HVOLT", "STACH", "AFIB", "AFLT", "PACE")),
    (("PACE",), (*_BEATS, *_ECTOPY, "HVOLT")),
    (("AFIB", "AFLT"), ("1AVB", "LAO/LAE", "WPW", "PAC", "BIGU")),
    (("PVC",), ("PAC", "AFLT")),
    (("STACH",), ("1AVB", "LNGQT", "BIGU")),
    (("SARRH",), ("BIGU",)),
    (("LVH", "HVOLT", "LVOLT"), ("LVH", "HVOLT", "LVOLT")),
    (("LVOLT",), ("PVC", "BIGU", "CLBBB", "WPW")),
    (("CLBBB", "WPW"), tuple(code for code in _BEATS if code not in ("1AVB", "LAO/LAE"))),
    (("WPW",), ("1AVB", "LAO/LAE")),
    (("CRBBB", "IRBBB"), ("CRBBB", "IRBBB", "LVH", "AMI", "ABQRS", "QWAVE")),
    (("LAFB",), ("IMI", "AMI", "IRBBB", "QWAVE", "ABQRS")),
    (("ABQRS",), ("ASMI", "IMI", "AMI", "QWAVE")),
    (("AMI",), ("ASMI", "IMI")),
    (
        ("ISC_", "ISCAL", "STD_", "INVT", "NDT", "LNGQT"),
        ("ISC_", "ISCAL", "STD_", "INVT", "NDT", "LNGQT", "LVH", "CRBBB", "ASMI", "IMI", "AMI"),
    ),
)


def statements_made() -> tuple[str, ...]:
    """SCP codes that the simulator can produce, sorted by code point."""
    return tuple(sorted({"NORM", "HVOLT", *RHYTHMS, *_ECTOPY, *_BEATS}))


def compatible(codes: Collection[str]) -> bool:
    """Whether statements can be true of one ECG."""
    return _contradiction(frozenset(codes)) is None


def _contradiction(codes: frozenset[str]) -> tuple[str, str] | None:
    if codes.intersection(INFARCTIONS):
        codes -= {"QWAVE"}  # implied by the infarction, with the same exclusions
    for left, right in _EXCLUSIVE:
        for one in sorted(codes.intersection(left)):
            for other in sorted(codes.intersection(right) - {one}):
                return one, other
    return None


def completed(codes: Collection[str]) -> tuple[str, ...]:
    """Statements with those that follow from them, the diagnoses first, the rhythm last.

    A rhythm is added if there is none, PVC to a bigeminy of unknown kind, QWAVE to an infarction.
    """
    full = set(codes)
    if not full.intersection(RHYTHMS):
        full.add("SR")
    if "BIGU" in full and not full & {"PVC", "PAC"}:
        full.add("PVC")
    if full.intersection(INFARCTIONS):
        full.add("QWAVE")
    return tuple(code for code in STATEMENTS if code in full)


def consistent(codes: Collection[str]) -> tuple[str, ...]:
    """Check statements and complete them.

    Raises
    ------
    CohortError
        For a code that cannot be made, or two that exclude each other.
    """
    unknown = sorted(set(codes) - set(statements_made()))
    if unknown:
        raise CohortError(
            f"statement {unknown[0]!r} cannot be simulated",
            remedy=f"choose among: {' '.join(statements_made())}",
        )
    clash = _contradiction(frozenset(codes))
    if clash:
        raise CohortError(
            f"statements {clash[0]} and {clash[1]} cannot be true of one ECG",
            remedy="leave one of them out",
        )
    return completed(codes)
