"""Bootstrap resamples as multiplicities: the number of times each record was drawn.

A resample of n units (records, or patients with all of their records) is n draws with replacement.
Under accept-reject a resample counts only if every label has a positive and a negative in it. On
the 71 statements of PTB-XL's test fold nine of ten resamples fail that, nearly all of them
because of the same few dozen records. The number of draws that fall on those records is binomial,
and they fall among them uniformly, independently of the rest. Those records are therefore drawn
first, and the rest only for resamples that have not failed yet; the distribution is that of
drawing all records and rejecting afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import EvaluationError, listed

Counts = NDArray[np.int32]

# A resample misses a class that k units hold with probability below exp(-k).
DRAW_FIRST_UP_TO = 12  # units; classes that are missed often enough to decide a resample early
NO_CHECK_ABOVE = 64  # units; P(class absent) < exp(-64)
DRAWS_AT_A_TIME = 1024  # changes nothing but speed and memory
MOST_CELLS = 500_000  # of a table of counts
DRAWS_BEFORE_GIVING_UP = 20_000
LOWEST_ACCEPTANCE = 1e-3  # drawing stops below it


@dataclass(frozen=True, eq=False)
class Draws:
    """Accepted resamples.

    Attributes
    ----------
    multiplicities : array of unsigned integers, shape (resamples, records)
        Occurrences of each record in each resample.
    drawn : int
        Resamples drawn until the last accepted one.
    """

    multiplicities: NDArray[Any]
    drawn: int

    @property
    def acceptance(self) -> float:
        """Accepted resamples over drawn ones."""
        return len(self.multiplicities) / self.drawn if self.drawn else 1.0


def multiplicities(
    n: int,
    resamples: int,
    *,
    seed: int = 0,
    groups: ArrayLike | None = None,
    accept: NDArray[Any] | None = None,
    labels: Sequence[str] | None = None,
) -> Draws:
    """Draw bootstrap resamples of `n` records.

    Parameters
    ----------
    n : int
        Number of records.
    resamples : int
        Number of accepted resamples to return.
    seed : int
        The result is a function of the arguments, whatever number is drawn at a time.
    groups : array, shape (n,), optional
        Patient of each record; patients are drawn instead of records, as many as there are, each
        with all of its records.
    accept : array of 0 and 1, shape (n, labels), optional
        Targets; resamples without a positive or without a negative of some label are drawn again
        (the rule of the PTB-XL benchmark requires only the positives).
    labels : sequence of str, optional
        Names of the labels, for messages.

    Raises
    ------
    EvaluationError
        If fewer than one resample in a thousand is accepted; the message names the rarest labels.
    """
    unit, count = _units(n, groups)
    required = np.empty((count, 0), bool) if accept is None else _presence(accept, unit, count)
    block = int(np.clip(MOST_CELLS // count, 1, DRAWS_AT_A_TIME))
    blocks: list[NDArray[Any]] = [np.empty((0, n), np.uint8)]
    accepted = drawn = 0
    source = _Source(count, required, seed)
    place = np.argsort(source.order)[unit]
    while accepted < resamples:
        # As many as should suffice, judged by the acceptance so far.
        batch = (resamples - accepted) * max(drawn, 1) // max(accepted, 1) + 16
        size = min(block, batch)
        places, counts = source.draw(size)
        enough = places[: resamples - accepted]
        smallest = np.min_scalar_type(int(counts.max(initial=0)))
        blocks.append(counts[: enough.size, place].astype(smallest))
        drawn += int(enough[-1]) + 1 if accepted + enough.size == resamples else size
        accepted += enough.size
        if drawn >= DRAWS_BEFORE_GIVING_UP and accepted < drawn * LOWEST_ACCEPTANCE:
            raise _too_few_accepted(accepted, drawn, required, labels)
    return Draws(np.concatenate(blocks), drawn)


def jackknife_draws(n: int, *, groups: ArrayLike | None = None) -> Iterator[NDArray[np.uint8]]:
    """Multiplicities with one record, or one patient, left out; blocks of (some, n) rows."""
    unit, count = _units(n, groups)
    step = int(np.clip(MOST_CELLS // n, 1, DRAWS_AT_A_TIME))
    for start in range(0, count, step):
        omitted = np.arange(start, min(start + step, count))[:, None]
        yield (unit != omitted).astype(np.uint8)


class _Source:
    """Source of resamples in a fixed order, whatever the number drawn at a time."""

    def __init__(self, count: int, required: NDArray[np.bool_], seed: int) -> None:
        holders = required.sum(axis=0)
        rare = holders <= DRAW_FIRST_UP_TO
        common = ~rare & (holders <= NO_CHECK_ABOVE)
        first = required[:, rare].any(axis=1)
        self.count = count
        # The units drawn first, then the others; counts are kept in this order until the end.
        self.order = np.concatenate([np.flatnonzero(first), np.flatnonzero(~first)])
        self.first = int(first.sum())
        self.rare = required[self.order[: self.first]][:, rare]
        self.common = required[self.order][:, common]
        # One stream for each kind of draw, so that none depends on how far another has gone.
        self.sizes, self.firsts, self.rests = (
            np.random.Generator(np.random.PCG64(child))
            for child in np.random.SeedSequence(seed).spawn(3)
        )

    def draw(self, size: int) -> tuple[NDArray[np.intp], Counts]:
        """Draw `size` resamples; return the accepted ones' places and (accepted, units) counts."""
        inside = self.sizes.binomial(self.count, self.first / self.count, size)
        first = _tally(self.firsts, inside, self.first)
        alive = np.flatnonzero(_present(first, self.rare))
        rest = _tally(self.rests, self.count - inside[alive], self.count - self.first)
        counts = np.concatenate([first[alive], rest], axis=1)
        passed = _present(counts, self.common)
        return alive[passed], counts[passed]


