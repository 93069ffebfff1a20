"""Leakage: which records weights have seen, and whether a test split is among them.

Weights keep 48-bit fingerprints of the records that they have seen in pretraining, in training
with labels and in validation. Signals are fingerprinted by content, record ids and patients by
name. Names are compared within one data set only: all copies of a known data set, or the tables of
one folder.

The fingerprints in a weights file only show whether a given recording was seen. Patients of a
user's own tables could be guessed from hashes of their numbers, so their fingerprints stay in
`leakage.json` of the run folder.
"""

from __future__ import annotations

import base64
import hashlib
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from einthoven.cohorts.cohort import ALL, SPLITS, UNLABELLED, Cohort, CohortWarning
from einthoven.errors import CohortError
from einthoven.files import Json, read_json, read_metadata, write_json
from einthoven.models import weights_file
from einthoven.report.description import public_weights_bias
from einthoven.signals.store import Store
from einthoven.stages.pretraining_data import PackedCohort
from einthoven.weights.public import data_on_cohort, public_data

LEAKAGE = "leakage.json"  # in a run folder
SEEN, ALLOWED = "seen", "allowed_leakage"  # keys of the metadata of a weights file
USES = {
    "pretraining": "in pretraining",
    "training": "in training with labels",
    "validation": "in validation, which chose the epoch",
}
WAYS = ("signal", "record_id", "patient")
BITS = 48
"""Bits of a fingerprint; two million recordings against ten thousand have a chance below 1e-4 of
a false alarm."""
_CHEST = ("V1", "V2", "V3", "V4", "V5", "V6")
_BATCH = 256
_SHOWN = 3  # records of a group, in a message
_PUBLIC, _PRIVATE = ("signals", "patients"), ("signals", "patients", "own_patients")
Numbers = NDArray[np.uint64]


class LeakageWarning(UserWarning):
    """Weights are tested on records that they have seen, or may have seen."""


@dataclass(frozen=True)
class Leakage:
    """Records of a split that weights have seen.

    `records` is the size of the split. `ways` has the ids of the seen records by the way in which
    they were recognised (`WAYS`), and `uses` their number by use (`USES`), which is empty if all
    were seen in pretraining only.
    """

    cohort: str
    records: int
    ways: dict[str, tuple[str, ...]]
    uses: dict[str, int] = field(default_factory=dict)
    split: str = "test"

    @property
    def ids(self) -> list[str]:
        """Records that were seen."""
        return sorted({name for names in self.ways.values() for name in names})

    def __str__(self) -> str:
        counts = {way.replace("_", " "): len(ids) for way, ids in self.ways.items()}
        ways = ", ".join(f"{count:,} by {way}" for way, count in counts.items() if count)
        examples = ", ".join(repr(name) for name in self.ids[:3])
        uses = ", ".join(f"{count:,} {USES[use]}" for use, count in self.uses.items() if count)
        return (
            f"{len(self.ids):,} of the {self.records:,} {self.split} records of {self.cohort} "
            f"({ways}), such as {examples}" + (f": {uses}" if uses else "")
        )

    def to_dict(self) -> Json:
        """Counts, for run folders and metadata."""
        return {
            "cohort": self.cohort,
            "split": self.split,
            "records": self.records,
            "seen": len(self.ids),
            "ways": {way: len(ids) for way, ids in self.ways.items()},
            "uses": self.uses,
        }


