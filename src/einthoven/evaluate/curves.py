"""Curves of every label: ROC, precision-recall, net benefit and calibration, with bands.

A band holds the percentiles of bootstrap resamples at each point of a grid, and is for one point
at a time. Patients are resampled where they are known, otherwise records. The ROC curve is linear
between thresholds; the precision at a recall is that of the highest threshold with at least this
recall, so that its mean over the recalls of the positives is average precision.

The net benefit of calling the records with a calibrated probability of at least t is the share of
true positives minus the share of false positives times t / (1 - t), the harm that a user accepts
for a true positive (Vickers and Elkin 2006). Calling nobody has a net benefit of 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from einthoven.evaluate.estimate import (
    MIN_PER_CLASS,
    TOO_FEW,
    Bootstrap,
    BootstrapSettings,
    macro,
)
from einthoven.evaluate.metrics import Floats, count_steps, rank, weight_blocks
from einthoven.evaluate.reliability import CalibrationReport, wilson
from einthoven.evaluate.scores import plain
from einthoven.files import Json
from einthoven.predictions import Predictions
from einthoven.tasks import negatives, positives

# Denser near 0, where a good model has its whole curve, and rare labels their probabilities.
FALSE_POSITIVE_RATES = np.linspace(0, 1, 61) ** 2
RECALLS = np.linspace(0.02, 1, 50)
THRESHOLDS = np.linspace(0.02, 0.98, 49) ** 2
MOST_LABELS = 12
"""Labels with curves of their own; the mean is over all labels that are not too rare."""
MANY_LABELS = f"not among the {MOST_LABELS} with the most positives"
MOST_RESAMPLES = 500
"""Enough for the percentiles of a band that is drawn."""
_DIGITS = 5
_NEARLY = 1e-12  # equal in spite of rounding


@dataclass(frozen=True, eq=False)
class Band:
    """A curve on a grid, with percentile limits; NaN where it is undefined.

    Attributes
    ----------
    value : array of float64, shape (points,)
    limits : array of float64, shape (2, points), or None
        None without resamples.
    """

    value: Floats
    limits: Floats | None

    @classmethod
    def of(cls, point: Floats, replicates: Floats, level: float) -> Band:
        """Band of a curve, shape (points,), and its replicates, shape (points, resamples)."""
        if not replicates.shape[1]:
            return cls(point, None)
        tails = [(1 - level) / 2, (1 + level) / 2]
        gaps = bool(np.isnan(replicates).any())
        return cls(point, (np.nanquantile if gaps else np.quantile)(replicates, tails, axis=1))

    def to_dict(self) -> Json:
        """`value`, `low` and `high`, rounded to five digits."""
        low, high = (None, None) if self.limits is None else self.limits
        columns = {"value": self.value, "low": low, "high": high}
        return {k: None if v is None else np.round(v, _DIGITS) for k, v in columns.items()}


@dataclass(frozen=True, eq=False)
class LabelCurves:
    """Curves of one label.

    Attributes
    ----------
    positives, negatives : int
    roc : Band
        Sensitivity at `FALSE_POSITIVE_RATES`.
    precision : Band
        Precision (positive predictive value) at `RECALLS`.
    net_benefit : Band
        At `THRESHOLDS`, of the calibrated probabilities.
    treat_all : array of float64, shape (thresholds,)
        Net benefit of calling every record.
    bins : list of dict
        Bins of equal mass: `records`, mean `probability`, share `observed` with Wilson `interval`.
    """

    positives: int
    negatives: int
    roc: Band
    precision: Band
    net_benefit: Band
    treat_all: Floats
    bins: list[Json]

    def to_dict(self) -> Json:
        """A JSON-serialisable dict."""
        values = {k: v.to_dict() if isinstance(v, Band) else v for k, v in vars(self).items()}
        return plain(values | {"treat_all": np.round(self.treat_all, _DIGITS)})


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of the labels with the most positives, and the mean over labels.

    Attributes
    ----------
    labels : dict of str to LabelCurves
    roc, precision : Band
        Mean over `averaged` labels: those with at least five positives and five negatives, counted
        in patients where these are resampled.
    averaged : int
    left_out : dict of str to str
        Why a label has no curves.
    settings : BootstrapSettings
    """

    labels: dict[str, LabelCurves]
    roc: Band
    precision: Band
    averaged: int
    left_out: dict[str, str]
    settings: BootstrapSettings

    def to_dict(self) -> Json:
        """A JSON-serialisable dict with the grids."""
        shared = {name: getattr(self.settings, name) for name in ("resamples", "seed", "level")}
        return plain(
            shared
            | {
                "unit": self.settings.by,
                "false_positive_rates": np.round(FALSE_POSITIVE_RATES, _DIGITS),
                "recalls": np.round(RECALLS, _DIGITS),
                "thresholds": np.round(THRESHOLDS, _DIGITS),
                "averaged": self.averaged,
                "macro": {"roc": self.roc.to_dict(), "precision": self.precision.to_dict()},
                "per_label": {name: curves.to_dict() for name, curves in self.labels.items()},
                "left_out": self.left_out,
            }
        )


