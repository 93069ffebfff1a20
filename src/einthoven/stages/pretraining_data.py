"""Pretraining data: one cohort, or a mixture of several."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import CohortError, RecipeError
from einthoven.files import Json
from einthoven.signals.batches import SignalSource, epoch_order, long_enough
from einthoven.signals.preparation import Preparation
from einthoven.signals.store import Store
from einthoven.stages.data import Dataset
from einthoven.stages.validation import ValidationLoss
from einthoven.training.distributed import Processes

PackedCohort = tuple[Cohort, Store]
IDS_DIGEST = "training_ids_digest"
_VALIDATION_RECORDS = 1024


@dataclass(frozen=True, eq=False)
class Mixture:
    """Several sources in one training; a `Source` for training batches.

    An epoch has as many draws as there are records in all sources. Each source gives a fixed number
    of them, in an order that is random over the epoch. A source is used completely before one of
    its records is drawn again; a pass continues in the next epoch.

    Attributes
    ----------
    sources : tuple of SignalSource
        Sources with the same preparation; records are numbered through all of them, in this order.
    draws : tuple of int
        Number of an epoch's draws from each source, at least one.
    """

    sources: tuple[SignalSource, ...]
    draws: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.draws)

    @cached_property
    def ends(self) -> NDArray[np.intp]:
        """Number of records in each source and the sources before it."""
        return np.cumsum([len(source) for source in self.sources])

    def order(self, *, seed: int, epoch: int) -> NDArray[np.intp]:
        """Record of each draw of an epoch, a function of seed and epoch alone."""
        records = []
        for part, (source, count) in enumerate(zip(self.sources, self.draws, strict=True)):
            rows = _stretch(len(source), epoch * count, count, seed=seed, part=part)
            records.append(self.ends[part] - len(source) + rows)
        return np.concatenate(records)[epoch_order(len(self), seed=seed, epoch=epoch)]

    def crop_starts(self, records: NDArray[np.intp], generator: torch.Generator) -> Tensor:
        """First sample of a random crop of each record, source by source."""
        starts = torch.empty(len(records), dtype=torch.long)
        for source, places, rows in self._shares(records):
            starts[places] = source.crop_starts(rows, generator)
        return starts

    def crops(self, records: NDArray[np.intp], starts: Tensor) -> Tensor:
        """One prepared crop of each record."""
        preparation = self.sources[0].preparation
        out = torch.empty(len(records), len(preparation.leads), preparation.window)
        for source, places, rows in self._shares(records):
            out[places] = source.crops(rows, starts[places])
        return out

    def targets_of(self, records: NDArray[np.intp]) -> Tensor:
        """Targets without columns: sources share no labels."""
        return torch.zeros(len(records), 0)

    def _shares(
        self, records: NDArray[np.intp]
    ) -> Iterator[tuple[SignalSource, Tensor, NDArray[np.intp]]]:
        """Each source with places in `records`, and these places' rows in the source."""
        owner = np.searchsorted(self.ends, records, side="right")
        for part in np.unique(owner):
            source, places = self.sources[part], np.flatnonzero(owner == part)
            rows = records[places] - (self.ends[part] - len(source))
            yield source, torch.from_numpy(places), rows


