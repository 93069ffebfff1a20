"""The command `reproduce`: the paper's tables and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from einthoven.cli.options import Device, StorePath, Threads, output_file, output_folder
from einthoven.cli.progress import echo, note, output, progress_bars
from einthoven.errors import ReproduceError
from einthoven.report.format import counted

if TYPE_CHECKING:
    from einthoven.reproduce.experiment import Experiment
    from einthoven.reproduce.grid import Run
    from einthoven.reproduce.run import Reproduction


LIST = "list"

Target = Annotated[
    str,
    typer.Argument(
        help="table-1, table-2, figure-2 to figure-5, grid for all of these, objectives, or list."
    ),
]
Cohort = Annotated[
    Path | None, typer.Option(metavar="PATH", help="PTB-XL's folder.", show_default=False)
]
BackboneName = Annotated[
    str | None,
    typer.Option(
        help="A name of `einthoven backbones`; none if the experiment's rows name theirs.",
        show_default=False,
    ),
]
ExperimentName = Annotated[
    str | None,
    typer.Option(
        help="A grid of recipes: a name of `reproduce list`, or a .toml file. Default: the one "
        "made for the backbone, or ptbxl-100hz-cpu; objectives-100hz-cpu for objectives.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option(help="Folder of all runs; unfinished runs are resumed.")]
Encoder = Annotated[
    Path | None, typer.Option(help="The pretrained backbone; pretrained first without it.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="Runs: row=, backbone=, pretraining=, variant=, task=, seed=, fraction=. Repeatable.",
    ),
]
ListOnly = Annotated[
    bool, typer.Option("--list", help="Print the runs and their states; run nothing.")
]
RunThem = Annotated[
    bool, typer.Option("--run/--no-run", help="Train, or only write the finished runs' results.")
]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="Every N-th run, for N processes.")]
Page = Annotated[
    Path | None, typer.Option(help="Markdown page to write into. Default: OUT/results.md.")
]


def reproduce(
    target: Target,
    cohort: Cohort = None,
    backbone: BackboneName = None,
    experiment: ExperimentName = None,
    out: Out = Path("reproduction"),
    weights: Encoder = None,
    only: Only = None,
    only_list: ListOnly = False,
    run: RunThem = True,
    shard: Shard = None,
    threads: Threads = None,
    write: Page = None,
    store: StorePath = None,
    device: Device = "auto",
) -> None:
    """Make the paper's tables and figures, run by run.

    A table is a grid of runs. Each has its own folder, is resumed where it stopped, and is never
    repeated. Several processes may work on one OUT.

    **Contents and states**

        einthoven reproduce list

        einthoven reproduce table-2 --cohort data/ptb-xl --backbone mtecg_tiny_100hz --list

    **All of it, one seed of it, or half of it**

        einthoven reproduce table-2 --cohort data/ptb-xl --backbone mtecg_tiny_100hz

        einthoven reproduce table-2 --cohort data/ptb-xl --backbone mtecg_tiny_100hz
        --only task=all-71 --only seed=0

        einthoven reproduce grid --cohort data/ptb-xl --backbone st_mem_base
        --weights encoder.pth --experiment published --shard 1/2

    **Task-specific networks, or one of them, beside the post-trained ones of OUT**

        einthoven reproduce table-1 --cohort data/ptb-xl --experiment peers

        einthoven reproduce table-1 --cohort data/ptb-xl --experiment peers
        --only row=xresnet1d101 --only task=all-71 --write docs/results.md

    **Objectives, encoders and whatever else an experiment varies in pretraining**

        einthoven reproduce objectives --cohort data/ptb-xl --only variant=linear-probe

    **Tables of the finished runs**

        einthoven reproduce grid --cohort data/ptb-xl --backbone mtecg_tiny_100hz
        --no-run --write docs/results.md
    """
    if target == LIST:
        _list()
        return
    from einthoven.cli.paths import store_folder, store_of
    from einthoven.reproduce import grid
    from einthoven.reproduce.run import Reproduction

    definition = _experiment(experiment, target, cohort, backbone, weights)
    name = backbone or ""
    runs = grid.only(grid.runs_of(target, definition, name), only or (), definition.pairs(name))
    runs = grid.shard(runs, shard)
    folder = _ptbxl_folder(cohort, definition)
    # Packed later, so that everything else is checked first.
    pack = store_folder(folder, store)
    reproduction = Reproduction(definition, name, folder, pack, out, weights, device, threads)
    if only_list:
        _print_states(reproduction, runs)
        return
    failed = []
    output_file(write)
    output_folder(out)
    if run:
        reproduction.check(runs)
        note(f"Experiment {definition.name}")
        labels = () if definition.targets else None  # of a table, columns that no task names
        packed = Path(store_of(folder, store, labels=labels).root)
        failed = _run(replace(reproduction, store=packed), runs)
    _write(reproduction, target, write or out / "results.md")
    if failed:
        echo(f"{counted(len(failed), 'run')} failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _experiment(
    name: str | None,
    target: str,
    cohort: Path | None,
    backbone: str | None,
    weights: Path | None,
) -> Experiment:
    """The experiment, after a check that the options fit together."""
    from einthoven.backbones.registry import entry
    from einthoven.reproduce.experiment import COMPARISON, experiment_for, load_experiment
    from einthoven.reproduce.grid import OBJECTIVES

    default = COMPARISON if target == OBJECTIVES else experiment_for(backbone or "")
    experiment = load_experiment(name or default)
    needed = not experiment.has_backbones
    if cohort is None or (backbone is None and needed):
        raise ReproduceError(
            f"{'--cohort' if cohort is None else '--backbone'} is missing",
            remedy="einthoven reproduce table-2 --cohort data/ptb-xl --backbone mtecg_tiny_100hz",
        )
    if (backbone is not None or weights is not None) and not needed:
        raise ReproduceError(
            f"experiment {experiment.name} names its backbones and their initial weights",
            remedy="leave out --backbone and --weights",
        )
    if weights is not None and experiment.compares_pretraining:
        raise ReproduceError(
            f"experiment {experiment.name} compares pretrainings", remedy="leave out --weights"
        )
    if backbone is not None:
        entry(backbone)
    if weights is not None and not weights.exists():
        raise ReproduceError(f"{weights} is missing", remedy="pass a model folder or weights file")
    return experiment


def _ptbxl_folder(cohort: Path | None, experiment: Experiment) -> Path:
    """PTB-XL's folder, or any cohort if the experiment defines its tasks itself."""
    from einthoven.cohorts.ptbxl import LAYOUT

    if cohort is not None and set(experiment.tasks) <= set(experiment.targets):
        return cohort
    if cohort is None or not LAYOUT.recognises(cohort):
        raise ReproduceError(
            f"{cohort} is not {LAYOUT.holds}",
            remedy="pass PTB-XL's folder (`einthoven download ptb-xl`), or train on other cohorts "
            "with `einthoven posttrain`",
        )
    return cohort


