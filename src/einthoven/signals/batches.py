"""Batches as a function of (seed, epoch, position).

The order of an epoch follows from (seed, epoch), a batch's crops and augmentation from (seed,
epoch, position). A checkpoint therefore holds no more than a position, and any batch can be built
again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import PreparationError, StoreError
from einthoven.signals.augment import Augmentation, Mixing
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import (
    evaluation_starts,
    prepare_mixed,
    random_starts,
    resampled_length,
)
from einthoven.signals.random import generator_for
from einthoven.signals.store import Chunk, Store
from einthoven.tasks.task import Matrix

log = logging.getLogger(__name__)
TOO_SHORT = "shorter than a crop"
"""A reason in `Cohort.left_out`."""


@dataclass(frozen=True)
class Batch:
    """Prepared records.

    Attributes
    ----------
    signals : Tensor
        `(batch, leads, window)` float32.
    targets : Tensor
        `(batch, labels)` float32.
    rows : numpy.ndarray
        Which of the source's rows these are.
    """

    signals: Tensor
    targets: Tensor
    rows: NDArray[np.intp]


class Source(Protocol):
    """Records that training batches are cut from: those of one store, or of several."""

    def __len__(self) -> int:
        """Number of draws in an epoch."""

    def order(self, *, seed: int, epoch: int) -> NDArray[np.intp]:
        """Record of each draw of an epoch, a function of seed and epoch alone."""

    def crop_starts(self, records: NDArray[np.intp], generator: torch.Generator) -> Tensor:
        """First sample of a random crop of each record, (records,), at the window's rate."""

    def crops(self, records: NDArray[np.intp], starts: Tensor) -> Tensor:
        """The crops that begin there, (records, leads, window)."""

    def targets_of(self, records: NDArray[np.intp]) -> Tensor:
        """Labels of records, (records, labels)."""


