"""Metrics of classes and numbers, with bootstrap intervals.

Each kind of target defines its metrics (`einthoven.tasks.kind.Kind.metrics`). Those of one number
for each output, such as the recall of a class or the error of one of several quantities, are
apart from those of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from einthoven.evaluate.bootstrap import jackknife_draws
from einthoven.evaluate.estimate import CONSTANT, TOO_FEW, Bootstrap, BootstrapSettings, Estimate
from einthoven.evaluate.metrics import Floats
from einthoven.files import Json
from einthoven.predictions import Predictions
from einthoven.tasks import kind_of
from einthoven.tasks.classes import confusion_matrix

FEWEST_UNITS = 10
"""Fewest records, or patients, for an interval."""
MOST_PAIRS = 2000
"""Most records whose target and prediction are in an evaluation, for its figures."""

Measures = dict[str, Estimate]
"""Metrics by name; an estimate has one column, or one for each output."""


@dataclass(frozen=True, eq=False, repr=False)
class ValueScore:
    """Metrics of predicted numbers.

    Attributes
    ----------
    kind : str
    labels, units : tuple of str
        Names of the numbers, and their units.
    measures : dict of str to Estimate
        One column for each number.
    records, drawn : int
        Records, and records or patients that resamples are drawn from.
    target_counts : list of int, one for each label
        Records that have the number as a target.
    agreement : dict
        By number: `target` and `prediction` of up to 2,000 records.
    settings : BootstrapSettings
    """

    kind: str
    labels: tuple[str, ...]
    units: tuple[str, ...]
    measures: Measures
    records: int
    drawn: int
    target_counts: list[int]
    agreement: Json
    settings: BootstrapSettings

    def __repr__(self) -> str:
        values = ", ".join(
            f"{name} {estimate.point[0]:.4g}" for name, estimate in self.measures.items()
        )
        return f"<ValueScore: {self.records} records; {self.labels[0]}: {values}>"

    def to_dict(self) -> Json:
        """A JSON-serialisable dict with the numbers under `per_label`."""
        return {
            "kind": self.kind,
            "records": self.records,
            **self.settings.to_dict(),
            "agreement": self.agreement,
            "per_label": {
                label: {"unit": self.units[i], "records": self.target_counts[i]}
                | entries(self.measures, i, self.drawn)
                for i, label in enumerate(self.labels)
            },
        }


def measure(bootstrap: Bootstrap, kind: str, predictions: Floats) -> Measures:
    """Compute the metrics of a kind of target, with a replicate for every resample."""
    behaviour, targets = kind_of(kind), bootstrap.targets.astype(np.float64)

    def metrics(weights: Any) -> dict[str, Floats]:
        values = behaviour.metrics(targets, predictions, np.asarray(weights, dtype=np.float64))
        return {name: x[:, None] if x.ndim == 1 else x for name, x in values.items()}

    once = metrics(np.ones((1, len(targets))))
    drawn = metrics(bootstrap.draws.multiplicities) if bootstrap.settings.resamples else {}
    jackknife: dict[str, Floats] = {}
    if bootstrap.settings.interval == "bca" and bootstrap.settings.resamples:
        blocks = [metrics(x) for x in jackknife_draws(len(targets), groups=bootstrap.patients)]
        jackknife = {name: np.concatenate([block[name] for block in blocks]) for name in once}
    return {
        name: Estimate(
            point[0],
            drawn.get(name, np.empty((0, point.shape[1]))),
            jackknife.get(name),
            bootstrap.settings,
        )
        for name, point in once.items()
    }


def score_values(bootstrap: Bootstrap, table: Predictions) -> ValueScore:
    """Score predicted numbers."""
    targets = bootstrap.targets
    has_target = ~np.isnan(targets)
    return ValueScore(
        kind=table.kind,
        labels=table.labels,
        units=table.units,
        measures=measure(bootstrap, table.kind, table.probabilities),
        records=len(targets),
        drawn=bootstrap.units,
        target_counts=has_target.sum(axis=0).tolist(),
        agreement={
            label: _pairs(targets[rows, i], table.probabilities[rows, i])
            for i, (label, rows) in enumerate(zip(table.labels, has_target.T, strict=True))
        },
        settings=bootstrap.settings,
    )


def class_entries(measures: Measures, bootstrap: Bootstrap, kind: str, predictions: Floats) -> Json:
    """Entries of a score of classes: `measures` of the whole, `per_class`, and `confusion`.

    Rows of the confusion matrix are true classes, columns the most probable ones.
    """
    units = bootstrap.units
    whole = {name: x for name, x in measures.items() if x.point.size == 1}
    single = {name: x for name, x in measures.items() if x.point.size > 1}
    return {
        "kind": kind,
        "measures": entries(whole, 0, units),
        "per_class": {label: entries(single, i, units) for i, label in enumerate(bootstrap.labels)},
        "confusion": confusion_matrix(bootstrap.targets, predictions).tolist(),
    }


def entries(measures: Measures, column: int, units: int) -> Json:
    """`NAME`, `NAME_interval` and `NAME_interval_reason` of one column of each metric.

    A metric that is the same in every resample, such as an accuracy of 1, has no interval: one
    without width would say too much.
    """
    values: Json = {}
    for name, estimate in measures.items():
        one = estimate.select_labels([column])
        limits, reason = one.interval() if units >= FEWEST_UNITS else None, None
        if units < FEWEST_UNITS:
            reason = TOO_FEW
        elif limits is not None and limits[0] == limits[1]:
            limits, reason = None, CONSTANT
        point = float(one.point[0])
        values[name] = point if np.isfinite(point) else None
        values[f"{name}_interval"] = limits
        values[f"{name}_interval_reason"] = reason
    return values


def differences(ours: Measures, theirs: Measures, labels: Sequence[str], units: int) -> Json:
    """Paired differences of all metrics, as `whole` and by label."""
    minus = {name: ours[name].minus(theirs[name]) for name in ours}
    whole = {name: x for name, x in minus.items() if x.point.size == 1}
    single = {name: x for name, x in minus.items() if x.point.size == len(labels)}
    return {
        "whole": entries(whole, 0, units),
        "per_label": {label: entries(single, i, units) for i, label in enumerate(labels)},
    }


def _pairs(targets: Floats, predictions: Floats) -> Json:
    """Targets and predictions of evenly spaced records, to six digits."""
    keep = np.linspace(0, len(targets) - 1, min(len(targets), MOST_PAIRS)).astype(int)
    pairs = {"target": targets, "prediction": predictions}
    return {
        name: [float(f"{value:.6g}") for value in values[keep].tolist()]
        for name, values in pairs.items()
    }
