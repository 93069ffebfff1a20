"""Estimates of a metric by label, their bootstrap distribution and its confidence intervals.

A label of which a set of records, or a resample of it, holds one class only is undefined; a policy
determines how a mean over labels treats it.

Intervals are for the value in the population from which the records, or patients, were drawn.
Average precision is biased upwards in a sample, and once more in a resample of it, so that its
percentile intervals lie too high; docs/evaluation.md has the measured coverage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit, logit, ndtr, ndtri, stdtrit

from einthoven.errors import EvaluationError, listed, validated
from einthoven.evaluate.bootstrap import Draws, jackknife_draws, multiplicities
from einthoven.evaluate.metrics import (
    AuprcDefinition,
    Floats,
    point_metrics,
    rank,
    resampled_metrics,
)
from einthoven.files import Json
from einthoven.predictions import Predictions
from einthoven.tasks import negatives, positives
from einthoven.tasks.task import Matrix

Interval = tuple[float, float]
Metric = Literal["auroc", "auprc", "difference"]

STRICT = ("resample", "error")
"""Policies under which every label of the whole set must be defined."""
MIN_PER_CLASS = 5
"""Positives, and negatives, that an interval needs."""
TOO_FEW, CONSTANT = "too few to say", "does not vary"
"""Reasons for an absent interval."""


@validated("settings of the bootstrap", EvaluationError)
class BootstrapSettings:
    """Settings of a bootstrap: the options of `score`, `compare` and `score_subgroups`.

    Parameters
    ----------
    resamples : int
        Number of resamples; 0 leaves the intervals out.
    seed : int
        The same seed draws the same resamples.
    undefined_labels : {"auto", "resample", "skip", "zero", "error"}
        Treatment of a label that has no positive, or no negative. `resample` draws again until
        every label has both, as the PTB-XL benchmark does; `skip` averages over the defined labels;
        `zero` counts an undefined label as 0, as torchmetrics does; `error` refuses. `auto` is
        `resample` if the whole set defines every label, else `skip`.
    interval : {"auto", "percentile", "basic", "bca"}
        Kind of the intervals; see `Estimate.limits`.
    level : float
        Confidence level, between 0 and 1.
    auprc : {"average-precision", "trapezoid"}
        Definition of the area under the precision-recall curve.
    by : {"record", "patient"}
        Unit of resampling: records, or patients with all of their records.

    Raises
    ------
    EvaluationError
        If an option is unknown or out of range, or the resamples are too few for the level.
    """

    resamples: Annotated[int, Field(ge=0)] = 1000
    seed: Annotated[int, Field(ge=0)] = 0
    undefined_labels: Literal["auto", "resample", "skip", "zero", "error"] = "auto"
    interval: Literal["auto", "percentile", "basic", "bca"] = "auto"
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    auprc: AuprcDefinition = "average-precision"
    by: Literal["record", "patient"] = "record"

    def __post_init__(self) -> None:
        fewest = math.ceil(1 / (1 - self.level) - 1e-9)
        if 0 < self.resamples < fewest:
            raise EvaluationError(
                f"{self.resamples} resamples are too few for intervals at {100 * self.level:g} %",
                remedy=f"pass resamples=1000, at least {fewest}, or 0 for no intervals",
            )

    def to_dict(self) -> Json:
        """The settings as entries of a score, comparison or report."""
        values = asdict(self)
        return values | {"unit": values.pop("by"), "auprc_definition": values.pop("auprc")}


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric's values by label: for all records, every resample, and with one unit left out.

    Attributes
    ----------
    point : array, shape (labels,)
    replicates : array, shape (resamples, labels)
    jackknife : array, shape (units, labels), or None
        NaN marks an undefined label in all three.
    settings : BootstrapSettings
    metric : {"auroc", "auprc", "difference"}, optional
        Without it, intervals are percentile, basic or BCa intervals whatever the data.
    counts : array of int, shape (labels, 1), or (1, labels) of a mean over labels, optional
        Records, or patients, in the smaller class of each label. Needed with `metric`.
    unbiased : Estimate, optional
        Leave-one-out estimate of the same value; with it, the interval is `auto`'s for AUPRC.
    """

    point: Floats
    replicates: Floats
    jackknife: Floats | None
    settings: BootstrapSettings
    metric: Metric | None = None
    counts: NDArray[np.integer] | None = None
    unbiased: Estimate | None = None

    def minus(self, other: Estimate) -> Estimate:
        """Subtract an estimate from the same resamples, pair by pair."""
        out, counts, unbiased = self.jackknife, self.counts, self.unbiased
        if out is not None and other.jackknife is not None:
            out = out - other.jackknife
        if counts is not None and other.counts is not None:
            counts = np.minimum(counts, other.counts)
        if unbiased is not None and other.unbiased is not None:
            unbiased = unbiased.minus(other.unbiased)
        point, replicates = self.point - other.point, self.replicates - other.replicates
        metric: Metric | None = None if self.metric is None else "difference"
        return Estimate(point, replicates, out, self.settings, metric, counts, unbiased)

    def select_labels(self, columns: Sequence[int]) -> Estimate:
        """Restrict the estimate to the labels at these places."""
        places = list(columns)
        counts = None if self.counts is None else self.counts[places]
        return self._map(lambda values: values[..., places], counts)

    def macro(self) -> Estimate:
        """Average over labels, as an estimate with one column."""
        counts = None if self.counts is None else self.counts.T
        policy = self.settings.undefined_labels
        return self._map(lambda values: macro(values, policy)[..., None], counts)

    def _map(
        self, change: Callable[[Floats], Floats], counts: NDArray[np.integer] | None
    ) -> Estimate:
        return replace(
            self,
            point=change(self.point),
            replicates=change(self.replicates),
            jackknife=None if self.jackknife is None else change(self.jackknife),
            counts=counts,
            unbiased=None if self.unbiased is None else self.unbiased._map(change, counts),
        )

    def limits(self) -> Floats | None:
        """Compute confidence limits, shape (labels, 2); None without resamples.

        See Efron and Tibshirani 1993, chapters 13 and 14: `percentile` takes the quantiles of the
        replicates, `basic` reflects them about the point, `bca` corrects them for bias and
        skewness. `auto` takes percentiles for AUROC, and `_student_limits` for AUPRC and for an
        AUROC whose percentiles reach 0 or 1. Replicates in which a label is undefined are left out.

        NaN where a label is undefined or `reasons` has an entry. The limits of an AUROC of 1 or 0,
        which is the same in every resample, are exact (`_perfect_limits`).
        """
        if not len(self.replicates):
            return None
        if self.counts is None:
            return self._quantiles()
        limits = self._quantiles() if self.unbiased is None else self._student_limits()
        if self.settings.interval == "auto" and self.metric == "auroc":
            edge = (limits[:, :1] <= 0) | (limits[:, 1:] >= 1)
            limits = np.where(edge, self._student_limits(), limits)
        if self.metric == "auroc":
            limits = np.where(self._constant[:, None], self._perfect_limits(), limits)
        absent = np.array([reason is not None for reason in self.reasons()])
        return np.where(absent[:, None], np.nan, limits)

    def reasons(self) -> list[str | None]:
        """Why a label has no interval, None where it has one.

        A mean needs a label that has enough positives and negatives for an interval of its own.
        """
        if self.counts is None or not len(self.replicates):
            return [None] * self.point.size
        few = self.counts.max(axis=1) < MIN_PER_CLASS
        constant = self._constant
        if self.metric == "auroc":
            constant &= (self.point > 0) & (self.point < 1)
        return [
            TOO_FEW if scarce else CONSTANT if fixed else None
            for scarce, fixed in zip(few.tolist(), constant.tolist(), strict=True)
        ]

    @property
    def _constant(self) -> NDArray[np.bool_]:
        """Whether every resample gives the point, shape (labels,)."""
        return np.asarray(((self.replicates == self.point) | np.isnan(self.replicates)).all(axis=0))

    def _student_limits(self) -> Floats:
        """Limits from Student's distribution about the leave-one-out value, or the point.

        The variance is that of the replicates, averaged with that of the leave-one-out replicates;
        the degrees of freedom are the mean size of the smaller class, less one. Limits of values
        are computed on the logit scale.
        """
        assert self.counts is not None
        parts = [self] if self.unbiased is None else [self, self.unbiased]
        centre = parts[-1].point
        variances = [pd.DataFrame(part.replicates).var(ddof=0) for part in parts]  # without NaN
        spread = np.sqrt(np.mean(variances, axis=0))
        size = self.counts.sum(axis=1) / np.maximum((self.counts > 0).sum(axis=1), 1)
        width = spread * stdtrit(np.maximum(size - 1, 1), (1 + self.settings.level) / 2)
        sides = width[:, None] * np.array([-1.0, 1.0])
        if self.metric == "difference":
            return np.asarray(centre[:, None] + sides)
        inside = np.clip(centre, 1e-6, 1 - 1e-6)[:, None]
        return np.asarray(expit(logit(inside) + sides / (inside * (1 - inside))))

    def _perfect_limits(self) -> Floats:
        """Clopper-Pearson limits of an AUROC of 1, or of 0, shape (labels, 2).

        k records of the smaller class form k disjoint pairs with records of the other class. All
        pairs of a perfect ranking are in order, those k included, and they are independent.
        """
        assert self.counts is not None
        smallest = np.where(self.counts > 0, self.counts, np.inf).min(axis=1, keepdims=True)
        far = 1 - ((1 - self.settings.level) / 2) ** (1 / smallest)
        return np.asarray(np.where(self.point[:, None] > 0.5, 1 - far * [1, 0], far * [0, 1]))

    def _quantiles(self) -> Floats:
        """Percentile, basic or BCa limits, shape (labels, 2); NaN where no replicate is defined."""
        tails = np.array([1 - self.settings.level, 1 + self.settings.level]) / 2
        shares = np.broadcast_to(tails, (self.point.size, 2))
        if self.settings.interval == "bca":
            assert self.jackknife is not None
            shares = _bca_shares(tails, self.point, self.replicates, self.jackknife)
        limits = np.full(shares.shape, np.nan)
        for column, values in enumerate(self.replicates.T):
            defined = values[~np.isnan(values)]
            if defined.size:
                limits[column] = np.quantile(defined, shares[column])
        if self.settings.interval == "basic":
            limits = 2 * self.point[:, None] - limits[:, ::-1]
        return limits

    def interval(self) -> Interval | None:
        """Compute the confidence interval of the first column; None if it has none."""
        limits = self.limits()
        if limits is None or np.isnan(limits[0]).any():
            return None
        return float(limits[0, 0]), float(limits[0, 1])

    def bias(self) -> float | None:
        """Estimate the bias of the first column's point; None without resamples.

        The point minus the leave-one-out estimate if there is one, else the mean of the defined
        replicates minus the point.
        """
        values = self.replicates[:, 0]
        if self.unbiased is not None and values.size:
            return float(self.point[0] - self.unbiased.point[0])
        defined = values[~np.isnan(values)]
        return float(defined.mean() - self.point[0]) if defined.size else None


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Resamples of a set of records, shared by all predictions for them.

    Attributes
    ----------
    targets : array, shape (records, labels)
        NaN where it is not known.
    labels : tuple of str
    patients : array of str, shape (records,), or None
        The units of resampling, if they are patients.
    settings : BootstrapSettings
        Its policy for undefined labels is not "auto".
    draws : Draws
    """

    targets: Matrix
    labels: tuple[str, ...]
    patients: NDArray[np.str_] | None
    settings: BootstrapSettings
    draws: Draws

    @classmethod
    def of(cls, predictions: Predictions, settings: BootstrapSettings) -> Bootstrap:
        """Draw the resamples of a table's records.

        Raises
        ------
        EvaluationError
            If the table has no targets, the policy refuses labels that are undefined, or patients
            are drawn and some are unknown or all are the same.
        """
        targets, labels = predictions.require_targets(), predictions.labels
        is_numeric = predictions.form == "values"
        if is_numeric:  # every resample defines a number
            settings = replace(settings, undefined_labels="skip")
        if settings.undefined_labels == "auto":
            defined = (positives(targets) > 0) & (negatives(targets) > 0)
            settings = replace(settings, undefined_labels="resample" if defined.all() else "skip")
        if not is_numeric:
            _refuse_undefined(targets, labels, settings.undefined_labels)
        patients = _patients(predictions) if settings.by == "patient" else None
        draws = multiplicities(
            len(targets),
            settings.resamples,
            seed=settings.seed,
            groups=patients,
            accept=targets if settings.undefined_labels == "resample" else None,
            labels=labels,
        )
        return cls(targets, labels, patients, settings, draws)

    @property
    def units(self) -> int:
        """Number of records, or patients, that are drawn."""
        return len(self.targets) if self.patients is None else len(np.unique(self.patients))

    def part(self, rows: NDArray[np.bool_]) -> Bootstrap:
        """Part of the records, on the resamples of all of them."""
        multiplicities = np.ascontiguousarray(self.draws.multiplicities[:, rows])
        patients = None if self.patients is None else self.patients[rows]
        draws = Draws(multiplicities, self.draws.drawn)
        return replace(self, targets=self.targets[rows], patients=patients, draws=draws)

    def estimate(self, probabilities: Floats) -> tuple[Estimate, Estimate]:
        """Compute AUROC and AUPRC of every label, with a replicate for every resample.

        With `auto` intervals the estimate of AUPRC includes the leave-one-out estimate.

        Raises
        ------
        EvaluationError
            If a resample leaves a label undefined under the policy "error".
        """
        ranking, auprc = rank(self.targets, probabilities), self.settings.auprc
        points = point_metrics(ranking, auprc=auprc)
        replicates = resampled_metrics(ranking, self.draws.multiplicities, auprc=auprc)
        if self.settings.undefined_labels == "error":
            _refuse_gaps(replicates[0], self.labels)
        jackknife: Sequence[Floats | None] = (None, None, None)
        if self.settings.interval == "bca" and self.settings.resamples:
            # As many units as records, so this costs what records / resamples bootstraps cost.
            # Where the unit left out was a label's only positive, the label drops out of the
            # acceleration.
            blocks = [
                resampled_metrics(ranking, rows, auprc=auprc)
                for rows in jackknife_draws(len(self.targets), groups=self.patients)
            ]
            jackknife = [np.concatenate(metric) for metric in zip(*blocks, strict=True)]
        counts = self.smaller_class()
        names: tuple[Metric, ...] = ("auroc", "auprc", "auprc")
        auroc, precision, unbiased = (
            Estimate(point, rows, out, self.settings, metric, counts)
            for point, rows, out, metric in zip(points, replicates, jackknife, names, strict=True)
        )
        if self.settings.interval == "auto":
            precision = replace(precision, unbiased=unbiased)
        return auroc, precision

    def smaller_class(self) -> NDArray[np.integer]:
        """Records, or patients, of each label's smaller class, shape (labels, 1)."""
        patients = np.arange(len(self.targets)) if self.patients is None else self.patients
        units, names = pd.factorize(patients)
        # A patient can be in both classes, but in only one of several disjoint pairs.
        sizes = [
            min(len(names) // 2, *(np.unique(units[column == value]).size for value in (0, 1)))
            for column in self.targets.T
        ]
        return np.array(sizes)[:, None]


def _patients(predictions: Predictions) -> NDArray[np.str_]:
    patients = predictions.patients
    unknown = int((patients == "").sum())
    if unknown:
        raise EvaluationError(
            f"the patients of {unknown} of {len(patients)} records are unknown",
            remedy="name every record's patient, or draw by record",
        )
    if len(patients) > 1 and len(np.unique(patients)) < 2:
        raise EvaluationError(
            f"all {len(patients)} records are of one patient, {str(patients[0])!r}: every draw of "
            "patients would be the same",
            remedy="draw by record",
        )
    return patients


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


def _refuse_undefined(targets: Matrix, labels: Sequence[str], policy: str) -> None:
    """Refuse labels that the policy needs defined and that no resample could define."""
    no_positive, no_negative = positives(targets) == 0, negatives(targets) == 0
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


def _refuse_gaps(replicates: Floats, labels: Sequence[str]) -> None:
    gaps = np.isnan(replicates)
    if not gaps.any():
        return
    worst = np.argsort(-gaps.sum(axis=0), kind="stable")
    names = [f"{labels[i]} in {int(gaps[:, i].sum())}" for i in worst if gaps[:, i].any()]
    raise EvaluationError(
        f"{int(gaps.any(axis=1).sum())} of {len(gaps)} resamples lack a label: {listed(names)}",
        remedy='use undefined_labels="resample" to draw such resamples again, or "skip"',
    )


def _bca_shares(tails: Floats, point: Floats, replicates: Floats, jackknife: Floats) -> Floats:
    """Shares of the replicates at which the limits lie, shape (labels, 2)."""
    defined = np.maximum((~np.isnan(replicates)).sum(axis=0), 1)
    # Equal replicates count one half. A point beyond all of them would put both limits at
    # infinity; it counts as half a replicate away instead.
    below = (replicates < point).sum(axis=0) + (replicates == point).sum(axis=0) / 2
    edge = 0.5 / defined
    correction = ndtri(np.clip(below / defined, edge, 1 - edge))[:, None]
    shifted = correction + ndtri(tails)
    skew = _acceleration(jackknife)[:, None]
    return np.asarray(ndtr(correction + shifted / (1 - skew * shifted)))


def _acceleration(jackknife: Floats) -> Floats:
    defined = ~np.isnan(jackknife)
    mean = np.where(defined, jackknife, 0.0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
    away = np.where(defined, mean - jackknife, 0.0)
    spread = (away**2).sum(axis=0) ** 1.5
    return np.asarray((away**3).sum(axis=0) / np.where(spread > 0, 6 * spread, 1.0))
