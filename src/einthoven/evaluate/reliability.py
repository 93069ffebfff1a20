"""How far probabilities can be taken at their word: calibration errors, Brier score, log loss.

The expected calibration error (ECE) of a label is the mean over its records of |mean probability -
share of positives| of the bin that a record is in (Naeini et al. 2015). Bins have equal width, or
equal mass: as many records each, but records of equal probability always share a bin, so that the
order of the records changes nothing. The macro value is the mean over labels; the micro value bins
all record-label pairs together. Every label counts, also one without a positive: its probabilities
can be right or wrong all the same. With few records an ECE is above 0 even where the probabilities
are perfect, and a rare label has a small one because its probabilities are small; the Brier score
and the log loss, which are means over records, have neither property.
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
from einthoven.evaluate.estimate import Plan, Truth, intervals
from einthoven.evaluate.scores import Interval, checked_truth, plain
from einthoven.predictions import Calibration, checked_probabilities

Floats = NDArray[np.float64]

BINS = 15
ERRORS = ("ece_width", "ece_mass")
MEANS = ("log_loss", "brier")


@dataclass(frozen=True, eq=False)
class Bins:
    """A reliability diagram of every label.

    Attributes
    ----------
    records : array of int, shape (labels, bins)
        How many records are in a bin.
    probability, observed : array of float64, shape (labels, bins)
        Mean probability and share of positives; NaN for an empty bin.
    """

    records: NDArray[np.int64]
    probability: Floats
    observed: Floats

    def error(self) -> Floats:
        """The expected calibration error of every label, shape (labels,)."""
        gaps = np.where(self.records > 0, np.abs(self.probability - self.observed), 0.0)
        return np.asarray((self.records * gaps).sum(axis=1) / self.records.sum(axis=1))

    def to_list(self, label: int) -> list[dict[str, Any]]:
        """The bins of one label that are not empty, ready for JSON."""
        columns = zip(
            self.records[label], self.probability[label], self.observed[label], strict=True
        )
        return [
            {"records": int(count), "probability": float(mean), "observed": float(share)}
            for count, mean, share in columns
            if count
        ]


@dataclass(frozen=True, eq=False)
class Quality:
    """What one set of probabilities is worth.

    Attributes
    ----------
    log_loss, brier, ece_width, ece_mass : array, shape (labels,)
        In nats, and between 0 and 1.
    micro : dict of str to float
        The same of all record-label pairs together. Log loss and Brier score are means over
        records, so their micro and macro values are equal.
    width, mass : Bins
        Of every label, in bins of equal width and of equal mass.
    pooled_width, pooled_mass : Bins
        Of all record-label pairs, as one label.
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
        return {name: float(getattr(self, name).mean()) for name in (*MEANS, *ERRORS)}

    def to_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """Ready for JSON, with the pooled bins; the bins of single labels are left out."""
        names = (*MEANS, *ERRORS)
        return {
            "macro": self.macro,
            "micro": self.micro,
            "bins_width": self.pooled_width.to_list(0),
            "bins_mass": self.pooled_mass.to_list(0),
            "per_label": {
                label: {name: float(getattr(self, name)[i]) for name in names}
                for i, label in enumerate(labels)
            },
        }


@dataclass(frozen=True, eq=False)
class Decisions:
    """What the thresholds come to, by label; NaN where a share has nothing to be a share of.

    Attributes
    ----------
    threshold, sensitivity, specificity, precision, f1 : array, shape (labels,)
    called : array of int, shape (labels,)
        Records at or above the threshold.
    """

    threshold: Floats
    called: NDArray[np.int64]
    sensitivity: Floats
    specificity: Floats
    precision: Floats
    f1: Floats

    def to_dict(self, labels: Sequence[str]) -> dict[str, Any]:
        """Ready for JSON, by label."""
        return {
            label: {name: plain(values[i]) for name, values in vars(self).items()}
            for i, label in enumerate(labels)
        }


