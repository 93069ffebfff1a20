"""Estimates of a metric by label, their bootstrap distribution and its confidence intervals.

A label of which a set of records, or a resample of it, holds one class only is undefined; a policy
decides what becomes of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from einthoven.errors import EvaluationError
from einthoven.evaluate.bootstrap import Draws, jackknife, multiplicities
from einthoven.evaluate.metrics import (
    AUPRC_DEFINITIONS,
    Ranking,
    check_option,
    point_metrics,
    rank,
    resampled_metrics,
)
from einthoven.predictions import listed

Floats = NDArray[np.float64]
Interval = tuple[float, float]

INTERVALS = ("percentile", "basic", "bca")
POLICIES = ("resample", "skip", "zero", "error")
"""Treatments of a label that has no positive, or no negative.

`resample` draws again until every label has both, as the PTB-XL benchmark does; `skip` averages
over the defined labels; `zero` counts an undefined label as 0, as torchmetrics does; `error`
refuses.
"""
STRICT = ("resample", "error")
"""Policies under which every label of the whole set must be defined."""


@dataclass(frozen=True)
class Plan:
    """Settings of a bootstrap, checked at construction; the fields are parameters of `score`."""

    resamples: int = 1000
    seed: int = 0
    undefined_labels: str = "resample"
    interval: str = "percentile"
    level: float = 0.95
    auprc: str = "average-precision"

    def __post_init__(self) -> None:
        check_option("undefined_labels", self.undefined_labels, POLICIES)
        check_option("interval", self.interval, INTERVALS)
        check_option("auprc", self.auprc, AUPRC_DEFINITIONS)
        for name in ("resamples", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
                raise EvaluationError(
                    f"{name} = {value!r} is not an integer >= 0", remedy=f"pass {name}=0"
                )
        if not 0 < self.level < 1:
            raise EvaluationError(
                f"level = {self.level!r} is not between 0 and 1", remedy="pass level=0.95"
            )
        fewest = math.ceil(1 / (1 - self.level) - 1e-9)
        if 0 < self.resamples < fewest:
            raise EvaluationError(
                f"{self.resamples} resamples are too few for intervals at {100 * self.level:g} %",
                remedy=f"pass resamples=1000, at least {fewest}, or 0 for no intervals",
            )


@dataclass(frozen=True, eq=False)
class Truth:
    """Checked targets, shape (records, labels), with the labels' names and the patients."""

    targets: NDArray[np.uint8]
    labels: tuple[str, ...]
    groups: NDArray[np.str_] | None

    @property
    def unit(self) -> str:
        """Unit of resampling: "record", or "patient" where patients are given."""
        return "record" if self.groups is None else "patient"


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric's values by label: for all records, every resample, and with one unit left out.

    Attributes
    ----------
    point : array, shape (labels,)
    replicates : array, shape (resamples, labels)
    left_out : array, shape (units, labels), or None
        NaN marks an undefined label in all three.
    """

    point: Floats
    replicates: Floats
    left_out: Floats | None

    def minus(self, other: Estimate) -> Estimate:
        """Subtract an estimate from the same resamples, pair by pair."""
        out = self.left_out
        if out is not None and other.left_out is not None:
            out = out - other.left_out
        return Estimate(self.point - other.point, self.replicates - other.replicates, out)

    def among(self, columns: Sequence[int]) -> Estimate:
        """Restrict the estimate to the labels at these places."""
        places = list(columns)
        out = None if self.left_out is None else self.left_out[:, places]
        return Estimate(self.point[places], self.replicates[:, places], out)

    def macro(self, policy: str) -> Estimate:
        """Average over labels, as an estimate with one column."""
        out = None if self.left_out is None else macro(self.left_out, policy)[:, None]
        point, replicates = macro(self.point, policy), macro(self.replicates, policy)
        return Estimate(point[None], replicates[:, None], out)

    def limits(self, plan: Plan) -> Floats | None:
        """Compute confidence limits, shape (labels, 2); None without resamples."""
        if not len(self.replicates):
            return None
        return intervals(
            plan.interval, self.point, self.replicates, level=plan.level, left_out=self.left_out
        )

    def interval(self, plan: Plan) -> Interval | None:
        """Compute the confidence interval of the first column; None without resamples."""
        limits = self.limits(plan)
        return None if limits is None else (float(limits[0, 0]), float(limits[0, 1]))

    def bias(self) -> float | None:
        """Mean of the first column's defined replicates minus the point; None without resamples."""
        values = self.replicates[:, 0]
        defined = values[~np.isnan(values)]
        if not len(values):
            return None
        return float(defined.mean() - self.point[0]) if defined.size else math.nan


