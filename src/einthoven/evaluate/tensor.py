"""The tensor path of the bootstrap: segment sums and running sums in PyTorch, on any device.

Between two steps of a label's ranking only sums of multiplicities matter. `embedding_bag` in its
"sum" mode takes them all in one call: its bags are the stretches of negatives and the steps'
positives of all labels, one label's order after another's; its embedding is the table of
multiplicities, one row a record, one column a resample. One running sum over the bags then gives
what is ranked above every step, once the total of all earlier labels is taken off each label's
first bag. Sums of integers below 2^24 are exact in float32; ratios are taken in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from einthoven.errors import EvaluationError
from einthoven.metrics.ranking import Ranking

EXACT = 2**24  # integers up to here are exact in float32
COLUMNS = 64  # resamples at a time on a CPU, so that the running sums stay in its cache


@dataclass(frozen=True, eq=False)
class _Layout:
    """The bags of a ranking, on a device.

    `rows` are record indices; bag `2 s` begins at `bags[2 s]` and holds the negatives before and
    among step `s` since the step before it, bag `2 s + 1` its positives. `tied` are the steps
    whose positives tie with negatives; `tied_bags[2 i]` begins the negatives of the i-th of them.
    `labels` are those with a step, `starts` their first steps.
    """

    rows: Tensor
    bags: Tensor
    tied: Tensor
    tied_bags: Tensor
    labels: Tensor
    starts: Tensor


def walk(
    ranking: Ranking, weights: NDArray[np.integer[Any]], *, trapezoid: bool, device: str = "cpu"
) -> tuple[NDArray[np.float64], ...]:
    """What `compiled.walk` returns, by PyTorch; same parameters, and the device to run on.

    Raises
    ------
    EvaluationError
        For a device that is not there or has no float64.
    """
    _refuse_device(device)
    totals = weights.sum(axis=0, dtype=np.float64)
    # No bag holds more than every label's records once.
    small = totals.max(initial=0) * ranking.labels < EXACT
    dtype = torch.float32 if small else torch.float64
    shape = (4, ranking.labels, totals.size)
    sums = torch.zeros(shape, dtype=torch.float64, device=device)
    columns = COLUMNS if sums.device.type == "cpu" else totals.size
    layout = _layout(ranking, device)
    with _one_thread():
        for start in range(0, totals.size if ranking.end.size else 0, columns):
            part = slice(start, start + columns)
            table = torch.as_tensor(np.ascontiguousarray(weights[:, part]), device=device)
            total = torch.as_tensor(totals[part], device=device)
            found = _label_sums(layout, table.to(dtype), total, trapezoid)
            sums[:3, layout.labels, part] = found
    above, area, hits, _ = sums.cpu().numpy()
    return above, area, hits, totals - hits


def _refuse_device(device: str) -> None:
    # Ratios need float64, which Apple's GPUs lack.
    known = {"cpu", "cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))}
    if device not in known or (device == "cuda" and not torch.cuda.is_available()):
        raise EvaluationError(
            f"device = {device!r} cannot be used here",
            remedy='use "cpu", or a CUDA GPU\'s "cuda:0"',
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    # The operations are many and small: on a busy machine waiting for a second thread at every
    # one of them costs several times what the thread saves.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _layout(ranking: Ranking, device: str) -> _Layout:
    steps = np.diff(ranking.offsets)
    base = np.repeat(np.arange(ranking.labels) * ranking.records, steps)
    bags = np.stack([base + ranking.positive, base + ranking.end], axis=1).ravel()
    tied = np.flatnonzero(ranking.positive > ranking.first)
    tied_bags = np.stack([base + ranking.first, base + ranking.positive], axis=1)[tied].ravel()
    labels = np.flatnonzero(steps)
    arrays = (
        ranking.order.ravel()[: bags[-1] if bags.size else 0],
        np.r_[0, bags[:-1]],
        tied,
        tied_bags,
        labels,
        ranking.offsets[labels],
    )
    return _Layout(*(torch.as_tensor(a.astype(np.int64), device=device) for a in arrays))


def _label_sums(layout: _Layout, weights: Tensor, total: Tensor, trapezoid: bool) -> Tensor:
    # (3, labels with a step, resamples): above, area and hits, as `walk` returns them.
    pairs = embedding_bag(layout.rows, weights, layout.bags, mode="sum")
    pairs = pairs.view(-1, 2, weights.shape[1])
    gained = pairs[:, 1].to(torch.float64, copy=True)
    found = _by_label(gained, layout)
    pairs[layout.starts] -= _earlier(found, layout.labels, total).to(pairs.dtype)
    misses, hits = pairs.cumsum(dim=0).double().unbind(dim=1)
    tied = _tied(layout, weights)
    precision = hits / (hits + misses).clamp_(min=1)
    if trapezoid:
        precision = precision.add_(_precision_before(hits - gained, misses - tied)).div_(2)
    above = misses.mul_(2).sub_(tied).mul_(gained)
    areas = _by_label(above, layout), _by_label(precision.mul_(gained), layout)
    return torch.stack([*areas, found])


def _by_label(values: Tensor, layout: _Layout) -> Tensor:
    steps = torch.arange(len(values), device=values.device)
    return embedding_bag(steps, values, layout.starts, mode="sum")


def _earlier(found: Tensor, labels: Tensor, total: Tensor) -> Tensor:
    # (labels with a step, 2, resamples): negatives and positives of the labels since the last
    # one with a step, itself included. Every label ranks all records, of total weight `total`.
    hits = found.cumsum(dim=0) - found
    misses = labels[:, None] * total - hits
    before = torch.stack([misses, hits], dim=1)
    return before.diff(dim=0, prepend=torch.zeros_like(before[:1]))


def _tied(layout: _Layout, weights: Tensor) -> Tensor:
    # Negatives tied with each step's positives: few steps have any, in continuous scores none.
    if not layout.tied.numel():
        return torch.zeros((), dtype=torch.float64, device=weights.device)
    first = layout.tied_bags[0]
    rows = layout.rows[first : layout.tied_bags[-1]]
    sums = embedding_bag(rows, weights, layout.tied_bags - first, mode="sum")[0::2].double()
    shape = (layout.bags.numel() // 2, weights.shape[1])
    return sums.new_zeros(shape).index_copy_(0, layout.tied, sums)


def _precision_before(hits: Tensor, misses: Tensor) -> Tensor:
    ranked = hits + misses
    return torch.where(ranked > 0, hits / ranked.clamp(min=1), 1.0)
