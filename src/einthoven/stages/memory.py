"""What weights remember of records: which they have seen, and in which use.

An encoder has seen records in pretraining. What was post-trained from it has seen more: those that
it was trained on with labels, and those of the validation split, which chose its epoch and fitted
its calibration. A bundle's file of weights holds all of them, each fingerprint once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.files import read_json, read_metadata, write_json
from einthoven.models import weights_file
from einthoven.stages.pretraining_data import Member
from einthoven.stages.seen import SEEN, Fingerprints, Overlap, Seen

__all__ = [
    "KEY",
    "PRETRAINING",
    "TRAINING",
    "USES",
    "VALIDATION",
    "Memory",
    "Part",
    "memory_of",
]

KEY = "seen"  # of the metadata of a file of weights
PRETRAINING, TRAINING, VALIDATION = "pretraining", "training", "validation"
USES = {
    PRETRAINING: "in pretraining",
    TRAINING: "in training with labels",
    VALIDATION: "in validation, which chose the epoch",
}
_KINDS = ("signals", "patients", "own_patients")


@dataclass(frozen=True, eq=False)
class Part:
    """Records that were seen in the same uses.

    Attributes
    ----------
    uses : tuple of str
        Keys of `USES`.
    seen : Seen
        Their fingerprints.
    """

    uses: tuple[str, ...]
    seen: Seen


@dataclass(frozen=True, eq=False)
class Memory:
    """All that weights have seen. Parts with the same leads share no fingerprint."""

    parts: tuple[Part, ...]

    @classmethod
    def by(cls, weights: Path) -> Memory | None:
        """What a model's weights say they have seen, and the run folder where they still lie there.

        None for all other files, such as public checkpoints.
        """
        weights = weights_file(weights)
        text = read_metadata(weights).get(KEY)
        folders = list(weights.resolve().parents)[:3]
        kept = [_tables(read_json(place / SEEN)) for place in folders if (place / SEEN).is_file()]
        if text is None:
            return None
        tables = _tables(json.loads(text))
        return cls._of(next((whole for whole in kept if _holds(whole, tables)), tables))

    @classmethod
    def _of(cls, tables: Iterable[dict[str, Any]]) -> Memory:
        return cls(tuple(Part(tuple(table["uses"]), Seen.of_table(table)) for table in tables))

    def joined(self, more: Iterable[Part]) -> Memory:
        """With further parts; what was seen in several uses is kept once, and says all of them."""
        every = [*self.parts, *more]
        leads = dict.fromkeys(part.seen.leads for part in every)
        alike = ([part for part in every if part.seen.leads == each] for each in leads)
        return Memory(tuple(part for group in alike for part in _disjoint(group)))

    def meets(self, member: Member, split: str = "test") -> Overlap | None:
        """The records of a cohort's split that were seen; None when none was."""
        cohort, store = member
        found = [seen.meets(member, split) for seen in _together(self.parts)]
        ways: dict[str, set[str]] = {}
        for overlap in found:
            for way, ids in (overlap.found if overlap else {}).items():
                ways.setdefault(way, set()).update(ids)
        if not ways:
            return None
        named = {way: tuple(sorted(ids)) for way, ids in ways.items()}
        whole = Overlap(cohort.name, len(cohort.ids(split)), named, split=split)
        if all(part.uses == (PRETRAINING,) for part in self.parts):
            return whole
        touched = cohort.select(np.isin(cohort.ids(), whole.ids))
        uses = {text: self._count(use, (touched, store), split) for use, text in USES.items()}
        return replace(whole, uses=uses)

    def _count(self, use: str, member: Member, split: str) -> int:
        """Records of a cohort's split that were seen in a use."""
        seen = _together(part for part in self.parts if use in part.uses)
        found = [overlap for overlap in (each.meets(member, split) for each in seen) if overlap]
        return len({name for overlap in found for name in overlap.ids})

    def to_text(self) -> str:
        """For the metadata of a file of weights, without patients of own tables."""
        said = [{"uses": list(part.uses)} | part.seen.table() for part in self.parts]
        return json.dumps(said, sort_keys=True)

    def write(self, folder: Path) -> None:
        """For the run folder, with patients of own tables."""
        said = [{"uses": list(part.uses)} | part.seen.whole_table() for part in self.parts]
        write_json(folder / SEEN, said)


def memory_of(member: Member, weights: str | Path | None = None) -> Memory:
    """What weights remember that are trained on a labelled cohort.

    Parameters
    ----------
    member : (Cohort, Store)
        Its `train` and `validation` records count; those in quarantine do not.
    weights : path, optional
        What training begins with; what it remembers goes on.

    Returns
    -------
    Memory
        Compared by the leads that the initial weights are compared by, where the store has them.
    """
    cohort, store = member
    usable = cohort.select(store.without_quarantined(cohort.ids()))
    before = Memory.by(Path(weights)) if weights is not None else None
    known = [part.seen.leads for part in before.parts] if before else []
    leads = next((each for each in known if set(each) <= set(store.leads)), sorted(store.leads))
    now = [
        Part((use,), Seen.of([(usable, store)], leads, split))
        for use, split in ((TRAINING, "train"), (VALIDATION, "validation"))
    ]
    return (before or Memory(())).joined(now)


def _tables(said: Any) -> list[dict[str, Any]]:
    """An encoder's one table, or a list of them by use."""
    return [{"uses": [PRETRAINING]} | said] if isinstance(said, dict) else list(said)


def _holds(whole: Sequence[dict[str, Any]], tables: Sequence[dict[str, Any]]) -> bool:
    """Whether the tables of a run folder are those of the file, with more in them."""
    pairs = zip(whole, tables, strict=False)
    return len(whole) == len(tables) and all(a.items() >= b.items() for a, b in pairs)


def _together(parts: Iterable[Part]) -> list[Seen]:
    """The fingerprints of parts, joined where their leads are the same."""
    alike: dict[tuple[str, ...], list[Seen]] = {}
    for part in parts:
        alike.setdefault(part.seen.leads, []).append(part.seen)
    return [
        Seen(leads, *(_union([getattr(seen, kind) for seen in group]) for kind in _KINDS))
        for leads, group in alike.items()
    ]


def _disjoint(parts: Sequence[Part]) -> list[Part]:
    """Parts of the same leads, sorted anew by the uses of every fingerprint."""
    uses = [use for use in USES if any(use in part.uses for part in parts)]
    numbers: dict[str, Fingerprints] = {}
    codes: dict[str, NDArray[np.int64]] = {}
    for kind in _KINDS:
        by_use = [_union([getattr(p.seen, kind) for p in parts if use in p.uses]) for use in uses]
        numbers[kind] = _union(by_use)
        inside = np.stack([np.isin(numbers[kind], each) for each in by_use], axis=1)
        codes[kind] = inside @ (1 << np.arange(len(uses)))
    found = []
    for code in np.unique(np.concatenate(list(codes.values()))).tolist():
        chosen = {kind: numbers[kind][codes[kind] == code] for kind in _KINDS}
        named = tuple(use for bit, use in enumerate(uses) if code >> bit & 1)
        found.append(Part(named, Seen(parts[0].seen.leads, **chosen)))
    return found


def _union(numbers: Sequence[Fingerprints]) -> Fingerprints:
    return np.unique(np.concatenate([np.zeros(0, dtype=np.uint64), *numbers]))