def _sorted(numbers: ArrayLike = ()) -> Numbers:
    return np.unique(np.asarray(numbers, dtype=np.uint64))


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Fingerprints of the records that weights have seen in one use (a key of `USES`).

    They are sorted uint64. Those of signals are computed from `leads`. `own_patients` are patients
    of a user's own tables. Those of record ids are compared when pretraining begins, and not
    written.
    """

    use: str
    leads: tuple[str, ...]
    signals: Numbers
    patients: Numbers = field(default_factory=_sorted)
    own_patients: Numbers = field(default_factory=_sorted)
    records: Numbers = field(default_factory=_sorted)

    @classmethod
    def of(
        cls,
        member: PackedCohort,
        leads: Sequence[str],
        *,
        split: str = "train",
        use: str = "pretraining",
    ) -> Fingerprints:
        """Fingerprints of a split of a cohort."""
        cohort, store = member
        ids = cohort.ids(split)
        kind = "patients" if cohort.version else "own_patients"
        return cls(
            use,
            tuple(leads),
            signals=_sorted(signal_fingerprints(store, store.rows(ids), leads)),
            records=_sorted(_name_fingerprints(cohort, "record", ids)),
            **{kind: _sorted(_name_fingerprints(cohort, "patient", cohort.patients(split)))},
        )

    def to_dict(self, *, private: bool = False) -> Json:
        """Plain values; `private` adds patients of own tables, for the run folder."""
        packed = {kind: _packed(getattr(self, kind)) for kind in (_PRIVATE if private else _PUBLIC)}
        return {"uses": [self.use], "leads": list(self.leads)} | packed

    @classmethod
    def from_dict(cls, table: Json) -> list[Fingerprints]:
        """Read the output of `to_dict`; a table may be of several uses."""
        numbers = {kind: _unpacked(table[kind]) for kind in _PRIVATE if kind in table}
        return [cls(use, tuple(table["leads"]), **numbers) for use in table["uses"]]


def merge(parts: Iterable[Fingerprints]) -> list[Fingerprints]:
    """Merge fingerprints into one part for every use and set of leads."""
    merged: dict[tuple[str, tuple[str, ...]], Fingerprints] = {}
    for part in parts:
        key = part.use, part.leads
        before = merged.get(key, part)
        kinds = (*_PRIVATE, "records")
        union = {kind: np.union1d(getattr(before, kind), getattr(part, kind)) for kind in kinds}
        merged[key] = Fingerprints(part.use, part.leads, **union)
    return list(merged.values())


def compared_leads(leads: Iterable[str]) -> tuple[str, ...]:
    """Leads that identify a recording: V1 to V6 if all are there, otherwise all, sorted.

    Any two limb leads determine the others. Those that a file leaves out are computed, and differ
    by rounding from those that another copy of the recording states.
    """
    names = set(leads)
    return _CHEST if names.issuperset(_CHEST) else tuple(sorted(names))


def signal_fingerprints(store: Store, rows: NDArray[np.intp], leads: Sequence[str]) -> Numbers:
    """Fingerprint of the content of each record: its rate, and int16 microvolts of some leads.

    It does not depend on the file name, the order of the leads or any other leads. The same
    recording at another rate, cut or filtered, has another one.

    Returns
    -------
    numpy.ndarray, (rows,) uint64
        Zero for a record that is constant in all these leads and cannot be identified.
    """
    order = [store.leads.index(lead) for lead in leads]
    numbers = np.zeros(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), _BATCH):
        for chunk in store.read(rows[start : start + _BATCH]):
            rate = np.float64(chunk.rate).tobytes()
            for place, signal in zip(chunk.places, chunk.signals[:, order], strict=True):
                if (signal != signal[:, :1]).any():
                    numbers[start + place] = _number(rate + signal.tobytes())
    return numbers


def read_fingerprints(weights: str | Path) -> list[Fingerprints]:
    """Read the fingerprints in a weights file or model; public checkpoints have none.

    Those of own patients are added while the file is in its run folder.
    """
    file = weights_file(weights)
    tables = json.loads(read_metadata(file).get(SEEN, "[]"))
    for folder in list(file.resolve().parents)[:3]:
        private = []
        if tables and (folder / LEAKAGE).is_file():
            private = read_json(folder / LEAKAGE, list)
        pairs = zip(private, tables, strict=False)
        if len(private) == len(tables) and all(
            isinstance(a, dict) and a.items() >= b.items() for a, b in pairs
        ):
            tables = private
    return merge(part for table in tables for part in Fingerprints.from_dict(table))


def write_fingerprints(
    folder: Path,
    parts: Sequence[Fingerprints],
    allowed: Sequence[Json] = (),
    *,
    weights: str | Path | None = None,
) -> dict[str, str]:
    """Write `leakage.json` of a run folder, and return the metadata for its weights files.

    `allowed` has `Leakage.to_dict` of what is allowed now; what was allowed for the initial weights
    is added.
    """
    write_json(folder / LEAKAGE, [part.to_dict(private=True) for part in parts])
    metadata = {SEEN: json.dumps([part.to_dict() for part in parts], sort_keys=True)}
    before = _allowed(weights) if weights is not None else []
    total = before + [leakage for leakage in allowed if leakage not in before]
    return metadata | ({ALLOWED: json.dumps(total)} if total else {})


def training_fingerprints(
    member: PackedCohort, weights: str | Path | None = None
) -> list[Fingerprints]:
    """Fingerprints of what weights have seen after training on a labelled cohort.

    Training and validation records count, except quarantined ones. The fingerprints of the initial
    weights are included, and their leads are used if the store has them.
    """
    cohort, store = member
    usable = cohort.select(store.without_quarantined(cohort.ids())), store
    before = read_fingerprints(weights) if weights is not None else []
    shared = (part.leads for part in before if set(part.leads) <= set(store.leads))
    leads = next(shared, compared_leads(store.leads))
    splits = {"training": "train", "validation": "validation"}
    now = [Fingerprints.of(usable, leads, split=split, use=use) for use, split in splits.items()]
    return merge([*before, *now])


def find_leakage(
    parts: Sequence[Fingerprints], member: PackedCohort, split: str = "test"
) -> Leakage | None:
    """Find the records of a cohort's split that were seen; None if there are none."""
    cohort, _ = member
    ids = cohort.ids(split)
    records = _name_fingerprints(cohort, "record", ids)
    patients = _name_fingerprints(cohort, "patient", cohort.patients(split))
    signals = {leads: _signals(member, ids, leads) for leads in {part.leads for part in parts}}
    hits = np.zeros((len(USES), len(WAYS), len(ids)), dtype=bool)
    for part in parts:
        numbers = signals[part.leads]
        hits[list(USES).index(part.use)] |= (
            np.isin(numbers, part.signals) & (numbers != 0),
            np.isin(records, part.records),
            np.isin(patients, np.union1d(part.patients, part.own_patients)),
        )
    if not hits.any():
        return None
    ways = {way: tuple(map(str, ids[hits[:, i].any(axis=0)])) for i, way in enumerate(WAYS)}
    uses = {use: int(hits[i].any(axis=0).sum()) for i, use in enumerate(USES)}
    only_pretraining = all(part.use == "pretraining" for part in parts)
    return Leakage(cohort.name, len(ids), ways, {} if only_pretraining else uses, split)


