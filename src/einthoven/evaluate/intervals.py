"""Confidence intervals from bootstrap replicates (Efron and Tibshirani 1993, chapters 13 and 14).

Every function works on columns, one statistic each, and leaves out NaN: a replicate in which the
statistic was undefined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from einthoven.errors import EvaluationError

Floats = NDArray[np.float64]

INTERVALS = ("percentile", "basic", "bca")


def intervals(
    method: str,
    point: Floats,
    replicates: Floats,
    *,
    level: float = 0.95,
    left_out: Floats | None = None,
) -> Floats:
    """Lower and upper confidence limits of every column.

    Parameters
    ----------
    method : {"percentile", "basic", "bca"}
        `percentile` takes the quantiles of the replicates; `basic` reflects them about the point;
        `bca` corrects them for bias and for skewness.
    point : array, shape (columns,)
        The statistics of the whole set.
    replicates : array, shape (resamples, columns)
        The statistics of every resample.
    level : float
        Share of the distribution between the limits.
    left_out : array, shape (units, columns), optional
        The statistics with one record, or patient, left out; `bca` needs them.

    Returns
    -------
    array, shape (columns, 2)
        NaN for a column without a defined replicate.
    """
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    shares = np.broadcast_to(tails, (point.size, 2))
    if method == "bca":
        shares = _bca_shares(tails, point, replicates, left_out)
    limits = _quantiles(replicates, shares)
    return 2 * point[:, None] - limits[:, ::-1] if method == "basic" else limits


def _bca_shares(
    tails: Floats, point: Floats, replicates: Floats, left_out: Floats | None
) -> Floats:
    if left_out is None:
        raise EvaluationError(
            'a "bca" interval needs the leave-one-out values', remedy="pass left_out"
        )
    correction = ndtri(_share_below(point, replicates))[:, None]
    shifted = correction + ndtri(tails)
    skew = _acceleration(left_out)[:, None]
    return np.asarray(ndtr(correction + shifted / (1 - skew * shifted)))


def _share_below(point: Floats, replicates: Floats) -> Floats:
    # Equal replicates count one half. A point beyond all of them would put both limits at
    # infinity; it counts as half a replicate away instead.
    defined = np.maximum((~np.isnan(replicates)).sum(axis=0), 1)
    below = (replicates < point).sum(axis=0) + (replicates == point).sum(axis=0) / 2
    edge = 0.5 / defined
    return np.asarray(np.clip(below / defined, edge, 1 - edge))


def _acceleration(left_out: Floats) -> Floats:
    defined = ~np.isnan(left_out)
    count = np.maximum(defined.sum(axis=0), 1)
    mean = np.where(defined, left_out, 0.0).sum(axis=0) / count
    away = np.where(defined, mean - left_out, 0.0)
    spread = (away**2).sum(axis=0) ** 1.5
    return np.asarray((away**3).sum(axis=0) / np.where(spread > 0, 6 * spread, 1.0))


def _quantiles(replicates: Floats, shares: Floats) -> Floats:
    # Linear interpolation between order statistics, each column with its own shares. NaN sorts
    # last, so the first `defined` values of a sorted column are the ones to use.
    if not len(replicates):
        return np.full(shares.shape, np.nan)
    ordered = np.sort(replicates, axis=0)
    defined = (~np.isnan(replicates)).sum(axis=0)[:, None]
    place = shares * np.maximum(defined - 1, 0)
    lower = np.floor(place).astype(np.intp)
    upper = np.minimum(lower + 1, np.maximum(defined - 1, 0))
    column = np.arange(len(shares))[:, None]
    low, high = ordered[lower, column], ordered[upper, column]
    return np.asarray(low + (high - low) * (place - lower))
