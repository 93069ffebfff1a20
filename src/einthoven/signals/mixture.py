"""Several sources in one training: each gives its share of every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from einthoven.errors import StoreError
from einthoven.signals.batches import SignalSource, epoch_order

__all__ = ["Mixture", "draws_by_weight"]


@dataclass(frozen=True, eq=False)
class Mixture:
    """Sources that are drawn from together; a `Source` for training batches.

    An epoch is as many draws as there are records in all sources. Each source gives its number of
    them, in an order that is random over the epoch. Within a source nothing is drawn twice before
    everything was drawn once: a pass goes on where the epoch before left it, so that a source with
    few draws is still seen whole, and one with many is repeated evenly.

    Records are numbered through all sources, in their order.

    Attributes
    ----------
    sources : tuple of SignalSource
        With one and the same preparation.
    draws : tuple of int
        How many of an epoch's draws come from each source.

    Raises
    ------
    StoreError
        When a source is never drawn from, or the sources are prepared differently.
    """

    sources: tuple[SignalSource, ...]
    draws: tuple[int, ...]

    def __post_init__(self) -> None:
        if len({source.preparation for source in self.sources}) != 1:
            raise StoreError(
                "sources of a mixture are prepared differently",
                remedy="give each source the same preparation",
            )
        if len(self.draws) != len(self.sources) or min(self.draws) < 1:
            raise StoreError(
                f"draws of {self.draws} from {len(self.sources)} sources",
                remedy="draw at least once an epoch from every source: raise its weight",
            )

    def __len__(self) -> int:
        return sum(self.draws)

    @cached_property
    def ends(self) -> NDArray[np.intp]:
        """Number of records in each source and those before it."""
        return np.cumsum([len(source) for source in self.sources])

    def order(self, *, seed: int, epoch: int) -> NDArray[np.intp]:
        """Which record each draw of an epoch is; a function of seed and epoch alone."""
        drawn = [
            end - len(source) + _stretch(len(source), epoch * count, count, seed=seed, part=part)
            for part, (source, count, end) in enumerate(
                zip(self.sources, self.draws, self.ends, strict=True)
            )
        ]
        return np.concatenate(drawn)[epoch_order(len(self), seed=seed, epoch=epoch)]

    def crop_starts(self, chosen: NDArray[np.intp], generator: torch.Generator) -> Tensor:
        """Where a random crop of each chosen record begins, source by source."""
        starts = torch.empty(len(chosen), dtype=torch.long)
        for source, places, rows in self._shares(chosen):
            starts[places] = source.crop_starts(rows, generator)
        return starts

    def crops(self, chosen: NDArray[np.intp], starts: Tensor) -> Tensor:
        """One prepared crop of each chosen record, whatever the rate of its store."""
        preparation = self.sources[0].preparation
        out = torch.empty(len(chosen), len(preparation.leads), preparation.window)
        for source, places, rows in self._shares(chosen):
            out[places] = source.crops(rows, starts[places])
        return out

    def targets_of(self, chosen: NDArray[np.intp]) -> Tensor:
        """No labels: sources do not share any."""
        return torch.zeros(len(chosen), 0)

    def _shares(
        self, chosen: NDArray[np.intp]
    ) -> list[tuple[SignalSource, Tensor, NDArray[np.intp]]]:
        owner = np.searchsorted(self.ends, chosen, side="right")
        shares = []
        for part, source in enumerate(self.sources):
            places = np.flatnonzero(owner == part)
            if len(places):
                rows = chosen[places] - (self.ends[part] - len(source))
                shares.append((source, torch.from_numpy(places), rows))
        return shares


def draws_by_weight(records: Sequence[int], weights: Sequence[float]) -> tuple[int, ...]:
    """Share an epoch of ``sum(records)`` draws by weight, in whole draws (largest remainders).

    Parameters
    ----------
    records : sequence of int
        Records of each source.
    weights : sequence of float
        Above zero; only their ratios count.
    """
    total = sum(records)
    exact = np.asarray(weights, dtype=np.float64) / sum(weights) * total
    draws = np.floor(exact).astype(int)
    short = total - int(draws.sum())
    draws[np.argsort(draws - exact, kind="stable")[:short]] += 1
    return tuple(int(count) for count in draws)


def _stretch(records: int, start: int, count: int, *, seed: int, part: int) -> NDArray[np.intp]:
    """Draws `start` to `start + count` of a source that is shuffled anew for every pass."""
    first, last = start // records, (start + count - 1) // records
    passes = [
        np.random.default_rng(np.random.SeedSequence([seed, number, part, 0xC0])).permutation(
            records
        )
        for number in range(first, last + 1)
    ]
    return np.concatenate(passes)[start - first * records :][:count]
