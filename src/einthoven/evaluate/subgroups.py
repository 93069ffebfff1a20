"""Subgroup analysis: scores by sex and by age band, and the gap between a group and the rest.

A group is scored over the labels that it defines: those with a positive and a negative in it. Its
gap is its macro value minus that of the other records whose attribute is known, over the labels
that both define, from the same resamples of the whole set; a label that a resample leaves
undefined on either side drops out of that resample. AUROC does not depend on how common a label
is, AUPRC does: a gap in AUPRC may only reflect that a label is rarer in one of the groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import EvaluationError
from einthoven.evaluate.bootstrap import Draws, multiplicities
from einthoven.evaluate.comparison import UNITS
from einthoven.evaluate.estimate import Estimate, Plan, Truth, estimate
from einthoven.evaluate.metrics import check_option
from einthoven.evaluate.missing_classes import UndefinedLabels
from einthoven.evaluate.scores import Interval, checked_truth, pair, plain
from einthoven.predictions import Predictions

AGE_BANDS = ("<40", "40-59", "60-79", ">=80")
_AGES = (40.0, 60.0, 80.0)  # lower limits of all bands but the first
_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}
UNKNOWN = ""


@dataclass(frozen=True)
class Value:
    """A macro value with its interval; NaN where no label is defined, None without resamples."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Subgroup:
    """Scores of one group.

    Attributes
    ----------
    attribute, name : str
        For example `sex` and `female`.
    records, patients : int
    labels : tuple of str
        Labels that the group defines; the macro values are means over them.
    auroc, auprc : Value
    gap_labels : tuple of str
        Labels that both the group and the rest define.
    auroc_gap, auprc_gap : Value
        The group minus the rest.
    """

    attribute: str
    name: str
    records: int
    patients: int
    labels: tuple[str, ...]
    auroc: Value
    auprc: Value
    gap_labels: tuple[str, ...]
    auroc_gap: Value
    auprc_gap: Value

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable dict."""
        values = {
            name: {"value": getattr(self, name).value, "interval": getattr(self, name).interval}
            for name in ("auroc", "auprc", "auroc_gap", "auprc_gap")
        }
        counts = {
            "name": self.name,
            "records": self.records,
            "patients": self.patients,
            "labels": len(self.labels),
            "gap_labels": len(self.gap_labels),
        }
        result: dict[str, Any] = plain(counts | values)
        return result


@dataclass(frozen=True)
class Subgroups:
    """Scores of the groups of one or more attributes.

    Attributes
    ----------
    groups : tuple of Subgroup
        Attribute by attribute.
    unknown : dict of str to int
        Number of records in no group because their attribute is unknown, by attribute.
    resamples, seed, min_positives : int
    unit : {"record", "patient"}
    level : float
    auprc_definition : str
    """

    groups: tuple[Subgroup, ...]
    unknown: dict[str, int]
    resamples: int
    seed: int
    min_positives: int
    unit: str
    level: float
    auprc_definition: str

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable dict with the groups under their attribute."""
        shared = {key: value for key, value in vars(self).items() if key != "groups"}
        attributes: dict[str, list[dict[str, Any]]] = {name: [] for name in self.unknown}
        for group in self.groups:
            attributes[group.attribute].append(group.to_dict())
        return shared | {"attributes": attributes}


def demographics(metadata: pd.DataFrame) -> dict[str, NDArray[np.str_]]:
    """Read sex and age band of every record from a cohort's metadata.

    Parameters
    ----------
    metadata : DataFrame
        `Cohort.metadata`, with the optional columns `sex` and `age`.

    Returns
    -------
    dict of str to array of str
        The empty string where the value is unknown.
    """
    groups = {}
    if "sex" in metadata:
        groups["sex"] = sexes(metadata["sex"].to_numpy())
    if "age" in metadata:
        groups["age"] = age_bands(metadata["age"].to_numpy())
    return groups


def sexes(values: ArrayLike) -> NDArray[np.str_]:
    """Normalise `male`, `female` and their first letters; keep other codes as they are."""
    series = pd.Series(np.asarray(values))
    texts = series.astype(str).str.strip().where(series.notna(), UNKNOWN)
    return np.array([_SEXES.get(text.lower(), text) for text in texts], dtype=np.str_)


def age_bands(ages: ArrayLike) -> NDArray[np.str_]:
    """Sort ages in years into `AGE_BANDS`.

    PTB-XL writes 300 for an age above 89, which falls into the last band. Anything but a number
    of at least 0 is unknown.
    """
    years = pd.to_numeric(pd.Series(np.asarray(ages)), errors="coerce").to_numpy(dtype=np.float64)
    known = years >= 0  # false for NaN
    place = np.searchsorted(_AGES, np.where(known, years, 0.0), side="right")
    return np.where(known, np.array(AGE_BANDS)[place], UNKNOWN)


