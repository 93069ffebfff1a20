"""Two models on the same records: paired differences with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from einthoven.errors import EvaluationError
from einthoven.evaluate.estimate import Estimate, Plan, Truth, draw, estimate
from einthoven.evaluate.metrics import check_option
from einthoven.evaluate.missing_classes import UndefinedLabels
from einthoven.evaluate.scores import (
    Interval,
    Score,
    checked_truth,
    limit_columns,
    pair,
    plain,
    row,
    summary,
)
from einthoven.predictions import Predictions, listed

Floats = NDArray[np.float64]

UNITS = ("record", "patient")


@dataclass(frozen=True, eq=False)
class Difference:
    """Difference of one metric, a minus b.

    Attributes
    ----------
    macro : float
        Difference of the macro values.
    macro_interval : (low, high) or None
        Interval of the paired resamples; None without resamples.
    relative_gain : float
        a / b - 1 of the macro values.
    share_above_zero : float or None
        Share of the resamples in which the macro value of a is larger.
    bias : float or None
        Mean of the resampled differences minus `macro`.
    per_label : array, shape (labels,)
    intervals : array, shape (labels, 2), or None
    improved : int
        Labels with a positive difference.
    significantly_better, significantly_worse : int or None
        Labels whose interval lies above, and below, zero. Not corrected for their number.
    """

    macro: float
    macro_interval: Interval | None
    relative_gain: float
    share_above_zero: float | None
    bias: float | None
    per_label: Floats
    intervals: Floats | None
    improved: int
    significantly_better: int | None
    significantly_worse: int | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Scores of two models on the same resamples, and their paired differences.

    Attributes
    ----------
    a, b : Score
    auroc, auprc : Difference
    labels : tuple of str
    positives : array of int, shape (labels,)
    """

    a: Score
    b: Score
    auroc: Difference
    auprc: Difference

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels' names, in the order of a."""
        return self.a.labels

    @property
    def positives(self) -> NDArray[np.int64]:
        """Positives of every label, shape (labels,)."""
        return self.a.positives

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable dict with the labels under `per_label` of each metric."""
        return {
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "auroc": self._metric(self.auroc),
            "auprc": self._metric(self.auprc),
        }

    def to_frame(self) -> pd.DataFrame:
        """A data frame with one row for each label: positives, both values, both differences."""
        columns: dict[str, Any] = {"label": self.labels, "positives": self.positives}
        for name in ("auroc", "auprc"):
            metric: Difference = getattr(self, name)
            columns |= {f"{name}_a": getattr(self.a, name), f"{name}_b": getattr(self.b, name)}
            columns |= limit_columns(f"{name}_difference", metric.per_label, metric.intervals)
        return pd.DataFrame(columns)

    def _metric(self, metric: Difference) -> dict[str, Any]:
        shared = {k: v for k, v in vars(metric).items() if k not in ("per_label", "intervals")}
        shared["per_label"] = {
            label: {"difference": metric.per_label[i], "interval": row(metric.intervals, i)}
            for i, label in enumerate(self.labels)
        }
        result: dict[str, Any] = plain(shared)
        return result


def compare(
    a: Predictions | str | Path,
    b: Predictions | str | Path,
    *,
    resamples: int = 1000,
    seed: int = 0,
    undefined_labels: str = "resample",
    interval: str = "percentile",
    level: float = 0.95,
    by: str = "record",
    auprc: str = "average-precision",
) -> Comparison:
    """Compute paired differences a - b between two sets of predictions for the same records.

    Both are evaluated on the same resamples, so variation that they share cancels. The rows and
    labels of `b` are put into the order of `a` by name.

    Parameters
    ----------
    a, b : Predictions, or paths of saved ones
    by : {"record", "patient"}
        Unit of resampling.
    resamples, seed, undefined_labels, interval, level, auprc
        As in `score`.

    Raises
    ------
    EvaluationError
        If records, labels, patients or targets differ (the message names the first differences),
        if targets are missing, and as in `score`.
    """
    plan = Plan(resamples, seed, UndefinedLabels.of(undefined_labels), interval, level, auprc)
    check_option("by", by, UNITS)
    first, second = (x if isinstance(x, Predictions) else Predictions.load(x) for x in (a, b))
    truth, scores = _truth(first, by), _aligned(first, second, by)
    draws = draw(truth, plan)
    ours = estimate(truth, first.probabilities, draws, plan)
    theirs = estimate(truth, scores, draws, plan)
    return Comparison(
        a=summary(truth, first.probabilities, ours, draws, plan),
        b=summary(truth, scores, theirs, draws, plan),
        auroc=difference(ours[0], theirs[0], plan),
        auprc=difference(ours[1], theirs[1], plan),
    )


def difference(ours: Estimate, theirs: Estimate, plan: Plan) -> Difference:
    """Summarise the paired difference of two estimates from the same resamples."""
    labels, base = ours.minus(theirs), float(theirs.macro(plan.undefined_labels).point[0])
    whole = labels.macro(plan.undefined_labels)
    limits = labels.limits(plan) if plan.resamples else None
    gain = float(whole.point[0])
    return Difference(
        macro=gain,
        macro_interval=pair(whole, plan),
        relative_gain=gain / base if base else float("nan"),
        share_above_zero=float((whole.replicates > 0).mean()) if plan.resamples else None,
        bias=whole.bias() if plan.resamples else None,
        per_label=labels.point,
        intervals=limits,
        improved=int((labels.point > 0).sum()),
        significantly_better=None if limits is None else int((limits[:, 0] > 0).sum()),
        significantly_worse=None if limits is None else int((limits[:, 1] < 0).sum()),
    )


def _truth(predictions: Predictions, by: str) -> Truth:
    targets = _targets(predictions, "a")
    groups = predictions.patients if by == "patient" else None
    return checked_truth(targets, predictions.labels, groups)


def _targets(predictions: Predictions, name: str) -> NDArray[np.uint8]:
    if predictions.targets is None:
        raise EvaluationError(
            f"the predictions {name} hold no targets", remedy="predict for a labelled cohort"
        )
    return predictions.targets


def _aligned(a: Predictions, b: Predictions, by: str) -> Floats:
    # The probabilities of b, in the order of a's records and labels.
    _refuse_other_names("labels", a.labels, b.labels)
    _refuse_other_names("records", a.records.tolist(), b.records.tolist())
    rows = _places(a.records.tolist(), b.records.tolist())
    columns = _places(a.labels, b.labels)
    _refuse_other_targets(a, _targets(b, "b")[np.ix_(rows, columns)])
    if by == "patient":
        _refuse_other_patients(a, b.patients[rows])
    return b.probabilities[np.ix_(rows, columns)]


def _places(names: tuple[str, ...] | list[str], present: tuple[str, ...] | list[str]) -> list[int]:
    place = {name: i for i, name in enumerate(present)}
    return [place[name] for name in names]


def _refuse_other_names(
    kind: str, a: tuple[str, ...] | list[str], b: tuple[str, ...] | list[str]
) -> None:
    only_a, only_b = sorted(set(a) - set(b)), sorted(set(b) - set(a))
    if only_a or only_b:
        raise EvaluationError(
            f"the {kind} differ: {len(only_a)} only in a ({listed(only_a)}), "
            f"{len(only_b)} only in b ({listed(only_b)})",
            remedy="predict the same labels for the same records with both models",
        )


def _refuse_other_targets(a: Predictions, targets: NDArray[np.uint8]) -> None:
    places = np.argwhere(_targets(a, "a") != targets)
    if not len(places):
        return
    differences = [f"{a.labels[column]} of record {a.records[line]}" for line, column in places]
    raise EvaluationError(
        f"the targets differ in {len(places)} places: {listed(differences)}",
        remedy="predict both from one cohort, of the same version",
    )


def _refuse_other_patients(a: Predictions, patients: NDArray[np.str_]) -> None:
    places = np.flatnonzero(a.patients != patients)
    if places.size:
        differences = [f"{a.records[i]} ({a.patients[i]} and {patients[i]})" for i in places]
        raise EvaluationError(
            f"the patients of {places.size} records differ: {listed(differences)}",
            remedy="predict both from one cohort, of the same version",
        )
