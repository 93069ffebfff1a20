"""Statistics of wavelet coefficients, the features of a lead in `wavelet_nn`.

A lead is decomposed by a discrete wavelet transform, db6 (Daubechies, "Orthonormal Bases of
Compactly Supported Wavelets", 1988), extended at both ends by its mirror image; twelve numbers
describe each of the coefficient arrays. Everything is in double precision: whether two coefficients
are equal decides the entropy.

PyWavelets is not used, because it rounds the ends of a signal differently from its inside: a flat
lead of 1,000 samples of 0.1 has up to seven different values in an array of PyWavelets 1.8, and
one here.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# The scaling filter of db6: the spectral factor whose zeros lie within the unit circle, computed
# with 60 digits.
COEFFICIENTS = (
    0.11154074335010946,
    0.49462389039845309,
    0.75113390802109535,
    0.31525035170919763,
    -0.22626469396543982,
    -0.12976686756726194,
    0.097501605587323049,
    0.027522865530305729,
    -0.031582039317486030,
    0.00055384220116149614,
    0.0047772575109455106,
    -0.0010773010853084796,
)
# The wavelet filter: the scaling filter backwards, every other tap negated.
_HIGH_PASS = tuple(tap * (-1) ** place for place, tap in enumerate(reversed(COEFFICIENTS)))
PERCENTILES = (5, 25, 75, 95, 50)
STATISTICS = (
    "entropy",
    "zero crossings",
    "mean crossings",
    *(f"percentile {p}" for p in PERCENTILES[:-1]),
    "median",
    "mean",
    "standard deviation",
    "variance",
    "root mean square",
)
"""Features of each coefficient array, in this order."""

_CACHED_ROWS = 96  # rows whose arrays stay in the processor's cache


def wavelet_features(x: Tensor, *, levels: int = 5) -> Tensor:
    """Describe every lead by statistics of its wavelet coefficients.

    Parameters
    ----------
    x : Tensor, shape (batch, leads, samples)
        At least as many samples as the filter has taps, 12.
    levels : int
        Times that the signal is split.

    Returns
    -------
    Tensor, shape (batch, leads, (levels + 1) * 12)
        Float64, without gradient: the `STATISTICS` of each of the arrays of `wavelet_arrays`.
    """
    rows = x.detach().flatten(0, 1)
    rows_at_once = _CACHED_ROWS if x.device.type == "cpu" else max(1, len(rows))
    statistics = torch.cat(
        [
            torch.cat([array_statistics(values) for values in wavelet_arrays(part, levels)], dim=1)
            for part in torch.split(rows, rows_at_once)
        ]
    )
    return statistics.view(*x.shape[:2], (levels + 1) * len(STATISTICS))


def wavelet_arrays(x: Tensor, levels: int) -> list[Tensor]:
    """The discrete wavelet transform of signals (rows, samples): a list of (rows, length), float64.

    The approximation comes first, then the details from the coarsest to the finest. A level turns
    n values into ``(n + 11) // 2`` of each kind, as PyWavelets does in its default mode
    ("symmetric"), which the published features were computed with.
    """
    details: list[Tensor] = []
    x = x.double()
    for _ in range(levels):
        x, detail = _split(x)
        details.append(detail)
    return [x, *reversed(details)]


def _split(x: Tensor) -> tuple[Tensor, Tensor]:
    """One level: approximation and detail."""
    taps, samples = len(COEFFICIENTS), x.shape[1]
    length = (samples + taps - 1) // 2
    before = taps - 2
    after = 2 * length - samples
    ends = x[:, :before].flip(1), x[:, samples - after :].flip(1)
    extended = torch.cat([ends[0], x, ends[1]], dim=1)
    phases = [extended[:, phase::2].contiguous() for phase in (0, 1)]
    low, high = x.new_zeros(2, len(x), length).unbind()
    term = torch.empty_like(low)
    for tap, weights in enumerate(zip(COEFFICIENTS, _HIGH_PASS, strict=True)):
        values = phases[tap % 2][:, tap // 2 : tap // 2 + length]
        # Products and sums are rounded one by one, not fused for some values and not for others:
        # the same samples give the same coefficient wherever they stand.
        low += torch.mul(values, weights[0], out=term)
        high += torch.mul(values, weights[1], out=term)
    return low, high


def array_statistics(values: Tensor) -> Tensor:
    """The `STATISTICS` of every row, (rows, length) float64 to (rows, 12).

    Where our sources name a statistic without defining it, this is our definition. Entropy: of the
    shares of exactly equal values, in nats. Crossings: how often of two neighbours one lies above
    zero (or the mean) and the other does not. Percentiles: linear between neighbours in rank.
    Standard deviation and variance: of the population.
    """
    ranked = _sorted(values)
    mean = values.mean(1, keepdim=True)
    centred = values - mean
    variance = (centred * centred).mean(1)
    columns = [
        _entropy(ranked),
        _crossings(values),
        _crossings(centred),
        *_percentiles(ranked),
        mean[:, 0],
        variance.sqrt(),
        variance,
        (values * values).mean(1).sqrt(),
    ]
    return torch.stack(columns, dim=1)


def _sorted(values: Tensor) -> Tensor:
    if values.device.type != "cpu":
        return values.sort(1).values
    # NumPy sorts with the processor's vector instructions, ten times faster than PyTorch.
    return torch.from_numpy(np.sort(values.numpy(), axis=1))


def _crossings(values: Tensor) -> Tensor:
    above = values > 0
    return (above[:, 1:] != above[:, :-1]).sum(1).double()


def _percentiles(ranked: Tensor) -> list[Tensor]:
    values = []
    for percentile in PERCENTILES:
        place = percentile / 100 * (ranked.shape[1] - 1)
        lower, upper = math.floor(place), math.ceil(place)
        values.append(torch.lerp(ranked[:, lower], ranked[:, upper], place - lower))
    return values


def _entropy(ranked: Tensor) -> Tensor:
    """log n - (1/n) sum of c log c over the counts c of the different values."""
    rows, length = ranked.shape
    entropy = ranked.new_full((rows,), math.log(length))
    same = ranked[:, 1:] == ranked[:, :-1]
    some = same.any(1).nonzero()[:, 0]
    if not len(some):
        return entropy
    # The c-th of equal values adds what c log c grows by from the one before.
    places = torch.arange(length, device=ranked.device).expand(len(some), -1)
    starts = places.clone()
    starts[:, 1:].masked_fill_(same[some], 0)
    count = (places - starts.cummax(1).values).double()
    grown = torch.xlogy(count + 1, count + 1) - torch.xlogy(count, count)
    entropy[some] -= grown.sum(1) / length
    return entropy