@dataclass(frozen=True, eq=False)
class PretrainingData:
    """Training and validation records of one or several cohorts.

    `members` are the cohorts without their quarantined records, and `draws` the number of draws in
    an epoch from each. `validation` has the index of each member that has validation records, and
    these records.
    """

    members: tuple[PackedCohort, ...]
    train: SignalSource | Mixture
    draws: tuple[int, ...]
    validation: tuple[tuple[int, SignalSource], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members; equal names are numbered."""
        names = [cohort.name for cohort, _ in self.members]
        return tuple(
            f"{name}#{index + 1}" if names.count(name) > 1 else name
            for index, name in enumerate(names)
        )

    def validation_loss(self, processes: Processes) -> ValidationLoss | None:
        """Validation on at most 1,024 records, shared equally by the cohorts that have any."""
        if not self.validation:
            return None
        indices, sources = zip(*self.validation, strict=True)
        draws = [self.draws[index] for index in indices]
        records = slice(_VALIDATION_RECORDS // len(sources))
        return ValidationLoss(
            sources=tuple(
                replace(source, rows=source.rows[records], targets=source.targets[records])
                for source in sources
            ),
            names=tuple(self.names[index] for index in indices),
            shares=tuple(count / sum(draws) for count in draws),
            processes=processes,
        )

    def describe(self) -> Json:
        """Cohorts for the request of a run.

        `records_digest` covers all records of a store in all splits, `training_ids_digest` the
        training records in their order.
        """
        entries = [
            {
                "cohort": cohort.name,
                "version": cohort.version,
                "records_digest": store.manifest["records_digest"],
                "records": len(cohort.ids("train")),
                IDS_DIGEST: _digest(cohort.ids("train")),
                **({"cohort_synthetic": True} if cohort.is_synthetic else {}),
            }
            for cohort, store in self.members
        ]
        if len(entries) == 1:
            return entries[0]
        lengths = {"cohort": None, "version": None, "records_digest": 16, IDS_DIGEST: 16}
        joined = {
            key: " + ".join(str(entry[key])[:length] for entry in entries)
            for key, length in lengths.items()
        }
        return joined | {
            "records": sum(entry["records"] for entry in entries),
            "cohorts": [
                entry | {"draws": count} for entry, count in zip(entries, self.draws, strict=True)
            ],
        }

    def history(self, recipe: str, objective: str) -> list[Json]:
        """Provenance of an encoder: one entry per cohort."""
        return [
            {
                "cohort": cohort.name,
                "version": cohort.version,
                "task": None,
                "records": len(cohort.ids("train")),
                "share": count / len(self.train),
                "synthetic": cohort.is_synthetic,
                "recipe": recipe,
                "objective": objective,
            }
            for (cohort, _), count in zip(self.members, self.draws, strict=True)
        ]


def pretraining_data_of(
    cohorts: Cohort | Sequence[Cohort],
    stores: Store | Sequence[Store],
    preparation: Preparation,
    *,
    shares: Sequence[float] | None = None,
) -> PretrainingData:
    """Combine cohorts and their stores.

    `shares` of the cohorts in the draws of an epoch are relative to each other. Without them every
    record is drawn once per epoch.

    Raises
    ------
    RecipeError
        If there is not one share above zero for each cohort.
    CohortError, PreparationError, StoreError
        If a cohort and its store do not match, or a cohort has no training records, has records
        that are too short, or lacks a lead.
    """
    cohorts = [cohorts] if isinstance(cohorts, Cohort) else list(cohorts)
    stores = [stores] if isinstance(stores, Store) else list(stores)
    if not cohorts or len(stores) != len(cohorts):
        raise CohortError(
            f"{len(cohorts)} cohorts and {len(stores)} stores", remedy="give each cohort its store"
        )
    if shares is not None:
        check_shares(shares, len(cohorts))
    parts = [
        Dataset(long_enough(cohort, store, preparation), store, preparation)
        for cohort, store in zip(cohorts, stores, strict=True)
    ]
    sources = [_unlabelled(part, "train") for part in parts]
    records = [len(source) for source in sources]
    draws = tuple(records) if shares is None else draws_by_share(records, shares)
    if min(draws) < 1:
        raise RecipeError(
            f"shares {list(shares or ())} give {cohorts[draws.index(min(draws))].name} none of "
            f"the {sum(draws)} draws of an epoch",
            remedy="raise its share, or leave the cohort out",
        )
    return PretrainingData(
        members=tuple((part.usable, part.store) for part in parts),
        train=sources[0] if len(sources) == 1 else Mixture(tuple(sources), draws),
        draws=draws,
        validation=tuple(
            (index, _unlabelled(part, "validation"))
            for index, part in enumerate(parts)
            if len(part.usable.ids("validation"))
        ),
    )


def _unlabelled(part: Dataset, split: str) -> SignalSource:
    """Records of a split without their labels."""
    source = part.source(split)
    return replace(source, targets=np.zeros((len(source), 0), dtype=np.uint8))


def check_shares(shares: Sequence[float], cohorts: int) -> None:
    """Refuse shares unless there is a finite one above zero for each cohort."""
    if len(shares) != cohorts:
        raise RecipeError(
            f"{len(shares)} shares for {cohorts} cohorts",
            remedy="give each cohort a share, in their order (`shares=...`), or none at all",
        )
    if not all(0 < share < float("inf") for share in shares):
        raise RecipeError(
            f"shares {list(shares)}",
            remedy="give finite shares above zero, and leave out cohorts that are not to be used",
        )


def _digest(ids: NDArray[np.str_]) -> str:
    return hashlib.sha256(json.dumps(ids.tolist()).encode()).hexdigest()


def draws_by_share(records: Sequence[int], shares: Sequence[float]) -> tuple[int, ...]:
    """Divide an epoch of ``sum(records)`` draws by share, in whole draws (largest remainders)."""
    total = sum(records)
    exact = np.asarray(shares, dtype=np.float64) / sum(shares) * total
    draws = np.floor(exact).astype(int)
    short = total - int(draws.sum())
    draws[np.argsort(draws - exact, kind="stable")[:short]] += 1
    return tuple(int(count) for count in draws)


def _stretch(records: int, start: int, count: int, *, seed: int, part: int) -> NDArray[np.intp]:
    """Draws `start` to `start + count` of a source that is shuffled again for every pass."""
    first, last = start // records, (start + count - 1) // records
    seeds = [np.random.SeedSequence([seed, i, part, 0xC0]) for i in range(first, last + 1)]
    passes = [np.random.default_rng(entropy).permutation(records) for entropy in seeds]
    return np.concatenate(passes)[start - first * records :][:count]
