"""From finished runs to numbers: seeds pooled, models compared on the same resamples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np

from einthoven.errors import EvaluationError
from einthoven.evaluate.bootstrap import Draws
from einthoven.evaluate.comparison import Comparison, difference
from einthoven.evaluate.estimate import Estimate, Plan, Truth, draw, estimate
from einthoven.evaluate.metrics import f_max
from einthoven.evaluate.missing_classes import UndefinedLabels
from einthoven.evaluate.scores import Score, checked_truth, pair, plain, summary
from einthoven.experiment.ensembles import mean_predictions
from einthoven.experiment.run import METRICS as RUN_METRICS
from einthoven.experiment.run import PREDICTIONS, suitable_policy
from einthoven.files import read_json
from einthoven.predictions import Predictions
from einthoven.reproduce.folders import Request, State
from einthoven.reproduce.grid import WHOLE, Cell

Metric = Literal["auroc", "auprc"]
METRICS: tuple[Metric, Metric] = ("auroc", "auprc")
Split = Literal["validation", "test"]
Folders = tuple[Path, ...]
"""One run, or those whose mean prediction an ensemble is."""


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


@dataclass(frozen=True)
class Ensemble:
    """The mean prediction of several groups, seed by seed."""

    members: tuple[Group, ...]

    @property
    def task(self) -> str:
        """Of all of them."""
        return self.members[0].task


@dataclass(frozen=True)
class Found:
    """Finished runs that are known by their folders, and differ in nothing but their seed.

    Attributes
    ----------
    task, backbone, recipe : str
    folders : tuple of (seed, Path)
    """

    task: str
    backbone: str
    recipe: str
    folders: tuple[tuple[int, Path], ...]


Model = Group | Ensemble | Found


@dataclass(frozen=True, eq=False)
class Gap:
    """How far apart two models are that have no seeds in common.

    Attributes
    ----------
    mean : float
        Macro value of the one, a mean over its seeds, minus that of the other.
    interval : (low, high) or None
        95 %: records are resampled, and both are evaluated on the same ones.
    seeds, other_seeds : tuple of int
    """

    mean: float
    interval: tuple[float, float] | None
    seeds: tuple[int, ...]
    other_seeds: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        found: dict[str, Any] = plain(vars(self))
        return found


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


@dataclass(frozen=True)
class Stratum:
    """Labels that are about as common as each other.

    Attributes
    ----------
    low, high : int
        Positives that they have, both ends included; `high` is None where there is no end.
    labels : tuple of str
    """

    low: int
    high: int | None
    labels: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.low} and more" if self.high is None else f"{self.low} to {self.high}"

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        found: dict[str, Any] = plain(vars(self))
        return found


# One record more or less decides about a label of the first kind, and hardly about one of the last.
STRATA = ((1, 9), (10, 49), (50, None))


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
    means: dict[Folders, Folders] = field(default_factory=dict)
    """Saved mean predictions, by the runs that they are of; a mean is taken anew without one."""
    _grounds: dict[tuple[str, Split], _Ground] = field(default_factory=dict)
    _estimates: dict[tuple[Folders, Split], tuple[Estimate, Estimate]] = field(default_factory=dict)
    _states: dict[Cell, State] = field(default_factory=dict)

    def state(self, cell: Cell) -> State:
        """How far a cell was when it was first asked for: one page shows one moment."""
        if cell not in self._states:
            self._states[cell] = self.request.state(cell)
        return self._states[cell]

    def cells(self, model: Model) -> list[Cell]:
        """All cells of a group, finished or not; of an ensemble, those of its members."""
        if isinstance(model, Found):
            return []
        if isinstance(model, Ensemble):
            return [cell for member in model.members for cell in self.cells(member)]
        return [model.cell(seed) for seed in self.asked(model)]

    def asked(self, model: Model) -> tuple[int, ...]:
        """Seeds that a model is to have; of an ensemble, those that all of its members are."""
        if isinstance(model, Found):
            return tuple(seed for seed, _ in model.folders)
        if isinstance(model, Ensemble):
            members = [self.asked(member) for member in model.members]
            return tuple(seed for seed in members[0] if all(seed in each for each in members))
        return self.request.experiment.seeds_of(model.arm, model.task, model.fraction)

    def folders(self, model: Model) -> dict[int, Folders]:
        """A model's finished run, or the runs of its members, by seed."""
        if isinstance(model, Found):
            return {seed: (folder,) for seed, folder in model.folders}
        if isinstance(model, Group):
            done = [cell for cell in self.cells(model) if self.state(cell) is State.DONE]
            return {cell.seed: (self.request.run_folder(cell),) for cell in done}
        members = [self.folders(member) for member in model.members]
        shared = set.intersection(*(set(each) for each in members))
        return {seed: tuple(f for each in members for f in each[seed]) for seed in sorted(shared)}

    def finished(self, *models: Model) -> tuple[int, ...]:
        """Seeds that are finished in every one of these models."""
        return tuple(sorted(set.intersection(*(set(self.folders(model)) for model in models))))

    def seconds(self, group: Group) -> float | None:
        """Mean time of a group's finished runs."""
        files = [folder / RUN_METRICS for (folder,) in self.folders(group).values()]
        return mean(read_json(file)["seconds"] for file in files) if files else None

    def macro(
        self, model: Model, metric: Metric, split: Split = "test", among: Stratum | None = None
    ) -> Pooled | None:
        """A model's macro value, over all labels or a stratum; None while no seed is finished."""
        runs = self.folders(model)
        found = [self._estimate(each, model.task, split, metric) for each in runs.values()]
        return self._pool(tuple(runs), found, model.task, split, among)

    def difference(
        self,
        a: Model,
        b: Model,
        metric: Metric,
        split: Split = "test",
        among: Stratum | None = None,
    ) -> Pooled | None:
        """Macro value of `a` minus that of `b`, over the seeds that both have finished."""
        seeds = self.finished(a, b)
        ours, theirs = (self._of_seeds(model, seeds, metric, split) for model in (a, b))
        paired = [x.minus(y) for x, y in zip(ours, theirs, strict=True)]
        return self._pool(seeds, paired, a.task, split, among)

    def strata(self, model: Model, split: Split = "test") -> list[Stratum]:
        """The labels of a model's task by how many positives they have; empty ones are left out.

        Nothing while no seed of it is finished.
        """
        runs = self.folders(model)
        if not runs:
            return []
        self._estimate(next(iter(runs.values())), model.task, split, "auroc")
        truth = self._grounds[model.task, split].truth
        counts = dict(zip(truth.labels, truth.targets.sum(axis=0, dtype=int), strict=True))
        found = [
            Stratum(low, high, tuple(s for s in counts if low <= counts[s] <= (high or counts[s])))
            for low, high in STRATA
        ]
        return [each for each in found if each.labels]

    def gap(self, a: Model, b: Model, metric: Metric, split: Split = "test") -> Gap | None:
        """Macro value of `a` minus that of `b`, each a mean over all of its own seeds."""
        seeds, others = self.finished(a), self.finished(b)
        if not seeds or not others:
            return None
        ours = _mean(self._of_seeds(a, seeds, metric, split))
        theirs = _mean(self._of_seeds(b, others, metric, split))
        how = self._grounds[a.task, split].plan
        whole = ours.minus(theirs).macro(how.undefined_labels)
        return Gap(float(whole.point[0]), pair(whole, how), seeds, others)

    def comparison(self, a: Group, b: Group, split: Split = "test") -> Comparison | None:
        """Everything that differs, labels included, as means over the seeds that both have."""
        seeds = self.finished(a, b)
        if not seeds:
            return None
        means = [[_mean(self._of_seeds(g, seeds, m, split)) for m in METRICS] for g in (a, b)]
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
        ground, runs = self._grounds[group.task, split], self.folders(group)
        each = [_predictions(runs[seed], split).probabilities for seed in seeds]
        how = (ground.draws, ground.plan)
        whole = summary(ground.truth, each[0], (means[0], means[1]), *how)
        if math.isnan(whole.f_max):
            return whole
        return replace(whole, f_max=mean(f_max(ground.truth.targets, values) for values in each))

    def _of_seeds(
        self, model: Model, seeds: Sequence[int], metric: Metric, split: Split
    ) -> list[Estimate]:
        runs = self.folders(model)
        return [self._estimate(runs[seed], model.task, split, metric) for seed in seeds]

    def _pool(
        self,
        seeds: tuple[int, ...],
        found: Sequence[Estimate],
        task: str,
        split: Split,
        among: Stratum | None = None,
    ) -> Pooled | None:
        if not seeds:
            return None
        ground = self._grounds[task, split]
        how = ground.plan
        if among is not None:
            columns = [ground.truth.labels.index(label) for label in among.labels]
            found = [each.among(columns) for each in found]
        macros = [each.macro(how.undefined_labels) for each in found]
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

    def _estimate(self, folders: Folders, task: str, split: Split, metric: Metric) -> Estimate:
        key = (folders, split)
        if key not in self._estimates:
            predictions = _predictions(self.means.get(folders, folders), split)
            ground = self._ground(folders[0], task, split, predictions)
            self._estimates[key] = estimate(
                ground.truth, predictions.probabilities, ground.draws, ground.plan
            )
        return self._estimates[key][METRICS.index(metric)]

    def _ground(self, folder: Path, task: str, split: Split, predictions: Predictions) -> _Ground:
        key = (task, split)
        if predictions.targets is None:
            raise EvaluationError(f"{folder.name} holds no targets", remedy="run that cell again")
        if key not in self._grounds:
            truth = checked_truth(predictions.targets, predictions.labels)
            policy = UndefinedLabels.of(suitable_policy(predictions))
            how = Plan(resamples=self.request.experiment.resamples, undefined_labels=policy)
            self._grounds[key] = _Ground(predictions.records.tolist(), truth, draw(truth, how), how)
        ground = self._grounds[key]
        same = predictions.labels == ground.truth.labels and np.array_equal(
            predictions.targets, ground.truth.targets
        )
        if predictions.records.tolist() != ground.records or not same:
            raise EvaluationError(
                f"{folder.name} was predicted for other records than the runs before it",
                remedy="run all cells of a reproduction, and what it is held against, on one "
                "cohort",
            )
        return ground


def _predictions(folders: Folders, split: Split) -> Predictions:
    tables = [Predictions.load(folder / PREDICTIONS / f"{split}.parquet") for folder in folders]
    if len(tables) == 1:
        return tables[0]
    return mean_predictions(tables, [folder.name for folder in folders])


def _mean(found: Sequence[Estimate]) -> Estimate:
    return Estimate(
        np.mean([each.point for each in found], axis=0),
        np.mean([each.replicates for each in found], axis=0),
        None,
    )
