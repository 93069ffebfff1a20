"""What table 1 says, before it is put into words: every row on every task, beside the best
post-trained model."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from einthoven.reproduce import published
from einthoven.reproduce.contenders import best_contender
from einthoven.reproduce.costs import Cost, cost_of
from einthoven.reproduce.earlier import Earlier, tupled
from einthoven.reproduce.evidence import (
    METRICS,
    Ensemble,
    Evidence,
    Found,
    Gap,
    Group,
    Metric,
    Model,
    Pooled,
)
from einthoven.reproduce.experiments import Row
from einthoven.reproduce.grid import arms_of_row, rows_of


@dataclass(frozen=True, eq=False)
class Standing:
    """A model on a task.

    Attributes
    ----------
    model : Group, Ensemble or Found
    quote : published.Value or None
        Macro AUROC of the published row that it stands beside.
    values : dict of str to Pooled or None
        Macro AUROC and AUPRC; None while no seed is finished.
    gaps : dict of str to Gap or None
        The best post-trained model minus this one; empty where none is known, or this is it.
    cost : Cost or None
    is_kept : bool
        Whether all of this is from an earlier page, because the runs are not at hand.
    """

    model: Model
    quote: published.Value | None
    values: dict[Metric, Pooled | None]
    gaps: dict[Metric, Gap | None]
    cost: Cost | None
    is_kept: bool = False

    @property
    def is_run(self) -> bool:
        """Whether a seed of it is finished."""
        return self.cost is not None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model, ready for JSON."""
        found: dict[str, Any] = {"published": self.quote and vars(self.quote)}
        found |= {metric: each and each.to_dict() for metric, each in self.values.items()}
        minus = {metric: each and each.to_dict() for metric, each in self.gaps.items()}
        found |= {"post_trained_minus_this": minus, "cost": self.cost and self.cost.to_dict()}
        return found | ({"is_kept": True} if self.is_kept else {})


