"""Records without identities: only what has the form of a number, a code or a listed word stays."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from einthoven.records.lead_codes import LEADS
from einthoven.records.metadata import KEYS, lead_faults, sex_of
from einthoven.records.record import Record

OLDEST = 90
"""Years; higher ages identify a patient, and are replaced by this one."""
_AGES = (0.0, 120.0)
ABOVE_89 = 300  # years, as PTB-XL writes them
_RANGES = {
    "_bpm": (0.0, 400.0),
    "_ms": (0.0, 1000.0),
    "_deg": (-360.0, 360.0),
    "_cm": (20.0, 250.0),
    "_kg": (0.3, 400.0),
}
"""Plausible numbers by the unit of their key: any other may be an identifier or a date."""
_NUMBER = re.compile(r"-?\d{1,4}(\.\d{1,3})?")
_HZ = r"\d{1,3}(\.\d{1,3})?"
_FILTERS = re.compile(
    rf"((above|below) )?{_HZ} Hz(, notch {_HZ} Hz)?|{_HZ} to {_HZ} Hz(, notch {_HZ} Hz)?"
    rf"|notch {_HZ} Hz"
)
_LEADS = {name.lower() for name in LEADS.values()} | {
    *("mli", "mlii", "mliii", "vx", "vy", "vz", "v1r", "-i", "-iii", "ecg"),
    *(f"ecg{number}" for number in range(13)),
}


def age_without_identity(text: str) -> float | None:
    """Age in years, at most `OLDEST`; None for a text that is no plausible age."""
    age = float(text) if _NUMBER.fullmatch(text) else -1.0
    return min(age, OLDEST) if _AGES[0] <= age <= _AGES[1] or age == ABOVE_89 else None


def codes_of(record: Record) -> list[str]:
    """Codes under `Dx`, with any other words that the record has there."""
    texts = [value for key, value in record.metadata.items() if key.lower() == "dx"]
    return [code for text in texts for code in re.split(r"[,\s]+", text) if code]


def anonymised(record: Record, codes: Collection[str]) -> Record:
    """Record without name, patient, source and everything that may identify a patient.

    Three kinds of metadata stay: plausible numbers, words of closed lists and, under `Dx`, the
    SNOMED CT codes that are in `codes`.
    """
    texts = {key.lower(): value.strip() for key, value in record.metadata.items()}
    metadata = {key: texts[key] for key in KEYS if _is_plausible(key, texts.get(key, ""))}
    age = age_without_identity(texts.get("age", ""))
    if age is not None:
        metadata["age"] = f"{age:g}"
    if sex_of(texts.get("sex", "")):
        metadata["sex"] = sex_of(texts["sex"])
    if _FILTERS.fullmatch(texts.get("filters", "")):
        metadata["filters"] = texts["filters"]
    faults = [x for x in lead_faults(texts.get("lead_quality", "")) if x.lead.lower() in _LEADS]
    if faults:
        metadata["lead_quality"] = "\n".join(f"{fault.lead}: {fault.text}" for fault in faults)
    if diagnoses := [code for code in codes_of(record) if code in codes]:
        metadata["Dx"] = ",".join(diagnoses)
    leads = [
        lead if lead.lower() in _LEADS else f"lead{place}"
        for place, lead in enumerate(record.leads, 1)
    ]
    return replace(
        record,
        leads=tuple(leads),
        name="anonymous",
        patient=None,
        source="",
        source_hash="",
        metadata=metadata,
    )


def _is_plausible(key: str, text: str) -> bool:
    """Whether a text is a plausible number of the unit of its key."""
    low, high = next((limits for unit, limits in _RANGES.items() if key.endswith(unit)), (1.0, 0.0))
    return bool(_NUMBER.fullmatch(text)) and low <= float(text) <= high
