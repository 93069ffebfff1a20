"""The verb that makes the paper's tables and figures."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einthoven.cli.options import Device, StorePath, Threads
from einthoven.cli.progress import console, shown_warnings, training
from einthoven.errors import ReproduceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from einthoven.reproduce.experiments import Experiment
    from einthoven.reproduce.folders import Request
    from einthoven.reproduce.grid import Cell
    from einthoven.reproduce.plan import Planned
    from einthoven.reproduce.run import Outcome


class What(StrEnum):
    """Tables and figures, as the paper counts them."""

    TABLE_1 = "table-1"
    TABLE_2 = "table-2"
    FIGURE_2 = "figure-2"
    FIGURE_3 = "figure-3"
    FIGURE_4 = "figure-4"
    FIGURE_5 = "figure-5"
    GRID = "grid"
    LIST = "list"


Table = Annotated[
    What,
    typer.Argument(metavar="WHAT", help="A table or figure, grid for all, or list."),
]
Cohort = Annotated[
    Path | None, typer.Option(metavar="PATH", help="PTB-XL's folder.", show_default=False)
]
BackboneName = Annotated[
    str | None,
    typer.Option(
        help="A name of `einthoven backbones`; none where the experiment's rows name theirs.",
        show_default=False,
    ),
]
ExperimentName = Annotated[
    str | None,
    typer.Option(
        help="A grid of recipes: a name of `reproduce list`, or a .toml file; without it the one "
        "that is made for the backbone, or ptbxl-100hz-cpu.",
        show_default=False,
    ),
]
Runs = Annotated[Path, typer.Option(help="Folder of all runs; what is there goes on.")]
Encoder = Annotated[
    Path | None, typer.Option(help="The pretrained backbone; pretrained first without it.")
]
Against = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="RUN",
        help="Table 1: a post-trained run, another OUT, or a bundle such as einthoven-small, to "
        "hold rows against. Repeat it.",
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE,...",
        help="Cells: row=, backbone=, arm=, task=, seed=, fraction=. Repeat it.",
    ),
]
PlanOnly = Annotated[
    bool, typer.Option("--plan", help="Print cells, states and costs; run nothing.")
]
RunThem = Annotated[
    bool, typer.Option("--run/--no-run", help="Or only write what the finished cells give.")
]
Shard = Annotated[str | None, typer.Option(metavar="I/N", help="Every N-th cell, for N machines.")]
Jobs = Annotated[int, typer.Option(min=1, help="Processes on this machine.")]
KeepRows = Annotated[
    bool,
    typer.Option(
        "--keep-rows", help="Table 1: leave the page's numbers of rows that OUT has no runs of."
    ),
]
Page = Annotated[
    Path | None,
    typer.Option(help="Markdown page whose marked section is written; OUT/results.md."),
]


def reproduce(
    what: Table,
    cohort: Cohort = None,
    backbone: BackboneName = None,
    experiment: ExperimentName = None,
    out: Runs = Path("reproduction"),
    weights: Encoder = None,
    against: Against = None,
    only: Only = None,
    plan: PlanOnly = False,
    run: RunThem = True,
    shard: Shard = None,
    jobs: Jobs = 1,
    threads: Threads = None,
    write: Page = None,
    keep_rows: KeepRows = False,
    store: StorePath = None,
    device: Device = "auto",
) -> None:
    """Make the paper's tables and figures, run by run.

    A table is a grid of runs; each has its own folder, is resumed where it stopped, and is never
    run twice. Any number of processes may work on one OUT: they claim cells by lock files.

    **What there is, and what it costs**

        einthoven reproduce list

        einthoven reproduce table-2 --cohort data/ptb-xl --backbone mtecg_tiny_100hz --plan

    **Run it, one seed of it, or half of it**

        einthoven reproduce table-2 --cohort data/ptb-xl --backbone mtecg_tiny_100hz

        einthoven reproduce table-2 --cohort data/ptb-xl --backbone mtecg_tiny_100hz
        --only task=all-71 --only seed=0

        einthoven reproduce grid --cohort data/ptb-xl --backbone st_mem_base
        --weights encoder.pth --experiment published --shard 1/2

    **Networks that were made for the task, or one of them, beside a post-trained one**

        einthoven reproduce table-1 --cohort data/ptb-xl --experiment peers --against runs/pt

        einthoven reproduce table-1 --cohort data/ptb-xl --experiment peers
        --only row=xresnet1d101 --only task=all-71

    **Two machines, a row each, one page**

        einthoven reproduce table-1 --cohort data/ptb-xl --experiment peers --only row=lstm
        --write docs/results.md --keep-rows

    **Write the tables of what is finished**

        einthoven reproduce grid --cohort data/ptb-xl --backbone mtecg_tiny_100hz
        --no-run --write docs/results.md
    """
    if what is What.LIST:
        _list()
        return
    from einthoven.reproduce.plan import check

    if keep_rows and what not in (What.TABLE_1, What.GRID):
        raise ReproduceError(
            f"{what.value} has no rows to keep", remedy="--keep-rows is for table-1, or grid"
        )
    asked = _experiment(experiment, cohort, backbone, weights)
    request = _request(asked, cohort, backbone, out, weights, store)
    request = replace(request, device=device, threads=threads, against=tuple(against or ()))
    cells = _cells(request, what, only or (), shard)
    chosen = _chosen(request, named=experiment is not None)
    if plan:
        typer.echo(f"experiment         {chosen}")
        _print_plan(request, cells)
        return
    outcome = None
    if run:
        check(request, cells)
        console.print(f"Experiment {chosen}", highlight=False, markup=False, soft_wrap=True)
        request = _packed(request, store)
        outcome = _run(request, cells, jobs)
    _write(request, what.value, write or out / "results.md", keep_rows=keep_rows)
    if outcome is not None:
        _tell(outcome)


def _experiment(
    name: str | None, cohort: Path | None, backbone: str | None, weights: Path | None
) -> Experiment:
    """The experiment, once its options are known to belong together."""
    from einthoven.backbones.registry import entry
    from einthoven.reproduce.experiment_files import experiment_for, load_experiment

    asked = load_experiment(name or experiment_for(backbone or ""))
    needed = not asked.names_every_backbone
    if cohort is None or (backbone is None and needed):
        raise ReproduceError(
            f"no {'--cohort' if cohort is None else '--backbone'} is named",
            remedy="einthoven reproduce table-2 --cohort data/ptb-xl --backbone mtecg_tiny_100hz",
        )
    if (backbone is not None or weights is not None) and not needed:
        raise ReproduceError(
            f"the rows of experiment {asked.name} name their own backbones, and start from random "
            "weights",
            remedy="leave --backbone and --weights out",
        )
    if backbone is not None:
        entry(backbone)
    return asked


def _request(
    experiment: Experiment,
    cohort: Path | None,
    backbone: str | None,
    out: Path,
    weights: Path | None,
    store: Path | None,
) -> Request:
    """What is asked for; nothing is packed yet, so that everything else is checked first."""
    from einthoven.cli.stores import store_folder
    from einthoven.reproduce.folders import Request

    if cohort is None or not cohort.is_dir():
        raise ReproduceError(
            f"{cohort} is no folder: the paper's tasks are PTB-XL's",
            remedy="name the folder that holds ptbxl_database.csv",
        )
    if weights is not None and not weights.is_file():
        raise ReproduceError(f"{weights} is missing", remedy="name the encoder's file")
    return Request(experiment, backbone or "", cohort, store_folder(cohort, store), out, weights)


def _packed(request: Request, store: Path | None) -> Request:
    from einthoven.cli.stores import store_of

    return replace(request, store=Path(store_of(request.cohort, store).root))


def _chosen(request: Request, *, named: bool) -> str:
    """The experiment's name, and why it is taken where nobody named it."""
    asked = request.experiment
    if named:
        return asked.name
    if request.backbone in asked.made_for:
        return f"{asked.name}, which is made for {request.backbone}"
    return f"{asked.name}, the general one: none is made for {request.backbone}"


