"""Cohorts with the labels of a model, and the records by which it is scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einthoven.cli.progress import note
from einthoven.errors import EvaluationError
from einthoven.report.format import counted

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.models import Model
    from einthoven.signals.store import Store
    from einthoven.tasks import Task as Goal

ModelTask = Annotated[
    str | None,
    typer.Option(
        help="Labels of a data set, or a task.toml. Default: those that the model was trained for.",
        show_default=False,
    ),
]
ModelTarget = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "--label",
        help="Only this label or number of the model; the column of classes, if it has another "
        "name than in training. Repeatable.",
    ),
]


def note_labels(model: Model, cohort: Cohort) -> None:
    note(
        f"Only {len(cohort.labels)} of the model's {counted(len(model.labels), 'label')} are "
        f"scored: those of {cohort.name}"
    )


def with_labels_of(model: Model, cohort: Cohort) -> Cohort:
    """The cohort with labels of a model, by the statement map if they have other names.

    Raises EvaluationError if there is none.
    """
    from einthoven.cohorts.statements import with_labels_of
    from einthoven.tasks import Task

    if model.task.kind != Task.kind or set(cohort.labels) == set(model.labels):
        return cohort
    if set(cohort.labels) < set(model.labels):
        note_labels(model, cohort)
        return cohort
    shared = shared_statements(model, cohort)
    several = [name for name, (of_model, _) in shared.items() if len(of_model) > 1]
    if len(several) == len(shared):
        raise EvaluationError(
            f"each statement of {cohort.name} is several labels of the model: {', '.join(several)}",
            remedy="score them with einthoven evaluate",
        )
    if several:
        note(
            f"Not on the card, as several labels of the model: {', '.join(several)} (einthoven "
            "evaluate scores them)"
        )
    return with_labels_of(cohort, model.labels, shared)


def shared_statements(model: Model, cohort: Cohort) -> dict[str, list[tuple[int, ...]]]:
    """Statements that model and cohort share, printed with the labels that have no counterpart.

    Raises EvaluationError if there is none.
    """
    from einthoven.cohorts.statements import shared_statements, statements
    from einthoven.errors import listed

    sides = {"the model": model.labels, cohort.name: cohort.labels}
    shared = shared_statements(*sides.values())
    if not shared:
        raise EvaluationError(
            f"no statement is shared by the model ({listed(model.labels)}) and {cohort.name} "
            f"({listed(cohort.labels)})",
            remedy="name a cohort that has the model's labels, or statements of the map "
            "(docs/cohorts.md)",
        )
    texts = {statement.name: f" ({statement.description})" for statement in statements()}
    note(f"Scored by the statement map: {counted(len(shared), 'statement')} of {cohort.name}")
    for name, places in shared.items():
        of_model, of_cohort = (
            " or ".join(labels[place] for place in of)
            for labels, of in zip(sides.values(), places, strict=True)
        )
        note(f"  {name}{texts.get(name, '')}: model {of_model}; cohort {of_cohort}")
    for index, (side, labels) in enumerate(sides.items()):
        used = {place for places in shared.values() for place in places[index]}
        rest = [label for place, label in enumerate(labels) if place not in used]
        if rest:
            note(f"Labels of {side} without counterpart: {', '.join(rest)}")
    return shared


def scored_split(model: Path, cohort: Cohort, store: Store) -> str:
    """The split to score by default; says so if it is all records."""
    from einthoven.stages.leakage import evaluation_split

    split = evaluation_split(model, (cohort, store))
    if split != "test":
        records = counted(len(cohort), "record")
        note(f"{cohort.name} states no splits, and the model has not seen it: {records} scored")
    return split


def cohort_of(
    model: Model,
    path: Path,
    task: str | None,
    store: Path | None,
    *,
    target: list[str] | None = None,
    some: bool = False,
) -> tuple[Cohort, Store]:
    """Open a cohort with the model's labels, and its store.

    With `some`, it may have only some of them (a table), or codes of another vocabulary.
    """
    from einthoven.cli.paths import labelled_cohort, stated_task, store_of
    from einthoven.cohorts import layout_of, ptbxl, table
    from einthoven.cohorts.cohort import WITHOUT_LABEL
    from einthoven.cohorts.statements import codes_in
    from einthoven.tasks import Task
    from einthoven.tasks.task import is_read_from

    layout = layout_of(path)
    goal: Task | str | None = stated_task(task, target=target)
    if target:
        goal = _task_of_targets(model, target)
    trained = ((model.config.get("provenance") or {}).get("cohort") or {}).get("task")
    if goal is None and trained in layout.tasks:
        goal = str(trained)
    elif goal is None and model.task.kind != Task.kind:
        goal = model.task.stated()
    elif goal is None and layout is table.TABLE:
        columns = table.columns_of(path) if some else model.labels
        labels = [x for x in model.labels if is_read_from(x, columns)] or codes_in(columns)
        goal = Task(target=tuple(labels or model.labels))
    elif goal is None:
        goal = layout.codes or None
    cohort = labelled_cohort(path, goal)
    if set(model.labels) < set(cohort.labels):
        cohort = cohort.with_labels(model.labels)
        if layout is ptbxl.LAYOUT:  # as for its tasks: a record without any label is left out
            cohort = cohort.select((cohort.matrix == 1).any(axis=1), reason=WITHOUT_LABEL)
    return cohort, store_of(path, store, labels=(), leads=model.preparation.sources)


def _task_of_targets(model: Model, target: list[str]) -> Goal:
    """The model's task about these columns."""
    task = model.task.stated()
    if task.behaviour.form == "classes":
        return replace(task, target=tuple(target))
    labels = [name for name in target if name in model.labels]
    if task.behaviour.form == "values" and len(labels) < len(target):
        raise EvaluationError(
            f"--target {' '.join(target)}: the model predicts {', '.join(model.labels)}",
            remedy="name a number that it predicts",
        )
    selected = task.select([model.labels.index(name) for name in labels], model.labels)
    return replace(selected, target=tuple(target))
