"""Calibration of probabilities: expected calibration error, Brier score, log loss, decisions.

The expected calibration error (ECE) of a label is the mean over its records of |mean probability -
share of positives| in the record's bin (Naeini et al. 2015). Bins have equal width, or equal mass:
as many records in every bin, except that records of equal probability share one, so that the order
of the records changes nothing. The macro value is the mean over labels; the micro value bins all
record-label pairs together. Every label counts, including one without a positive, whose
probabilities can be right or wrong like any others. With few records an ECE is above 0 even where
the probabilities are perfect, and a rare label has a small one because its probabilities are
small; the Brier score and the log loss, which are means over records, have neither property.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest

from einthoven.errors import EvaluationError
from einthoven.evaluate.calibrate import PROBABILITY_MARGIN, fit_calibration, fit_classes
from einthoven.evaluate.estimate import (
    MIN_PER_CLASS,
    TOO_FEW,
    Bootstrap,
    BootstrapSettings,
    Estimate,
    Interval,
)
from einthoven.evaluate.metrics import Floats, known_mean
from einthoven.evaluate.scores import plain
from einthoven.files import Json
from einthoven.predictions import Calibration, ClassCalibration, Predictions
from einthoven.tasks import kind_of, positives
from einthoven.tasks.task import Matrix

MOST_BINS, FEWEST_BINS = 15, 3
RECORDS_PER_BIN = 50
_ROUNDING = 1e-9  # of a probability that is converted to a logit and back


@dataclass(frozen=True, eq=False)
class Bins:
    """Reliability diagram of every label.

    Attributes
    ----------
    records : array of int, shape (labels, bins)
        Number of records in a bin.
    probability, observed : array of float64, shape (labels, bins)
        Mean probability and share of positives; NaN for an empty bin.
    """

    records: NDArray[np.int64]
    probability: Floats
    observed: Floats

    @classmethod
    def of(
        cls, targets: Matrix, probabilities: Floats, place: NDArray[np.int64], bins: int
    ) -> Bins:
        """Sort records, shape (records, labels), into the bins numbered by `place`.

        What is not known is in no bin.
        """
        labels, has_target = targets.shape[1], ~np.isnan(targets)
        cell = (place + np.arange(labels) * bins).ravel()
        count, probability, positives = (
            np.bincount(cell, weights=weights, minlength=labels * bins).reshape(labels, bins)
            for weights in (
                has_target.ravel(),
                (probabilities * has_target).ravel(),
                (targets == 1).ravel(),
            )
        )
        divisor = np.where(count > 0, count, np.nan)
        return cls(count.astype(np.int64), probability / divisor, positives / divisor)

    def error(self) -> Floats:
        """The expected calibration error of every label, shape (labels,)."""
        gaps = np.where(self.records > 0, np.abs(self.probability - self.observed), 0.0)
        total = np.maximum(self.records.sum(axis=1), 1)
        return np.asarray((self.records * gaps).sum(axis=1) / total)

    def to_list(self, label: int) -> list[dict[str, Any]]:
        """One label's bins as JSON-serialisable dicts, without the empty ones."""
        columns = {name: values[label] for name, values in vars(self).items()}
        return pd.DataFrame(columns).query("records > 0").to_dict("records")  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class ProbabilityQuality:
    """Accuracy of one set of probabilities.

    Attributes
    ----------
    per_label : DataFrame
        `log_loss` (in nats), `brier`, `ece_width` and `ece_mass` by label.
    micro : dict of str to float
        The same over all record-label pairs. Log loss and Brier score are means over records, so
        their micro and macro values are equal.
    width, mass : Bins
        All labels, in bins of equal width and of equal mass.
    pooled_width, pooled_mass : Bins
        All record-label pairs, as one label.
    """

    per_label: pd.DataFrame
    micro: dict[str, float]
    width: Bins
    mass: Bins
    pooled_width: Bins
    pooled_mass: Bins

    @property
    def macro(self) -> dict[str, float]:
        """Means over labels."""
        return {str(name): float(mean) for name, mean in self.per_label.mean().items()}

    def to_dict(self) -> Json:
        """A JSON-serialisable dict with the pooled bins, without those of single labels."""
        return plain(
            {
                "macro": self.macro,
                "micro": self.micro,
                "bins_width": self.pooled_width.to_list(0),
                "bins_mass": self.pooled_mass.to_list(0),
                "per_label": self.per_label.to_dict("index"),
            }
        )


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """Quality of probabilities before and after calibration.

    Attributes
    ----------
    positives : dict of str to int
        By label.
    records : int
    before, after : ProbabilityQuality
        Uncalibrated and calibrated probabilities; `after` and `change` are None without a
        calibration, and with one that leaves the probabilities as they are.
    probabilities : array of float64, shape (records, labels), or None
        Those that the calls are made by; None without a calibration.
    change : dict of str to (difference, interval)
        After minus before of the macro log loss and Brier score; below 0 is better. The interval
        is a percentile interval of paired resamples, None without resamples.
    decisions : DataFrame or None
        By label: `threshold`, `called` (the records at or above it), the confusion matrix
        (`true_positives`, `false_positives`, `false_negatives`, `true_negatives`), `sensitivity`,
        `specificity`, `precision` (the positive predictive value), `npv` and `f1`; NaN where a
        denominator is 0. `sensitivity_interval` and so on are Wilson intervals, None where fewer
        than five records are in the denominator.
    cross_fitted : bool
        Whether `after` and `decisions` are of calibrations that were fitted on the other folds.
    bins : int
    settings : BootstrapSettings
        Settings of the bootstrap.
    """

    positives: dict[str, int]
    records: int
    before: ProbabilityQuality
    after: ProbabilityQuality | None
    probabilities: Floats | None
    change: dict[str, tuple[float, Interval | None]] | None
    decisions: pd.DataFrame | None
    cross_fitted: bool
    bins: int
    settings: BootstrapSettings

    def to_dict(self) -> Json:
        """A JSON-serialisable dict, without the bins of single labels."""
        changes = (self.change or {}).items()
        values = {
            "records": self.records,
            "bins": self.bins,
            "cross_fitted": self.cross_fitted,
            "positives": self.positives,
            "before": self.before.to_dict(),
            "after": None if self.after is None else self.after.to_dict(),
            "decisions": None if self.decisions is None else self.decisions.to_dict("index"),
            "change": {
                name: {"difference": x, "interval": limits} for name, (x, limits) in changes
            },
        }
        return plain(values | self.settings.to_dict())