def _present(counts: Counts, required: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether a resample holds every required class; reads only units that hold one."""
    holders = np.flatnonzero(required.any(axis=1))
    present = counts[:, holders].astype(np.float32) @ required[holders].astype(np.float32) > 0
    return np.asarray(present.all(axis=1))


def _tally(source: np.random.Generator, draws: NDArray[np.integer], bins: int) -> Counts:
    # Row i: `draws[i]` balls thrown into `bins` bins.
    if not bins:
        return np.zeros((draws.size, 0), np.int32)
    row = np.repeat(np.arange(draws.size) * bins, draws)
    cells = row + source.integers(0, bins, row.size)
    counts = np.bincount(cells, minlength=draws.size * bins).reshape(draws.size, bins)
    return counts.astype(np.int32)


def _units(n: int, groups: ArrayLike | None) -> tuple[NDArray[np.intp], int]:
    if groups is None:
        return np.arange(n), n
    # Numbered by first occurrence: one record a patient then draws as if by record.
    _, place, inverse = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    number = np.empty_like(place)
    number[np.argsort(place)] = np.arange(place.size)
    return number[inverse], int(place.size)


def _presence(targets: NDArray[Any], unit: NDArray[np.intp], count: int) -> NDArray[np.bool_]:
    # (units, 2 x labels): which unit holds a positive, then a negative, of each label.
    both = np.concatenate([targets == 1, targets == 0], axis=1)
    present = np.zeros((count, both.shape[1]), dtype=bool)
    np.logical_or.at(present, unit, both)
    return present


def _too_few_accepted(
    accepted: int, drawn: int, required: NDArray[np.bool_], labels: Sequence[str] | None
) -> EvaluationError:
    holders = required.sum(axis=0)
    half = holders.size // 2
    names = labels if labels is not None else [str(i) for i in range(half)]
    rarest = [
        f"{names[i % half]} ({holders[i]} with a {'positive' if i < half else 'negative'})"
        for i in np.argsort(holders, kind="stable")
    ]
    return EvaluationError(
        f"only {accepted} of {drawn} resamples hold a positive and a negative of every label; the "
        f"rarest are {listed(rarest)}",
        remedy='use undefined_labels="skip", or drop the rarest labels',
    )
