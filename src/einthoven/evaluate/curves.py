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
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from einthoven.evaluate.estimate import MIN_PER_CLASS, TOO_FEW, Bootstrap, BootstrapSettings
from einthoven.evaluate.metrics import RESAMPLES_AT_A_TIME, rank
from einthoven.evaluate.reliability import CalibrationReport, wilson
from einthoven.evaluate.scores import plain
from einthoven.files import Json
from einthoven.predictions import Predictions

Floats = NDArray[np.float64]

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
    labels, positives = predictions.labels, targets.sum(axis=0, dtype=np.int64)
    by: Any = "patient" if _patients_known(predictions) else "record"
    settings = BootstrapSettings(min(resamples, MOST_RESAMPLES), seed, "skip", level=level, by=by)
    bootstrap = Bootstrap.of(predictions, settings)
    enough = np.flatnonzero(bootstrap.smaller_class()[:, 0] >= MIN_PER_CLASS)
    if not enough.size:
        return None
    shown = enough[np.argsort(-positives[enough], kind="stable")][:MOST_LABELS]
    bands, (roc, precision) = _bands(bootstrap, predictions.probabilities, enough, shown)
    probabilities = predictions.probabilities
    quality = calibration.before
    if calibration.after is not None and calibration.probabilities is not None:
        probabilities, quality = calibration.probabilities, calibration.after
    return Curves(
        labels={
            labels[i]: LabelCurves(
                int(positives[i]),
                int(len(targets) - positives[i]),
                *bands[i],
                *_net_benefit(bootstrap, targets[:, i] == 1, probabilities[:, i]),
                _with_intervals(quality.mass.to_list(i), level),
            )
            for i in sorted(shown.tolist())
        },
        roc=roc,
        precision=precision,
        averaged=enough.size,
        left_out={
            label: MANY_LABELS if i in enough else TOO_FEW
            for i, label in enumerate(labels)
            if i not in shown
        },
        settings=bootstrap.settings,
    )


def _patients_known(predictions: Predictions) -> bool:
    patients = np.unique(predictions.patients)
    return "" not in patients and len(patients) > 1


def _bands(
    bootstrap: Bootstrap, probabilities: Floats, enough: NDArray[np.intp], shown: NDArray[np.intp]
) -> tuple[dict[int, tuple[Band, Band]], tuple[Band, Band]]:
    """ROC and precision-recall bands of the shown labels, and of the mean over enough labels."""
    level, drawn = bootstrap.settings.level, bootstrap.draws.multiplicities
    ranking = rank(bootstrap.targets, probabilities)
    # The first column is the whole set.
    counts = np.concatenate([np.ones((1, drawn.shape[1]), drawn.dtype), drawn]).T
    blocks = [
        np.ascontiguousarray(counts[:, start : start + RESAMPLES_AT_A_TIME], dtype=np.float64)
        for start in range(0, counts.shape[1], RESAMPLES_AT_A_TIME)
    ]
    totals: list[Any] = [0.0, 0.0]
    defined: list[Any] = [0, 0]
    bands = {}
    for i in enough:
        sampled = zip(*(_sample(ranking[i], weights) for weights in blocks), strict=True)
        values = [np.concatenate(parts, axis=1) for parts in sampled]
        known = [~np.isnan(curve) for curve in values]
        totals = [x + np.where(k, v, 0.0) for x, k, v in zip(totals, known, values, strict=True)]
        defined = [n + k for n, k in zip(defined, known, strict=True)]
        if i in shown:
            roc, precision = (Band.of(curve[:, 0], curve[:, 1:], level) for curve in values)
            bands[i] = roc, precision
    means = [x / np.where(n > 0, n, np.nan) for x, n in zip(totals, defined, strict=True)]
    roc, precision = (Band.of(mean[:, 0], mean[:, 1:], level) for mean in means)
    return bands, (roc, precision)


def _sample(steps: csr_array[Any], weights: Floats) -> tuple[Floats, Floats]:
    """ROC and precision-recall curve of one label on the grids, shape (points, resamples).

    `steps` is of `Ranking`, `weights` the number of copies of each record, shape (records,
    resamples).
    """
    sums = (steps @ weights).reshape(-1, 3, weights.shape[1])
    tied, gained = sums[:, 1], sums[:, 2]
    misses, hits = (sums[:, 0] + tied).cumsum(axis=0), gained.cumsum(axis=0)
    positives = np.where(hits[-1] > 0, hits[-1], np.nan)
    negatives = weights.sum(axis=0) - hits[-1]
    negatives = np.where(negatives > 0, negatives, np.nan)
    # Vertices of the ROC curve: where a step begins, and where it ends.
    x = np.stack([misses - tied, misses], axis=1).reshape(-1, weights.shape[1]) / negatives
    y = np.stack([hits - gained, hits], axis=1).reshape(-1, weights.shape[1]) / positives
    ends = np.zeros((1, weights.shape[1])), np.ones((1, weights.shape[1]))
    x, y = (np.concatenate([ends[0], values, ends[1]]) for values in (x, y))
    places = _last_at_most(x, FALSE_POSITIVE_RATES)
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
    recall = np.concatenate([np.zeros((1, weights.shape[1])), hits / positives])
    first = np.minimum(_last_at_most(recall, RECALLS - 2 * _NEARLY), len(hits) - 1)
    precision = np.take_along_axis(hits / np.maximum(hits + misses, 1), first, axis=0)
    undefined = np.isnan(positives) | np.isnan(negatives)
    return np.where(undefined, np.nan, roc), np.where(undefined, np.nan, precision)


def _last_at_most(columns: Floats, grid: Floats) -> NDArray[np.intp]:
    """Row of the last value of each ascending column that is at most a grid value.

    Values are in [0, 1]; shape (grid, columns).
    """
    rows, count = columns.shape
    offset = 2.0 * np.arange(count)[:, None]  # makes one ascending sequence of all columns
    flat = (np.where(np.isnan(columns), 1.0, columns).T + offset).ravel()
    wanted = grid + _NEARLY + offset
    found = np.searchsorted(flat, wanted.ravel(), side="right").reshape(wanted.shape).T
    return np.asarray(np.clip(found - 1 - rows * np.arange(count), 0, rows - 1))


def _net_benefit(
    bootstrap: Bootstrap, true: NDArray[np.bool_], calibrated: Floats
) -> tuple[Band, Floats]:
    """Net benefit of the model with its band, and of calling every record."""
    odds = THRESHOLDS / (1 - THRESHOLDS)
    called = calibrated[:, None] >= THRESHOLDS
    # A record's part in the net benefit: 1 for a true positive, minus the odds for a false one.
    parts = np.where(true[:, None], 1.0, -odds) * called
    weights = bootstrap.draws.multiplicities.astype(np.float32)
    resampled = (weights @ parts.astype(np.float32)).T / weights.sum(axis=1)
    band = Band.of(parts.mean(axis=0), resampled.astype(np.float64), bootstrap.settings.level)
    prevalence = true.mean()
    return band, prevalence - (1 - prevalence) * odds


def _with_intervals(bins: list[dict[str, Any]], level: float) -> list[Json]:
    return [
        entry
        | {
            "interval": wilson(round(entry["observed"] * n), n, level),
            "reason": TOO_FEW if n < MIN_PER_CLASS else None,
        }
        for entry in bins
        for n in [int(entry["records"])]
    ]
