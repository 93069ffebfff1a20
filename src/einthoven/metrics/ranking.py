"""Records in descending order of score, once for each label; everything else walks this order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The order of the records by every label's probability, cut into steps.

    A step is a group of records with equal probability that holds at least one positive; only
    there can recall, and with it either metric, change. Of the positions `first <= negatives end
    = positive <= positives end = end` of a step in `order`, those from the previous step's end to
    `first` are negatives ranked strictly between the two, those up to `positive` are negatives
    tied with the step's positives, and those up to `end` are its positives.

    Attributes
    ----------
    order : array of int32, shape (labels, records)
        Record indices by descending probability; negatives first among equals.
    first, positive, end : arrays of int32, shape (steps,)
        Positions in `order`, all labels after one another.
    offsets : array of int64, shape (labels + 1,)
        The steps of label `i` are `offsets[i]:offsets[i + 1]`.
    """

    order: Integers
    first: Integers
    positive: Integers
    end: Integers
    offsets: NDArray[np.int64]

    @property
    def labels(self) -> int:
        """How many labels there are."""
        return int(self.order.shape[0])

    @property
    def records(self) -> int:
        """How many records there are."""
        return int(self.order.shape[1])

    def steps(self, label: int) -> tuple[Integers, Integers, Integers]:
        """`first`, `positive` and `end` of one label."""
        part = slice(self.offsets[label], self.offsets[label + 1])
        return self.first[part], self.positive[part], self.end[part]


def rank(targets: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> Ranking:
    """Sort the records of every label.

    Parameters
    ----------
    targets : array of uint8, shape (records, labels)
        0 or 1.
    probabilities : array of float64, shape (records, labels)
        In [0, 1].
    """
    order = _descending(targets, probabilities)
    parts = [
        _steps(targets[rows, label], probabilities[rows, label]) for label, rows in enumerate(order)
    ]
    first, positive, end = (np.concatenate(column) for column in zip(*parts, strict=True))
    offsets = np.cumsum([0, *(part[0].size for part in parts)], dtype=np.int64)
    return Ranking(order, first, positive, end, offsets)


def _descending(targets: NDArray[np.uint8], probabilities: NDArray[np.float64]) -> Integers:
    # The bits of a float64 from 0 to 1 sort as it does and leave the top two unused: shifted by
    # one, they make room for the target, so that one sort of integers orders both.
    bits = np.ascontiguousarray(probabilities.T + 0.0).view(np.uint64)
    key = ~((bits << np.uint64(1)) | (1 - targets.T).astype(np.uint64))
    return np.argsort(key, axis=1).astype(np.int32)


def _steps(
    target: NDArray[np.uint8], score: NDArray[np.float64]
) -> tuple[Integers, Integers, Integers]:
    place = np.arange(score.size, dtype=np.int32)
    opens = np.ones(score.size, dtype=bool)
    np.not_equal(score[1:], score[:-1], out=opens[1:])
    group = np.maximum.accumulate(np.where(opens, place, 0))
    hits = place[target == 1]
    starts = group[hits]
    last = np.ones(hits.size, dtype=bool)
    np.not_equal(starts[1:], starts[:-1], out=last[:-1])
    leads = np.ones(hits.size, dtype=bool)
    leads[1:] = last[:-1]
    return starts[leads].astype(np.int32), hits[leads], hits[last] + np.int32(1)
