"""Leakage: which records weights have seen, and whether a test split is among them.

Weights keep 48-bit fingerprints of the records that they have seen in pretraining, in training
with labels and in validation. Signals are fingerprinted by content, record ids and patients by
name. Names are compared within one data set only: all copies of a known data set, or the tables of
one folder.

The fingerprints in a weights file only show whether a given recording was seen. Patients of a
user's own tables could be guessed from hashes of their numbers, so their fingerprints stay in
`seen.json` of the run folder.
"""

from __future__ import annotations

import base64
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from einthoven.cohorts.cohort import UNLABELLED, Cohort
from einthoven.errors import CohortError
from einthoven.files import Json, read_json, read_metadata, write_json
from einthoven.models import weights_file
from einthoven.stages.fingerprint import BITS, fingerprint, signal_fingerprints
from einthoven.stages.pretraining_data import Member
from einthoven.weights.public import data_on_cohort, public_data

SEEN = "seen.json"
FINGERPRINTS, ALLOWED = "seen", "allowed_overlap"  # keys of the metadata of a weights file
PRETRAINING, TRAINING, VALIDATION = "pretraining", "training", "validation"
USES = {
    PRETRAINING: "in pretraining",
    TRAINING: "in training with labels",
    VALIDATION: "in validation, which chose the epoch",
}
WAYS = ("signal", "record id", "patient")
_STORED = ("signals", "patients", "own_patients")
_OWN = "unversioned"  # version of a cohort from a user's own table
Numbers = NDArray[np.uint64]


class LeakageWarning(UserWarning):
    """Weights are tested on records that they have seen, or may have seen."""


@dataclass(frozen=True)
class Leakage:
    """Records of a split that weights have seen.

    Attributes
    ----------
    cohort, split : str
        Names of the cohort and of its split.
    records : int
        Number of records in the split.
    found : dict of str to tuple of str
        Ids of the records found, by way (`WAYS`).
    uses : dict of str to int
        Number of records found, by use; empty if all were seen in pretraining only.
    """

    cohort: str
    records: int
    found: dict[str, tuple[str, ...]]
    uses: dict[str, int] = field(default_factory=dict)
    split: str = "test"

    @property
    def ids(self) -> list[str]:
        """Records found in any way."""
        return sorted({name for names in self.found.values() for name in names})

    def __str__(self) -> str:
        ways = ", ".join(f"{len(ids):,} by {way}" for way, ids in self.found.items() if ids)
        examples = ", ".join(repr(name) for name in self.ids[:3])
        uses = ", ".join(f"{count:,} {use}" for use, count in self.uses.items() if count)
        return (
            f"{len(self.ids):,} of the {self.records:,} {self.split} records of {self.cohort} "
            f"({ways}), such as {examples}" + (f": {uses}" if uses else "")
        )

    def to_dict(self) -> Json:
        """Counts, for run folders and metadata."""
        counts = {f"by {way}": len(ids) for way, ids in self.found.items()}
        total = {f"{self.split} records": self.records, "seen": len(self.ids)}
        return {"cohort": self.cohort} | total | counts | self.uses


@dataclass(frozen=True, eq=False)
class Seen:
    """Fingerprints of the records that weights have seen in one use.

    Attributes
    ----------
    use : str
        Key of `USES`.
    leads : tuple of str
        Leads that the fingerprints of signals are computed from.
    signals, patients, own_patients, records : numpy.ndarray
        Sorted uint64. Fingerprints of record ids are used when pretraining begins and not stored.
    """

    use: str
    leads: tuple[str, ...]
    signals: Numbers
    patients: Numbers
    own_patients: Numbers = field(default_factory=lambda: _sorted([]))
    records: Numbers = field(default_factory=lambda: _sorted([]))

    @classmethod
    def of(
        cls,
        members: Sequence[Member],
        leads: Sequence[str],
        *,
        split: str = "train",
        use: str = PRETRAINING,
    ) -> Seen:
        """Fingerprints of a split of cohorts."""
        signals: list[int] = []
        records: list[int] = []
        patients: dict[bool, list[int]] = {True: [], False: []}
        for cohort, store in members:
            ids = cohort.ids(split)
            signals += signal_fingerprints(store, store.rows(ids), leads).tolist()
            records += _names(cohort, "record", ids)
            patients[cohort.version == _OWN] += _names(cohort, "patient", cohort.patients(split))
        numbers = (signals, patients[False], patients[True], records)
        return cls(use, tuple(leads), *map(_sorted, numbers))

    def merged(self, other: Seen) -> Seen:
        """Union with fingerprints of the same use and leads."""
        kinds = (*_STORED, "records")
        union = {kind: np.union1d(getattr(self, kind), getattr(other, kind)) for kind in kinds}
        return Seen(self.use, self.leads, **union)

    def to_dict(self, *, private: bool = False) -> Json:
        """Plain values; `private` adds patients of own tables, for the run folder."""
        kinds = _STORED if private else _STORED[:2]
        packed = {kind: _packed(getattr(self, kind)) for kind in kinds}
        return {"uses": [self.use], "leads": list(self.leads)} | packed

    @classmethod
    def from_dict(cls, table: Json) -> list[Seen]:
        """Read the output of `to_dict`."""
        numbers = {kind: _unpacked(table[kind]) for kind in _STORED if kind in table}
        return [cls(use, tuple(table["leads"]), **numbers) for use in table["uses"]]


