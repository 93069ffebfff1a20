"""One metric of one or many labels, with its bootstrap distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import EvaluationError
from einthoven.evaluate.bootstrap import Draws, jackknife, multiplicities
from einthoven.evaluate.intervals import INTERVALS, intervals
from einthoven.evaluate.metrics import (
    AUPRC_DEFINITIONS,
    Ranking,
    check_option,
    point_metrics,
    rank,
    resampled_metrics,
)
from einthoven.evaluate.undefined import Absent, macro, refuse_absent, refuse_gaps

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """How to draw and summarise; checked at construction. The fields are those of `score`."""

    resamples: int = 1000
    seed: int = 0
    absent: Absent = Absent.RESAMPLE
    interval: str = "percentile"
    level: float = 0.95
    auprc: str = "average-precision"

    def __post_init__(self) -> None:
        check_option("interval", self.interval, INTERVALS)
        check_option("auprc", self.auprc, AUPRC_DEFINITIONS)
        for name, low in (("resamples", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
                raise EvaluationError(
                    f"{name} = {value!r} is not an integer >= {low}", remedy=f"pass {name}={low}"
                )
        if not 0 < self.level < 1:
            raise EvaluationError(
                f"level = {self.level!r} is not between 0 and 1", remedy="pass level=0.95"
            )
        fewest = math.ceil(1 / (1 - self.level) - 1e-9)
        if 0 < self.resamples < fewest:
            raise EvaluationError(
                f"{self.resamples} resamples for an interval of {100 * self.level:g} %: fewer than "
                "one of them lies outside of it",
                remedy=f"pass resamples=1000; {fewest} or more to try, 0 for no intervals",
            )


@dataclass(frozen=True, eq=False)
class Truth:
    """Checked targets, shape (records, labels), with the labels' names and the patients."""

    targets: NDArray[np.uint8]
    labels: tuple[str, ...]
    groups: NDArray[np.str_] | None


@dataclass(frozen=True, eq=False)
class Estimate:
    """A metric's values by label: of the whole set, of every resample, and leaving one unit out.

    Attributes
    ----------
    point : array, shape (labels,)
    replicates : array, shape (resamples, labels)
    left_out : array, shape (units, labels), or None
        NaN marks an undefined label in all three.
    """

    point: Floats
    replicates: Floats
    left_out: Floats | None

    def minus(self, other: Estimate) -> Estimate:
        """The paired difference: both were computed from the same resamples."""
        out = self.left_out
        if out is not None and other.left_out is not None:
            out = out - other.left_out
        return Estimate(self.point - other.point, self.replicates - other.replicates, out)

    def among(self, columns: Sequence[int]) -> Estimate:
        """The same of these labels alone, by their places."""
        chosen = list(columns)
        out = None if self.left_out is None else self.left_out[:, chosen]
        return Estimate(self.point[chosen], self.replicates[:, chosen], out)

    def macro(self, absent: Absent) -> Estimate:
        """The mean over labels, as an estimate with one column."""
        out = None if self.left_out is None else macro(self.left_out, absent)[:, None]
        point, replicates = macro(self.point, absent), macro(self.replicates, absent)
        return Estimate(point[None], replicates[:, None], out)

    def limits(self, plan: Plan) -> Floats:
        """Confidence limits, shape (labels, 2)."""
        return intervals(
            plan.interval, self.point, self.replicates, level=plan.level, left_out=self.left_out
        )

    def bias(self) -> float:
        """Mean of the first column's defined replicates minus its point."""
        values = self.replicates[:, 0]
        defined = values[~np.isnan(values)]
        return float(defined.mean() - self.point[0]) if defined.size else float("nan")


def draw(truth: Truth, plan: Plan) -> Draws:
    """The resamples that the plan asks for; refuses labels that it needs and that are undefined."""
    refuse_absent(truth.targets, truth.labels, plan.absent)
    return multiplicities(
        len(truth.targets),
        plan.resamples,
        seed=plan.seed,
        groups=truth.groups,
        accept=truth.targets if plan.absent is Absent.RESAMPLE else None,
        labels=truth.labels,
    )


def estimate(
    truth: Truth, probabilities: Floats, draws: Draws, plan: Plan
) -> tuple[Estimate, Estimate]:
    """AUROC and AUPRC of every label, with the draws' replicates."""
    ranking = rank(truth.targets, probabilities)
    areas, precisions = resampled_metrics(ranking, draws.multiplicities, auprc=plan.auprc)
    refuse_gaps(areas, truth.labels, plan.absent)
    out: tuple[Floats, Floats] | tuple[None, None] = (None, None)
    if plan.interval == "bca" and plan.resamples:
        out = _left_out(ranking, truth.groups, plan)
    points = point_metrics(ranking, auprc=plan.auprc)
    return Estimate(points[0], areas, out[0]), Estimate(points[1], precisions, out[1])


def _left_out(ranking: Ranking, groups: ArrayLike | None, plan: Plan) -> tuple[Floats, Floats]:
    # As many units as records, so this costs what records / resamples bootstraps cost. Where
    # the unit left out was a label's only positive, the label drops out of the acceleration.
    blocks = [
        resampled_metrics(ranking, rows, auprc=plan.auprc)
        for rows in jackknife(ranking.records, groups=groups)
    ]
    areas, precisions = zip(*blocks, strict=True)
    return np.concatenate(areas), np.concatenate(precisions)
