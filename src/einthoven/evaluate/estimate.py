"""Estimates of a metric by label, their bootstrap distribution and its confidence intervals.

A label of which a set of records, or a resample of it, holds one class only is undefined; a policy
determines how a mean over labels treats it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtr, ndtri

from einthoven.errors import EvaluationError, validated
from einthoven.evaluate.bootstrap import Draws, jackknife, multiplicities
from einthoven.evaluate.metrics import AuprcDefinition, point_metrics, rank, resampled_metrics
from einthoven.files import Json
from einthoven.predictions import Predictions, listed

Floats = NDArray[np.float64]
Interval = tuple[float, float]

STRICT = ("resample", "error")
"""Policies under which every label of the whole set must be defined."""


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
    interval : {"percentile", "basic", "bca"}
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
    interval: Literal["percentile", "basic", "bca"] = "percentile"
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
    left_out : array, shape (units, labels), or None
        NaN marks an undefined label in all three.
    settings : BootstrapSettings
    """

    point: Floats
    replicates: Floats
    left_out: Floats | None
    settings: BootstrapSettings

    def minus(self, other: Estimate) -> Estimate:
        """Subtract an estimate from the same resamples, pair by pair."""
        out = self.left_out
        if out is not None and other.left_out is not None:
            out = out - other.left_out
        point, replicates = self.point - other.point, self.replicates - other.replicates
        return Estimate(point, replicates, out, self.settings)

    def among(self, columns: Sequence[int]) -> Estimate:
        """Restrict the estimate to the labels at these places."""
        places = list(columns)
        out = None if self.left_out is None else self.left_out[:, places]
        return Estimate(self.point[places], self.replicates[:, places], out, self.settings)

    def macro(self) -> Estimate:
        """Average over labels, as an estimate with one column."""
        policy = self.settings.undefined_labels
        out = None if self.left_out is None else macro(self.left_out, policy)[:, None]
        point, replicates = macro(self.point, policy), macro(self.replicates, policy)
        return Estimate(point[None], replicates[:, None], out, self.settings)

    def limits(self) -> Floats | None:
        """Compute confidence limits, shape (labels, 2); None without resamples.

        See Efron and Tibshirani 1993, chapters 13 and 14: `percentile` takes the quantiles of the
        replicates, `basic` reflects them about the point, `bca` corrects them for bias and
        skewness. Replicates in which a label is undefined are left out; NaN where none is left.
        """
        if not len(self.replicates):
            return None
        tails = np.array([1 - self.settings.level, 1 + self.settings.level]) / 2
        shares = np.broadcast_to(tails, (self.point.size, 2))
        if self.settings.interval == "bca":
            assert self.left_out is not None
            shares = _bca_shares(tails, self.point, self.replicates, self.left_out)
        limits = np.full(shares.shape, np.nan)
        for column, values in enumerate(self.replicates.T):
            defined = values[~np.isnan(values)]
            if defined.size:
                limits[column] = np.quantile(defined, shares[column])
        if self.settings.interval == "basic":
            limits = 2 * self.point[:, None] - limits[:, ::-1]
        return limits

    def interval(self) -> Interval | None:
        """Compute the confidence interval of the first column; None without resamples."""
        limits = self.limits()
        return None if limits is None else (float(limits[0, 0]), float(limits[0, 1]))

    def bias(self) -> float | None:
        """Mean of the first column's defined replicates minus the point; None without any."""
        values = self.replicates[:, 0]
        defined = values[~np.isnan(values)]
        return float(defined.mean() - self.point[0]) if defined.size else None


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Resamples of a set of records, shared by all predictions for them.

    Attributes
    ----------
    targets : array of uint8, shape (records, labels)
    labels : tuple of str
    patients : array of str, shape (records,), or None
        The units of resampling, if they are patients.
    settings : BootstrapSettings
        Its policy for undefined labels is not "auto".
    draws : Draws
    """

    targets: NDArray[np.uint8]
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
        if settings.undefined_labels == "auto":
            defined = targets.any(axis=0) & ~targets.all(axis=0)
            settings = replace(settings, undefined_labels="resample" if defined.all() else "skip")
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

    def part(self, rows: NDArray[np.bool_]) -> Bootstrap:
        """Part of the records, on the resamples of all of them."""
        drawn = np.ascontiguousarray(self.draws.multiplicities[:, rows])
        patients = None if self.patients is None else self.patients[rows]
        draws = Draws(drawn, self.draws.drawn)
        return replace(self, targets=self.targets[rows], patients=patients, draws=draws)

    def estimate(self, probabilities: Floats) -> tuple[Estimate, Estimate]:
        """Compute AUROC and AUPRC of every label, with a replicate for every resample.

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
        left_out: Sequence[Floats | None] = (None, None)
        if self.settings.interval == "bca" and self.settings.resamples:
            # As many units as records, so this costs what records / resamples bootstraps cost.
            # Where the unit left out was a label's only positive, the label drops out of the
            # acceleration.
            blocks = [
                resampled_metrics(ranking, rows, auprc=auprc)
                for rows in jackknife(len(self.targets), groups=self.patients)
            ]
            left_out = [np.concatenate(metric) for metric in zip(*blocks, strict=True)]
        auroc, precision = (
            Estimate(*parts, self.settings)
            for parts in zip(points, replicates, left_out, strict=True)
        )
        return auroc, precision


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


def _refuse_undefined(targets: NDArray[np.uint8], labels: Sequence[str], policy: str) -> None:
    """Refuse labels that the policy needs defined and that no resample could define."""
    no_positive, no_negative = ~targets.any(axis=0), targets.all(axis=0)
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


def _bca_shares(tails: Floats, point: Floats, replicates: Floats, left_out: Floats) -> Floats:
    """Shares of the replicates at which the limits lie, shape (labels, 2)."""
    defined = np.maximum((~np.isnan(replicates)).sum(axis=0), 1)
    # Equal replicates count one half. A point beyond all of them would put both limits at
    # infinity; it counts as half a replicate away instead.
    below = (replicates < point).sum(axis=0) + (replicates == point).sum(axis=0) / 2
    edge = 0.5 / defined
    correction = ndtri(np.clip(below / defined, edge, 1 - edge))[:, None]
    shifted = correction + ndtri(tails)
    skew = _acceleration(left_out)[:, None]
    return np.asarray(ndtr(correction + shifted / (1 - skew * shifted)))


def _acceleration(left_out: Floats) -> Floats:
    defined = ~np.isnan(left_out)
    mean = np.where(defined, left_out, 0.0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)
    away = np.where(defined, mean - left_out, 0.0)
    spread = (away**2).sum(axis=0) ** 1.5
    return np.asarray((away**3).sum(axis=0) / np.where(spread > 0, 6 * spread, 1.0))
