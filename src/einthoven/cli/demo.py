"""The command `demo`: the main job on simulated ECGs, in minutes on two cores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from einthoven.cli.options import output_folder
from einthoven.cli.progress import echo, output, progress_bars
from einthoven.files import Json, read_json
from einthoven.models import SHIPPED
from einthoven.report.format import with_interval

if TYPE_CHECKING:
    from einthoven.progress import Progress

REFERENCE = "fine-tuning"
RECIPES = ("post-training", "linear-probe", REFERENCE)


def demo(
    dest: Annotated[
        Path, typer.Argument(callback=output_folder, help="Folder of all results.")
    ] = Path("demo"),
    records: Annotated[int, typer.Option(min=200, help="Number of simulated ECGs.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Seed of simulation and training.")] = 0,
) -> None:
    """Run the main job on simulated ECGs: post-training, its probe alone, plain fine-tuning.

    All three start from the encoder of the included model and take the same number of steps.
    Prints their paired comparison and the path of the report. An interrupted demo is resumed.
    """
    from einthoven.cohorts import open_cohort
    from einthoven.report.page import write_report

    echo("SIMULATED ECGs: nothing here was measured in patients")
    with progress_bars() as progress:
        _train(dest, records, seed, progress)
    page = write_report(
        [dest / recipe for recipe in RECIPES],
        dest / "report.html",
        reference=dest / REFERENCE,
        cohort=open_cohort(dest / "cohort", empty_rows="keep"),
    )
    output.print(_table(read_json(page.with_suffix(".json"))))
    echo(f"Report: {page}")
    echo(
        f"Next:   einthoven predict --model {dest}/post-training/model "
        f"{dest}/cohort/records100/00000/00001_lr.hea"
    )


def _table(report: Json) -> Table:
    """Macro values of every run, and their paired differences to the reference."""
    score = report["runs"][0]["score"]
    head = ("", "test (95 % CI)", f"minus {REFERENCE} (95 % CI)")
    table = Table(
        *(Column(name, no_wrap=True) for name in head),
        title=f"Simulated ECGs, equal numbers of steps: {score['records']} test records, "
        f"{score['defined_labels']} labels",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    pairs = {pair["run"]: pair for pair in report["comparisons"]}
    for key, name in (("auroc", "macro AUROC"), ("auprc", "macro AP")):
        table.add_row(name)
        for run in report["runs"]:
            value, limits = (run["score"][f"macro_{key}{part}"] for part in ("", "_interval"))
            gain = pairs.get(run["name"], {}).get(key)
            difference = "reference"
            if gain:
                difference = with_interval(gain["macro"], gain["macro_interval"], signed=True)
            table.add_row(f"  {run['name']}", with_interval(value, limits), difference)
    return table


def _train(folder: Path, records: int, seed: int, progress: Progress) -> None:
    """Simulate and pack a cohort, and train by every recipe."""
    from einthoven.cohorts import open_cohort
    from einthoven.cohorts.synthetic import synthesize
    from einthoven.experiment.run import run_experiment
    from einthoven.models import initialisation_of
    from einthoven.progress import part_of
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
            progress=part_of(progress, name),
        )