@dataclass(frozen=True, eq=False)
class SignalSource:
    """Records of one store with their targets.

    Attributes
    ----------
    store : Store
        The signals.
    rows : numpy.ndarray
        `(records,)` rows of the store.
    targets : numpy.ndarray
        `(records, labels)`, aligned with `rows`; NaN where not known, no columns without labels.
    preparation : Preparation
        Preparation of every signal. Limb leads that the store lacks are computed from two others.
    patients : numpy.ndarray, optional
        `(records,)` names; without them every record counts as a patient.
    """

    store: Store
    rows: NDArray[np.intp]
    targets: Matrix
    preparation: Preparation
    patients: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.targets):
            raise StoreError(
                f"{len(self.rows)} records and {len(self.targets)} targets",
                remedy="pass one row of targets a record",
            )
        preparation = self.preparation.deriving(self.store.leads)
        object.__setattr__(self, "preparation", preparation)
        missing = [lead for lead in preparation.sources if lead not in self.store.leads]
        if missing:
            raise StoreError(
                f"{self.store.root} lacks the leads {', '.join(missing)}",
                remedy="pack the leads that the backbone reads, or build it for those of the store "
                "(`leads=...`); limb leads that follow from others are computed",
            )

    def __len__(self) -> int:
        return len(self.rows)

    def order(self, *, seed: int, epoch: int) -> NDArray[np.intp]:
        """Every record once, in random order."""
        return epoch_order(len(self), seed=seed, epoch=epoch)

    def crop_starts(self, records: NDArray[np.intp], generator: torch.Generator) -> Tensor:
        """First sample of a random crop of each record; reads no signal."""
        starts = torch.empty(len(records), dtype=torch.long)
        for rate, samples, places in self.store.groups(self.rows[records]):
            starts[torch.from_numpy(places)] = random_starts(
                self.preparation, samples, rate=rate, count=len(places), generator=generator
            )
        return starts

    def crops(self, records: NDArray[np.intp], starts: Tensor) -> Tensor:
        """One prepared crop of each record."""
        chunks = self.store.read(self.rows[records])
        places = [torch.from_numpy(chunk.places) for chunk in chunks]
        batches = [
            self._batch(chunk, starts[where]) for chunk, where in zip(chunks, places, strict=True)
        ]
        prepared = prepare_mixed(self.preparation, batches, unit="uV")
        if len(chunks) == 1:
            return prepared
        return torch.empty_like(prepared).index_copy_(0, torch.cat(places), prepared)

    def targets_of(self, records: NDArray[np.intp]) -> Tensor:
        """Labels of records."""
        return torch.from_numpy(self.targets[records].astype(np.float32))

    def training_batch(
        self, records: NDArray[np.intp], generator: torch.Generator, augment: Augmentation | None
    ) -> Batch:
        """One random crop of each record, augmented."""
        signals = self.crops(records, self.crop_starts(records, generator))
        if augment is not None:
            signals = augment(signals, generator)
        return Batch(signals, self.targets_of(records), records)

    def evaluation_crops(self, records: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """All evaluation crops of records, (crops, leads, window), and their owners.

        An owner is the position of a crop's record in `records`, (crops,).
        """
        batches = []
        for chunk in self.store.read(self.rows[records]):
            samples = chunk.signals.shape[2]
            for start in evaluation_starts(self.preparation, samples, rate=chunk.rate):
                starts = torch.full((len(chunk.places),), start, dtype=torch.long)
                batches.append(self._batch(chunk, starts))
        return prepare_mixed(self.preparation, batches, unit="uV"), self.crop_owners(records)

    def crop_owners(self, records: NDArray[np.intp]) -> Tensor:
        """Owners of the evaluation crops of records, (crops,); reads no signal."""
        owners = []
        for rate, samples, places in self.store.groups(self.rows[records]):
            count = len(evaluation_starts(self.preparation, samples, rate=rate))
            owners += count * [torch.from_numpy(places)]
        return torch.cat(owners)

    def _batch(self, chunk: Chunk, starts: Tensor) -> tuple[Tensor, float, Tensor]:
        """A chunk as `prepare_mixed` takes it."""
        signals = chunk.signals
        if self.preparation.sources != self.store.leads:
            order = [self.store.leads.index(lead) for lead in self.preparation.sources]
            signals = signals[:, order]
        return torch.from_numpy(signals), chunk.rate, starts


def long_enough(cohort: Cohort, store: Store, preparation: Preparation) -> Cohort:
    """Leave out records that are too short for a crop; `left_out` of the cohort counts them.

    Records in quarantine stay. The number is logged, with the name of one record.

    Raises
    ------
    PreparationError
        If every packed record is too short.
    """
    packed = np.flatnonzero(np.isin(cohort.ids(), store.index.index.to_numpy(dtype=str)))
    keep = np.ones(len(cohort), dtype=bool)
    shortest, reason = np.inf, None
    for rate, samples, places in store.groups(store.rows(cohort.ids()[packed])):
        try:
            resampled_length(preparation, samples, rate=rate)
        except PreparationError as error:
            keep[packed[places]] = False
            shortest, reason = min(shortest, samples / rate), error
    if reason is None:
        return cohort
    if not keep[packed].any():
        raise PreparationError(
            f"{cohort.name}: all {len(packed)} packed records are shorter than a crop, such as "
            f"{cohort.ids()[packed][0]!r}: {reason.problem}",
            remedy=reason.remedy,
        )
    count, first = int((~keep).sum()), cohort.ids()[~keep][0]
    log.info(
        f"records shorter than a crop are left out: {count} of {len(cohort)} of {cohort.name}, "
        f"such as {first} (the shortest has {shortest:g} s; {reason.remedy})"
    )
    return cohort.select(keep, reason=TOO_SHORT)


@dataclass(frozen=True)
class TrainingBatches:
    """Shuffled, cropped and augmented batches of one process.

    Crops are drawn for the batch of all processes together: a crop's position does not depend on
    the number of processes. Each process draws its own augmentation and mixes.

    Attributes
    ----------
    source : Source
        The records.
    batch_size : int
        Records a batch, in each process.
    seed : int
        Seed of the order, the crops, the augmentation and the mixes.
    augment : callable, optional
        `(signals, generator) -> signals`.
    mixing : Mixing, optional
        Mixes the augmented records of a process with each other.
    rank, world : int
        Number of this process, and number of processes that share every epoch.
    drop_last : bool
        Whether an epoch's incomplete last batch is dropped, unless it is the only one. If it is
        kept, each process has the same number of its records; with fewer than two records a
        process it is dropped all the same, as batch norm cannot normalise one record.
    """

    source: Source
    batch_size: int
    seed: int
    augment: Augmentation | None = None
    mixing: Mixing | None = None
    rank: int = 0
    world: int = 1
    drop_last: bool = True

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch, for each process."""
        whole, rest = divmod(len(self.source), self.batch_size * self.world)
        has_rest = not self.drop_last and rest >= 2 * self.world
        return max(1, whole + has_rest)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a position on."""
        order = self.source.order(seed=self.seed, epoch=epoch)
        for position in range(start, self.per_epoch):
            yield self._batch(order, epoch, position)

    def _batch(self, order: NDArray[np.intp], epoch: int, position: int) -> Batch:
        whole = self.batch_size * self.world
        batch = order[position * whole :][:whole]
        # The only batch of an epoch may be smaller; each process has the same share of it.
        batch = batch[: len(batch) // self.world * self.world]
        generator = generator_for(self.seed, epoch, position, 0)
        starts = self.source.crop_starts(batch, generator)[self.rank :: self.world]
        mine = batch[self.rank :: self.world]
        signals = self.source.crops(mine, starts)
        targets = self.source.targets_of(mine)
        if self.rank:
            generator = generator_for(self.seed, epoch, position, self.rank)
        if self.augment is not None:
            signals = self.augment(signals, generator)
        if self.mixing is not None:
            signals, targets = self.mixing(signals, targets, generator)
        return Batch(signals, targets, mine)


def epoch_order(count: int, *, seed: int, epoch: int) -> NDArray[np.intp]:
    """Permutation of the records, a function of seed and epoch alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, 0xEC6])).permutation(count)
