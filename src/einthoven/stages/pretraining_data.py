"""Pretraining data: one cohort, or a weighted mixture of several."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import CohortError, RecipeError
from einthoven.files import Json
from einthoven.signals.batches import Mixture, SignalSource, draws_by_weight
from einthoven.signals.prepare import Preparation
from einthoven.signals.store import Store
from einthoven.stages.data import Dataset, without_targets
from einthoven.stages.validation import HeldOut
from einthoven.training.distributed import Processes

Member = tuple[Cohort, Store]
IDS_DIGEST = "training_ids_digest"
_HELD_OUT = 1024  # validation records


@dataclass(frozen=True, eq=False)
class PretrainingData:
    """Training and validation records of one or several cohorts.

    Attributes
    ----------
    members : tuple of (Cohort, Store)
        Cohorts without their quarantined records.
    train : SignalSource or Mixture
        Source of batches; its length is that of an epoch.
    draws : tuple of int
        Number of draws in an epoch from each member.
    validation : tuple of (int, SignalSource)
        Index of each member that has validation records, and these records.
    """

    members: tuple[Member, ...]
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

    def held_out(self, processes: Processes) -> HeldOut | None:
        """Validation on at most 1,024 records, shared equally by the cohorts that have any."""
        if not self.validation:
            return None
        indices, sources = zip(*self.validation, strict=True)
        draws = [self.draws[index] for index in indices]
        return HeldOut(
            sources=tuple(_first(source, _HELD_OUT // len(sources)) for source in sources),
            names=tuple(self.names[index] for index in indices),
            shares=tuple(count / sum(draws) for count in draws),
            processes=processes,
        )

    def describe(self) -> Json:
        """Cohorts for the request of a run: names, versions, digests, records, and shares.

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
    weights: Sequence[float] | None = None,
) -> PretrainingData:
    """Combine cohorts and their stores.

    Parameters
    ----------
    cohorts, stores : one, or equally many of each
    preparation : Preparation
        Preparation of the records of every store, whatever its rate.
    weights : sequence of float, optional
        Relative share of each cohort in the draws of an epoch. Default: every record is drawn once
        per epoch.

    Raises
    ------
    RecipeError
        If there is not one weight above zero for each cohort.
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
    if weights is not None:
        check_weights(weights, len(cohorts))
    pairs = zip(cohorts, stores, strict=True)
    parts = [Dataset(cohort, store, preparation) for cohort, store in pairs]
    sources = [without_targets(part.source("train")) for part in parts]
    for part in parts:
        part.check_lengths("train", "validation")
    records = [len(source) for source in sources]
    draws = tuple(records) if weights is None else draws_by_weight(records, weights)
    if min(draws) < 1:
        raise RecipeError(
            f"weights {list(weights or ())} give {cohorts[draws.index(min(draws))].name} none of "
            f"the {sum(draws)} draws of an epoch",
            remedy="raise its weight, or leave the cohort out",
        )
    return PretrainingData(
        members=tuple((part.usable, part.store) for part in parts),
        train=sources[0] if len(sources) == 1 else Mixture(tuple(sources), draws),
        draws=draws,
        validation=tuple(
            (index, without_targets(part.source("validation")))
            for index, part in enumerate(parts)
            if len(part.usable.ids("validation"))
        ),
    )


def check_weights(weights: Sequence[float], cohorts: int) -> None:
    """Refuse weights unless there is one above zero for each cohort.

    Raises
    ------
    RecipeError
        If their number differs, or one is not a finite number above zero.
    """
    if len(weights) != cohorts:
        raise RecipeError(
            f"{len(weights)} weights for {cohorts} cohorts",
            remedy="give each cohort a weight, in their order (repeat --weight), or none at all",
        )
    if not all(0 < weight < float("inf") for weight in weights):
        raise RecipeError(
            f"weights {list(weights)}",
            remedy="give finite weights above zero, and leave out cohorts that are not to be used",
        )


def _first(source: SignalSource, records: int) -> SignalSource:
    return replace(source, rows=source.rows[:records], targets=source.targets[:records])


def _digest(ids: NDArray[np.str_]) -> str:
    return hashlib.sha256(json.dumps(ids.tolist()).encode()).hexdigest()
