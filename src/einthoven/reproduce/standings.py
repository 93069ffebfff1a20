"""What table 1 says, before it is put into words: every row on every task, beside the best
post-trained model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from einthoven.reproduce import published
from einthoven.reproduce.contenders import Contender, best_contender
from einthoven.reproduce.costs import Cost, cost_of
from einthoven.reproduce.evidence import (
    METRICS,
    Ensemble,
    Evidence,
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
    """

    model: Model
    quote: published.Value | None
    values: dict[Metric, Pooled | None]
    gaps: dict[Metric, Gap | None]
    cost: Cost | None

    @property
    def is_run(self) -> bool:
        """Whether a seed of it is finished."""
        return self.cost is not None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model, ready for JSON."""
        found: dict[str, Any] = {"published": self.quote and vars(self.quote)}
        found |= {metric: each and each.to_dict() for metric, each in self.values.items()}
        minus = {metric: each and each.to_dict() for metric, each in self.gaps.items()}
        return found | {"post_trained_minus_this": minus, "cost": self.cost and self.cost.to_dict()}


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
    on : dict of str to Standing
        By task.
    """

    row: Row
    backbone: str
    short_schedule: str
    changes: list[str]
    on: dict[str, Standing]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        said = self.row.model_dump(include={"name", "arm", "members", "our_reading"})
        tasks = {task: each.to_dict() for task, each in self.on.items()}
        return {
            **said,
            "backbone": self.backbone,
            "short_schedule": self.short_schedule,
            "changes": self.changes,
            "tasks": tasks,
        }


@dataclass(frozen=True, eq=False)
class Standings:
    """All of table 1.

    Attributes
    ----------
    tasks : tuple of str
    rows : list of RowStanding
    best : dict of str to Contender
        By task, where a post-trained model is known.
    strangers : dict of str to Standing
        The same models on their tasks, where no row is that model.
    """

    tasks: tuple[str, ...]
    rows: list[RowStanding]
    best: dict[str, Contender]
    strangers: dict[str, Standing]

    def models(self) -> list[Group | Ensemble]:
        """Of every row on every task."""
        found = [each.model for row in self.rows for each in row.on.values()]
        return [model for model in found if isinstance(model, Group | Ensemble)]

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        quoted = {
            name: {task: vars(each) for task, each in values.items()}
            for name, values in published.ROWS.items()
        }
        return {
            "published": quoted,
            "best_post_trained": {task: each.to_dict() for task, each in self.best.items()},
            "best_post_trained_on": {task: each.to_dict() for task, each in self.strangers.items()},
            "rows": [row.to_dict() for row in self.rows],
        }


def standings(evidence: Evidence) -> Standings:
    """Score everything that table 1 has to say.

    Raises
    ------
    ReproduceError
        When `--against` names a folder without a finished run.
    EvaluationError
        When a model was predicted for other records than the others.
    """
    request = evidence.request
    tasks = request.experiment.tasks
    found = {task: best_contender(request, task) for task in tasks}
    best = {task: each for task, each in found.items() if each is not None}
    rows = [_row_standing(evidence, row, best) for row in rows_of(request.experiment)]
    strangers = {
        task: _standing(evidence, each.model, None, None)
        for task, each in best.items()
        if not any(_share_runs(evidence, row.on[task].model, each.model) for row in rows)
    }
    return Standings(tasks, rows, best, strangers)


def model_of(evidence: Evidence, row: Row, task: str) -> Group | Ensemble:
    """What a row is on a task."""
    request = evidence.request
    pairs = arms_of_row(request.experiment, row, request.backbone)
    groups = tuple(Group(backbone, arm, task) for backbone, arm in pairs)
    return groups[0] if row.arm else Ensemble(groups)


def _row_standing(evidence: Evidence, row: Row, best: dict[str, Contender]) -> RowStanding:
    request = evidence.request
    quotes = published.ROWS.get(row.published or "", {})
    on = {}
    for task in request.experiment.tasks:
        model, known = model_of(evidence, row, task), best.get(task)
        held = None if known is None else known.model
        on[task] = _standing(evidence, model, quotes.get(task), held)
    backbone = "" if row.members else row.backbone or request.backbone
    short = _short_schedule(evidence, row)
    return RowStanding(row, backbone, short, _changes(evidence, row), on)


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


def _share_runs(evidence: Evidence, one: Model, other: Model) -> bool:
    # The best model may have been found in the very folder that a row's runs are in.
    def runs(model: Model) -> set[Any]:
        return {file.resolve() for each in evidence.folders(model).values() for file in each}

    return not isinstance(one, Ensemble) and not runs(one).isdisjoint(runs(other))
