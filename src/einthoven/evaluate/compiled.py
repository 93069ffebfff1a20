"""The compiled path of the bootstrap: one walk down each label's ranking, all resamples at once.

Needs numba (`pip install einthoven[fast]`). The resamples are the innermost, contiguous axis, so
that the compiler turns every inner loop into vector instructions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from einthoven.metrics.ranking import Ranking

THREAD_WORTH = 20_000_000  # additions that are worth a second thread


def walk(
    ranking: Ranking, weights: NDArray[np.integer[Any]], *, trapezoid: bool
) -> tuple[NDArray[np.float64], ...]:
    """Sums over each label's ranking, for every resample.

    Parameters
    ----------
    ranking : Ranking
    weights : array of integers, shape (records, resamples), C-contiguous
        Multiplicities.
    trapezoid : bool
        Trapezoid instead of step sum under the precision-recall curve.

    Returns
    -------
    above, area, hits, misses : arrays of float64, shape (labels, resamples)
        Twice the number of (positive, negative) pairs in the wrong order; positives times AUPRC;
        positives; negatives.
    """
    shape = (ranking.labels, weights.shape[1])
    above, area = np.zeros(shape), np.zeros(shape)
    hits, misses = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    steps = (ranking.first, ranking.positive, ranking.end, ranking.offsets)
    arguments = (ranking.order, *steps, weights, trapezoid, above, area, hits, misses)
    workers = _workers(ranking.order.size * weights.shape[1])
    shares = [np.arange(i, ranking.labels, workers) for i in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(partial(_walk_share, arguments), shares))
    return above, area, hits.astype(np.float64), misses.astype(np.float64)


def _walk_share(arguments: tuple[Any, ...], labels: NDArray[np.intp]) -> None:
    _walk(labels, *arguments)


def _workers(work: int) -> int:
    # Threads of our own instead of numba's: its default pool aborts when two threads enter it.
    allowed = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    return max(1, min(cores, work // THREAD_WORTH))


def _compile(function: Callable[..., None]) -> Any:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder that could hold its cache
        return numba.njit(**options)(function)


@_compile
def _add_rows(total, weights, rows):  # type: ignore[no-untyped-def]
    # Four rows at a time, so that the total is read and written a quarter as often.
    whole = rows.size - rows.size % 4
    for i in range(0, whole, 4):
        p, q = weights[rows[i]], weights[rows[i + 1]]
        r, s = weights[rows[i + 2]], weights[rows[i + 3]]
        for k in range(total.size):
            total[k] += np.int32(p[k]) + np.int32(q[k]) + np.int32(r[k]) + np.int32(s[k])
    for i in range(whole, rows.size):
        p = weights[rows[i]]
        for k in range(total.size):
            total[k] += np.int32(p[k])


@_compile
def _step(gained, tied, hits, misses, above, area):  # type: ignore[no-untyped-def]
    for k in range(gained.size):
        before = misses[k]
        misses[k] = before + tied[k]
        hits[k] += gained[k]
        d = np.float64(gained[k])
        above[k] += d * np.float64(before + misses[k])
        area[k] += d * (np.float64(hits[k]) / np.float64(max(hits[k] + misses[k], 1)))


@_compile
def _step_trapezoid(gained, tied, hits, misses, above, area):  # type: ignore[no-untyped-def]
    for k in range(gained.size):
        before, found = misses[k], hits[k]
        ranked = before + found
        misses[k] = before + tied[k]
        hits[k] = found + gained[k]
        d = np.float64(gained[k])
        above[k] += d * np.float64(before + misses[k])
        left = 1.0 if ranked == 0 else np.float64(found) / np.float64(max(ranked, 1))
        right = np.float64(hits[k]) / np.float64(max(hits[k] + misses[k], 1))
        area[k] += d * (0.5 * (left + right))


@_compile
def _walk(  # type: ignore[no-untyped-def]
    labels, order, first, positive, end, offsets, weights, trapezoid, above, area, hits, misses
):
    gained = np.zeros(weights.shape[1], np.int32)
    tied = np.zeros(weights.shape[1], np.int32)
    for label in labels:
        done = 0
        for step in range(offsets[label], offsets[label + 1]):
            gained[:] = 0
            tied[:] = 0
            _add_rows(misses[label], weights, order[label, done : first[step]])
            _add_rows(tied, weights, order[label, first[step] : positive[step]])
            _add_rows(gained, weights, order[label, positive[step] : end[step]])
            done = end[step]
            state = gained, tied, hits[label], misses[label], above[label], area[label]
            if trapezoid:
                _step_trapezoid(*state)
            else:
                _step(*state)
        _add_rows(misses[label], weights, order[label, done:])