def calibration_report(
    predictions: Predictions,
    calibration: Calibration | None = None,
    *,
    folds: ArrayLike | None = None,
    bins: int | None = None,
    **settings: Any,
) -> CalibrationReport:
    """Measure a calibration on records that it was not fitted on.

    Parameters
    ----------
    predictions : Predictions
        Uncalibrated, with targets.
    calibration : Calibration, optional
        Without it only `before` is measured.
    folds : array, shape (records,), optional
        Fold of each record, if the calibration was fitted on these records: each fold is then
        calibrated, and its labels are called, by a calibration that is fitted on the other folds.
    bins : int, optional
        Number of bins of either kind; by default `suitable_bins`.
    settings
        `resamples`, `seed`, `by` and `level` of `BootstrapSettings`, for the
        intervals of `change`.

    Raises
    ------
    EvaluationError
        If there are no bins, or as in `score`.
    CalibrationError
        If the calibration has another number of labels.
    """
    bins = suitable_bins(len(predictions)) if bins is None else bins
    if bins < 1:
        raise EvaluationError(f"{bins} bins", remedy="pass at least one bin")
    bootstrap = Bootstrap.of(predictions, BootstrapSettings(undefined_labels="skip", **settings))
    after = values = change = decisions = None
    if calibration is not None:
        values, thresholds = calibrated(predictions, calibration, folds)
        if is_recalibrated(predictions, values):
            after = measure_quality(replace(predictions, probabilities=values), bins=bins)
            change = loss_change(bootstrap, predictions.probabilities, values)
        decisions = _decisions(bootstrap.targets, values >= thresholds, bootstrap.settings.level)
        decisions.insert(0, "threshold", calibration.thresholds)
        decisions.index = pd.Index(predictions.labels)
    counts = positives(bootstrap.targets).tolist()
    return CalibrationReport(
        positives=dict(zip(predictions.labels, counts, strict=True)),
        records=len(predictions),
        before=measure_quality(predictions, bins=bins),
        after=after,
        probabilities=values,
        change=change,
        decisions=decisions,
        cross_fitted=folds is not None,
        bins=bins,
        settings=bootstrap.settings,
    )


