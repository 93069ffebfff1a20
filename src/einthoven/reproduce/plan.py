"""What there is to do and what it will cost, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from einthoven.cohorts import open_cohort
from einthoven.files import read_json, read_lines
from einthoven.reproduce.folders import Request, State
from einthoven.reproduce.grid import Cell
from einthoven.stages.pretrain import ENCODER
from einthoven.stages.recipe import Recipe
from einthoven.training.run import ABOUT


@dataclass(frozen=True)
class Planned:
    """A cell, how far it is, and how many seconds are left; None where nothing was measured yet."""

    cell: Cell
    state: State
    seconds: float | None


@dataclass(frozen=True)
class Speed:
    """What one backbone's runs in a reproduction have taken so far.

    Attributes
    ----------
    train, validate : float
        Seconds a training record and epoch of fine-tuning, and a validation record and epoch.
    probe : float or None
        Seconds of a linear probe a training record, features and every learning rate included.
    """

    train: float
    validate: float
    probe: float | None


def plan(request: Request, cells: Sequence[Cell]) -> list[Planned]:
    """States and costs of cells; trains nothing and writes nothing.

    Costs are those of the same backbone's earlier epochs in this reproduction, so they are known
    as soon as one epoch has ended somewhere, and they include what else the machine was doing.
    """
    sizes = {task: _sizes(request, task) for task in {cell.task for cell in cells}}
    speeds = {name: measured(request, name) for name in {cell.backbone for cell in cells}}
    planned = []
    for cell in cells:
        state = request.state(cell)
        speed = speeds[cell.backbone]
        left = 0.0 if state is State.DONE else None
        if speed is not None and left is None:
            left = _left(request, cell, request.recipe(cell), speed, sizes[cell.task])
        planned.append(Planned(cell, state, left))
    return planned


def pretrainings(request: Request, cells: Sequence[Cell]) -> list[str]:
    """Pretraining runs that come first, with their recipes; their cost is not in the plan."""
    missing = {}
    for cell in cells:
        file = request.weights_of(cell)
        if file is None or file.name != ENCODER or file == request.weights or file.is_file():
            continue
        recipe = request.experiment.pretraining_recipe(cell.backbone, request.source_seed(cell))
        name = file.parent.name
        missing[name] = f"{name}: recipe {recipe.name}, {recipe.epochs} epochs"
    return list(missing.values())


def measured(request: Request, backbone: str) -> Speed | None:
    """How fast a backbone has been trained so far; None before its first epoch."""
    train, validate, probes = [], [], []
    sizes: dict[str, tuple[int, int]] = {}
    for file in sorted((request.out / "runs").glob(f"{backbone}--*/{ABOUT}")):
        asked = read_json(file)["asked"]
        task, share = asked["task"], asked["recipe"]["data"]["fraction"]
        if task not in sizes:
            sizes[task] = _sizes(request, task)
        records, validation = sizes[task]
        for line in read_lines(file.parent / "stage2" / "metrics.jsonl"):
            train.append(line["seconds"] / (share * records))
            validate.append(line["validation_seconds"] / validation)
        spent = sum(
            line["seconds"] + line.get("validation_seconds", 0.0)
            for name in ("stage1/*/metrics.jsonl", "stage1/features/seconds.jsonl")
            for found in file.parent.glob(name)
            for line in read_lines(found)
        )
        if spent:
            probes.append(spent / (share * records))
    if not train:
        return None
    return Speed(median(train), median(validate), median(probes) if probes else None)


def _left(
    request: Request, cell: Cell, recipe: Recipe, speed: Speed, sizes: tuple[int, int]
) -> float:
    records, validation = sizes
    trained = cell.fraction * records
    seconds = 0.0
    if recipe.stage2:
        epochs = max(0, recipe.stage2.epochs - request.epochs_done(cell))
        seconds += epochs * (trained * speed.train + validation * speed.validate)
    if recipe.stage1 and not (request.run_folder(cell) / "stage1").is_dir():
        # Without a measured one: a forward pass is a third of a training step.
        passes = recipe.stage1.crops * trained / 3
        seconds += passes * speed.train if speed.probe is None else trained * speed.probe
    return seconds + 2 * validation * speed.validate  # predicting validation and test


def _sizes(request: Request, task: str) -> tuple[int, int]:
    few = request.experiment.min_records
    cohort = open_cohort(request.cohort, task, **({"min_records": few} if few else {}))
    return len(cohort.ids("train")), len(cohort.ids("validation"))