def _cells(request: Request, what: What, filters: Sequence[str], part: str | None) -> list[Cell]:
    from einthoven.reproduce.grid import cells_of, only, row_names, shard

    cells = cells_of(what.value, request.experiment, request.backbone)
    rows = row_names(request.experiment, request.backbone)
    return shard(only(cells, filters, rows), part)


def _list() -> None:
    from einthoven.reproduce.experiment_files import experiment_names, load_experiment
    from einthoven.reproduce.grid import WHAT, cells_of, made_by

    experiments = [load_experiment(name) for name in experiment_names()]
    for what, about in WHAT.items():
        makers = [each for each in experiments if what in made_by(each)]
        runs = ", ".join(f"{len(cells_of(what, each, 'x'))} in {each.name}" for each in makers)
        typer.echo(f"{what:9} {about}; runs: {runs}")
    typer.echo("\nExperiments (--experiment):")
    for each in experiments:
        typer.echo(f"{each.name}: {each.description}{_takers(each)}")


def _takers(experiment: Experiment) -> str:
    """Which backbones an experiment is taken for when none is named."""
    from einthoven.reproduce.experiment_files import GENERAL

    names = [*experiment.made_for, *(["all others"] if experiment.name == GENERAL else [])]
    return f"; taken for {', '.join(names)}" if names else ""