@dataclass(frozen=True, eq=False)
class CalibrationReport:
    """What `calibration_report` found.

    Attributes
    ----------
    labels : tuple of str
    positives : array of int, shape (labels,)
    records : int
    before, after : Quality
        Of the probabilities as they were given, and calibrated; `after` is None without a
        calibration, and with it `change` and `decisions`.
    change : dict of str to (difference, interval)
        After minus before of the macro log loss and Brier score; below 0 is better. The interval
        is a percentile interval of paired resamples, None without resamples.
    decisions : Decisions or None
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
    decisions: Decisions | None
    resamples: int
    seed: int
    bins: int
    unit: str
    level: float

    def to_dict(self) -> dict[str, Any]:
        """Everything but the bins of single labels, ready for JSON."""
        shared = ("records", "resamples", "seed", "bins", "unit", "level")
        changes = self.change or {}
        found: dict[str, Any] = {name: getattr(self, name) for name in shared}
        found["positives"] = dict(zip(self.labels, self.positives.tolist(), strict=True))
        found["before"] = self.before.to_dict(self.labels)
        found["after"] = None if self.after is None else self.after.to_dict(self.labels)
        found["change"] = {
            name: {"difference": value, "interval": limits}
            for name, (value, limits) in changes.items()
        }
        found["decisions"] = None if self.decisions is None else self.decisions.to_dict(self.labels)
        result: dict[str, Any] = plain(found)
        return result

    def to_frame(self) -> pd.DataFrame:
        """One row for each label: positives, and every measure before and after."""
        columns: dict[str, Any] = {"label": self.labels, "positives": self.positives}
        for when in ("before", "after"):
            quality: Quality | None = getattr(self, when)
            if quality is not None:
                columns |= {f"{n}_{when}": getattr(quality, n) for n in (*MEANS, *ERRORS)}
        if self.decisions is not None:
            columns |= vars(self.decisions)
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
    """Measure calibration before and after, on records that it was not fitted on.

    Parameters
    ----------
    targets, probabilities : array, shape (records, labels)
        0 or 1, and what the network said, not calibrated.
    labels : sequence of str
        Names of the columns.
    calibration : Calibration, optional
        Without it only `before` is measured.
    bins : int
        Of either kind.
    resamples, seed, level
        Of the intervals of `change`; 0 resamples leave them out.
    groups : array, shape (records,), optional
        Patient of each record; patients are drawn instead of records.

    Raises
    ------
    EvaluationError
        For tables that `score` would refuse, and fewer than one bin.
    CalibrationError
        When the calibration is of another number of labels.
    """
    truth = checked_truth(targets, labels, groups)
    plan = Plan(resamples, seed, level=level)
    before = checked_probabilities(probabilities, truth.labels)
    if before.shape != truth.targets.shape or bins < 1:
        raise EvaluationError(
            f"targets have shape {truth.targets.shape}, probabilities {before.shape}, with {bins} "
            "bins",
            remedy="pass both for the same records, and at least one bin",
        )
    after = None if calibration is None else calibration.apply(before)
    paired = None if after is None else _change(truth, before, after, plan)
    reached = None
    if calibration is not None and after is not None:
        reached = _decisions(truth.targets, calibration.decide(after), calibration.thresholds)
    return CalibrationReport(
        labels=truth.labels,
        positives=truth.targets.sum(axis=0, dtype=np.int64),
        records=len(before),
        before=quality(truth.targets, before, bins=bins),
        after=None if after is None else quality(truth.targets, after, bins=bins),
        change=paired,
        decisions=reached,
        resamples=resamples,
        seed=seed,
        bins=bins,
        unit="record" if truth.groups is None else "patient",
        level=level,
    )


def quality(targets: NDArray[np.uint8], probabilities: Floats, *, bins: int = BINS) -> Quality:
    """Every measure of one set of probabilities; both arrays have shape (records, labels)."""
    pairs = targets.reshape(-1, 1), probabilities.reshape(-1, 1)
    tables = [
        _binned(true, given, place(given, bins), bins)
        for true, given in ((targets, probabilities), pairs)
        for place in (_by_width, _by_mass)
    ]
    width, mass, pooled_width, pooled_mass = tables
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


def _by_width(probabilities: Floats, bins: int) -> NDArray[np.int64]:
    return np.minimum((probabilities * bins).astype(np.int64), bins - 1)


def _by_mass(probabilities: Floats, bins: int) -> NDArray[np.int64]:
    # A record's bin comes from the rank of the first record with the same probability.
    records = len(probabilities)
    order = np.argsort(probabilities, axis=0, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=0)
    place = np.broadcast_to(np.arange(records)[:, None], ranked.shape)
    opens = np.ones(ranked.shape, dtype=bool)
    opens[1:] = ranked[1:] != ranked[:-1]
    first = np.maximum.accumulate(np.where(opens, place, 0), axis=0)
    found = np.empty(ranked.shape, dtype=np.int64)
    np.put_along_axis(found, order, first * bins // records, axis=0)
    return found


def _binned(
    targets: NDArray[np.uint8], probabilities: Floats, place: NDArray[np.int64], bins: int
) -> Bins:
    labels = targets.shape[1]
    cell = (place + np.arange(labels) * bins).ravel()
    count, said, true = (
        np.bincount(cell, weights=weights, minlength=labels * bins).reshape(labels, bins)
        for weights in (None, probabilities.ravel(), targets.ravel())
    )
    some = np.where(count > 0, count, np.nan)
    return Bins(count.astype(np.int64), said / some, true / some)


def _change(
    truth: Truth, before: Floats, after: Floats, plan: Plan
) -> dict[str, tuple[float, Interval | None]]:
    draws = multiplicities(len(before), plan.resamples, seed=plan.seed, groups=truth.groups)
    drawn = draws.multiplicities.astype(np.float64)
    found: dict[str, tuple[float, Interval | None]] = {}
    for name, loss in _LOSSES.items():
        each = (loss(truth.targets, after) - loss(truth.targets, before)).mean(axis=1)
        point, limits = each.mean(), None
        if plan.resamples:
            resampled = (drawn @ each) / drawn.sum(axis=1)
            low, high = intervals(
                "percentile", np.array([point]), resampled[:, None], level=plan.level
            )[0]
            limits = float(low), float(high)
        found[name] = float(point), limits
    return found


def _decisions(
    targets: NDArray[np.uint8], called: NDArray[np.bool_], thresholds: Sequence[float]
) -> Decisions:
    true = targets == 1
    hits, alarms, positives = ((x).sum(axis=0) for x in (true & called, called, true))
    rejected = (~true & ~called).sum(axis=0)
    return Decisions(
        threshold=np.array(thresholds),
        called=alarms,
        sensitivity=_share(hits, positives),
        specificity=_share(rejected, len(true) - positives),
        precision=_share(hits, alarms),
        f1=_share(2 * hits, alarms + positives),
    )


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Floats:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