@dataclass(frozen=True, eq=False)
class RowStanding:
    """A row on all tasks.

    Attributes
    ----------
    row : Row
    backbone : str
        Empty for an ensemble.
    short_schedule : str
        By how much its schedule is shorter than its recipe's; empty where it is not.
    changes : list of str
        What else is changed of its recipe, such as `precision bf16 instead of fp32`.
    recipes : list of str
        SHA-256 of its recipe, or of its members', without seed and description; twelve digits.
    on : dict of str to Standing
        By task.
    """

    row: Row
    backbone: str
    short_schedule: str
    changes: list[str]
    recipes: list[str]
    on: dict[str, Standing]

    def about(self) -> dict[str, Any]:
        """What it is, ready for JSON."""
        said = self.row.model_dump(mode="json", include={"name", "arm", "members", "our_reading"})
        return {
            **said,
            "backbone": self.backbone,
            "short_schedule": self.short_schedule,
            "changes": self.changes,
            "recipes": self.recipes,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return self.about() | {"tasks": {task: each.to_dict() for task, each in self.on.items()}}


@dataclass(frozen=True, eq=False)
class Standings:
    """All of table 1.

    Attributes
    ----------
    tasks : tuple of str
    rows : list of RowStanding
    best : dict of str to dict
        By task, where a post-trained model is known: what it is (`Contender.to_dict`).
    strangers : dict of str to Standing
        The same models on their tasks, where no row is that model.
    """

    tasks: tuple[str, ...]
    rows: list[RowStanding]
    best: dict[str, dict[str, Any]]
    strangers: dict[str, Standing]

    def models(self) -> list[Group | Ensemble]:
        """Of every row on every task, but for those whose numbers are kept."""
        found = [each.model for row in self.rows for each in row.on.values() if not each.is_kept]
        return [model for model in found if isinstance(model, Group | Ensemble)]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        quoted = {
            name: {task: vars(each) for task, each in values.items()}
            for name, values in published.ROWS.items()
        }
        return {
            "published": quoted,
            "best_post_trained": self.best,
            "best_post_trained_on": {task: each.to_dict() for task, each in self.strangers.items()},
            "rows": [row.to_dict() for row in self.rows],
        }


def standings(evidence: Evidence, earlier: Earlier | None = None) -> Standings:
    """Score everything that table 1 has to say.

    Parameters
    ----------
    evidence : Evidence
    earlier : Earlier, optional
        Where the numbers of rows, and of post-trained models, that no run is known of come from.

    Raises
    ------
    ReproduceError
        When `--against` names a folder without a finished run.
    EvaluationError
        When a model was predicted for other records than the others.
    """
    request, earlier = evidence.request, earlier or Earlier()
    tasks = request.experiment.tasks
    found = {task: best_contender(request, task) for task in tasks}
    known = {task: each.model for task, each in found.items() if each is not None}
    told = {task: each.to_dict() if each else earlier.best(task) for task, each in found.items()}
    best = {task: each for task, each in told.items() if each is not None}
    rows = [_row_standing(evidence, row, known) for row in rows_of(request.experiment)]
    strangers = {
        task: _standing(evidence, model, None, None)
        for task, model in known.items()
        if not any(_share_runs(evidence, row.on[task].model, model) for row in rows)
    }
    for row in rows:
        for task, each in row.on.items():
            if not each.is_run and (numbers := earlier.row(row.about(), task)):
                held = earlier.is_held_against(best.get(task, {}), task)
                row.on[task] = _kept(each.model, each.quote, numbers, held=held)
    for task in best:
        if task not in known and (numbers := earlier.best_on(task)):
            model = Found(task, best[task]["backbone"], best[task]["recipe"], ())
            strangers[task] = _kept(model, None, numbers, held=False)
    return Standings(tasks, rows, best, strangers)


def _kept(
    model: Model, quote: published.Value | None, numbers: dict[str, Any], *, held: bool
) -> Standing:
    """A standing as an earlier page had it; its gaps only where `held` against the best of now."""
    gaps = numbers["post_trained_minus_this"] if held else {}
    return Standing(
        model,
        quote,
        {metric: Pooled(**tupled(numbers[metric])) for metric in METRICS},
        {metric: Gap(**tupled(gaps[metric])) for metric in METRICS if gaps.get(metric)},
        Cost(**numbers["cost"]),
        is_kept=True,
    )


def model_of(evidence: Evidence, row: Row, task: str) -> Group | Ensemble:
    """What a row is on a task."""
    request = evidence.request
    pairs = arms_of_row(request.experiment, row, request.backbone)
    groups = tuple(Group(backbone, arm, task) for backbone, arm in pairs)
    return groups[0] if row.arm else Ensemble(groups)


def _row_standing(evidence: Evidence, row: Row, best: dict[str, Found]) -> RowStanding:
    request = evidence.request
    quotes = published.ROWS.get(row.published or "", {})
    on = {}
    for task in request.experiment.tasks:
        model = model_of(evidence, row, task)
        on[task] = _standing(evidence, model, quotes.get(task), best.get(task))
    backbone = "" if row.members else row.backbone or request.backbone
    short = _short_schedule(evidence, row)
    return RowStanding(row, backbone, short, _changes(evidence, row), _recipes(evidence, row), on)


def _standing(
    evidence: Evidence, model: Model, quote: published.Value | None, best: Model | None
) -> Standing:
    gaps: dict[Metric, Gap | None] = {}
    if best is not None and not _share_runs(evidence, model, best):
        gaps = {metric: evidence.gap(best, model, metric) for metric in METRICS}
    values = {metric: evidence.macro(model, metric) for metric in METRICS}
    return Standing(model, quote, values, gaps, cost_of(evidence, model))


def _short_schedule(evidence: Evidence, row: Row) -> str:
    request = evidence.request
    pairs = arms_of_row(request.experiment, row, request.backbone)
    said = [request.experiment.short_schedule(arm, backbone) for backbone, arm in pairs]
    if row.arm or not any(said):
        return said[0]
    return f"{sum(map(bool, said))} of its {len(said)} members"


def _changes(evidence: Evidence, row: Row) -> list[str]:
    """A row's changes; of an ensemble, those of its members, with their number."""
    request = evidence.request
    pairs = arms_of_row(request.experiment, row, request.backbone)
    said = [request.experiment.changes(arm, backbone) for backbone, arm in pairs]
    counts = Counter(change for each in said for change in each)
    return [
        change if count == len(said) else f"{change} ({count} of its {len(said)} members)"
        for change, count in counts.items()
    ]


def _recipes(evidence: Evidence, row: Row) -> list[str]:
    experiment = evidence.request.experiment
    found = []
    for backbone, arm in arms_of_row(experiment, row, evidence.request.backbone):
        asked = experiment.recipe(arm, backbone).to_dict() | {"description": ""}
        found.append(sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12])
    return found


def _share_runs(evidence: Evidence, one: Model, other: Model) -> bool:
    # The best model may have been found in the very folder that a row's runs are in.
    def runs(model: Model) -> set[Any]:
        return {file.resolve() for each in evidence.folders(model).values() for file in each}

    return not isinstance(one, Ensemble) and not runs(one).isdisjoint(runs(other))
