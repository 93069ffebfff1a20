"""Macro and per-label metrics of one set of predictions, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import EvaluationError
from einthoven.evaluate.bootstrap import Draws
from einthoven.evaluate.estimate import Estimate, Interval, Plan, Truth, draw, estimate
from einthoven.evaluate.metrics import check_option, f_max
from einthoven.files import Json
from einthoven.predictions import (
    Predictions,
    checked_labels,
    checked_probabilities,
    checked_targets,
    listed,
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Score:
    """Metrics of one set of predictions. Undefined values are NaN here and None in `to_dict`.

    Attributes
    ----------
    macro_auroc, macro_auprc : float
        Means over labels, under the policy `undefined_labels`.
    f_max : float
        Sample-centric; NaN where some record has no true label.
    macro_auroc_interval, macro_auprc_interval : (low, high) or None
        None without resamples.
    macro_auroc_bias, macro_auprc_bias : float or None
        Mean of the resamples minus the value. The AUPRC of rare labels is biased upwards, because
        copies of one positive rank next to each other.
    labels : tuple of str
    positives : array of int, shape (labels,)
    auroc, auprc : arrays of float64, shape (labels,)
    auroc_intervals, auprc_intervals : arrays of float64, shape (labels, 2), or None
        Over the resamples in which the label is defined.
    defined_labels : int
        Labels with a positive and a negative, over which the macro values are means.
    records, resamples, drawn, seed : int
        `drawn` counts the resamples until the last accepted one; `resamples` were accepted.
    unit : {"record", "patient"}
        Unit of resampling.
    undefined_labels, interval, auprc_definition : str
    level : float
    """

    macro_auroc: float
    macro_auprc: float
    f_max: float
    macro_auroc_interval: Interval | None
    macro_auprc_interval: Interval | None
    macro_auroc_bias: float | None
    macro_auprc_bias: float | None
    labels: tuple[str, ...]
    positives: NDArray[np.int64]
    auroc: Floats
    auprc: Floats
    auroc_intervals: Floats | None
    auprc_intervals: Floats | None
    defined_labels: int
    records: int
    resamples: int
    drawn: int
    seed: int
    unit: str
    undefined_labels: str
    interval: str
    level: float
    auprc_definition: str

    @property
    def acceptance(self) -> float:
        """Accepted resamples over drawn ones; 1 without resamples."""
        return self.resamples / self.drawn if self.drawn else 1.0

    def to_dict(self) -> Json:
        """A JSON-serialisable dict with None for NaN and the labels under `per_label`."""
        arrays = ("labels", "positives", "auroc", "auprc", "auroc_intervals", "auprc_intervals")
        shared = {name: value for name, value in vars(self).items() if name not in arrays}
        shared["acceptance"] = self.acceptance
        shared["per_label"] = by_label(
            self.labels,
            positives=self.positives,
            auroc=self.auroc,
            auroc_interval=self.auroc_intervals,
            auprc=self.auprc,
            auprc_interval=self.auprc_intervals,
        )
        return plain(shared)

    def to_frame(self) -> pd.DataFrame:
        """A data frame with one row for each label: positives, both metrics and their limits."""
        columns: dict[str, Any] = {"label": self.labels, "positives": self.positives}
        for name in ("auroc", "auprc"):
            columns |= limit_columns(name, getattr(self, name), getattr(self, f"{name}_intervals"))
        return pd.DataFrame(columns)


def score(
    targets: ArrayLike,
    probabilities: ArrayLike,
    *,
    labels: Sequence[str],
    resamples: int = 1000,
    seed: int = 0,
    undefined_labels: str = "resample",
    interval: str = "percentile",
    level: float = 0.95,
    auprc: str = "average-precision",
    groups: ArrayLike | None = None,
) -> Score:
    """Score predictions: macro AUROC and AUPRC with bootstrap intervals, F-max, every label.

    The defaults are the PTB-XL benchmark's rules with 1,000 resamples and 95 % intervals.

    Parameters
    ----------
    targets, probabilities : array, list or data frame, shape (records, labels)
        0 or 1, and numbers in [0, 1].
    labels : sequence of str
        Names of the columns.
    resamples : int
        0 leaves the intervals out.
    seed : int
        The same seed draws the same resamples.
    undefined_labels : {"resample", "skip", "zero", "error"}
        Policy for labels that lack a class, in the whole set or in a resample; see
        `einthoven.evaluate.estimate.POLICIES`.
    interval : {"percentile", "basic", "bca"}
    level : float
        Of the intervals, between 0 and 1.
    auprc : {"average-precision", "trapezoid"}
    groups : array, shape (records,), optional
        Patient of each record: patients are drawn instead of records.

    Raises
    ------
    EvaluationError
        If inputs do not match, or labels are undefined under "resample" or "error".
    """
    plan = Plan(resamples, seed, undefined_labels, interval, level, auprc)
    truth, scores = checked_pair(targets, probabilities, labels, groups)
    draws = draw(truth, plan)
    return summary(truth, scores, estimate(truth, scores, draws, plan), draws, plan)


def score_predictions(
    predictions: Predictions,
    *,
    undefined_labels: str | None = None,
    by: str = "record",
    **options: Any,
) -> Score:
    """Score a predictions table.

    `undefined_labels` defaults to "resample", the rule of PTB-XL's benchmark, or to "skip" where
    the whole table lacks a class of some label and no resample could have it.
    """
    return score(
        predictions.require_targets(),
        predictions.probabilities,
        labels=predictions.labels,
        undefined_labels=undefined_labels or suitable_policy(predictions),
        groups=groups_of(predictions, by),
        **options,
    )


def suitable_policy(predictions: Predictions) -> str:
    """`resample` where every label has a positive and a negative, `skip` otherwise."""
    positives = predictions.require_targets().sum(axis=0)
    defined = (positives > 0) & (positives < len(predictions.records))
    return "resample" if defined.all() else "skip"


def groups_of(predictions: Predictions, by: str) -> NDArray[np.str_] | None:
    """Groups of records that are drawn together: none by record, those of patients by patient.

    Raises
    ------
    EvaluationError
        If the unit is neither "record" nor "patient".
    """
    check_option("by", by, ("record", "patient"))
    return predictions.patients if by == "patient" else None


def checked_pair(
    targets: ArrayLike,
    probabilities: ArrayLike,
    labels: Sequence[str],
    groups: ArrayLike | None = None,
) -> tuple[Truth, Floats]:
    """Check targets, probabilities, label names and patients against each other."""
    truth = checked_truth(targets, labels, groups)
    scores = checked_probabilities(_in_order(probabilities, truth.labels), truth.labels)
    if len(scores) != len(truth.targets):
        raise EvaluationError(
            f"targets have {len(truth.targets)} rows, probabilities {len(scores)}",
            remedy="pass both for the same records, in the same order",
        )
    return truth, scores


def checked_truth(
    targets: ArrayLike, labels: Sequence[str], groups: ArrayLike | None = None
) -> Truth:
    """Check targets, label names and patients against each other."""
    names = checked_labels(labels)
    values = checked_targets(_in_order(targets, names), names)
    if groups is None:
        return Truth(values, names, None)
    patients = np.asarray(groups).astype(np.str_)
    unknown = int((pd.isna(np.asarray(groups)) | (patients == "")).sum())
    if patients.shape != (len(values),) or unknown:
        raise EvaluationError(
            f"the patients have shape {patients.shape}, expected ({len(values)},); {unknown} of "
            "them are unknown",
            remedy="name every record's patient, or draw by record",
        )
    if len(values) > 1 and len(np.unique(patients)) < 2:
        raise EvaluationError(
            f"all {len(values)} records are of one patient, {str(patients[0])!r}: every draw of "
            "patients would be the same",
            remedy="draw by record",
        )
    return Truth(values, names, patients)


def _in_order(table: ArrayLike, labels: tuple[str, ...]) -> ArrayLike:
    # A data frame whose columns are in another order would be scored wrongly without a trace.
    if not isinstance(table, pd.DataFrame):
        return table
    # pandas numbers unnamed columns from 0.
    if table.columns.tolist() not in (list(labels), list(range(table.shape[1]))):
        raise EvaluationError(
            f"the data frame has the columns {listed(table.columns.tolist())}, the labels are "
            f"{listed(labels)}",
            remedy="select the columns in the order of the labels: table[labels]",
        )
    return table


def summary(
    truth: Truth,
    probabilities: Floats,
    estimates: tuple[Estimate, Estimate],
    draws: Draws,
    plan: Plan,
) -> Score:
    """Assemble the Score of predictions from their estimates."""
    auroc, auprc = estimates
    macro_auroc, macro_auprc = (metric.macro(plan.undefined_labels) for metric in estimates)
    return Score(
        macro_auroc=float(macro_auroc.point[0]),
        macro_auprc=float(macro_auprc.point[0]),
        f_max=f_max(truth.targets, probabilities) if truth.targets.any(axis=1).all() else math.nan,
        macro_auroc_interval=macro_auroc.interval(plan),
        macro_auprc_interval=macro_auprc.interval(plan),
        macro_auroc_bias=macro_auroc.bias(),
        macro_auprc_bias=macro_auprc.bias(),
        labels=truth.labels,
        positives=truth.targets.sum(axis=0, dtype=np.int64),
        auroc=auroc.point,
        auprc=auprc.point,
        auroc_intervals=auroc.limits(plan),
        auprc_intervals=auprc.limits(plan),
        defined_labels=int((~np.isnan(auroc.point)).sum()),
        records=len(truth.targets),
        resamples=plan.resamples,
        drawn=draws.drawn,
        seed=plan.seed,
        unit=truth.unit,
        undefined_labels=plan.undefined_labels,
        interval=plan.interval,
        level=plan.level,
        auprc_definition=plan.auprc,
    )


def by_label(labels: Sequence[str], **columns: NDArray[Any] | None) -> Json:
    """Entries of every label from arrays with one row for each; None for a missing array."""
    return {
        label: {name: None if values is None else values[i] for name, values in columns.items()}
        for i, label in enumerate(labels)
    }


def limit_columns(name: str, values: Floats, limits: Floats | None) -> dict[str, Floats]:
    """The columns `name`, and `name_low` and `name_high` where there are limits."""
    if limits is None:
        return {name: values}
    return {name: values, f"{name}_low": limits[:, 0], f"{name}_high": limits[:, 1]}


def plain(values: Mapping[str, Any]) -> Json:
    """Convert values to JSON-serialisable types, with None for numbers that are not finite."""
    return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return plain(value)
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
