"""Subgroup analysis: scores by sex and by age band, and the gap between a group and the rest.

A group is scored over the labels that it defines: those with a positive and a negative in it. Its
gap is its macro value minus that of the other records whose attribute is known, over the labels
that both define, from the same resamples of the whole set; a label that a resample leaves
undefined on either side drops out of that resample. AUROC does not depend on how common a label
is, AUPRC does: a gap in AUPRC may only reflect that a label is rarer in one of the groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import compress
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import EvaluationError
from einthoven.evaluate.estimate import Bootstrap, BootstrapSettings, Estimate, Interval
from einthoven.evaluate.measures import entries, measure
from einthoven.evaluate.scores import plain
from einthoven.files import Json
from einthoven.predictions import Predictions
from einthoven.tasks import negatives, positives

AGE_BANDS = ("<40", "40-59", "60-79", ">=80")
_SEXES = {"m": "male", "male": "male", "f": "female", "female": "female"}
UNKNOWN = ""


@dataclass(frozen=True)
class MacroValue:
    """A macro value with its interval, or the reason why it has none.

    NaN where no label is defined; no interval and no reason without resamples.
    """

    value: float
    interval: Interval | None
    interval_reason: str | None = None


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
    auroc, auprc : MacroValue
    gap_labels : tuple of str
        Labels that both the group and the rest define.
    auroc_gap, auprc_gap : MacroValue
        The group minus the rest.
    """

    attribute: str
    name: str
    records: int
    patients: int
    labels: tuple[str, ...]
    auroc: MacroValue
    auprc: MacroValue
    gap_labels: tuple[str, ...]
    auroc_gap: MacroValue
    auprc_gap: MacroValue

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
    min_positives : int
        Positives that a label needs in a group to count there.
    settings : BootstrapSettings
        Settings of the bootstrap.
    """

    groups: tuple[Subgroup, ...]
    unknown: dict[str, int]
    min_positives: int
    settings: BootstrapSettings

    def to_dict(self) -> Json:
        """A JSON-serialisable dict with the groups under their attribute."""
        attributes: Json = {name: [] for name in self.unknown}
        for group in self.groups:
            entry = group.to_dict()
            attributes[entry.pop("attribute")].append(entry)
        shared = {"unknown": self.unknown, "min_positives": self.min_positives}
        return shared | self.settings.to_dict() | {"attributes": attributes}


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
    years = pd.to_numeric(pd.Series(np.asarray(ages)), errors="coerce")
    bands = pd.cut(years, (0, 40, 60, 80, math.inf), right=False, labels=AGE_BANDS)
    return bands.astype(object).fillna(UNKNOWN).to_numpy(np.str_)


def score_subgroups(
    predictions: Predictions,
    attributes: Mapping[str, ArrayLike],
    *,
    min_positives: int = 1,
    **settings: Any,
) -> Subgroups:
    """Score every group of every attribute.

    Parameters
    ----------
    predictions : Predictions
        With targets.
    attributes : mapping of str to array of str, shape (records,)
        Group of every record, the empty string where it is unknown; see `demographics`.
    min_positives : int
        Positives that a label needs within a group to count there, 1 or more.
    settings
        `resamples`, `seed`, `by`, `level` and `auprc` of `BootstrapSettings`.

    Raises
    ------
    EvaluationError
        If an attribute has another length, targets are missing, or as in `score`.
    """
    fixed = BootstrapSettings(undefined_labels="skip", **settings)
    bootstrap = Bootstrap.of(predictions, fixed)
    min_positives = max(1, min_positives)
    groups: list[Subgroup] = []
    unknown = {}
    for attribute, column in attributes.items():
        values = np.asarray(column).astype(np.str_)
        if values.shape != (len(predictions),):
            raise EvaluationError(
                f"{attribute} has shape {values.shape} for {len(predictions)} records",
                remedy="pass one group for each record of the predictions",
            )
        unknown[attribute] = int((values == UNKNOWN).sum())
        for name in ordered_groups(values):
            group = _part(bootstrap, predictions, values == name, min_positives)
            others = (values != name) & (values != UNKNOWN)
            rest = _part(bootstrap, predictions, others, min_positives)
            groups.append(_subgroup(attribute, name, group, rest))
    return Subgroups(tuple(groups), unknown, min_positives, bootstrap.settings)


def value_subgroups(
    predictions: Predictions, attributes: Mapping[str, ArrayLike], **settings: Any
) -> Json:
    """Measure predicted numbers in every group of every attribute.

    Parameters and errors are those of `score_subgroups`.

    Returns
    -------
    dict
        Under `attributes`, the groups of each with `name`, `records`, `patients` and, by number,
        `mae`, `bias` and so on with their intervals; `unknown` as in `Subgroups`.
    """
    bootstrap = Bootstrap.of(predictions, BootstrapSettings(**settings))
    groups: Json = {}
    unknown = {}
    for attribute, column in attributes.items():
        values = np.asarray(column).astype(np.str_)
        unknown[attribute] = int((values == UNKNOWN).sum())
        groups[attribute] = []
        for name in ordered_groups(values):
            rows = values == name
            part = bootstrap.part(rows)
            measures = measure(part, predictions.kind, predictions.probabilities[rows])
            patients = set(predictions.patients[rows].tolist()) - {""}
            entry: Json = {"name": name, "records": int(rows.sum()), "patients": len(patients)}
            entry["per_label"] = {
                label: entries(measures, i, part.units) for i, label in enumerate(part.labels)
            }
            groups[attribute].append(entry)
    shared = {"unknown": unknown, "attributes": groups, "kind": predictions.kind}
    return plain(shared | bootstrap.settings.to_dict())


def ordered_groups(values: NDArray[np.str_]) -> list[str]:
    """Groups by name, age bands from young to old."""
    bands = {band: place for place, band in enumerate(AGE_BANDS)}
    names = set(values.tolist()) - {UNKNOWN}
    return sorted(names, key=lambda name: (bands.get(name, len(bands)), name))


@dataclass(frozen=True, eq=False)
class _Part:
    """Part of the records: the labels that it defines, and the metrics of all labels."""

    patients: NDArray[np.str_]
    labels: tuple[str, ...]
    defined: NDArray[np.bool_]
    auroc: Estimate
    auprc: Estimate


def _part(
    bootstrap: Bootstrap, predictions: Predictions, rows: NDArray[np.bool_], min_positives: int
) -> _Part:
    part = bootstrap.part(rows)
    defined = (positives(part.targets) >= min_positives) & (negatives(part.targets) > 0)
    estimates = part.estimate(predictions.probabilities[rows])
    return _Part(predictions.patients[rows], part.labels, defined, *estimates)


def _subgroup(attribute: str, name: str, group: _Part, rest: _Part) -> Subgroup:
    shared = group.defined & rest.defined
    return Subgroup(
        attribute=attribute,
        name=name,
        records=len(group.patients),
        patients=len(set(group.patients.tolist()) - {""}),
        labels=tuple(compress(group.labels, group.defined)),
        auroc=_macro(group.auroc, group.defined),
        auprc=_macro(group.auprc, group.defined),
        gap_labels=tuple(compress(group.labels, shared)),
        auroc_gap=_macro(group.auroc.minus(rest.auroc), shared),
        auprc_gap=_macro(group.auprc.minus(rest.auprc), shared),
    )


def _macro(metric: Estimate, labels: NDArray[np.bool_]) -> MacroValue:
    """The mean over some labels; NaN without an interval if there are none."""
    if not labels.any():
        return MacroValue(math.nan, None)
    whole = metric.select_labels(np.flatnonzero(labels).tolist()).macro()
    return MacroValue(float(whole.point[0]), whole.interval(), whole.reasons()[0])