def _run(request: Request, cells: Sequence[Cell], jobs: int) -> Outcome:
    from einthoven.reproduce.jobs import run_in_jobs
    from einthoven.reproduce.run import Runner

    if jobs > 1:
        return run_in_jobs(request, cells, jobs=jobs)
    with training(keep=False) as progress:  # a grid has too many stages
        tell = lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)  # noqa: E731
        return Runner(request, progress, tell).run(cells)


def _print_plan(request: Request, cells: Sequence[Cell]) -> None:
    from collections import Counter

    from einthoven.reproduce.plan import plan, pretrainings

    planned = plan(request, cells)
    for line in pretrainings(request, cells):
        typer.echo(f"first              {line}")
    for each in planned:
        typer.echo(f"{each.state:8} {_cost(each):>9}  {each.cell.key}")
    counts = Counter(each.state for each in planned)
    summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    known = [each.seconds for each in planned if each.seconds is not None]
    parts = [f"about {sum(known) / 3600:.1f} h left"] if known else []
    if len(known) < len(planned):
        parts += [f"for {len(known)} of them;"] if known else []
        parts += ["costs are known once an epoch has been trained"]
    cost = " ".join(parts)
    typer.echo(f"{len(planned)} cells: {summary}; {cost}")


def _cost(planned: Planned) -> str:
    if planned.seconds is None:
        return "?"
    return f"{planned.seconds / 60:.1f} min" if planned.seconds else ""


def _write(request: Request, what: str, page: Path, *, keep_rows: bool) -> None:
    from einthoven.reproduce.write import write

    with training() as progress, shown_warnings():
        written = write(request, what, page, keep_rows=keep_rows, progress=progress)
    typer.echo(f"Page: {written[0]}")
    typer.echo(f"Figures and numbers: {written[1].parent}")
    if written[-1].suffix == ".html":
        typer.echo(f"Report: {written[-1]}")


def _tell(outcome: Outcome) -> None:
    if outcome.elsewhere:
        typer.echo(f"{len(outcome.elsewhere)} cells are with other processes")
    if outcome.failed:
        typer.echo(f"{len(outcome.failed)} cells failed: {', '.join(outcome.failed)}", err=True)
        raise typer.Exit(1)
