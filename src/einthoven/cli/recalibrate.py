"""Command that recalibrates a model on local records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from einthoven.cli.model_cohorts import ModelTarget, ModelTask
from einthoven.cli.options import (
    Device,
    ModelArgument,
    Resamples,
    Seed,
    Sidecar,
    StorePath,
    output_folder,
)
from einthoven.cli.progress import echo, note, output, progress_bars
from einthoven.report.format import counted, interval_text, number

_MEASURES = {
    "log_loss": "log loss",
    "brier": "Brier score",
    "ece": "calibration error",
    "present": "coverage of positives",
    "absent": "coverage of negatives",
    "true": "coverage",
    "undecided": "no single answer",
}


def recalibrate(
    model: ModelArgument,
    cohort: Annotated[
        Path, typer.Argument(metavar="COHORT", help="Labelled ECGs of your own: table or folder.")
    ],
    out: Annotated[Path, typer.Option(callback=output_folder, help="Folder of the new model.")],
    records: Annotated[
        int | None,
        typer.Option(min=1, help="Fit to this many records. Default: all of them."),
    ] = None,
    task: ModelTask = None,
    target: ModelTarget = None,
    store: StorePath = None,
    sidecar: Sidecar = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Fit a model's probabilities, thresholds and prediction sets to your own labelled ECGs.

    In another hospital a disease is more or less common, and devices differ: probabilities and
    thresholds no longer fit. A hundred labelled records correct them. The network does not change,
    and neither does the order of records by the probability of a label.

        einthoven recalibrate RUN/model my-ecgs.csv --records 100 --out model-here

    Prints measures before and after, on the patients of the cohort that were not drawn for the fit;
    if all records are used, by five-fold cross-validation over patients. The model must not have
    been trained on these patients.

    Temperatures, biases, thresholds and prediction sets change. Labels that the cohort does not
    have keep theirs. The accuracy with fewer leads has to be measured again (einthoven card): until
    then, the new model makes no calls where leads are missing.
    """
    from einthoven.cli.model_cohorts import cohort_of
    from einthoven.cli.paths import model_folder
    from einthoven.experiment.recalibration import recalibrate_model
    from einthoven.inference import device_of
    from einthoven.models import load_model

    folder = model_folder(model)
    loaded = load_model(folder)
    labelled, packed = cohort_of(loaded, cohort, task, store, target=target, some=True)
    options: dict[str, Any] = {"records": records, "resamples": resamples, "seed": seed}
    with progress_bars() as progress:
        result = recalibrate_model(
            folder,
            labelled,
            packed,
            out,
            device=device_of(device),
            progress=progress,
            **options,
        )
    table = Table(
        "measure",
        Column("before", justify="right"),
        Column("after", justify="right"),
        title=f"{counted(len(result.labels), 'label')}, fitted to "
        f"{counted(result.records, 'record')}, measured on "
        + ("the same, cross-fitted" if result.is_cross_fitted else f"{result.measured:,} others"),
        title_justify="left",
    )
    for key, name in _MEASURES.items():
        if key in result.before:
            table.add_row(name, *(number(x[key], places=4) for x in (result.before, result.after)))
    output.print(table)
    if result.before.get("log_loss") is not None:
        change = number(result.change, places=4, signed=True)
        limits = interval_text(result.interval, places=4, signed=True)
        note(f"Log loss after minus before: {change} ({limits})")
    echo(f"Model: {result.folder}")
