"""The tensor path of the bootstrap: segment sums and running sums in PyTorch, on any device.

Between two steps of a label's ranking only sums of multiplicities matter. `embedding_bag` in its
"sum" mode takes them all in one call: its bags are the stretches of negatives and the steps'
positives, its embedding is the table of multiplicities, one row a record, one column a resample.
Sums of integers below 2^24 are exact in float32; ratios are taken in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from einthoven.evaluate.ranking import Integers, Ranking

EXACT = 2**24  # integers up to here are exact in float32


def walk(
    ranking: Ranking,
    weights: NDArray[np.integer[Any]],
    *,
    trapezoid: bool,
    device: str = "cpu",
) -> tuple[NDArray[np.float64], ...]:
    """What `compiled.walk` returns, by PyTorch; same parameters, and the device to run on."""
    dtype = torch.float32 if weights.sum(axis=0).max(initial=0) < EXACT else torch.float64
    table = torch.as_tensor(weights, device=device).to(dtype)
    results = torch.empty((ranking.labels, 4, table.shape[1]), dtype=torch.float64, device=device)
    for label, order in enumerate(torch.as_tensor(ranking.order, device=device)):
        results[label] = _label_sums(order, ranking.steps(label), table, trapezoid)
    return tuple(results.cpu().numpy().swapaxes(0, 1))


def _label_sums(
    rows: Tensor, steps: tuple[Integers, Integers, Integers], weights: Tensor, trapezoid: bool
) -> Tensor:
    first, positive, end = steps
    stretches = _sums(rows, np.r_[0, np.stack([positive, end], axis=1).ravel()], weights)
    pairs = stretches[:-1].view(-1, 2, weights.shape[1])
    gained = pairs[:, 1].double()
    misses, hits = pairs.cumsum(dim=0).double().unbind(dim=1)
    tied = _tied(rows, first, positive, weights)
    precision = hits / (hits + misses).clamp_(min=1)
    if trapezoid:
        precision = (precision + _precision_before(hits - gained, misses - tied)) / 2
    return torch.stack(
        [
            torch.linalg.vecdot(gained, 2 * misses - tied, dim=0),
            torch.linalg.vecdot(gained, precision, dim=0),
            gained.sum(dim=0),
            stretches[0::2].double().sum(dim=0),
        ]
    )


def _sums(rows: Tensor, starts: NDArray[np.integer[Any]], weights: Tensor) -> Tensor:
    # Row j: the sum of the weights of the records ranked from starts[j] to starts[j + 1].
    offsets = torch.as_tensor(starts.astype(np.int32), device=rows.device)
    return embedding_bag(rows, weights, offsets, mode="sum")


def _tied(rows: Tensor, first: Integers, positive: Integers, weights: Tensor) -> Tensor:
    # Negatives tied with each step's positives: few steps have any, in continuous scores none.
    some = np.flatnonzero(positive > first)
    if not some.size:
        return torch.zeros((), dtype=torch.float64, device=rows.device)
    starts = np.stack([first[some], positive[some]], axis=1).ravel()
    sums = _sums(rows[starts[0] : starts[-1]], starts - starts[0], weights)[0::2]
    tied = torch.zeros((first.size, weights.shape[1]), dtype=torch.float64, device=rows.device)
    return tied.index_copy_(0, torch.as_tensor(some, device=rows.device), sums.double())


def _precision_before(hits: Tensor, misses: Tensor) -> Tensor:
    ranked = hits + misses
    return torch.where(ranked > 0, hits / ranked.clamp(min=1), 1.0)
