"""The compiled form of wavelet features: a lead's arrays are made and described in the cache.

Needs numba (`pip install einthoven[fast]`). Coefficients are those of `wavelet_features` to the
last bit, because products and sums are rounded one by one and in the same order there and here;
means differ in the last digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.backbones.layers.compiling import compiled, in_threads

__all__ = ["features"]

Floats = NDArray[np.floating[Any]]

_TOGETHER = 48  # rows whose arrays stay in the cache between two passes


@compiled()
def _phases(x, before, after, even, odd):  # type: ignore[no-untyped-def]
    # The samples and their mirror images at both ends; even and odd places apart.
    samples = x.size
    for place in range(before + samples + after):
        t = place - before
        if t < 0:
            t = -1 - t
        elif t >= samples:
            t = 2 * samples - 1 - t
        if place % 2:
            odd[place // 2] = x[t]
        else:
            even[place // 2] = x[t]


@compiled()
def _filter(even, odd, taps, target):  # type: ignore[no-untyped-def]
    length = target.size
    target[:] = 0
    for k in range(taps.size // 2):
        first, second = taps[2 * k], taps[2 * k + 1]
        p, q = even[k : k + length], odd[k : k + length]
        for n in range(length):
            target[n] = target[n] + first * p[n] + second * q[n]


@compiled()
def _transform(x, low, high, lengths, out):  # type: ignore[no-untyped-def]
    # One row, float64; the arrays of these lengths one after the other, the approximation first.
    even, odd = np.empty(x.size + low.size), np.empty(x.size + low.size)
    before, end = low.size - 2, out.size
    for level in range(lengths.size - 1, 0, -1):
        length = lengths[level]
        _phases(x, before, 2 * length - x.size, even, odd)
        _filter(even, odd, high, out[end - length : end])
        x = np.empty(length)
        _filter(even, odd, low, x)
        end -= length
    out[:end] = x


@compiled(reassociate=True)
def _moments(values, out):  # type: ignore[no-untyped-def]
    total, squares, spread = 0.0, 0.0, 0.0
    for i in range(values.size):
        total += values[i]
        squares += values[i] * values[i]
    mean = total / values.size
    for i in range(values.size):
        spread += (values[i] - mean) * (values[i] - mean)
    variance = spread / values.size
    out[0], out[1], out[2], out[3] = mean, math.sqrt(variance), variance, squares / values.size
    out[3] = math.sqrt(out[3])


@compiled()
def _crossings(values, level):  # type: ignore[no-untyped-def]
    now, before, crossings = values[1:], values[: values.size - 1], 0
    for i in range(now.size):
        crossings += (now[i] > level) != (before[i] > level)
    return crossings


@compiled()
def _entropy(ranked):  # type: ignore[no-untyped-def]
    same, total = 1, 0.0
    for i in range(1, ranked.size + 1):
        if i < ranked.size and ranked[i] == ranked[i - 1]:
            same += 1
        elif same > 1:
            total += same * math.log(same)
            same = 1
    return math.log(ranked.size) - total / ranked.size


@compiled()
def _statistics(values, ranked, places, out):  # type: ignore[no-untyped-def]
    # One array of one row, in the order of `wavelet_features.STATISTICS`.
    moments = 3 + places.size
    _moments(values, out[moments:])
    out[0] = _entropy(ranked)
    out[1] = _crossings(values, 0.0)
    out[2] = _crossings(values, out[moments])
    for i in range(places.size):
        place = places[i] * (values.size - 1)
        below = int(place)
        above = min(below + 1, values.size - 1)
        out[3 + i] = ranked[below] + (place - below) * (ranked[above] - ranked[below])


@compiled()
def _transforms(x, low, high, lengths, out):  # type: ignore[no-untyped-def]
    for row in range(len(x)):
        _transform(x[row].astype(np.float64), low, high, lengths, out[row])


@compiled()
def _all_statistics(values, ranked, lengths, places, out):  # type: ignore[no-untyped-def]
    count = out.shape[1] // lengths.size
    for row in range(len(values)):
        begin = 0
        for array in range(lengths.size):
            own = slice(begin, begin + lengths[array])
            target = out[row, array * count : (array + 1) * count]
            _statistics(values[row, own], ranked[row, own], places, target)
            begin += lengths[array]


def features(
    x: Floats, low: Floats, high: Floats, lengths: NDArray[np.int64], places: Floats
) -> NDArray[np.float64]:
    """Statistics of the wavelet coefficients of every row.

    Parameters
    ----------
    x : array, shape (rows, samples)
    low, high : array
        Taps of both filters, in the order of time.
    lengths : array of int64
        Of the arrays, the approximation first.
    places : array
        Percentiles, as shares.

    Returns
    -------
    array, shape (rows, arrays * (7 + percentiles))
    """
    rows, ends = len(x), np.cumsum(lengths)
    out = np.empty((rows, len(lengths) * (7 + len(places))))

    def describe(first: int, stop: int) -> None:
        values = np.empty((stop - first, int(ends[-1])))
        _transforms(x[first:stop], low, high, lengths, values)
        ranked = values.copy()
        for begin, end in zip(ends - lengths, ends, strict=True):
            ranked[:, begin:end].sort(axis=1)  # NumPy's has vector instructions
        _all_statistics(values, ranked, lengths, places, out[first:stop])

    def share(first: int, stop: int) -> None:
        for begin in range(first, stop, _TOGETHER):
            describe(begin, min(begin + _TOGETHER, stop))

    in_threads(share, rows)
    return out