def merge(parts: Iterable[Seen]) -> list[Seen]:
    """Merge fingerprints into one part for every use and set of leads."""
    merged: dict[tuple[str, tuple[str, ...]], Seen] = {}
    for part in parts:
        key = part.use, part.leads
        merged[key] = merged[key].merged(part) if key in merged else part
    return list(merged.values())


def read_seen(weights: str | Path) -> list[Seen]:
    """Read the fingerprints in a weights file or model; public checkpoints have none.

    Those of own patients are added while the file is in its run folder.
    """
    file = weights_file(weights)
    tables = json.loads(read_metadata(file).get(FINGERPRINTS, "[]"))
    for folder in list(file.resolve().parents)[:3]:
        private = read_json(folder / SEEN) if tables and (folder / SEEN).is_file() else []
        pairs = zip(private, tables, strict=False)
        if len(private) == len(tables) and all(a.items() >= b.items() for a, b in pairs):
            tables = private
    return merge(part for table in tables for part in Seen.from_dict(table))


def write_seen(folder: Path, seen: Sequence[Seen]) -> None:
    """Write `seen.json` of a run folder."""
    write_json(folder / SEEN, [part.to_dict(private=True) for part in seen])


def seen_metadata(
    seen: Sequence[Seen],
    allowed: Sequence[Mapping[str, Any]] = (),
    *,
    weights: str | Path | None = None,
) -> dict[str, str]:
    """Metadata of a weights file: the records seen, and leakage that was allowed.

    Parameters
    ----------
    seen : sequence of Seen
    allowed : sequence of mapping
        `Leakage.to_dict` of what is allowed now.
    weights : path, optional
        Initial weights; what was allowed for them is included.
    """
    metadata = {FINGERPRINTS: json.dumps([part.to_dict() for part in seen], sort_keys=True)}
    before = _allowed(weights) if weights is not None else []
    every = before + [dict(leakage) for leakage in allowed if leakage not in before]
    return metadata | ({ALLOWED: json.dumps(every)} if every else {})


def seen_in_training(member: Member, weights: str | Path | None = None) -> list[Seen]:
    """Fingerprints of what weights have seen after training on a labelled cohort.

    Parameters
    ----------
    member : (Cohort, Store)
        Its training and validation records count, except quarantined ones.
    weights : path, optional
        Initial weights, whose fingerprints are included. Their leads are used if the store has
        them.
    """
    cohort, store = member
    usable = cohort.select(store.without_quarantined(cohort.ids()))
    before = read_seen(weights) if weights is not None else []
    known = (part.leads for part in before if set(part.leads) <= set(store.leads))
    leads = next(known, tuple(sorted(store.leads)))
    splits = {TRAINING: "train", VALIDATION: "validation"}
    now = [Seen.of([(usable, store)], leads, split=split, use=use) for use, split in splits.items()]
    return merge([*before, *now])