def score_subgroups(
    predictions: Predictions,
    attributes: Mapping[str, ArrayLike],
    *,
    resamples: int = 1000,
    seed: int = 0,
    by: str = "record",
    level: float = 0.95,
    auprc: str = "average-precision",
    min_positives: int = 1,
) -> Subgroups:
    """Score every group of every attribute.

    Parameters
    ----------
    predictions : Predictions
        With targets.
    attributes : mapping of str to array of str, shape (records,)
        Group of every record, the empty string where it is unknown; see `demographics`.
    by : {"record", "patient"}
        Unit of resampling.
    min_positives : int
        Positives that a label needs within a group to count there, 1 or more.
    resamples, seed, level, auprc
        As in `score`. Intervals are percentile intervals.

    Raises
    ------
    EvaluationError
        If an attribute has another length, targets are missing, or as in `score`.
    """
    plan = Plan(resamples, seed, UndefinedLabels.SKIP, "percentile", level, auprc)
    patients = predictions.patients if check_option("by", by, UNITS) == "patient" else None
    truth = checked_truth(predictions.require_targets(), predictions.labels, patients)
    draws = multiplicities(len(predictions), resamples, seed=seed, groups=truth.groups)
    parts = _Parts(predictions, truth, draws, plan, max(1, min_positives))
    groups, unknown = [], {}
    for attribute, column in attributes.items():
        values = np.asarray(column).astype(np.str_)
        if values.shape != (len(predictions),):
            raise EvaluationError(
                f"{attribute} has shape {values.shape} for {len(predictions)} records",
                remedy="pass one group for each record of the predictions",
            )
        unknown[attribute] = int((values == UNKNOWN).sum())
        groups += [parts.score(attribute, name, values) for name in _ordered(values)]
    return Subgroups(
        groups=tuple(groups),
        unknown=unknown,
        resamples=resamples,
        seed=seed,
        min_positives=parts.least,
        unit=truth.unit,
        level=level,
        auprc_definition=auprc,
    )


Pair = tuple[Estimate, Estimate]


@dataclass(frozen=True, eq=False)
class _Part:
    """AUROC and AUPRC of part of the records, over the labels that they define."""

    defined: NDArray[np.bool_]
    estimates: Pair

    def over(self, labels: NDArray[np.bool_]) -> Pair:
        """Restrict both metrics to some of the defined labels."""
        columns = labels[self.defined]
        first, second = (
            metric.among(np.flatnonzero(columns).tolist()) for metric in self.estimates
        )
        return first, second


@dataclass(frozen=True, eq=False)
class _Parts:
    """Scorer of parts of one table, on one set of resamples."""

    table: Predictions
    truth: Truth
    draws: Draws
    plan: Plan
    least: int
    known: dict[bytes, _Part] = field(default_factory=dict)

    def score(self, attribute: str, name: str, values: NDArray[np.str_]) -> Subgroup:
        inside = values == name
        ours, theirs = self._part(inside), self._part(~inside & (values != UNKNOWN))
        shared = ours.defined & theirs.defined
        auroc, auprc = (self._value(metric) for metric in ours.over(ours.defined))
        gaps = [
            self._value(mine.minus(other))
            for mine, other in zip(ours.over(shared), theirs.over(shared), strict=True)
        ]
        patients = np.unique(self.table.patients[inside])
        return Subgroup(
            attribute=attribute,
            name=name,
            records=int(inside.sum()),
            patients=int((patients != "").sum()),
            labels=self._names(ours.defined),
            auroc=auroc,
            auprc=auprc,
            gap_labels=self._names(shared),
            auroc_gap=gaps[0],
            auprc_gap=gaps[1],
        )

    def _part(self, rows: NDArray[np.bool_]) -> _Part:
        # One group's rest may be another group.
        key = rows.tobytes()
        if key not in self.known:
            targets = self.truth.targets[rows]
            positives = targets.sum(axis=0, dtype=np.int64)
            defined = (positives >= self.least) & (positives < len(targets))
            self.known[key] = _Part(defined, self._estimates(rows, defined))
        return self.known[key]

    def _estimates(self, rows: NDArray[np.bool_], labels: NDArray[np.bool_]) -> Pair:
        if not labels.any():
            nothing = Estimate(np.empty(0), np.empty((self.plan.resamples, 0)), None)
            return nothing, nothing
        truth = Truth(self.truth.targets[np.ix_(rows, labels)], self._names(labels), None)
        drawn: Any = np.ascontiguousarray(self.draws.multiplicities[:, rows])
        draws = Draws(drawn, self.draws.drawn)
        return estimate(truth, self.table.probabilities[np.ix_(rows, labels)], draws, self.plan)

    def _value(self, metric: Estimate) -> Value:
        if not metric.point.size:
            return Value(float("nan"), None)
        whole = metric.macro(self.plan.undefined_labels)
        return Value(float(whole.point[0]), pair(whole, self.plan))

    def _names(self, labels: NDArray[np.bool_]) -> tuple[str, ...]:
        pairs = zip(self.table.labels, labels.tolist(), strict=True)
        return tuple(name for name, there in pairs if there)


def _ordered(values: NDArray[np.str_]) -> Sequence[str]:
    # Age bands from young to old, anything else by name.
    names = sorted(set(values.tolist()) - {UNKNOWN})
    bands = [band for band in AGE_BANDS if band in names]
    return [*bands, *(name for name in names if name not in bands)]
