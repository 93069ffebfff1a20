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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import EvaluationError
from einthoven.evaluate.bootstrap import multiplicities
from einthoven.evaluate.calibrate import PROBABILITY_MARGIN
from einthoven.evaluate.estimate import Estimate, Interval, Plan, Truth
from einthoven.evaluate.scores import by_label, checked_pair, plain
from einthoven.files import Json
from einthoven.predictions import Calibration

Floats = NDArray[np.float64]

BINS = 15
MEASURES = ("log_loss", "brier", "ece_width", "ece_mass")


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
        cls, targets: NDArray[np.uint8], probabilities: Floats, place: NDArray[np.int64], bins: int
    ) -> Bins:
        """Sort records, shape (records, labels), into the bins numbered by `place`."""
        labels = targets.shape[1]
        cell = (place + np.arange(labels) * bins).ravel()
        count, probability, positives = (
            np.bincount(cell, weights=weights, minlength=labels * bins).reshape(labels, bins)
            for weights in (None, probabilities.ravel(), targets.ravel())
        )
        divisor = np.where(count > 0, count, np.nan)
        return cls(count.astype(np.int64), probability / divisor, positives / divisor)

    def error(self) -> Floats:
        """The expected calibration error of every label, shape (labels,)."""
        gaps = np.where(self.records > 0, np.abs(self.probability - self.observed), 0.0)
        return np.asarray((self.records * gaps).sum(axis=1) / self.records.sum(axis=1))

    def to_list(self, label: int) -> list[dict[str, Any]]:
        """One label's bins as JSON-serialisable dicts, without the empty ones."""
        columns = {name: values[label] for name, values in vars(self).items()}
        return pd.DataFrame(columns).query("records > 0").to_dict("records")  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Quality:
    """Accuracy of one set of probabilities.

    Attributes
    ----------
    log_loss, brier, ece_width, ece_mass : array, shape (labels,)
        In nats, and between 0 and 1.
    micro : dict of str to float
        The same over all record-label pairs. Log loss and Brier score are means over records, so
        their micro and macro values are equal.
    width, mass : Bins
        All labels, in bins of equal width and of equal mass.
    pooled_width, pooled_mass : Bins
        All record-label pairs, as one label.
    """

    log_loss: Floats
    brier: Floats
    ece_width: Floats
    ece_mass: Floats
    micro: dict[str, float]
    width: Bins
    mass: Bins
    pooled_width: Bins
    pooled_mass: Bins

    @property
    def macro(self) -> dict[str, float]:
        """Means over labels."""
        return {name: float(getattr(self, name).mean()) for name in MEASURES}

    def to_dict(self, labels: Sequence[str]) -> Json:
        """A JSON-serialisable dict with the pooled bins, without those of single labels."""
        return plain(
            {
                "macro": self.macro,
                "micro": self.micro,
                "bins_width": self.pooled_width.to_list(0),
                "bins_mass": self.pooled_mass.to_list(0),
                "per_label": by_label(labels, **{name: getattr(self, name) for name in MEASURES}),
            }
        )


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """Quality of probabilities before and after calibration.

    Attributes
    ----------
    labels : tuple of str
    positives : array of int, shape (labels,)
    records : int
    before, after : Quality
        Uncalibrated and calibrated probabilities; without a calibration `after`, `change` and
        `decisions` are None.
    change : dict of str to (difference, interval)
        After minus before of the macro log loss and Brier score; below 0 is better. The interval
        is a percentile interval of paired resamples, None without resamples.
    decisions : DataFrame or None
        By label: `threshold`, `called` (the records at or above it), `sensitivity`, `specificity`,
        `precision` and `f1`; NaN where a denominator is 0.
    resamples, seed, bins : int
    unit : {"record", "patient"}
    level : float
    """

    labels: tuple[str, ...]
    positives: NDArray[np.int64]
    records: int
    before: Quality
    after: Quality | None
    change: dict[str, tuple[float, Interval | None]] | None
    decisions: pd.DataFrame | None
    resamples: int
    seed: int
    bins: int
    unit: str
    level: float

    def to_dict(self) -> Json:
        """A JSON-serialisable dict, without the bins of single labels."""
        shared = ("records", "resamples", "seed", "bins", "unit", "level")
        values: Json = {name: getattr(self, name) for name in shared}
        values["positives"] = dict(zip(self.labels, self.positives, strict=True))
        values["before"] = self.before.to_dict(self.labels)
        values["after"] = self.after and self.after.to_dict(self.labels)
        values["decisions"] = None
        if self.decisions is not None:
            values["decisions"] = self.decisions.to_dict("index")
        values["change"] = {
            name: {"difference": difference, "interval": limits}
            for name, (difference, limits) in (self.change or {}).items()
        }
        return plain(values)

    def to_frame(self) -> pd.DataFrame:
        """A data frame with one row for each label: positives, measures before and after."""
        columns: dict[str, Any] = {"label": self.labels, "positives": self.positives}
        for when in ("before", "after"):
            quality: Quality | None = getattr(self, when)
            if quality is not None:
                columns |= {f"{name}_{when}": getattr(quality, name) for name in MEASURES}
        if self.decisions is not None:
            columns |= {str(name): values.to_numpy() for name, values in self.decisions.items()}
        return pd.DataFrame(columns)