def curves(
    predictions: Predictions,
    calibration: CalibrationReport,
    *,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Curves | None:
    """Compute the curves of predictions with targets; None if every label is too rare.

    Parameters
    ----------
    predictions : Predictions
        Uncalibrated, with targets.
    calibration : CalibrationReport
        Of the same predictions: net benefit and bins are of its calibrated probabilities, or of
        the uncalibrated ones if there is no calibration.
    resamples, seed, level
        Settings of the bootstrap, of at most 500 resamples; its units are patients if all are
        known, otherwise records.

    Raises
    ------
    EvaluationError
        If the table has no targets, or a setting is invalid.
    """
    targets = predictions.require_targets()
    labels, counts = predictions.labels, positives(targets)
    by: Literal["patient", "record"] = "patient" if _has_patients(predictions) else "record"
    settings = BootstrapSettings(min(resamples, MOST_RESAMPLES), seed, "skip", level=level, by=by)
    bootstrap = Bootstrap.of(predictions, settings)
    columns = np.flatnonzero(bootstrap.smaller_class()[:, 0] >= MIN_PER_CLASS)
    if not columns.size:
        return None
    frequent = columns[np.argsort(-counts[columns], kind="stable")][:MOST_LABELS]
    bands, (roc, precision) = _bands(bootstrap, predictions.probabilities, columns, frequent)
    probabilities = predictions.probabilities
    quality = calibration.before
    if calibration.after is not None and calibration.probabilities is not None:
        probabilities, quality = calibration.probabilities, calibration.after
    return Curves(
        labels={
            labels[i]: LabelCurves(
                int(counts[i]),
                int(negatives(targets)[i]),
                *bands[i],
                *_net_benefit(bootstrap, targets[:, i], probabilities[:, i]),
                _with_intervals(quality.mass.to_list(i), level),
            )
            for i in sorted(frequent.tolist())
        },
        roc=roc,
        precision=precision,
        averaged=columns.size,
        left_out={
            label: MANY_LABELS if i in columns else TOO_FEW
            for i, label in enumerate(labels)
            if i not in frequent
        },
        settings=bootstrap.settings,
    )


def _has_patients(predictions: Predictions) -> bool:
    patients = np.unique(predictions.patients)
    return "" not in patients and len(patients) > 1


Bands = tuple[Band, Band]
"""Band of the ROC curve, and band of the precision-recall curve."""


def _bands(
    bootstrap: Bootstrap,
    probabilities: Floats,
    columns: NDArray[np.intp],
    frequent: NDArray[np.intp],
) -> tuple[dict[int, Bands], Bands]:
    """Bands of the `frequent` labels, and of the mean over all labels of `columns`."""
    ranking, multiplicities = rank(bootstrap.targets, probabilities), bootstrap.draws.multiplicities
    whole = np.ones((1, multiplicities.shape[1]), multiplicities.dtype)  # the first "resample"
    blocks = [weights for _, weights in weight_blocks(np.concatenate([whole, multiplicities]))]

    def band(curve: Floats) -> Band:
        return Band.of(curve[:, 0], curve[:, 1:], bootstrap.settings.level)

    samples: dict[int, list[Floats]] = {}
    for i in columns.tolist():
        steps, weighted = ranking[i].steps, ranking[i].weighted
        pairs = (_curves_on_grids(steps, weighted(weights)) for weights in blocks)
        samples[i] = [np.concatenate(parts, axis=1) for parts in zip(*pairs, strict=True)]
    rocs, precisions = zip(*samples.values(), strict=True)
    means = [macro(np.stack(values, axis=-1), "skip") for values in (rocs, precisions)]
    bands = {i: (band(samples[i][0]), band(samples[i][1])) for i in frequent.tolist()}
    return bands, (band(means[0]), band(means[1]))


def _curves_on_grids(steps: csr_array[Any], weights: Floats) -> tuple[Floats, Floats]:
    """ROC and precision-recall curve of one label on the grids, shape (points, resamples).

    `steps` is of `LabelRanking`, `weights` the number of copies of each record, shape (records,
    resamples).
    """
    ties, gains, misses, hits = count_steps(steps, weights)
    positives = np.where(hits[-1] > 0, hits[-1], np.nan)
    negatives = weights.sum(axis=0) - hits[-1]
    negatives = np.where(negatives > 0, negatives, np.nan)
    # Vertices of the ROC curve: where a step begins, and where it ends.
    x = np.stack([misses - ties, misses], axis=1).reshape(-1, weights.shape[1]) / negatives
    y = np.stack([hits - gains, hits], axis=1).reshape(-1, weights.shape[1]) / positives
    origin, corner = np.zeros((1, weights.shape[1])), np.ones((1, weights.shape[1]))
    x, y = (np.concatenate([origin, values, corner]) for values in (x, y))
    places = _last_at_most(x, FALSE_POSITIVE_RATES + _NEARLY)
    after = np.minimum(places + 1, len(x) - 1)
    (left, right), (low, high) = (
        [np.take_along_axis(values, at, axis=0) for at in (places, after)] for values in (x, y)
    )
    width = right - left
    part = np.divide(
        FALSE_POSITIVE_RATES[:, None] - left, width, out=np.zeros_like(width), where=width > 0
    )
    roc = low + np.clip(part, 0, 1) * (high - low)
    # The last vertex below a recall, plus one, is the first step that reaches it.
    recall = np.concatenate([origin, hits / positives])
    first = np.minimum(_last_at_most(recall, RECALLS - _NEARLY), len(hits) - 1)
    precision = np.take_along_axis(hits / np.maximum(hits + misses, 1), first, axis=0)
    is_undefined = np.isnan(positives) | np.isnan(negatives)
    return np.where(is_undefined, np.nan, roc), np.where(is_undefined, np.nan, precision)


def _last_at_most(columns: Floats, grid: Floats) -> NDArray[np.intp]:
    """Row of the last value of each ascending column that is at most a grid value.

    Shape (grid, columns); 0 where there is none.
    """
    counts = [np.searchsorted(column, grid, side="right") for column in columns.T]
    return np.maximum(np.stack(counts, axis=1) - 1, 0)


def _net_benefit(
    bootstrap: Bootstrap, target: NDArray[Any], calibrated: Floats
) -> tuple[Band, Floats]:
    """Net benefit of the model with its band, and of calling every record."""
    odds = THRESHOLDS / (1 - THRESHOLDS)
    has_target = ~np.isnan(target)
    true, called = target[has_target] == 1, calibrated[has_target, None] >= THRESHOLDS
    # A record's part in the net benefit: 1 for a true positive, minus the odds for a false one.
    parts = np.where(true[:, None], 1.0, -odds) * called
    weights = bootstrap.draws.multiplicities[:, has_target].astype(np.float32)
    resampled = (weights @ parts.astype(np.float32)).T / weights.sum(axis=1)
    band = Band.of(parts.mean(axis=0), resampled.astype(np.float64), bootstrap.settings.level)
    prevalence = true.mean()
    return band, prevalence - (1 - prevalence) * odds


def _with_intervals(bins: list[dict[str, Any]], level: float) -> list[Json]:
    entries = []
    for entry in bins:
        interval = wilson(round(entry["observed"] * entry["records"]), entry["records"], level)
        entries.append(entry | {"interval": interval, "reason": None if interval else TOO_FEW})
    return entries
