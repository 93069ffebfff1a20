"""What there is to do and what it will cost, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from einthoven.errors import BackboneError, PreparationError, ReproduceError
from einthoven.files import read_json, read_lines
from einthoven.reproduce.contenders import check_contenders
from einthoven.reproduce.experiment_files import experiment_for, experiment_names, load_experiment
from einthoven.reproduce.experiments import Experiment
from einthoven.reproduce.folders import Request, State
from einthoven.reproduce.grid import Cell
from einthoven.stages.recipe import Recipe
from einthoven.stages.suited import check_pretraining, suits
from einthoven.training.run import ABOUT

_PEERS = "peers"  # the experiment whose rows are networks that nothing pretrains


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

    Raises
    ------
    ReproduceError
        What running these cells would be refused for; see `check`.
    """
    check(request, cells)
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


def check(request: Request, cells: Sequence[Cell]) -> None:
    """Refuse before anything is trained what could only fail, here or on the page at the end.

    Raises
    ------
    ReproduceError
        When a folder of `--against` holds no finished run, or a pretraining is due that
        `check_pretrainings` refuses.
    """
    check_contenders(request)
    check_pretrainings(request, cells)


def pretrainings(request: Request, cells: Sequence[Cell]) -> list[str]:
    """Pretraining runs that come first, with their recipes; their cost is not in the plan."""
    missing = []
    for cell in to_pretrain(request, cells):
        recipe = request.experiment.pretraining_recipe(cell.backbone, request.source_seed(cell))
        name = request.pretraining(cell).name
        missing.append(f"{name}: recipe {recipe.name}, {recipe.epochs} epochs")
    return missing


def to_pretrain(request: Request, cells: Sequence[Cell]) -> list[Cell]:
    """The first cell that is not done of each pretraining that is still to be run."""
    first: dict[Path, Cell] = {}
    for cell in cells:
        file = request.weights_of(cell)
        if file is None or file == request.weights or file.is_file():
            continue
        if file == request.random_encoder(cell):
            continue
        if file not in first and request.state(cell) is not State.DONE:
            first[file] = cell
    return list(first.values())


def check_pretrainings(request: Request, cells: Sequence[Cell]) -> None:
    """Refuse cells whose backbone the experiment could not pretrain; nothing is written.

    Raises
    ------
    ReproduceError
        Naming the experiments that can; where the encoder that is there is another experiment's;
        and where runs that are there started from an encoder that nobody names now, so that a new
        one would make runs of another request of them.
    """
    asked, first = request.experiment, to_pretrain(request, cells)
    for cell in cells:
        _refuse_other_source(request, cell)
    for cell in first:
        _refuse_second_encoder(request, cell)
    for backbone in dict.fromkeys(cell.backbone for cell in first):
        recipe = asked.pretraining_recipe(backbone, 0)
        try:
            check_pretraining(recipe, backbone, asked.pretraining_options(backbone))
        except (BackboneError, PreparationError) as error:
            own = backbone == request.backbone
            raise ReproduceError(
                f"experiment {asked.name} cannot pretrain {backbone}: {error.problem} "
                f"(recipe {recipe.name}, objective {recipe.objective})",
                remedy=_instead(backbone) + (", or name --weights" if own else ""),
            ) from error


def _refuse_other_source(request: Request, cell: Cell) -> None:
    if request.has_other_source(cell):
        raise ReproduceError(
            f"{request.weights_of(cell)} was made by another experiment than "
            f"{request.experiment.name}, from another recipe or shape",
            remedy="name another folder for this experiment: --out",
        )


def _refuse_second_encoder(request: Request, cell: Cell) -> None:
    had = request.recorded_weights(cell)
    if had:
        named = " and ".join(f"{path.name} (SHA-256 {sha[:12]})" for sha, path in had.items())
        raise ReproduceError(
            f"runs in {request.out} started from {named}, and {cell.key} would start from a "
            "pretraining that is yet to be run",
            remedy=f"name that encoder with --weights, copy {request.pretraining(cell).name} into "
            "shared/ beside those runs, or name another --out",
        )


def _instead(backbone: str) -> str:
    rows = [row.name for row in load_experiment(_PEERS).rows if row.backbone == backbone]
    if rows:
        return (
            "it is trained from random weights: einthoven reproduce table-1 --experiment "
            f"{_PEERS} --only row={rows[0]}"
        )
    experiments = map(load_experiment, experiment_names())
    able = [each.name for each in experiments if _can_pretrain(each, backbone)]
    able.sort(key=lambda name: name != experiment_for(backbone))  # the one made for it first
    if able:
        return f"choose --experiment {' or '.join(able)}"
    return "give an experiment of your own a [pretraining] whose recipe suits it"


def _can_pretrain(experiment: Experiment, backbone: str) -> bool:
    if experiment.table_1_only:
        return False
    options = experiment.pretraining_options(backbone)
    return suits(experiment.pretraining_recipe(backbone, 0), backbone, options)


def measured(request: Request, backbone: str) -> Speed | None:
    """How fast a backbone has been trained so far; None before its first epoch."""
    train, validate, probes = [], [], []
    sizes: dict[str, tuple[int, int]] = {}
    for file in sorted((request.out / "runs").glob(f"{backbone}--*/{ABOUT}")):
        asked = read_json(file)["request"]
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
    cohort = request.opened(task)
    return len(cohort.ids("train")), len(cohort.ids("validation"))