def calibration_report(
    targets: ArrayLike,
    probabilities: ArrayLike,
    labels: Sequence[str],
    calibration: Calibration | None = None,
    *,
    bins: int = BINS,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    groups: ArrayLike | None = None,
) -> CalibrationReport:
    """Measure a calibration on records that it was not fitted on.

    Parameters
    ----------
    targets, probabilities : array, shape (records, labels)
        Targets (0 or 1) and the network's uncalibrated probabilities.
    labels : sequence of str
        Names of the columns.
    calibration : Calibration, optional
        Without it only `before` is measured.
    bins : int
        Number of bins of either kind.
    resamples, seed, level
        Settings of the intervals of `change`; 0 resamples leave them out.
    groups : array, shape (records,), optional
        Patient of each record; patients are drawn instead of records.

    Raises
    ------
    EvaluationError
        If there are no bins, or the arrays are invalid; see `score`.
    CalibrationError
        If the calibration has another number of labels.
    """
    truth, before = checked_pair(targets, probabilities, labels, groups)
    plan = Plan(resamples, seed, level=level)
    if bins < 1:
        raise EvaluationError(f"{bins} bins", remedy="pass at least one bin")
    after = change = decisions = None
    if calibration is not None:
        after = calibration.apply(before)
        change = _change(truth, before, after, plan)
        called = calibration.decide(after)
        decisions = _decisions(truth, called, calibration.thresholds)
    return CalibrationReport(
        labels=truth.labels,
        positives=truth.targets.sum(axis=0, dtype=np.int64),
        records=len(before),
        before=measure_quality(truth.targets, before, bins=bins),
        after=None if after is None else measure_quality(truth.targets, after, bins=bins),
        change=change,
        decisions=decisions,
        resamples=resamples,
        seed=seed,
        bins=bins,
        unit=truth.unit,
        level=level,
    )


def measure_quality(
    targets: NDArray[np.uint8], probabilities: Floats, *, bins: int = BINS
) -> Quality:
    """Measure one set of probabilities; both arrays have shape (records, labels)."""
    pairs = targets.reshape(-1, 1), probabilities.reshape(-1, 1)
    width, mass, pooled_width, pooled_mass = (
        Bins.of(*table, place(table[1], bins), bins)
        for table in ((targets, probabilities), pairs)
        for place in (_bin_by_width, _bin_by_mass)
    )
    losses = {name: loss(targets, probabilities) for name, loss in _LOSSES.items()}
    micro = {name: float(values.mean()) for name, values in losses.items()}
    micro |= {"ece_width": pooled_width.error().item(), "ece_mass": pooled_mass.error().item()}
    return Quality(
        log_loss=losses["log_loss"].mean(axis=0),
        brier=losses["brier"].mean(axis=0),
        ece_width=width.error(),
        ece_mass=mass.error(),
        micro=micro,
        width=width,
        mass=mass,
        pooled_width=pooled_width,
        pooled_mass=pooled_mass,
    )


def _log_losses(targets: NDArray[np.uint8], probabilities: Floats) -> Floats:
    inside = np.clip(probabilities, PROBABILITY_MARGIN, 1 - PROBABILITY_MARGIN)
    return np.asarray(-np.where(targets == 1, np.log(inside), np.log1p(-inside)))


def _squares(targets: NDArray[np.uint8], probabilities: Floats) -> Floats:
    return np.asarray((probabilities - targets) ** 2)


_LOSSES = {"log_loss": _log_losses, "brier": _squares}


def _bin_by_width(probabilities: Floats, bins: int) -> NDArray[np.int64]:
    return np.minimum((probabilities * bins).astype(np.int64), bins - 1)


def _bin_by_mass(probabilities: Floats, bins: int) -> NDArray[np.int64]:
    # A record's rank is the number of records with a lower probability, so that equals share a bin.
    ranks = [np.searchsorted(np.sort(column), column) for column in probabilities.T]
    return np.stack(ranks, axis=1) * bins // len(probabilities)


def _change(
    truth: Truth, before: Floats, after: Floats, plan: Plan
) -> dict[str, tuple[float, Interval | None]]:
    draws = multiplicities(len(before), plan.resamples, seed=plan.seed, groups=truth.groups)
    weights = draws.multiplicities.astype(np.float64)
    changes: dict[str, tuple[float, Interval | None]] = {}
    for name, loss in _LOSSES.items():
        differences = (loss(truth.targets, after) - loss(truth.targets, before)).mean(axis=1)
        resampled = (weights @ differences) / weights.sum(axis=1)
        change = Estimate(np.array([differences.mean()]), resampled[:, None], None)
        changes[name] = float(change.point[0]), change.interval(plan)
    return changes


def _decisions(
    truth: Truth, called: NDArray[np.bool_], thresholds: Sequence[float]
) -> pd.DataFrame:
    true = truth.targets == 1
    hits, alarms, positives = (mask.sum(axis=0) for mask in (true & called, called, true))
    rejected = (~true & ~called).sum(axis=0)
    columns = {
        "threshold": thresholds,
        "called": alarms,
        "sensitivity": _share(hits, positives),
        "specificity": _share(rejected, len(true) - positives),
        "precision": _share(hits, alarms),
        "f1": _share(2 * hits, alarms + positives),
    }
    return pd.DataFrame(columns, index=list(truth.labels))


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Floats:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
