"""What a backbone is pretrained on: one cohort, or several by weight."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import CohortError, RecipeError
from einthoven.signals.batches import Mixture, SignalSource, draws_by_weight
from einthoven.signals.prepare import Preparation
from einthoven.signals.store import Store
from einthoven.stages.data import Dataset, without_targets
from einthoven.stages.validation import HeldOut
from einthoven.training.distributed import Processes

Member = tuple[Cohort, Store]
IDS_DIGEST = "training_ids_digest"
_HELD_OUT = 1024


@dataclass(frozen=True, eq=False)
class Corpus:
    """The training records of one or several cohorts, and what is held out of each.

    Attributes
    ----------
    members : tuple of (Cohort, Store)
        Cohorts without their quarantined records.
    train : SignalSource or Mixture
        What batches are cut from; its length is that of an epoch.
    draws : tuple of int
        How many draws of an epoch come from each member.
    validation : tuple of (int, SignalSource)
        The validation records of each member that has any, after the member's place.
    """

    members: tuple[Member, ...]
    train: SignalSource | Mixture
    draws: tuple[int, ...]
    validation: tuple[tuple[int, SignalSource], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, told apart by their place where two are alike."""
        names = [cohort.name for cohort, _ in self.members]
        return tuple(
            f"{name}#{place + 1}" if names.count(name) > 1 else name
            for place, name in enumerate(names)
        )

    def held_out(self, processes: Processes) -> HeldOut | None:
        """Validation on at most 1,024 records, shared equally by the cohorts that have any."""
        if not self.validation:
            return None
        places, sources = zip(*self.validation, strict=True)
        draws = [self.draws[place] for place in places]
        return HeldOut(
            sources=tuple(_first(source, _HELD_OUT // len(sources)) for source in sources),
            names=tuple(self.names[place] for place in places),
            shares=tuple(count / sum(draws) for count in draws),
            processes=processes,
        )

    def describe(self) -> dict[str, Any]:
        """What a run asks for: names, versions, digests, records, and shares of several.

        `records_digest` is of all records of a store, whatever split they are in;
        `training_ids_digest` of those that are trained on, in their order.
        """
        each = [
            {
                "cohort": cohort.name,
                "version": cohort.version,
                "records_digest": store.manifest["records_digest"],
                "records": len(cohort.ids("train")),
                IDS_DIGEST: _digest(cohort.ids("train")),
            }
            for cohort, store in self.members
        ]
        if len(each) == 1:
            return each[0]
        joined = {key: " + ".join(part[key] for part in each) for key in ("cohort", "version")}
        drawn = [part | {"draws": count} for part, count in zip(each, self.draws, strict=True)]
        digests = {
            key: " + ".join(str(part[key])[:16] for part in each)
            for key in ("records_digest", IDS_DIGEST)
        }
        return {
            **joined,
            **digests,
            "records": sum(part["records"] for part in each),
            "cohorts": drawn,
        }

    def history(self, recipe: str, objective: str) -> list[dict[str, Any]]:
        """Provenance of an encoder: an entry for each cohort."""
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


def corpus_of(
    cohorts: Cohort | Sequence[Cohort],
    stores: Store | Sequence[Store],
    preparation: Preparation,
    *,
    weights: Sequence[float] | None = None,
) -> Corpus:
    """Put cohorts and their stores together.

    Parameters
    ----------
    cohorts, stores : one, or as many of each
    preparation : Preparation
        Done to the records of every store, whatever its rate.
    weights : sequence of float, optional
        Each cohort's share of an epoch's draws, in ratio to the others'. Without them every
        record is drawn once an epoch.

    Raises
    ------
    RecipeError
        When cohorts, stores and weights are not as many, or a weight is not above zero.
    CohortError, PreparationError, StoreError
        When a cohort has no training records, records that are too short, or lacks a lead.
    """
    several = [cohorts] if isinstance(cohorts, Cohort) else list(cohorts)
    packed = [stores] if isinstance(stores, Store) else list(stores)
    _check_numbers(several, packed, weights)
    pairs = zip(several, packed, strict=True)
    parts = [Dataset(cohort, store, preparation) for cohort, store in pairs]
    sources = [without_targets(part.source("train")) for part in parts]
    for part in parts:
        part.check_lengths("train", "validation")
    validation = [
        (place, without_targets(part.source("validation")))
        for place, part in enumerate(parts)
        if len(part.usable.ids("validation"))
    ]
    records = [len(source) for source in sources]
    draws = tuple(records) if weights is None else draws_by_weight(records, weights)
    if min(draws) < 1:
        raise RecipeError(
            f"weights {list(weights or ())} give {several[draws.index(min(draws))].name} none of "
            f"the {sum(draws)} draws of an epoch",
            remedy="raise its weight, or leave the cohort out",
        )
    train = sources[0] if len(sources) == 1 else Mixture(tuple(sources), draws)
    return Corpus(
        members=tuple((part.usable, part.store) for part in parts),
        train=train,
        draws=draws,
        validation=tuple(validation),
    )


def check_weights(weights: Sequence[float], cohorts: int) -> None:
    """Refuse weights that are no share of an epoch for each of so many cohorts.

    Raises
    ------
    RecipeError
        When they are not as many, or one is not a number above zero.
    """
    if len(weights) != cohorts:
        raise RecipeError(
            f"{len(weights)} weights for {cohorts} cohorts",
            remedy="give each cohort a weight, in their order (repeat --weight), or none at all",
        )
    if not all(0 < weight < float("inf") for weight in weights):
        raise RecipeError(
            f"weights {list(weights)}",
            remedy="give weights above zero; leave out the cohort that is not to be used",
        )


def _first(source: SignalSource, records: int) -> SignalSource:
    return replace(source, rows=source.rows[:records], targets=source.targets[:records])


def _digest(ids: NDArray[np.str_]) -> str:
    return hashlib.sha256(json.dumps(ids.tolist()).encode()).hexdigest()


def _check_numbers(
    cohorts: list[Cohort], stores: list[Store], weights: Sequence[float] | None
) -> None:
    if not cohorts or len(stores) != len(cohorts):
        raise CohortError(
            f"{len(cohorts)} cohorts and {len(stores)} stores", remedy="give each cohort its store"
        )
    if weights is not None:
        check_weights(weights, len(cohorts))