def class_report(
    predictions: Predictions,
    calibration: ClassCalibration,
    *,
    folds: ArrayLike | None = None,
) -> Json:
    """Quality of the probabilities of classes before and after calibration.

    The expected calibration error is that of the most probable class.

    Parameters
    ----------
    predictions : Predictions
        Uncalibrated, with targets.
    calibration : ClassCalibration
    folds : array, shape (records,), optional
        Fold of each record, if the calibration was fitted on these records: each fold is then
        calibrated by one that is fitted on the others.

    Returns
    -------
    dict
        `temperature`, `records`, `cross_fitted`, and `before` and `after`, each with `log_loss`,
        `brier` and `ece`.
    """
    values = np.empty_like(predictions.probabilities)
    places = np.zeros(len(values)) if folds is None else np.asarray(folds)
    for fold in np.unique(places):
        rows = places == fold
        fitted = calibration if folds is None else fit_classes(predictions.select(~rows))
        values[rows] = fitted.apply(predictions.probabilities[rows])
    return {
        "temperature": calibration.temperature,
        "records": len(predictions),
        "cross_fitted": folds is not None,
        "before": _class_quality(predictions, predictions.probabilities),
        "after": _class_quality(predictions, values),
    }


def _class_quality(predictions: Predictions, values: Floats) -> Json:
    targets = predictions.require_targets()
    has_target = ~np.isnan(targets).any(axis=1)
    true, values = targets[has_target].astype(np.float64), values[has_target]
    metrics = kind_of(predictions.kind).metrics(true, values, np.ones((1, len(true))))
    right = true.argmax(axis=1) == values.argmax(axis=1)
    quality = measure_quality(Predictions.from_arrays(right.astype(int), values.max(axis=1)))
    losses = {name: float(metrics[name][0]) for name in ("log_loss", "brier")}
    return losses | {"ece": quality.macro["ece_mass"]}


def calibrated(
    predictions: Predictions, calibration: Calibration, folds: ArrayLike | None = None
) -> tuple[Floats, Floats]:
    """Calibrate a table, and give the thresholds of its calls.

    Parameters
    ----------
    predictions : Predictions
        Uncalibrated; with folds, also with targets.
    calibration : Calibration
    folds : array, shape (records,), optional
        Fold of each record, if the calibration was fitted on these records: each fold is then
        calibrated by one that is fitted on the others.

    Returns
    -------
    probabilities, thresholds : array of float64, shape (records, labels)
        A label is called present where its probability reaches its threshold.
    """
    values = np.empty_like(predictions.probabilities)
    thresholds = np.empty_like(values)
    places = np.zeros(len(values)) if folds is None else np.asarray(folds)
    for fold in np.unique(places):
        rows = places == fold
        fitted = calibration if folds is None else fit_calibration(predictions.select(~rows))
        values[rows] = fitted.apply(predictions.probabilities[rows])
        thresholds[rows] = fitted.thresholds
    return values, thresholds


def is_recalibrated(predictions: Predictions, values: Floats) -> bool:
    """Whether the probabilities of `calibrated` differ from those of the table.

    They do not if there were too few positives for temperatures: only thresholds are fitted then.
    """
    return not np.allclose(values, predictions.probabilities, rtol=0, atol=_ROUNDING)