def draw(truth: Truth, plan: Plan) -> Draws:
    """Draw the resamples of a plan.

    Raises
    ------
    EvaluationError
        If the plan's policy refuses undefined labels and there are some.
    """
    refuse_undefined(truth.targets, truth.labels, plan.undefined_labels)
    return multiplicities(
        len(truth.targets),
        plan.resamples,
        seed=plan.seed,
        groups=truth.groups,
        accept=truth.targets if plan.undefined_labels == "resample" else None,
        labels=truth.labels,
    )


def estimate(
    truth: Truth, probabilities: Floats, draws: Draws, plan: Plan
) -> tuple[Estimate, Estimate]:
    """Compute AUROC and AUPRC of every label, with a replicate for every resample."""
    ranking = rank(truth.targets, probabilities)
    areas, precisions = resampled_metrics(ranking, draws.multiplicities, auprc=plan.auprc)
    refuse_gaps(areas, truth.labels, plan.undefined_labels)
    out: tuple[Floats, Floats] | tuple[None, None] = (None, None)
    if plan.interval == "bca" and plan.resamples:
        out = _left_out(ranking, truth.groups, plan)
    points = point_metrics(ranking, auprc=plan.auprc)
    return Estimate(points[0], areas, out[0]), Estimate(points[1], precisions, out[1])


def _left_out(ranking: Ranking, groups: ArrayLike | None, plan: Plan) -> tuple[Floats, Floats]:
    # As many units as records, so this costs what records / resamples bootstraps cost. Where
    # the unit left out was a label's only positive, the label drops out of the acceleration.
    blocks = [
        resampled_metrics(ranking, rows, auprc=plan.auprc)
        for rows in jackknife(ranking[0].shape[1], groups=groups)
    ]
    areas, precisions = zip(*blocks, strict=True)
    return np.concatenate(areas), np.concatenate(precisions)


def macro(values: Floats, policy: str) -> Floats:
    """Mean over labels, the last axis, of values that are NaN where a label is undefined.

    NaN where a strict policy meets an undefined label, or `skip` meets no defined one.
    """
    if policy in STRICT:
        return np.asarray(values.mean(axis=-1))
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=-1)
    if policy == "zero":
        return np.asarray(total / values.shape[-1])
    count = defined.sum(axis=-1)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def refuse_undefined(targets: NDArray[np.uint8], labels: Sequence[str], policy: str) -> None:
    """Refuse labels that the policy needs defined and that no resample could define.

    Raises
    ------
    EvaluationError
        Under `error` and `resample`, if a label has no positive or no negative; under `skip` and
        `zero`, if no label is defined.
    """
    positives = targets.sum(axis=0, dtype=np.int64)
    no_positive, no_negative = positives == 0, positives == len(targets)
    undefined = no_positive | no_negative
    if not undefined.any() or (policy not in STRICT and not undefined.all()):
        return
    gaps = "; ".join(
        f"no {kind} among {len(targets)} records for {listed([labels[i] for i in where.tolist()])}"
        for kind, where in (
            ("positive", np.flatnonzero(no_positive)),
            ("negative", np.flatnonzero(no_negative)),
        )
        if where.size
    )
    raise EvaluationError(
        f"{int(undefined.sum())} of {len(labels)} labels are undefined: {gaps}",
        remedy='drop these labels, or average over the others with undefined_labels="skip"'
        if not undefined.all()
        else "score a set that holds positives and negatives of its labels",
    )


def refuse_gaps(values: Floats, labels: Sequence[str], policy: str) -> None:
    """Refuse resamples, shape (resamples, labels), with gaps that the policy does not allow."""
    gaps = np.isnan(values)
    if policy != "error" or not gaps.any():
        return
    worst = np.argsort(-gaps.sum(axis=0), kind="stable")
    names = [f"{labels[i]} in {int(gaps[:, i].sum())}" for i in worst if gaps[:, i].any()]
    raise EvaluationError(
        f"{int(gaps.any(axis=1).sum())} of {len(values)} resamples lack a label: {listed(names)}",
        remedy='use undefined_labels="resample" to draw such resamples again, or "skip"',
    )


def intervals(
    method: str,
    point: Floats,
    replicates: Floats,
    *,
    level: float = 0.95,
    left_out: Floats | None = None,
) -> Floats:
    """Compute lower and upper confidence limits of every column from bootstrap replicates.

    See Efron and Tibshirani 1993, chapters 13 and 14. Columns are separate statistics; replicates
    in which a statistic is undefined (NaN) are left out.

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
    # Each column with its own shares, over the replicates in which it is defined.
    limits = np.full(shares.shape, np.nan)
    for column, values in enumerate(replicates.T):
        defined = values[~np.isnan(values)]
        if defined.size:
            limits[column] = np.quantile(defined, shares[column])
    return limits