def find_leakage(seen: Sequence[Seen], member: Member, split: str = "test") -> Leakage | None:
    """Find the records of a cohort's split that were seen; None if there are none."""
    cohort, _ = member
    ids = cohort.ids(split)
    records = np.asarray(_names(cohort, "record", ids), dtype=np.uint64)
    patients = np.asarray(_names(cohort, "patient", cohort.patients(split)), dtype=np.uint64)
    signals = {leads: _signals(member, ids, leads) for leads in {part.leads for part in seen}}
    hits = np.zeros((len(USES), len(WAYS), len(ids)), dtype=bool)
    for part in seen:
        known = np.union1d(part.patients, part.own_patients)
        numbers = signals[part.leads]
        hits[list(USES).index(part.use)] |= (
            np.isin(numbers, part.signals) & (numbers != 0),
            np.isin(records, part.records),
            np.isin(patients, known),
        )
    if not hits.any():
        return None
    by_way = {
        way: tuple(map(str, ids[hits[:, index].any(axis=0)])) for index, way in enumerate(WAYS)
    }
    by_use = {text: int(hits[index].any(axis=0).sum()) for index, text in enumerate(USES.values())}
    only_pretraining = all(part.use == PRETRAINING for part in seen)
    return Leakage(cohort.name, len(ids), by_way, {} if only_pretraining else by_use, split)


def check_pretraining_records(
    members: Sequence[Member], *, protect: Sequence[Member] = (), allow: Sequence[str] = ()
) -> tuple[Seen, list[Leakage]]:
    """Refuse to pretrain on records of test splits.

    The test splits of the members themselves are protected where they have labels.

    Parameters
    ----------
    members : sequence of (Cohort, Store)
        Pretraining data.
    protect : sequence of (Cohort, Store)
        Other cohorts whose test splits are protected.
    allow : sequence of str
        Names of cohorts whose test splits may be used.

    Returns
    -------
    Seen
        Fingerprints of the pretraining records.
    list of Leakage
        Leakage that was allowed.

    Raises
    ------
    CohortError
        If a protected split is used without permission, or an allowed name is unknown.
    """
    protected = [member for member in members if member[0].task != UNLABELLED] + list(protect)
    names = {cohort.name for cohort, _ in [*members, *protect]}
    empty = [cohort.name for cohort, _ in protect if not len(cohort.ids("test"))]
    if empty:
        raise CohortError(
            f"{', '.join(empty)} has no test split that could be protected",
            remedy="mark its records with `split` = test in a table",
        )
    unknown = sorted(set(allow) - names)
    if unknown:
        raise CohortError(
            f"overlap with {', '.join(unknown)} is allowed, but no such test split is protected",
            remedy=f"choose among {', '.join(sorted(names))}",
        )
    seen = Seen.of(members, _common_leads(members, protected))
    found = [leakage for member in protected if (leakage := find_leakage([seen], member))]
    refused = [leakage for leakage in found if leakage.cohort not in allow]
    if refused:
        raise CohortError(
            f"pretraining would use {'; and '.join(map(str, refused))}",
            remedy="leave these records and patients out, or accept that results on that test "
            "split are optimistically biased, with "
            + " ".join(f"--allow-overlap {leakage.cohort}" for leakage in refused),
        )
    return seen, found


def check_initial_weights(
    weights: str | Path | None, member: Member, *, allow: bool = False
) -> Json | None:
    """Refuse initial weights that have seen records of the cohort's test split.

    If it was allowed, in pretraining or now, warn instead.

    Returns
    -------
    dict or None
        Leakage, for run.json.

    Raises
    ------
    CohortError
        If test records were seen and it was not allowed.
    """
    leakage = find_leakage(read_seen(weights), member) if weights is not None else None
    if weights is None or leakage is None:
        return None
    known = any(entry["cohort"] == leakage.cohort for entry in _allowed(weights))
    message = f"{weights} {'has seen' if leakage.uses else 'was pretrained on'} {leakage}"
    if not known and not allow:
        raise CohortError(
            message,
            remedy="use another encoder or other folds, or record the overlap in the run with "
            "--allow-overlap",
        )
    permission = " (allowed in pretraining)" if known else ""
    warnings.warn(
        f"{message}{permission}; results on this test split are optimistically biased",
        LeakageWarning,
        stacklevel=2,
    )
    return leakage.to_dict()