def suitable_bins(records: int) -> int:
    """Number of bins that a number of records fills: one for every 50, from 3 to 15."""
    return int(np.clip(records // RECORDS_PER_BIN, FEWEST_BINS, MOST_BINS))


def measure_quality(predictions: Predictions, *, bins: int | None = None) -> ProbabilityQuality:
    """Measure the probabilities of a table with targets."""
    bins = suitable_bins(len(predictions)) if bins is None else bins
    targets, probabilities = predictions.require_targets(), predictions.probabilities
    pairs = targets.reshape(-1, 1), probabilities.reshape(-1, 1)
    width, mass, pooled_width, pooled_mass = (
        Bins.of(*table, place(*table, bins), bins)
        for table in ((targets, probabilities), pairs)
        for place in (_bin_by_width, _bin_by_mass)
    )
    per_label = {
        name: known_mean(loss(targets, probabilities), 0) for name, loss in _LOSSES.items()
    }
    micro = {name: float(np.nanmean(values)) for name, values in per_label.items()}
    return ProbabilityQuality(
        per_label=pd.DataFrame(
            per_label | {"ece_width": width.error(), "ece_mass": mass.error()},
            index=list(predictions.labels),
        ),
        micro=micro
        | {"ece_width": pooled_width.error().item(), "ece_mass": pooled_mass.error().item()},
        width=width,
        mass=mass,
        pooled_width=pooled_width,
        pooled_mass=pooled_mass,
    )


def _log_losses(targets: Matrix, probabilities: Floats) -> Floats:
    inside = np.clip(probabilities, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    losses = -np.where(targets == 1, np.log(inside), np.log1p(-inside))
    return np.where(np.isnan(targets), np.nan, losses)


def _squares(targets: Matrix, probabilities: Floats) -> Floats:
    return np.asarray((probabilities - targets) ** 2)


_LOSSES = {"log_loss": _log_losses, "brier": _squares}


def _bin_by_width(targets: Matrix, probabilities: Floats, bins: int) -> NDArray[np.int64]:
    return np.minimum((probabilities * bins).astype(np.int64), bins - 1)


def _bin_by_mass(targets: Matrix, probabilities: Floats, bins: int) -> NDArray[np.int64]:
    # A record's rank is the number of records with a lower probability, so that equals share a bin.
    places = []
    for column, has_target in zip(probabilities.T, ~np.isnan(targets).T, strict=True):
        rank = np.searchsorted(np.sort(column[has_target]), column)
        places.append(np.minimum(rank * bins // max(int(has_target.sum()), 1), bins - 1))
    return np.stack(places, axis=1)


def loss_change(
    bootstrap: Bootstrap, before: Floats, after: Floats
) -> dict[str, tuple[float, Interval | None]]:
    """Log loss and Brier score after minus before, as means over labels, with intervals."""
    weights = bootstrap.draws.multiplicities.astype(np.float64)
    changes: dict[str, tuple[float, Interval | None]] = {}
    for name, loss in _LOSSES.items():
        losses = (loss(bootstrap.targets, values) for values in (after, before))
        differences = known_mean(np.subtract(*losses), 1)
        has_value = ~np.isnan(differences)
        differences, drawn = differences[has_value], weights[:, has_value]
        resampled = (drawn @ differences) / drawn.sum(axis=1)
        point = np.array([differences.mean()])
        change = Estimate(point, resampled[:, None], None, bootstrap.settings)
        changes[name] = float(point[0]), change.interval()
    return changes


def _decisions(targets: Matrix, called: NDArray[np.bool_], level: float) -> pd.DataFrame:
    true, false = targets == 1, targets == 0
    called = called & (true | false)
    with_label, calls = true.sum(axis=0), called.sum(axis=0)
    true_positives = (true & called).sum(axis=0)
    true_negatives = (false & ~called).sum(axis=0)
    counts = {
        "sensitivity": (true_positives, with_label),
        "specificity": (true_negatives, false.sum(axis=0)),
        "precision": (true_positives, calls),
        "npv": (true_negatives, (true | false).sum(axis=0) - calls),
    }
    columns: dict[str, Any] = {
        "called": calls,
        "true_positives": true_positives,
        "false_positives": calls - true_positives,
        "false_negatives": with_label - true_positives,
        "true_negatives": true_negatives,
    }
    for name, (part, whole) in counts.items():
        columns[name] = _ratio(part, whole)
        columns[f"{name}_interval"] = [
            wilson(*pair, level) for pair in zip(part, whole, strict=True)
        ]
        columns[f"{name}_interval_reason"] = [TOO_FEW if n < MIN_PER_CLASS else None for n in whole]
    columns["f1"] = _ratio(2 * true_positives, calls + with_label)
    return pd.DataFrame(columns)


def predictive_values(decision: Mapping[str, Any], prevalence: float, level: float) -> Json:
    """Predictive values of a label's calls at another prevalence, by Bayes' theorem.

    Sensitivity and specificity are taken from the confusion matrix, and assumed to be the same at
    the other prevalence. Their Wilson limits are combined into limits of the likelihood ratio
    (`_ratio_limits`), which are carried over to the predictive value: an interval always contains
    its value. That of the PPV ends at 1 without false positives, that of the NPV without false
    negatives.

    Parameters
    ----------
    decision : mapping
        A row of `CalibrationReport.decisions`.
    prevalence : float
        In (0, 1).
    level : float
        Confidence level.

    Returns
    -------
    dict
        `prevalence`, `ppv`, `npv`, `ppv_interval`, `npv_interval` and the reasons for their
        absence; a value is None where its denominator is 0.
    """
    names = ("true_positives", "false_negatives", "true_negatives", "false_positives")
    tp, fn, tn, fp = (int(decision[name]) for name in names)
    positives, negatives = tp + fn, tn + fp
    few = min(positives, negatives) < MIN_PER_CLASS
    # Right and wrong calls, each with the number and the prevalence of its class.
    calls = {
        "ppv": ((tp, positives, prevalence), (fp, negatives, 1 - prevalence)),
        "npv": ((tn, negatives, 1 - prevalence), (fn, positives, prevalence)),
    }
    values: Json = {"prevalence": prevalence}
    for name, ((right, of, share), (wrong, rest, other)) in calls.items():
        is_defined = min(of, rest) > 0 and right + wrong > 0
        limits = None
        if is_defined and not few:
            ratios = _ratio_limits((right, of), (wrong, rest), level)
            limits = [_share_of_odds(ratio * share / other) for ratio in ratios]
        part, whole = (right / of * share, wrong / rest * other) if is_defined else (0.0, 0.0)
        values[name] = part / (part + whole) if is_defined else None
        values[f"{name}_interval"] = limits
        values[f"{name}_interval_reason"] = TOO_FEW if few else None
    return values


def _ratio_limits(first: tuple[int, int], second: tuple[int, int], level: float) -> Interval:
    """Limits of the ratio of two independent shares, given as part and whole.

    Those of the shares are recovered into a variance on either side of the ratio (Donner and Zou
    2012). The upper limit is infinite where the second share is 0.
    """
    a, b = (part / whole for part, whole in (first, second))
    (low_a, high_a), (low_b, high_b) = (_wilson(*pair, level) for pair in (first, second))

    def root(x: float, y: float) -> float:
        return math.sqrt(max((a * b) ** 2 - x * y, 0.0))

    least = low_a * (2 * a - low_a)
    low = least / (a * b + root(least, high_b * (2 * b - high_b))) if least else 0.0
    rest = low_b * (2 * b - low_b)
    high = (a * b + root(high_a * (2 * a - high_a), rest)) / rest if rest else math.inf
    return low, high


def _share_of_odds(odds: float) -> float:
    return 1.0 if odds == math.inf else odds / (1 + odds)


def wilson(part: int, whole: int, level: float) -> Interval | None:
    """Wilson interval of a share; None for a whole of fewer than five records."""
    if whole < MIN_PER_CLASS:
        return None
    return _wilson(int(part), int(whole), level)


def _wilson(part: int, whole: int, level: float) -> Interval:
    low, high = binomtest(part, whole).proportion_ci(level, "wilson")
    return float(low), float(high)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Floats:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