def _list() -> None:
    from einthoven.reproduce.experiment import experiment_names, load_experiment
    from einthoven.reproduce.grid import TARGETS, runs_of, targets_of

    experiments = [load_experiment(name) for name in experiment_names()]
    table = Table.grid(padding=(0, 2, 0, 0))
    for target, description in TARGETS.items():
        counts = ", ".join(
            f"{len(runs_of(target, experiment, 'x'))} in {experiment.name}"
            for experiment in experiments
            if target in targets_of(experiment)
        )
        table.add_row(target, f"{description}; runs: {counts}")
    table.add_row()
    table.add_row("experiment", "as a value of --experiment:")
    for experiment in experiments:
        backbones = ", ".join(experiment.made_for)
        default = f"; default of {backbones}" if backbones else ""
        table.add_row(experiment.name, f"{experiment.description}{default}")
    output.print(table)


def _run(reproduction: Reproduction, runs: Sequence[Run]) -> list[str]:
    """Run everything; return the keys of the failed runs."""
    from einthoven.reproduce.run import State

    with progress_bars(keep=False) as progress:  # a grid has too many stages
        states = replace(reproduction, progress=progress, log=note).run(runs)
    if elsewhere := sum(state is State.RUNNING for state in states.values()):
        echo(f"In progress in other processes: {counted(elsewhere, 'run')}")
    return [run.key for run, state in states.items() if state is State.FAILED]


def _print_states(reproduction: Reproduction, runs: Sequence[Run]) -> None:
    states = reproduction.states(runs)
    echo(f"experiment {reproduction.experiment.name}")
    for run, state in states.items():
        echo(f"{state:8} {run.key}")
    counts = Counter(states.values())
    summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    echo(f"{counted(len(states), 'run')}: {summary}")


def _write(reproduction: Reproduction, target: str, page: Path) -> None:
    from einthoven.reproduce.page import write

    files = write(reproduction, target, page)
    echo(f"Page: {files[0]}")
    echo(f"Figures and numbers: {page.parent / 'figures'}")
