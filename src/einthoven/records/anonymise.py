"""Records without identities: only what has the form of a number, a code or a listed word stays."""

from __future__ import annotations

import re
from dataclasses import replace

from einthoven.records.metadata import KEYS, sex_of
from einthoven.records.record import Record

OLDEST = 90
"""Years; higher ages identify a patient, and are replaced by this one."""
_NUMBERS = tuple(key for key in KEYS if key.endswith(("_bpm", "_ms", "_deg", "_cm", "_kg", "_s")))
_NUMBER = re.compile(r"-?\d{1,5}(\.\d{1,6})?")
_FILTERS = re.compile(r"[\d. ]+(to [\d. ]+)?Hz(, notch [\d.]+ Hz)?|notch [\d.]+ Hz")
_CODES = re.compile(r"\d{6,9}([,\s]+\d{6,9})*")  # SNOMED CT, under `Dx`
_LEAD = re.compile(r"-?[A-Za-z]{1,3}\d{0,2}R?(-cal)?|ECG\d*")


def anonymised(record: Record) -> Record:
    """Record without name, patient, source and everything that may identify a patient.

    Of the metadata, only what has the form of a number, a code or a word of a closed list is kept.
    """
    given = {key.lower(): value.strip() for key, value in record.metadata.items()}
    kept = {key: given[key] for key in _NUMBERS if _NUMBER.fullmatch(given.get(key, ""))}
    if _NUMBER.fullmatch(given.get("age", "")):
        kept["age"] = str(OLDEST) if float(given["age"]) >= OLDEST else given["age"]
    if sex_of(given.get("sex", "")):
        kept["sex"] = sex_of(given["sex"])
    for key, form in {"filters": _FILTERS, "Dx": _CODES}.items():
        if form.fullmatch(given.get(key.lower(), "")):
            kept[key] = given[key.lower()]
    leads = [
        lead if _LEAD.fullmatch(lead) else f"lead{place}"
        for place, lead in enumerate(record.leads, 1)
    ]
    return replace(
        record,
        leads=tuple(leads),
        name="anonymous",
        patient=None,
        source="",
        source_hash="",
        metadata=kept,
    )
