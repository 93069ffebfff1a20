"""The command `demo`: the main job on simulated ECGs, in minutes on two cores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einthoven.cli.progress import progress_bars
from einthoven.models import SHIPPED

if TYPE_CHECKING:
    from einthoven.progress import Progress
    from einthoven.signals.store import Store

RECIPES = ("post-training", "fine-tuning")


def demo(
    dest: Annotated[Path, typer.Argument(help="Folder of all results.")] = Path("demo"),
    records: Annotated[int, typer.Option(min=200, help="Number of simulated ECGs.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Seed of simulation and training.")] = 0,
) -> None:
    """Run the main job on simulated ECGs: post-train, fine-tune plainly, compare.

    Both runs start from the encoder of the included model. Prints the path of the report. An
    interrupted demo is resumed.
    """
    with progress_bars() as progress:
        page = run_demo(dest, records=records, seed=seed, progress=progress)
    typer.echo(f"Report: {page}")
    typer.echo(
        f"Next:   einthoven predict --model {dest}/post-training/model "
        f"{dest}/cohort/records100/00000/00001_lr.hea"
    )


def run_demo(folder: Path, *, records: int, seed: int, progress: Progress) -> Path:
    """Simulate and pack a cohort, train by both recipes, and write the report.

    Returns
    -------
    Path
        The report.
    """
    from einthoven.cohorts import open_cohort
    from einthoven.cohorts.synthetic import synthesize
    from einthoven.report.page import write_report
    from einthoven.signals.pack import pack

    if not (folder / "cohort").is_dir():
        synthesize(folder / "cohort", records=records, seed=seed, progress=progress)
    cohort = open_cohort(folder / "cohort", empty_rows="keep")
    store = pack(cohort, folder / "store", progress=progress)
    _train(folder, store, [f"seed={seed}"], progress)
    return write_report(
        [folder / recipe for recipe in RECIPES],
        folder / "report.html",
        reference=folder / "fine-tuning",
        cohort=cohort,
    )


def _train(folder: Path, store: Store, overrides: list[str], progress: Progress) -> None:
    from einthoven.cohorts import open_cohort
    from einthoven.experiment.run import run_experiment
    from einthoven.models import start_from
    from einthoven.stages.recipe import load_recipe, prepared_alike

    # The simulator produces about a quarter of the 71 statements; the others are left out.
    cohort = open_cohort(folder / "cohort", "all-71", min_records=1)
    start = start_from(SHIPPED)
    for name in RECIPES:
        run_experiment(
            cohort,
            store,
            start.backbone,
            recipe=prepared_alike(load_recipe(f"demo/{name}", overrides), centred=start.centred),
            out=folder / name,
            weights=start.weights,
            options=start.options,
            progress=progress,
        )