def check_scored(model: str | Path, member: Member, split: str = "test") -> Json | None:
    """Warn if a model has seen records of the split that it is scored on.

    Returns
    -------
    dict or None
        Leakage, to be kept with the score.
    """
    leakage = find_leakage(read_seen(model), member, split)
    if leakage is None:
        return None
    warnings.warn(
        f"{model} has seen {leakage}; scores on this split are optimistically biased",
        LeakageWarning,
        stacklevel=2,
    )
    return leakage.to_dict()


def check_public_weights(backbone: str, weights: str | Path | None, cohort: Cohort) -> Json | None:
    """Warn if public weights were, or may have been, pretrained on the cohort.

    The information is in the weights file or in the catalogue (`einthoven.weights.public`).

    Returns
    -------
    dict or None
        `data_on_cohort`, for run.json; None if the weights are not public.
    """
    data = None if weights is None else public_data(backbone, weights)
    if data is None:
        return None
    data = data_on_cohort(data, cohort.name)
    if "warning" in data:
        warnings.warn(data["warning"], LeakageWarning, stacklevel=2)
    return data


def check_duplicates(member: Member, *, allow: bool = False) -> None:
    """Refuse a cohort with one recording in two splits, under two names and of two patients.

    Raises
    ------
    CohortError
        If there is one and it is not allowed; if it is allowed, warn.
    """
    cohort, store = member
    numbers = signal_fingerprints(store, store.rows(cohort.ids()), store.leads)
    table = pd.DataFrame({"signal": numbers, "split": cohort.table["split"].to_numpy()})
    table.index = pd.Index(cohort.ids())
    table = table[table["signal"] != 0]
    twice = table[table.groupby("signal")["split"].transform("nunique") > 1].sort_values("signal")
    if twice.empty:
        return
    same = twice[twice["signal"] == twice["signal"].iloc[0]]
    examples = " and ".join(f"{name!r} ({split})" for name, split in same["split"].items())
    message = (
        f"{cohort.name}: {twice['signal'].nunique()} recordings are in more than one split, "
        f"such as {examples}, which are equal in every sample"
    )
    if not allow:
        old = (cohort.name, cohort.version) == ("ptb-xl", "1.0.1")
        raise CohortError(
            message,
            remedy="leave one of each out, give both the same patient"
            + (", use PTB-XL 1.0.3, which removed some," if old else "")
            + " or pass --allow-overlap",
        )
    warnings.warn(f"{message}; results are optimistically biased", LeakageWarning, stacklevel=3)


def _allowed(weights: str | Path) -> list[Json]:
    allowed: list[Json] = json.loads(read_metadata(weights_file(weights)).get(ALLOWED, "[]"))
    return allowed


def _common_leads(members: Sequence[Member], protected: Sequence[Member]) -> list[str]:
    """Leads that all stores have; those of the members if a protected store shares none."""
    common = set.intersection(*(set(store.leads) for _, store in members))
    for _, store in protected:
        common = common & set(store.leads) or common
    return sorted(common)


def _signals(member: Member, ids: NDArray[np.str_], leads: Sequence[str]) -> Numbers:
    """Fingerprints of records; 0 if a record is quarantined or its store lacks a lead."""
    _, store = member
    numbers = np.zeros(len(ids), dtype=np.uint64)
    if set(leads) <= set(store.leads):
        packed = store.without_quarantined(ids)
        numbers[packed] = signal_fingerprints(store, store.rows(ids[packed]), leads)
    return numbers


def _names(cohort: Cohort, kind: str, names: NDArray[np.str_]) -> list[int]:
    """Fingerprints of names within the data set that they belong to."""
    space = str(cohort.root.resolve()) if cohort.version == _OWN else cohort.name
    return [fingerprint(space, kind, name) for name in names]


def _sorted(numbers: Sequence[int]) -> Numbers:
    return np.unique(np.asarray(numbers, dtype=np.uint64))


def _packed(numbers: Numbers) -> str:
    """Base64 of the big-endian low 48 bits."""
    content = numbers.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 8 - BITS // 8 :]
    return base64.b64encode(content.tobytes()).decode()


def _unpacked(text: str) -> Numbers:
    content = np.frombuffer(base64.b64decode(text), dtype=np.uint8).reshape(-1, BITS // 8)
    whole = np.zeros((len(content), 8), dtype=np.uint8)
    whole[:, 8 - BITS // 8 :] = content
    return whole.view(">u8").ravel().astype(np.uint64)
