"""Batches as a function of (seed, epoch, position).

Nothing is drawn from a stream that would have to be rewound: the order of an epoch comes from
(seed, epoch), a batch's crops and augmentation from (seed, epoch, position). A position is
therefore all that a checkpoint has to hold, and any batch can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from einthoven.errors import StoreError
from einthoven.signals.prepare import (
    Preparation,
    evaluation_starts,
    prepare_batch,
    random_starts,
)
from einthoven.signals.store import Chunk, Store

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


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


@dataclass(frozen=True, eq=False)
class SignalSource:
    """Records of a store with their targets: what batches are cut from.

    Attributes
    ----------
    store : Store
        Where the signals are.
    rows : numpy.ndarray
        `(records,)` rows of the store.
    targets : numpy.ndarray
        `(records, labels)` 0 and 1, aligned with `rows`; no columns when there are no labels.
    preparation : Preparation
        What is done to every signal.
    """

    store: Store
    rows: NDArray[np.intp]
    targets: NDArray[np.uint8]
    preparation: Preparation

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.targets):
            raise StoreError(
                f"{len(self.rows)} records and {len(self.targets)} targets",
                remedy="pass one row of targets a record",
            )
        absent = [lead for lead in self.preparation.leads if lead not in self.store.leads]
        if absent:
            raise StoreError(
                f"the store lacks leads {absent}", remedy="pack the leads that the backbone reads"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def training_batch(
        self, chosen: NDArray[np.intp], generator: torch.Generator, augment: Augmentation | None
    ) -> Batch:
        """One random crop of each chosen record, augmented."""
        out = torch.empty(len(chosen), len(self.preparation.leads), self.preparation.window)
        for chunk in self._chunks(chosen):
            count, samples = len(chunk.places), chunk.signals.shape[2]
            starts = random_starts(
                self.preparation, samples, rate=chunk.rate, count=count, generator=generator
            )
            out[torch.from_numpy(chunk.places)] = self._prepare(chunk, starts)
        if augment is not None:
            out = augment(out, generator)
        return Batch(out, self._targets(chosen), chosen)

    def evaluation_crops(self, chosen: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """All evaluation crops of the chosen records.

        Returns
        -------
        signals : Tensor
            `(crops, leads, window)`, crops of all records one after the other.
        owner : Tensor
            `(crops,)` position in `chosen` that a crop belongs to.
        """
        signals, owners = [], []
        for chunk in self._chunks(chosen):
            samples = chunk.signals.shape[2]
            for start in evaluation_starts(self.preparation, samples, rate=chunk.rate):
                starts = torch.full((len(chunk.places),), start, dtype=torch.long)
                signals.append(self._prepare(chunk, starts))
                owners.append(torch.from_numpy(chunk.places))
        return torch.cat(signals), torch.cat(owners)

    def _chunks(self, chosen: NDArray[np.intp]) -> list[Chunk]:
        return self.store.read(self.rows[chosen])

    def _prepare(self, chunk: Chunk, starts: Tensor) -> Tensor:
        signals = chunk.signals
        if self.preparation.leads != self.store.leads:
            order = [self.store.leads.index(lead) for lead in self.preparation.leads]
            signals = signals[:, order]
        return prepare_batch(
            self.preparation, torch.from_numpy(signals), rate=chunk.rate, starts=starts, unit="uV"
        )

    def _targets(self, chosen: NDArray[np.intp]) -> Tensor:
        return torch.from_numpy(self.targets[chosen].astype(np.float32))


@dataclass(frozen=True)
class TrainingBatches:
    """Shuffled, cropped and augmented batches of one process.

    Attributes
    ----------
    source : SignalSource
        The records.
    batch_size : int
        Records a batch, in each process. An epoch's incomplete last batch is dropped, unless it
        is the only one.
    seed : int
        What order, crops and augmentation are drawn from.
    augment : callable, optional
        `(signals, generator) -> signals`.
    rank, world : int
        This process's number, and how many there are; they share every epoch.
    """

    source: SignalSource
    batch_size: int
    seed: int
    augment: Augmentation | None = None
    rank: int = 0
    world: int = 1

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch, for each process."""
        return max(1, len(self.source) // (self.batch_size * self.world))

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a position on."""
        order = epoch_order(len(self.source), seed=self.seed, epoch=epoch)
        for position in range(start, self.per_epoch):
            yield self._batch(order, epoch, position)

    def _batch(self, order: NDArray[np.intp], epoch: int, position: int) -> Batch:
        everyone = order[position * self.batch_size * self.world :][: self.batch_size * self.world]
        generator = generator_for(self.seed, epoch, position, self.rank)
        return self.source.training_batch(
            everyone[self.rank :: self.world], generator, self.augment
        )


def epoch_order(count: int, *, seed: int, epoch: int) -> NDArray[np.intp]:
    """A permutation of the records, a function of seed and epoch alone."""
    return np.random.default_rng(np.random.SeedSequence([seed, epoch, 0xEC6])).permutation(count)


def generator_for(*key: int) -> torch.Generator:
    """A torch generator that depends on nothing but its key."""
    state = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