def check_pretraining_records(
    members: Sequence[PackedCohort],
    *,
    protect: Sequence[PackedCohort] = (),
    allow: Sequence[str] = (),
) -> tuple[Fingerprints, list[Leakage]]:
    """Refuse to pretrain on records of test splits.

    Protected are the test splits of labelled members and of the cohorts in `protect`, except those
    of the cohorts named in `allow`.

    Returns
    -------
    Fingerprints
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
    if empty := [cohort.name for cohort, _ in protect if not len(cohort.ids("test"))]:
        raise CohortError(
            f"{', '.join(empty)} has no test split that could be protected",
            remedy="mark its records with `split` = test in a table",
        )
    if unknown := sorted(set(allow) - names):
        raise CohortError(
            f"leakage from {', '.join(unknown)} is allowed, but no such test split is protected",
            remedy=f"choose among {', '.join(sorted(names))}",
        )
    leads = _common_leads(members, protected)
    (parts,) = merge(Fingerprints.of(member, leads) for member in members)
    results = [leakage for member in protected if (leakage := find_leakage([parts], member))]
    if refused := [leakage for leakage in results if leakage.cohort not in allow]:
        raise CohortError(
            f"pretraining would use {'; and '.join(map(str, refused))}",
            remedy="leave these records and patients out, or accept that results on that test "
            "split are optimistically biased, with "
            f"`allow_leakage={[leakage.cohort for leakage in refused]}`",
        )
    return parts, results


def check_initial_weights(
    weights: str | Path | None, member: PackedCohort, *, allow: bool = False
) -> Json | None:
    """Refuse initial weights that have seen records of the cohort's test split.

    If it was allowed, in pretraining or now, warn instead, and return the leakage for run.json.

    Raises
    ------
    CohortError
        If test records were seen and it was not allowed.
    """
    leakage = find_leakage(read_fingerprints(weights), member) if weights is not None else None
    if weights is None or leakage is None:
        return None
    allowed_before = any(entry["cohort"] == leakage.cohort for entry in _allowed(weights))
    message = f"{weights} {'has seen' if leakage.uses else 'was pretrained on'} {leakage}"
    if not allowed_before and not allow:
        raise CohortError(
            message,
            remedy="use another encoder or other folds, or record the leakage in the run with "
            "`allow_leakage=True`",
        )
    _warn_of_bias(message + (" (allowed in pretraining)" if allowed_before else ""))
    return leakage.to_dict()


def compared_records(
    weights: str | Path | None, packed_cohort: PackedCohort, split: str = "test"
) -> int:
    """Number of records of a split whose signals are compared with those that weights have seen.

    0 if the weights have no fingerprints, or those of leads that the records do not have.
    """
    ids, parts = packed_cohort[0].ids(split), read_fingerprints(weights) if weights else []
    signals = [_signals(packed_cohort, ids, leads) for leads in {part.leads for part in parts}]
    return max((int((numbers != 0).sum()) for numbers in signals), default=0)


def check_evaluation_records(
    model: str | Path, member: PackedCohort, split: str = "test"
) -> Json | None:
    """Warn if a model has seen records of the split that it is scored on; return the leakage."""
    leakage = find_leakage(read_fingerprints(model), member, split)
    if leakage is None:
        return None
    _warn_of_bias(f"{model} has seen {leakage}")
    return leakage.to_dict()


def evaluation_split(model: str | Path, member: PackedCohort) -> str:
    """Split of a cohort on which a model is scored, unless another is named.

    It is `test`, or `all` records if the cohort's source states no splits and the model has seen
    none of the records.
    """
    if member[0].has_splits or find_leakage(read_fingerprints(model), member, ALL):
        return "test"
    return ALL


def check_public_weights(backbone: str, weights: str | Path | None, cohort: Cohort) -> Json | None:
    """Warn if public weights were, or may have been, pretrained on the cohort.

    Returns `data_on_cohort` for run.json, or None if the weights are not public.
    """
    data = None if weights is None else public_data(backbone, weights)
    if data is None:
        return None
    data = data_on_cohort(data, cohort.name)
    if "cohort" in data:
        warnings.warn(public_weights_bias(data), LeakageWarning, stacklevel=2)
    return data


def joined_duplicates(member: PackedCohort) -> Cohort:
    """Count equal recordings of different patients as one patient, and put it into one split.

    A file that was archived twice has two names, and in a data set without patients two patients.
    The split is training if one of the records is there, otherwise validation. A cohort whose
    source states the splits stays as it is: `check_duplicates` refuses equal records in two splits.
    A CohortWarning names the first group.
    """
    cohort, store = member
    if cohort.has_splits:
        return cohort
    table = cohort.table[["patient", "split"]].astype(str)
    table["signal"] = _signals(member, cohort.ids(), compared_leads(store.leads))
    table["joint"] = _joint_patients(table)
    changed = table["joint"] != table["patient"]
    if not changed.any():
        return cohort
    order = {split: rank for rank, split in enumerate(SPLITS)}
    ranks = table["split"].map(order).groupby(table["joint"]).transform("min")
    splits = np.array(SPLITS)[ranks]
    joint = table.loc[changed, "joint"]
    first = table[table["joint"] == joint.iloc[0]].index[:_SHOWN]
    warnings.warn(
        f"{cohort.name}: recordings of different patients have equal measured leads, such as "
        f"{' and '.join(map(repr, first))}; each such group ({joint.nunique()} in all) counts as "
        "one patient, in one split",
        CohortWarning,
        stacklevel=3,
    )
    joined = cohort.table.assign(patient=table["joint"], split=splits)
    return replace(cohort, table=joined)


def _joint_patients(table: pd.DataFrame) -> NDArray[np.str_]:
    """First patient of all that are connected by patients and signals in common, by record."""
    records = np.arange(len(table))
    patients, names = pd.factorize(table["patient"])
    signals, _ = pd.factorize(table["signal"])
    has_signal = table["signal"].to_numpy() != 0
    ends = np.concatenate([patients, signals[has_signal] + len(names)]) + len(table)
    starts = np.concatenate([records, records[has_signal]])
    size = ends.max() + 1
    links = coo_array((np.ones(len(ends)), (starts, ends)), shape=(size, size))
    _, groups = connected_components(links, directed=False)
    return table["patient"].groupby(groups[: len(table)]).transform("first").to_numpy(dtype=str)


def check_duplicates(member: PackedCohort, *, allow: bool = False) -> None:
    """Refuse a cohort with one recording in two splits, under two names and of two patients.

    Raises
    ------
    CohortError
        If there is one and it is not allowed; if it is allowed, warn.
    """
    cohort, store = member
    ids = cohort.ids()
    table = pd.DataFrame({"split": cohort.table["split"].to_numpy()}, index=pd.Index(ids))
    table["signal"] = signal_fingerprints(store, store.rows(ids), compared_leads(store.leads))
    table = table[table["signal"] != 0]
    repeated = table[table.groupby("signal")["split"].transform("nunique") > 1]
    if repeated.empty:
        return
    first = repeated.loc[repeated["signal"] == repeated["signal"].min(), "split"]
    examples = " and ".join(f"{name!r} ({split})" for name, split in first.items())
    message = (
        f"{cohort.name}: {repeated['signal'].nunique()} recordings are in more than one split, "
        f"such as {examples}, whose measured leads are equal"
    )
    if not allow:
        old = (cohort.name, cohort.version) == ("ptb-xl", "1.0.1")
        raise CohortError(
            message,
            remedy="leave one of each out, give both the same patient"
            + (", use PTB-XL 1.0.3, which removed some," if old else "")
            + " or pass `allow_leakage=True`",
        )
    _warn_of_bias(message)


def _warn_of_bias(message: str) -> None:
    warnings.warn(
        f"{message}; results on this split are optimistically biased", LeakageWarning, stacklevel=3
    )


def _allowed(weights: str | Path) -> list[Json]:
    allowed: list[Json] = json.loads(read_metadata(weights_file(weights)).get(ALLOWED, "[]"))
    return allowed


def _common_leads(
    members: Sequence[PackedCohort], protected: Sequence[PackedCohort]
) -> tuple[str, ...]:
    """Compared leads that all stores have; those of the members if a protected one shares none."""
    common = set.intersection(*(set(store.leads) for _, store in members))
    for _, store in protected:
        common = common & set(store.leads) or common
    return compared_leads(common)


def _signals(member: PackedCohort, ids: NDArray[np.str_], leads: Sequence[str]) -> Numbers:
    """Fingerprints of records; 0 if a record is quarantined or its store lacks a lead."""
    _, store = member
    numbers = np.zeros(len(ids), dtype=np.uint64)
    if set(leads) <= set(store.leads):
        packed = store.without_quarantined(ids)
        numbers[packed] = signal_fingerprints(store, store.rows(ids[packed]), leads)
    return numbers


def _name_fingerprints(cohort: Cohort, kind: str, names: NDArray[np.str_]) -> Numbers:
    """Fingerprints of names within the data set that they belong to."""
    space = cohort.name if cohort.version else str(cohort.root.resolve())
    parts = ("\0".join((space, kind, name)).encode() for name in names)
    return np.fromiter(map(_number, parts), dtype=np.uint64, count=len(names))


def _number(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=BITS // 8).digest(), "big")


def _packed(numbers: Numbers) -> str:
    content = b"".join(int(number).to_bytes(BITS // 8, "big") for number in numbers)
    return base64.b64encode(content).decode()


def _unpacked(text: str) -> Numbers:
    content, size = base64.b64decode(text), BITS // 8
    starts = range(0, len(content), size)
    return _sorted([int.from_bytes(content[i : i + size], "big") for i in starts])
