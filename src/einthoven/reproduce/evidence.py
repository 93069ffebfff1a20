"""From finished cells to numbers: seeds pooled, arms compared on the same resamples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np

from einthoven.errors import EvaluationError
from einthoven.evaluate.bootstrap import Draws
from einthoven.evaluate.comparison import Comparison, difference
from einthoven.evaluate.estimate import Estimate, Plan, Truth, draw, estimate
from einthoven.evaluate.scores import Score, checked_truth, pair, plain, summary
from einthoven.evaluate.undefined import Absent
from einthoven.experiment import METRICS as RUN_METRICS
from einthoven.experiment import PREDICTIONS, suitable_absent
from einthoven.files import read_json
from einthoven.metrics.label_metrics import f_max
from einthoven.predictions import Predictions
from einthoven.reproduce.folders import Request, State
from einthoven.reproduce.grid import WHOLE, Cell

Metric = Literal["auroc", "auprc"]
METRICS: tuple[Metric, Metric] = ("auroc", "auprc")
Split = Literal["validation", "test"]


@dataclass(frozen=True)
class Group:
    """Cells that differ in nothing but their seed."""

    backbone: str
    arm: str
    task: str
    fraction: float = WHOLE

    def cell(self, seed: int) -> Cell:
        """The cell of a seed."""
        return Cell(self.backbone, self.arm, self.task, self.fraction, seed)


@dataclass(frozen=True, eq=False)
class Pooled:
    """A macro value, or a difference of two, of several seeds.

    Attributes
    ----------
    seeds : tuple of int
    values : tuple of float
        Of every seed.
    intervals : tuple of (low, high) or None
        95 %, from resampled records, of every seed.
    mean : float
        Over seeds.
    spread : float or None
        Standard deviation over seeds; None with fewer than two.
    interval : (low, high) or None
        Of the mean: records are resampled, and every seed is evaluated on the same ones. It
        says nothing about other seeds; `spread` does.
    bias : float or None
        Mean of the resampled means minus `mean`.
    """

    seeds: tuple[int, ...]
    values: tuple[float, ...]
    intervals: tuple[tuple[float, float] | None, ...]
    mean: float
    spread: float | None
    interval: tuple[float, float] | None
    bias: float | None

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        found: dict[str, Any] = plain(vars(self))
        return found


@dataclass(eq=False)
class _Ground:
    """What all cells of a task are scored on: truth, resamples, and how."""

    records: list[str]
    truth: Truth
    draws: Draws
    plan: Plan


@dataclass(eq=False)
class Evidence:
    """The finished cells of a reproduction, scored when they are asked for.

    All arms and seeds of a task share one set of resamples (seed 0), so that every difference
    is paired.
    """

    request: Request
    _grounds: dict[tuple[str, Split], _Ground] = field(default_factory=dict)
    _estimates: dict[tuple[Cell, Split], tuple[Estimate, Estimate]] = field(default_factory=dict)
    _states: dict[Cell, State] = field(default_factory=dict)

    def state(self, cell: Cell) -> State:
        """How far a cell was when it was first asked for: one page shows one moment."""
        if cell not in self._states:
            self._states[cell] = self.request.state(cell)
        return self._states[cell]

    def cells(self, group: Group) -> list[Cell]:
        """All cells of a group, finished or not."""
        seeds = self.request.experiment.seeds_of(group.arm, group.task, group.fraction)
        return [group.cell(seed) for seed in seeds]

    def finished(self, *groups: Group) -> tuple[int, ...]:
        """Seeds that are finished in every one of these groups."""
        seeds = [
            {cell.seed for cell in self.cells(group) if self.state(cell) is State.DONE}
            for group in groups
        ]
        return tuple(sorted(set.intersection(*seeds)))

    def seconds(self, group: Group) -> float | None:
        """Mean time of a group's finished runs."""
        files = [
            self.request.run_folder(group.cell(seed)) / RUN_METRICS for seed in self.finished(group)
        ]
        return mean(read_json(file)["seconds"] for file in files) if files else None

    def macro(self, group: Group, metric: Metric, split: Split = "test") -> Pooled | None:
        """A group's macro value; None while no seed is finished."""
        seeds = self.finished(group)
        found = [self._estimate(group.cell(seed), split, metric) for seed in seeds]
        return self._pool(seeds, found, group.task, split)

    def difference(
        self, a: Group, b: Group, metric: Metric, split: Split = "test"
    ) -> Pooled | None:
        """Macro value of `a` minus that of `b`, over the seeds that both have finished."""
        seeds = self.finished(a, b)
        return self._pool(seeds, self._paired(a, b, seeds, metric, split), a.task, split)

    def comparison(self, a: Group, b: Group, split: Split = "test") -> Comparison | None:
        """Everything that differs, labels included, as means over the seeds that both have."""
        seeds = self.finished(a, b)
        if not seeds:
            return None
        means = [
            [_mean([self._estimate(g.cell(s), split, m) for s in seeds]) for m in METRICS]
            for g in (a, b)
        ]
        how = self._grounds[a.task, split].plan
        return Comparison(
            a=self._score(a, seeds, split, means[0]),
            b=self._score(b, seeds, split, means[1]),
            auroc=difference(means[0][0], means[1][0], how),
            auprc=difference(means[0][1], means[1][1], how),
        )

    def _score(
        self, group: Group, seeds: Sequence[int], split: Split, means: Sequence[Estimate]
    ) -> Score:
        ground = self._grounds[group.task, split]
        each = [self._predictions(group.cell(seed), split).probabilities for seed in seeds]
        how = (ground.draws, ground.plan)
        whole = summary(ground.truth, each[0], (means[0], means[1]), *how)
        if math.isnan(whole.f_max):
            return whole
        return replace(whole, f_max=mean(f_max(ground.truth.targets, values) for values in each))

    def _paired(
        self, a: Group, b: Group, seeds: Sequence[int], metric: Metric, split: Split
    ) -> list[Estimate]:
        return [
            self._estimate(a.cell(seed), split, metric).minus(
                self._estimate(b.cell(seed), split, metric)
            )
            for seed in seeds
        ]

    def _pool(
        self, seeds: tuple[int, ...], found: Sequence[Estimate], task: str, split: Split
    ) -> Pooled | None:
        if not seeds:
            return None
        how = self._grounds[task, split].plan
        macros = [each.macro(how.absent) for each in found]
        values = tuple(float(each.point[0]) for each in macros)
        pooled = _mean(macros)
        return Pooled(
            seeds=seeds,
            values=values,
            intervals=tuple(pair(each, how) for each in macros),
            mean=mean(values),
            spread=stdev(values) if len(values) > 1 else None,
            interval=pair(pooled, how),
            bias=pooled.bias() if how.resamples else None,
        )

    def _estimate(self, cell: Cell, split: Split, metric: Metric) -> Estimate:
        key = (cell, split)
        if key not in self._estimates:
            predictions = self._predictions(cell, split)
            ground = self._ground(cell, split, predictions)
            self._estimates[key] = estimate(
                ground.truth, predictions.probabilities, ground.draws, ground.plan
            )
        return self._estimates[key][METRICS.index(metric)]

    def _predictions(self, cell: Cell, split: Split) -> Predictions:
        return Predictions.load(self.request.run_folder(cell) / PREDICTIONS / f"{split}.parquet")

    def _ground(self, cell: Cell, split: Split, predictions: Predictions) -> _Ground:
        key = (cell.task, split)
        if predictions.targets is None:
            raise EvaluationError(f"{cell.key} holds no targets", remedy="run that cell again")
        if key not in self._grounds:
            truth = checked_truth(predictions.targets, predictions.labels)
            absent = Absent.of(suitable_absent(predictions))
            how = Plan(resamples=self.request.experiment.resamples, absent=absent)
            self._grounds[key] = _Ground(predictions.records.tolist(), truth, draw(truth, how), how)
        ground = self._grounds[key]
        if predictions.records.tolist() != ground.records or not np.array_equal(
            predictions.targets, ground.truth.targets
        ):
            raise EvaluationError(
                f"{cell.key} was predicted for other records than the cells before it",
                remedy="run all cells of a reproduction on one cohort",
            )
        return ground


def _mean(found: Sequence[Estimate]) -> Estimate:
    return Estimate(
        np.mean([each.point for each in found], axis=0),
        np.mean([each.replicates for each in found], axis=0),
        None,
    )
