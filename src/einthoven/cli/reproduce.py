"""The verb that makes the paper's tables and figures."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einthoven.cli.progress import console, training
from einthoven.cli.train import Device, StorePath, Threads
from einthoven.errors import ReproduceError

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def reproduce(
    what: Annotated[
        What, typer.Argument(metavar="WHAT", help="A table or figure, grid for all, or list.")
    ],
    cohort: Annotated[
        Path | None, typer.Option(metavar="PATH", help="PTB-XL's folder.", show_default=False)
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="A name of `einthoven backbones`.", show_default=False)
    ] = None,
    experiment: Annotated[
        str, typer.Option(help="A grid of recipes: a name of `reproduce list`, or a .toml file.")
    ] = "ptbxl-100hz-cpu",
    out: Annotated[Path, typer.Option(help="Folder of all runs; what is there goes on.")] = Path(
        "reproduction"
    ),
    weights: Annotated[
        Path | None, typer.Option(help="The pretrained backbone; pretrained first without it.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE,...", help="Cells: arm=, task=, seed=, fraction=. Repeat."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print cells, states and costs; run nothing.")
    ] = False,
    run: Annotated[
        bool, typer.Option("--run/--no-run", help="Or only write what the finished cells give.")
    ] = True,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Every N-th cell, for N machines.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    threads: Threads = None,
    write: Annotated[
        Path | None,
        typer.Option(help="Markdown page whose marked section is written; OUT/results.md."),
    ] = None,
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

    **Write the tables of what is finished**

        einthoven reproduce grid --cohort data/ptb-xl --backbone mtecg_tiny_100hz
        --no-run --write docs/results.md
    """
    if what is What.LIST:
        _list()
        return
    at_work = run and not plan
    request = _request(
        cohort, backbone, experiment, out, weights, store, device, threads, pack=at_work
    )
    from einthoven.reproduce.grid import cells_of
    from einthoven.reproduce.grid import only as kept
    from einthoven.reproduce.grid import shard as part

    cells = part(
        kept(cells_of(what.value, request.experiment, request.backbone), only or ()), shard
    )
    if plan:
        _print_plan(request, cells)
        return
    outcome = _run(request, cells, jobs) if at_work else None
    _write(request, what.value, write or out / "results.md")
    if outcome is not None:
        _tell(outcome)


def _request(
    cohort: Path | None,
    backbone: str | None,
    experiment: str,
    out: Path,
    weights: Path | None,
    store: Path | None,
    device: str,
    threads: int | None,
    *,
    pack: bool,
) -> Request:
    from einthoven.backbones.registry import entry
    from einthoven.cli.stores import store_folder, store_of
    from einthoven.reproduce.experiments import load_experiment
    from einthoven.reproduce.folders import Request

    if cohort is None or backbone is None:
        raise ReproduceError(
            f"no {'--cohort' if cohort is None else '--backbone'} is named",
            remedy="einthoven reproduce table-2 --cohort data/ptb-xl --backbone mtecg_tiny_100hz",
        )
    asked = load_experiment(experiment)
    entry(backbone)
    if not cohort.is_dir():
        raise ReproduceError(
            f"{cohort} is no folder: the paper's tasks are PTB-XL's",
            remedy="name the folder that holds ptbxl_database.csv",
        )
    if weights is not None and not weights.is_file():
        raise ReproduceError(f"{weights} is missing", remedy="name the encoder's file")
    packed = Path(store_of(cohort, store).root) if pack else store_folder(cohort, store)
    return Request(asked, backbone, cohort, packed, out, weights, device, threads)


def _list() -> None:
    from einthoven.reproduce.experiments import experiment_names, load_experiment
    from einthoven.reproduce.grid import WHAT, cells_of

    experiments = [load_experiment(name) for name in experiment_names()]
    for what, about in WHAT.items():
        runs = ", ".join(f"{len(cells_of(what, each, 'x'))} in {each.name}" for each in experiments)
        typer.echo(f"{what:9} {about}; runs: {runs}")
    typer.echo("\nExperiments (--experiment):")
    for each in experiments:
        typer.echo(f"{each.name}: {each.description}")


def _run(request: Request, cells: Sequence[Cell], jobs: int) -> Outcome:
    from einthoven.reproduce.jobs import run_in_jobs
    from einthoven.reproduce.run import Runner

    if jobs > 1:
        return run_in_jobs(request, cells, jobs=jobs)
    with training(keep=False) as (watcher, progress):  # a grid has too many stages
        tell = lambda line: console.print(line, highlight=False, markup=False, soft_wrap=True)  # noqa: E731
        return Runner(request, watcher, progress, tell).run(cells)


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
    cost = f"about {sum(known) / 3600:.1f} h left"
    if len(known) < len(planned):
        cost += f" for {len(known)} of them; costs are known once an epoch has been trained"
    typer.echo(f"{len(planned)} cells: {summary}; {cost}")


def _cost(planned: Planned) -> str:
    if planned.seconds is None:
        return "?"
    return f"{planned.seconds / 60:.1f} min" if planned.seconds else ""


def _write(request: Request, what: str, page: Path) -> None:
    from einthoven.reproduce.write import write

    written = write(request, what, page)
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
