"""Fitting of prediction sets to calibration records, and their coverage on others.

The bound of a class is an order statistic of its own n calibration records: the k-th lowest
probability, k = floor((n + 1) (1 - coverage)), is the lowest one with which the class is in the
set (split conformal prediction by class; the score is 1 minus the probability). A new record of the
class falls below it with a probability of at most k / (n + 1). With fewer than
1 / (1 - coverage) - 1 records, 9 for 0.9, no bound excludes the class. Half widths of the intervals
of numbers are the same order statistic of the absolute errors.

One bound for all records, with or without a label (the marginal form), covers the share of all
records that is asked for and misses the rare class: see docs/uncertainty.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from einthoven.evaluate.calibrate import fit_calibration, fit_classes
from einthoven.evaluate.estimate import (
    MIN_PER_CLASS,
    Bootstrap,
    BootstrapSettings,
    Estimate,
)
from einthoven.evaluate.metrics import known_mean
from einthoven.evaluate.reliability import wilson
from einthoven.evaluate.scores import plain
from einthoven.evaluate.subgroups import ordered_groups
from einthoven.files import Json
from einthoven.predictions import Predictions
from einthoven.predictions.calibration import Calibration, ClassCalibration
from einthoven.predictions.sets import COVERAGE, ClassSets, LabelSets, Sets, ValueIntervals


def fit_sets(predictions: Predictions, *, coverage: float = COVERAGE) -> Sets:
    """Fit prediction sets to records that the network was not trained on.

    Parameters
    ----------
    predictions : Predictions
        Calibrated probabilities, or numbers, with targets. What is not known is left out.
    coverage : float
        Share of the records of each class whose set has the true answer, between 0 and 1.

    Raises
    ------
    EvaluationError
        If the table has no targets.
    CalibrationError
        If the coverage is not between 0 and 1.
    """
    targets, values = predictions.require_targets(), predictions.probabilities
    if predictions.form == "values":
        errors = np.abs(values - targets)
        widths = [_lowest(-column[~np.isnan(column)], coverage) for column in errors.T]
        return ValueIntervals(coverage, tuple(None if x is None else -x for x in widths))
    pairs = list(zip(targets.T, values.T, strict=True))
    lowest = tuple(_lowest(column[target == 1], coverage) for target, column in pairs)
    if predictions.form == "classes":
        return ClassSets(coverage, lowest)
    highest = (_lowest(-column[target == 0], coverage) for target, column in pairs)
    return LabelSets(coverage, lowest, tuple(None if x is None else -x for x in highest))


def _lowest(values: NDArray[np.float64], coverage: float) -> float | None:
    """The k-th lowest of the values; None if k is 0."""
    # The margin is for the rounding of a product such as 10 (1 - 0.9).
    k = int((len(values) + 1) * (1 - coverage) + 1e-9) if 0 < coverage < 1 else 0
    return float(np.partition(values, k - 1)[k - 1]) if k else None


class Sides(NamedTuple):
    """Records of each true answer, records whose set has it, and records without a single answer.

    All arrays have the shape (records, outputs). Outputs without a bound are in none of them, and
    not `answered`. The interval of a number counts as one answer.
    """

    members: dict[str, NDArray[np.bool_]]
    covered: dict[str, NDArray[np.bool_]]
    undecided: NDArray[np.bool_]
    answered: NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Sides], order: NDArray[np.intp]) -> Sides:
        """The records of all parts, in another order."""

        def together(arrays: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
            return np.concatenate(list(arrays))[order]

        names = parts[0].members
        return cls(
            {side: together(part.members[side] for part in parts) for side in names},
            {side: together(part.covered[side] for part in parts) for side in names},
            together(part.undecided for part in parts),
            together(part.answered for part in parts),
        )

    def shares(self) -> Json:
        """Share of records covered, by true answer, as means over outputs, and `undecided`."""
        shares: Json = {}
        for side, members in self.members.items():
            count = members.sum(axis=0)
            enough = count >= MIN_PER_CLASS
            hits = (members & self.covered[side]).sum(axis=0)
            shares[side] = (hits[enough] / count[enough]).mean() if enough.any() else None
        return plain(shares | {"undecided": self.undecided_share()})

    def undecided_share(self, records: Any = slice(None), outputs: Any = slice(None)) -> float:
        """Share of undecided answers; NaN without any answer."""
        answered = self.answered[records, outputs].sum()
        undecided = self.undecided[records, outputs].sum()
        return float(undecided / answered) if answered else float("nan")


def measure_coverage(
    predictions: Predictions,
    calibration: Calibration | ClassCalibration | None,
    sets: Sets,
    attributes: Mapping[str, ArrayLike],
    *,
    folds: ArrayLike | None = None,
    **settings: Any,
) -> Json:
    """Measure how often prediction sets have the true answer: overall, by output and by group.

    A mean counts outputs with at least 5 records of the class. Its interval is a percentile
    interval of the bootstrap; that of a single output is Wilson's.

    Parameters
    ----------
    predictions : Predictions
        Uncalibrated, with targets.
    calibration, sets
        Those of the model.
    attributes : mapping of str to array of str, shape (records,)
        Groups; see `einthoven.evaluate.subgroups.demographics`.
    folds : array, shape (records,), optional
        Fold of each record, if calibration and sets were fitted on these records: each fold is then
        answered by those fitted on the others.
    settings
        `resamples`, `seed`, `by` and `level` of `BootstrapSettings`.

    Returns
    -------
    dict
        `coverage` (asked for), `cross_fitted`, `without_sets` (outputs with too few records), and,
        in `overall`, every entry of `per_label` and every group of `attributes`, a `covered` and
        `records` by true answer, with `undecided`, the share of answers that are not one.
    """
    sides = _cross_fitted(predictions, calibration, sets, folds)
    bootstrap = Bootstrap.of(predictions, BootstrapSettings(undefined_labels="skip", **settings))
    weights = bootstrap.draws.multiplicities.astype(np.float32)
    level = bootstrap.settings.level
    everyone = np.ones(len(predictions), dtype=bool)

    def mean(rows: NDArray[np.bool_]) -> Json:
        entry = {
            side: _macro(sides.covered[side], members, rows, weights, bootstrap.settings)
            for side, members in sides.members.items()
        }
        return entry | {"undecided": sides.undecided_share(rows), "records": int(rows.sum())}

    per_label = {}
    for place, label in enumerate(predictions.labels):
        entry: Json = {}
        for side, members in sides.members.items():
            whole = int(members[:, place].sum())
            part = int((members & sides.covered[side])[:, place].sum())
            share = part / whole if whole else None
            interval = wilson(part, whole, level)
            entry[side] = {"covered": share, "interval": interval, "records": whole}
        per_label[label] = entry | {"undecided": sides.undecided_share(outputs=place)}
    groups = {
        attribute: [
            {"name": name} | mean(np.asarray(column) == name)
            for name in ordered_groups(np.asarray(column))
        ]
        for attribute, column in attributes.items()
    }
    return plain(
        {
            "coverage": sets.coverage,
            "cross_fitted": folds is not None,
            "without_sets": without_sets(sets, predictions.labels),
            "overall": mean(everyone),
            "per_label": per_label,
            "attributes": groups,
        }
        | bootstrap.settings.to_dict()
    )


def without_sets(sets: Sets, labels: Sequence[str]) -> list[str]:
    """Labels, classes or numbers that have too few records for a bound."""
    bounds = {name: bound for name, bound in vars(sets).items() if name != "coverage"}
    return [
        label for label, *values in zip(labels, *bounds.values(), strict=True) if None in values
    ]


def _cross_fitted(
    predictions: Predictions,
    calibration: Calibration | ClassCalibration | None,
    sets: Sets,
    folds: ArrayLike | None,
) -> Sides:
    places = np.zeros(len(predictions)) if folds is None else np.asarray(folds)
    parts: list[Sides] = []
    order: list[NDArray[np.intp]] = []
    for fold in np.unique(places):
        rows = places == fold
        own, fitted = calibration, sets
        if folds is not None:
            others = predictions.select(~rows)
            own = None if own is None else _fit_like(own, others)
            fitted = fit_sets(others.calibrated(own), coverage=sets.coverage)
        parts.append(sides_of(predictions.select(rows).calibrated(own), own, fitted))
        order.append(np.flatnonzero(rows))
    return Sides.joined(parts, np.argsort(np.concatenate(order)))


def _fit_like(
    calibration: Calibration | ClassCalibration, predictions: Predictions
) -> Calibration | ClassCalibration:
    is_classes = isinstance(calibration, ClassCalibration)
    return fit_classes(predictions) if is_classes else fit_calibration(predictions)


def sides_of(
    predictions: Predictions, calibration: Calibration | ClassCalibration | None, sets: Sets
) -> Sides:
    """What prediction sets contain of calibrated predictions, or numbers, with targets.

    The thresholds of a calibration of labels make the calls.
    """
    targets, values = predictions.require_targets(), predictions.probabilities
    names = predictions.labels
    missing = np.isin(names, without_sets(sets, names))
    answered = np.broadcast_to(~missing, targets.shape)
    if isinstance(sets, LabelSets):
        assert calibration is not None
        present, absent = sets.contains(values, calibration.decide(values))
        members = {"present": (targets == 1) & answered, "absent": (targets == 0) & answered}
        covered = {"present": present, "absent": absent}
        return Sides(members, covered, (present == absent) & answered, answered)
    if isinstance(sets, ClassSets):
        contained = sets.contains(values)
        several = np.broadcast_to((contained.sum(axis=1) != 1)[:, None], contained.shape)
        members = {"true": (targets == 1) & answered}
        return Sides(members, {"true": contained}, several & answered, answered)
    low, high = sets.bounds(values)
    inside = (low <= targets) & (targets <= high)
    members = {"true": ~np.isnan(targets) & answered}
    return Sides(members, {"true": inside}, np.zeros_like(inside), answered)


def _macro(
    covered: NDArray[np.bool_],
    members: NDArray[np.bool_],
    rows: NDArray[np.bool_],
    weights: NDArray[np.float32],
    settings: BootstrapSettings,
) -> Json:
    """Mean over outputs of the share of members that are covered, among the rows."""
    inside = members & rows[:, None]
    counted = inside.sum(axis=0) >= MIN_PER_CLASS
    if not counted.any():
        return {"covered": None, "interval": None, "labels": 0}
    inside, hits = inside[:, counted], (inside & covered)[:, counted]
    point = (hits.sum(axis=0) / inside.sum(axis=0)).mean()
    with np.errstate(invalid="ignore"):
        resampled = (weights @ hits.astype(np.float32)) / (weights @ inside.astype(np.float32))
    means = known_mean(resampled.astype(np.float64), 1)
    estimate = Estimate(np.array([point]), means[:, None], None, settings)
    # All or none are covered, in every resample: an interval without width would say too much.
    interval = None if point in (0, 1) else estimate.interval()
    return {"covered": point, "interval": interval, "labels": int(counted.sum())}
