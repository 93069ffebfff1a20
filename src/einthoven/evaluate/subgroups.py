"""Subgroup analysis: scores by sex and by age band, and the gap between a group and the rest.

A group is scored over the labels that it defines: those with a positive and a negative in it. Its
gap is its macro value minus that of the other records whose attribute is known, over the labels
that both define, from the same resamples of the whole set; a label that a resample leaves
undefined on either side drops out of that resample. AUROC does not depend on how common a label
is, AUPRC does: a gap in AUPRC may only reflect that a label is rarer in one of the groups.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import EvaluationError
from einthoven.evaluate.bootstrap import Draws, multiplicities
from einthoven.evaluate.estimate import Estimate, Interval, Plan, Truth, estimate
from einthoven.evaluate.scores import checked_truth, groups_of, plain
from einthoven.files import Json
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

    def to_dict(self) -> Json:
        """A JSON-serialisable dict with the number of labels instead of their names."""
        counts = {"labels": len(self.labels), "gap_labels": len(self.gap_labels)}
        return plain(asdict(self) | counts)


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

    def to_dict(self) -> Json:
        """A JSON-serialisable dict with the groups under their attribute."""
        shared = {key: value for key, value in vars(self).items() if key != "groups"}
        attributes: Json = {name: [] for name in self.unknown}
        for group in self.groups:
            entry = group.to_dict()
            attributes[entry.pop("attribute")].append(entry)
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
    plan = Plan(resamples, seed, "skip", "percentile", level, auprc)
    targets, labels = predictions.require_targets(), predictions.labels
    truth = checked_truth(targets, labels, groups_of(predictions, by))
    draws = multiplicities(len(predictions), resamples, seed=seed, groups=truth.groups)
    least = max(1, min_positives)

    def part(rows: NDArray[np.bool_]) -> _Part:
        """Score part of the records on the resamples of the whole table."""
        part_of_truth = Truth(truth.targets[rows], labels, None)
        positives = part_of_truth.targets.sum(axis=0, dtype=np.int64)
        drawn: Any = np.ascontiguousarray(draws.multiplicities[:, rows])
        return _Part(
            (positives >= least) & (positives < rows.sum()),
            *estimate(part_of_truth, scores[rows], Draws(drawn, draws.drawn), plan),
        )

    scores, groups, unknown = predictions.probabilities, [], {}
    for attribute, column in attributes.items():
        values = np.asarray(column).astype(np.str_)
        if values.shape != (len(predictions),):
            raise EvaluationError(
                f"{attribute} has shape {values.shape} for {len(predictions)} records",
                remedy="pass one group for each record of the predictions",
            )
        unknown[attribute] = int((values == UNKNOWN).sum())
        for name in _ordered(values):
            inside = values == name
            group, rest = part(inside), part(~inside & (values != UNKNOWN))
            shared = group.defined & rest.defined
            members = predictions.patients[inside]
            groups.append(
                Subgroup(
                    attribute=attribute,
                    name=name,
                    records=int(inside.sum()),
                    patients=len(set(members.tolist()) - {""}),
                    labels=_names(labels, group.defined),
                    auroc=_macro(group.auroc, group.defined, plan),
                    auprc=_macro(group.auprc, group.defined, plan),
                    gap_labels=_names(labels, shared),
                    auroc_gap=_macro(group.auroc.minus(rest.auroc), shared, plan),
                    auprc_gap=_macro(group.auprc.minus(rest.auprc), shared, plan),
                )
            )
    return Subgroups(
        groups=tuple(groups),
        unknown=unknown,
        resamples=resamples,
        seed=seed,
        min_positives=least,
        unit=truth.unit,
        level=level,
        auprc_definition=auprc,
    )


class _Part(NamedTuple):
    """Labels that part of the records defines, and the metrics of all labels."""

    defined: NDArray[np.bool_]
    auroc: Estimate
    auprc: Estimate


def _macro(metric: Estimate, labels: NDArray[np.bool_], plan: Plan) -> Value:
    """The mean over some labels; NaN without an interval if there are none."""
    if not labels.any():
        return Value(math.nan, None)
    whole = metric.among(np.flatnonzero(labels).tolist()).macro(plan.undefined_labels)
    return Value(float(whole.point[0]), whole.interval(plan))


def _names(labels: tuple[str, ...], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(itertools.compress(labels, chosen))


def _ordered(values: NDArray[np.str_]) -> Sequence[str]:
    # Age bands from young to old, anything else by name.
    names = sorted(set(values.tolist()) - {UNKNOWN})
    bands = [band for band in AGE_BANDS if band in names]
    return [*bands, *(name for name in names if name not in bands)]
