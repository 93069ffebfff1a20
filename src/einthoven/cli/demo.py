"""The command `demo`: the main job on simulated ECGs, in minutes on two cores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einthoven.cli.progress import progress_bars
from einthoven.models import SHIPPED

if TYPE_CHECKING:
    from einthoven.progress import Progress

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
    from einthoven.cohorts import open_cohort
    from einthoven.report.page import write_report

    with progress_bars() as progress:
        _train(dest, records, seed, progress)
    page = write_report(
        [dest / recipe for recipe in RECIPES],
        dest / "report.html",
        reference=dest / "fine-tuning",
        cohort=open_cohort(dest / "cohort", empty_rows="keep"),
    )
    typer.echo(f"Report: {page}")
    typer.echo(
        f"Next:   einthoven predict --model {dest}/post-training/model "
        f"{dest}/cohort/records100/00000/00001_lr.hea"
    )


def _train(folder: Path, records: int, seed: int, progress: Progress) -> None:
    """Simulate and pack a cohort, and train by both recipes."""
    from einthoven.cohorts import open_cohort
    from einthoven.cohorts.synthetic import synthesize
    from einthoven.experiment.run import run_experiment
    from einthoven.models import initialisation_of
    from einthoven.signals.pack import pack
    from einthoven.stages.recipe import load_recipe, prepared_alike

    data = folder / "cohort"
    if not data.is_dir():
        synthesize(data, records=records, seed=seed, progress=progress)
    store = pack(open_cohort(data, empty_rows="keep"), folder / "store", progress=progress)
    # The simulator produces about a quarter of the 71 statements; the others are left out.
    cohort = open_cohort(data, "all-71", min_records=1)
    start = initialisation_of(SHIPPED)
    for name in RECIPES:
        recipe = load_recipe(f"demo/{name}", [f"seed={seed}"])
        run_experiment(
            cohort,
            store,
            start.backbone,
            recipe=prepared_alike(recipe, centred=start.centred),
            out=folder / name,
            weights=start.weights,
            options=start.options,
            progress=progress,
        )
