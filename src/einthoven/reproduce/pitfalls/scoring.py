"""A right and a wrong way to score, on the same resamples of the same records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.evaluate.bootstrap import multiplicities
from einthoven.evaluate.kernels import resampled_metrics
from einthoven.evaluate.undefined import Absent, macro
from einthoven.metrics.label_metrics import point_metrics
from einthoven.metrics.ranking import rank

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

METRICS = ("macro AUROC", "macro AUPRC")


@dataclass(frozen=True)
class Effect:
    """What a mistake does to one metric.

    Attributes
    ----------
    what : str
        The mistake, or where it was made.
    metric : str
    right, wrong : float
        The metric by the protocol, and with the mistake.
    interval : (low, high) or None
        95 % percentile interval of wrong minus right.
    """

    what: str
    metric: str
    right: float
    wrong: float
    interval: tuple[float, float] | None = None

    @property
    def difference(self) -> float:
        """Wrong minus right."""
        return self.wrong - self.right


@dataclass(frozen=True, eq=False)
class Finding:
    """One pitfall, measured.

    Attributes
    ----------
    key : str
        What it is called in the page's numbers.
    title : str
        One line.
    effects : tuple of Effect
    notes : tuple of str
        Sentences: how it was measured, and what was counted.
    head, rows : column names and lines
        A table of its own, where effects do not say everything.
    headlines : tuple of str
        The effects, by `what`, that stand for the pitfall in an overview.
    listed : bool
        Whether a page lists the effects; not where the table of its own has them.
    """

    key: str
    title: str
    effects: tuple[Effect, ...] = ()
    notes: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    headlines: tuple[str, ...] = ()
    listed: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        effects = [asdict(each) | {"difference": each.difference} for each in self.effects]
        return {
            "title": self.title,
            "effects": effects,
            "notes": list(self.notes),
            "table": [dict(zip(self.head, row, strict=True)) for row in self.rows],
        }


@dataclass(frozen=True, eq=False)
class Scored:
    """Targets and probabilities to be scored together.

    Attributes
    ----------
    targets, probabilities : arrays, shape (rows, labels)
    records : array of int, shape (rows,)
        Which record of those that are resampled a row belongs to.
    """

    targets: NDArray[np.uint8]
    probabilities: Floats
    records: Places

    def points(self) -> tuple[Floats, Floats]:
        """AUROC and average precision of every label; NaN where one is undefined."""
        return point_metrics(rank(self.targets, self.probabilities))

    def columns(self, kept: NDArray[np.bool_]) -> Scored:
        """The same with some labels only."""
        return Scored(self.targets[:, kept], self.probabilities[:, kept], self.records)


@dataclass(frozen=True, eq=False)
class Resamples:
    """Resamples of records, drawn as whole patients.

    Attributes
    ----------
    counts : array of int, shape (resamples, records)
        How often each record occurs in each.
    """

    counts: NDArray[np.integer[Any]]

    @classmethod
    def of(cls, patients: Sequence[str] | NDArray[np.str_], *, count: int, seed: int) -> Resamples:
        """Draw them."""
        groups = np.asarray(patients)
        drawn = multiplicities(len(groups), count, seed=seed, groups=groups)
        return cls(drawn.multiplicities)

    def effects(self, what: str, right: Scored, wrong: Scored) -> tuple[Effect, ...]:
        """Macro AUROC and AUPRC both ways, with the interval of their paired difference.

        Undefined labels are left out of a mean.
        """
        values = zip(
            METRICS, self._macros(right), self._macros(wrong), _macros(right), _macros(wrong),
            strict=True,
        )  # fmt: skip
        return tuple(
            Effect(what, metric, before, after, limits_of(theirs - ours))
            for metric, ours, theirs, before, after in values
        )

    def _macros(self, scored: Scored) -> tuple[Floats, Floats]:
        ranking = rank(scored.targets, scored.probabilities)
        counts = np.ascontiguousarray(self.counts[:, scored.records])
        areas, precisions = resampled_metrics(ranking, counts)
        return macro(areas, Absent.SKIP), macro(precisions, Absent.SKIP)


def macros_of_subsets(scored: Scored, subsets: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """AUROC and average precision of every label in every subset, (subsets, labels) each.

    Parameters
    ----------
    subsets : array of bool, shape (subsets, rows)
        Which rows are in.
    """
    ranking = rank(scored.targets, scored.probabilities)
    return resampled_metrics(ranking, subsets.astype(np.uint8))


def mean(values: Floats) -> Floats:
    """Mean over the labels that are defined, the last axis."""
    return macro(values, Absent.SKIP)


def limits_of(values: Floats) -> tuple[float, float] | None:
    """The middle 95 % of values that are numbers; None where none is."""
    numbers = values[~np.isnan(values)]
    if not numbers.size:
        return None
    low, high = np.quantile(numbers, (0.025, 0.975))
    return float(low), float(high)


def _macros(scored: Scored) -> tuple[float, float]:
    areas, precisions = scored.points()
    return float(mean(areas)), float(mean(precisions))
