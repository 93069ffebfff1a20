"""Which records an encoder has seen, compactly: sorted 48-bit fingerprints.

Signals are told by their content, record ids and patients by hashes of their names. Names mean
something within one data set only: those of a known data set are compared with those of its other
copies, those of own tables with those of tables in the same folder.

What travels in an encoder's file tells whether somebody who has a recording finds it there, and
nothing else. Patients of own tables are not in it: their numbers could be guessed from hashes.
They are in `seen.json` of the run folder, which stays with its owner.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.cohorts.cohort import Cohort
from einthoven.files import write_json
from einthoven.signals.fingerprint import BITS, fingerprint, signal_fingerprints
from einthoven.signals.store import Store
from einthoven.stages.pretraining_data import Member

SEEN = "seen.json"
_OWN = "unversioned"
Fingerprints = NDArray[np.uint64]


@dataclass(frozen=True)
class Overlap:
    """Records of a split, the test split as a rule, that an encoder has seen.

    Attributes
    ----------
    cohort : str
        Whose split.
    records : int
        Records in it.
    found : dict of str to tuple of str
        Ids of the records found by `signal`, by `record id` and by `patient`.
    uses : dict of str to int
        How many were seen in which use (`einthoven.stages.memory.USES`); empty where all that was
        seen was seen in pretraining.
    split : str
        Its name.
    """

    cohort: str
    records: int
    found: dict[str, tuple[str, ...]]
    uses: dict[str, int] = field(default_factory=dict)
    split: str = "test"

    @property
    def ids(self) -> list[str]:
        """Records that were found in any way."""
        return sorted({name for names in self.found.values() for name in names})

    def __str__(self) -> str:
        ways = ", ".join(f"{len(ids):,} by {way}" for way, ids in self.found.items() if ids)
        named = ", ".join(repr(name) for name in self.ids[:3])
        uses = ", ".join(f"{count:,} {use}" for use, count in self.uses.items() if count)
        return (
            f"{len(self.ids):,} of the {self.records:,} {self.split} records of {self.cohort} "
            f"({ways}), such as {named}" + (f": {uses}" if uses else "")
        )

    def to_dict(self) -> dict[str, object]:
        """Counts and examples, for run folders and metadata."""
        counts = {f"by {way}": len(ids) for way, ids in self.found.items()}
        whole = {
            "cohort": self.cohort,
            f"{self.split} records": self.records,
            "seen": len(self.ids),
        }
        return whole | counts | self.uses


@dataclass(frozen=True, eq=False)
class Seen:
    """Fingerprints of the records that a training reads.

    Attributes
    ----------
    leads : tuple of str
        Leads whose samples the signals' fingerprints are made of.
    signals, records, patients, own_patients : numpy.ndarray
        Sorted uint64. Record ids are known while pretraining begins, and not kept.
    """

    leads: tuple[str, ...]
    signals: Fingerprints
    patients: Fingerprints
    own_patients: Fingerprints = field(default_factory=lambda: _sorted([]))
    records: Fingerprints = field(default_factory=lambda: _sorted([]))

    @classmethod
    def of(cls, members: Sequence[Member], leads: Sequence[str], split: str = "train") -> Seen:
        """The records of a split of cohorts, by the content of some leads."""
        signals: list[Fingerprints] = []
        records: list[int] = []
        public: list[int] = []
        own: list[int] = []
        for cohort, store in members:
            ids = cohort.ids(split)
            signals.append(signal_fingerprints(store, store.rows(ids), leads))
            records += _named(cohort, "record", ids)
            kept = own if cohort.version == _OWN else public
            kept += _named(cohort, "patient", cohort.patients(split))
        return cls(
            tuple(leads),
            signals=_sorted(np.concatenate(signals)),
            patients=_sorted(public),
            own_patients=_sorted(own),
            records=_sorted(records),
        )

    def meets(self, member: Member, split: str = "test") -> Overlap | None:
        """The records of a cohort's split that were seen; None when none was."""
        cohort, store = member
        ids = cohort.ids(split)
        packed = store.without_quarantined(ids)
        people = _named(cohort, "patient", cohort.patients(split))
        known_people = np.union1d(self.patients, self.own_patients)
        found = {
            "signal": ids[packed][self._known_signals(store, ids[packed])],
            "record id": ids[_among(_named(cohort, "record", ids), self.records)],
            "patient": ids[_among(people, known_people)],
        }
        if not any(map(len, found.values())):
            return None
        named = {way: tuple(map(str, names)) for way, names in found.items()}
        return Overlap(cohort.name, len(ids), named, split=split)

    def to_text(self) -> str:
        """For an encoder's metadata."""
        return json.dumps(self.table(), sort_keys=True)

    def write(self, folder: Path) -> None:
        """For the run folder, with patients of own tables."""
        write_json(folder / SEEN, self.whole_table())

    def table(self) -> dict[str, object]:
        """What may travel with weights, ready for JSON."""
        return {
            "leads": list(self.leads),
            "signals": _packed(self.signals),
            "patients": _packed(self.patients),
        }

    def whole_table(self) -> dict[str, object]:
        """The same with patients of own tables, which stays in a run folder."""
        return self.table() | {"own_patients": _packed(self.own_patients)}

    @classmethod
    def of_table(cls, table: Mapping[str, Any]) -> Seen:
        """What `table` or `whole_table` gave."""
        kinds = ("signals", "patients", "own_patients")
        numbers = {key: _unpacked(table[key]) for key in kinds if key in table}
        return cls(tuple(table["leads"]), **numbers)

    def _known_signals(self, store: Store, ids: NDArray[np.str_]) -> NDArray[np.bool_]:
        if not set(self.leads) <= set(store.leads):  # not comparable: names have to do
            return np.zeros(len(ids), dtype=bool)
        return _among(signal_fingerprints(store, store.rows(ids), self.leads), self.signals)


def _named(cohort: Cohort, kind: str, names: NDArray[np.str_]) -> list[int]:
    """Fingerprints of names, in the space where they mean something."""
    space = str(cohort.root.resolve()) if cohort.version == _OWN else cohort.name
    return [fingerprint(space, kind, name) for name in names]


def _among(numbers: Sequence[int] | Fingerprints, known: Fingerprints) -> NDArray[np.bool_]:
    values = np.asarray(numbers, dtype=np.uint64)
    found: NDArray[np.bool_] = np.isin(values, known) & (values != 0)
    return found


def _sorted(numbers: Sequence[int] | Fingerprints) -> Fingerprints:
    return np.unique(np.asarray(numbers, dtype=np.uint64))


def _packed(numbers: Fingerprints) -> str:
    """Big-endian, without the bytes that are always zero, as base64."""
    content = numbers.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - BITS // 8 :]
    return base64.b64encode(content.tobytes()).decode()


def _unpacked(text: str) -> Fingerprints:
    content = np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(-1, BITS // 8)
    whole = np.zeros((len(content), 8), dtype=np.uint8)
    whole[:, 8 - BITS // 8 :] = content
    return whole.view(">u8").ravel().astype(np.uint64)
