"""Commands that score predictions: evaluate, compare, report, card."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einthoven.cli.options import (
    AsJson,
    ModelPath,
    PredictionDevice,
    Resamples,
    Seed,
    Split,
    StorePath,
    device_of,
)
from einthoven.cli.progress import (
    add_row,
    new_table,
    note,
    print_table,
    progress_bar,
    shown_warnings,
    training,
)
from einthoven.errors import EvaluationError
from einthoven.models import is_model
from einthoven.report.format import interval, number, percent

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.models import Model
    from einthoven.predictions import Predictions
    from einthoven.signals.store import Store


class UndefinedLabels(StrEnum):
    """What happens to labels without a positive or without a negative."""

    auto = "auto"
    resample = "resample"
    skip = "skip"
    zero = "zero"
    error = "error"


class Interval(StrEnum):
    """Kind of bootstrap interval."""

    percentile = "percentile"
    basic = "basic"
    bca = "bca"


class Unit(StrEnum):
    """What the bootstrap draws."""

    record = "record"
    patient = "patient"


class Auprc(StrEnum):
    """Definition of the area under the precision-recall curve."""

    average_precision = "average-precision"
    trapezoid = "trapezoid"


UndefinedOption = Annotated[
    UndefinedLabels,
    typer.Option(
        "--undefined-labels",
        help="Labels without both classes; auto: resample if possible, otherwise skip.",
    ),
]
IntervalOption = Annotated[Interval, typer.Option(help="Kind of confidence interval.")]
UnitOption = Annotated[Unit, typer.Option(help="Unit of the bootstrap.")]
MinPositives = Annotated[
    int,
    typer.Option(
        min=0,
        help="Leave out labels with fewer positives, whose values a single record can change.",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(help="PTB-XL: task. Default: the one that the model was trained for."),
]


def evaluate(
    source: Annotated[
        Path | None, typer.Argument(help="A run folder or a predictions table.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="A model, to evaluate on --cohort.")
    ] = None,
    cohort: Annotated[Path | None, typer.Option(help="Labelled cohort for --model.")] = None,
    task: Task = None,
    split: Split = "test",
    store: StorePath = None,
    save: Annotated[Path | None, typer.Option(help="Write the predictions to this table.")] = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    undefined_labels: UndefinedOption = UndefinedLabels.auto,
    interval: IntervalOption = Interval.percentile,
    by: UnitOption = Unit.record,
    min_positives: MinPositives = 0,
    auprc: Annotated[
        Auprc, typer.Option(help="Definition of the area under the precision-recall curve.")
    ] = Auprc.average_precision,
    device: PredictionDevice = "auto",
    as_json: AsJson = False,
) -> None:
    """Score predictions: macro and per-label AUROC and average precision, with intervals."""
    from einthoven.evaluate.scores import score_predictions

    if model is not None:
        predictions = _predict(model, cohort, task, split, store, device)
    elif source is not None:
        predictions = load_predictions(source, split)
    else:
        raise EvaluationError(
            "nothing to evaluate",
            remedy="name a run folder or a predictions table, or add --model and --cohort",
        )
    if save:
        predictions.save(save)
    if min_positives:
        predictions = predictions.with_positives(min_positives)
    policy = None if undefined_labels is UndefinedLabels.auto else undefined_labels.value
    score = score_predictions(
        predictions,
        undefined_labels=policy,
        by=by.value,
        resamples=resamples,
        seed=seed,
        interval=interval.value,
        auprc=auprc.value,
    )
    if as_json:
        typer.echo(json.dumps(score.to_dict()))
        return
    _print_score(score, predictions)


def compare(
    a: Annotated[Path, typer.Argument(help="Run folder or predictions table.")],
    b: Annotated[Path, typer.Argument(help="Run folder or predictions table to compare with.")],
    split: Annotated[str, typer.Option(help="Run folders: validation or test.")] = "test",
    resamples: Resamples = 1000,
    seed: Seed = 0,
    undefined_labels: UndefinedOption = UndefinedLabels.auto,
    interval: IntervalOption = Interval.percentile,
    by: UnitOption = Unit.record,
    min_positives: MinPositives = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two sets of predictions: paired differences A minus B, with intervals."""
    from einthoven.evaluate import compare as paired
    from einthoven.evaluate.scores import suitable_policy

    first, second = load_predictions(a, split), load_predictions(b, split)
    if min_positives:
        first = first.with_positives(min_positives)
        second = second.with_labels(first.labels)
    policy = (
        suitable_policy(first)
        if undefined_labels is UndefinedLabels.auto
        else undefined_labels.value
    )
    comparison = paired(
        first,
        second,
        resamples=resamples,
        seed=seed,
        undefined_labels=policy,
        interval=interval.value,
        by=by.value,
    )
    if as_json:
        typer.echo(json.dumps(comparison.to_dict()))
        return
    _print_comparison(comparison, str(a), str(b))


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, the main one first.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    reference: Annotated[
        Path | None, typer.Option(help="Run to compare the others with. Default: the last.")
    ] = None,
    cohort: Annotated[Path | None, typer.Option(help="Cohort, to draw example ECGs from.")] = None,
    resamples: Resamples = 1000,
) -> None:
    """Write one self-contained HTML page: tables, differences, curves and example ECGs.

    All its numbers are also written to a .json file of the same name.
    """
    from einthoven.cohorts import open_cohort
    from einthoven.report.page import write_report

    source = open_cohort(cohort) if cohort else None
    with shown_warnings():
        page = write_report(runs, out, reference=reference, cohort=source, resamples=resamples)
    typer.echo(f"Report: {page}")


def card(
    model: ModelPath,
    cohort: Annotated[Path, typer.Option(help="Labelled cohort to evaluate it on.")],
    task: Task = None,
    split: Split = "test",
    store: StorePath = None,
    robustness: Annotated[
        bool, typer.Option(help="Also predict with fewer leads, noise and offsets: 14 times.")
    ] = True,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    by: UnitOption = Unit.record,
    device: PredictionDevice = "auto",
) -> None:
    """Evaluate a model and write its card: scores, calibration, subgroups, leads, noise.

    Writes README.md and evaluation.json, with all numbers, to the model folder; its predictions do
    not change. `einthoven report` of the model's run shows the same numbers.
    """
    from einthoven.cli.paths import model_folder
    from einthoven.experiment.evaluation import evaluate_model
    from einthoven.models import load_model

    with shown_warnings():
        loaded = load_model(model_folder(model))
    labelled, packed = _cohort_of(loaded, cohort, task, store)
    with training() as progress, shown_warnings():
        page = evaluate_model(
            model,
            labelled,
            packed,
            split,
            robustness=robustness,
            resamples=resamples,
            seed=seed,
            by=by.value,
            device=device_of(device),
            progress=progress,
        )
    typer.echo(f"Card: {page}")


def load_predictions(source: Path, split: str) -> Predictions:
    """Read the predictions of a run folder, or a predictions table."""
    from einthoven.predictions import Predictions

    if not source.exists():
        raise EvaluationError(f"{source} is missing", remedy="check the path")
    if not source.is_dir():
        return Predictions.load(source)
    file = source / "predictions" / f"{split}.parquet"
    if file.is_file():
        return Predictions.load(file)
    if is_model(source):
        raise EvaluationError(
            f"{source} is a model folder", remedy=f"use --model {source} --cohort COHORT"
        )
    raise EvaluationError(
        f"{source} has no predictions of {split}",
        remedy="name a finished run, a predictions table, or --model MODEL --cohort COHORT",
    )


def _predict(
    folder: Path,
    cohort: Path | None,
    task: str | None,
    split: str,
    store: Path | None,
    device: str,
) -> Predictions:
    from einthoven.cli.paths import model_folder
    from einthoven.models import load_model
    from einthoven.predict import predict_cohort
    from einthoven.stages.leakage import check_scored

    if cohort is None:
        raise EvaluationError("--model without a cohort", remedy="add --cohort PATH")
    with shown_warnings():
        model = load_model(model_folder(folder))
    labelled, packed = _cohort_of(model, cohort, task, store, some=True)
    if len(labelled.labels) < len(model.labels):
        note(
            f"{cohort} has {len(labelled.labels)} of the model's {len(model.labels)} labels; only "
            "these are scored"
        )
    with shown_warnings():
        check_scored(folder, (labelled, packed), split)
    with progress_bar(f"predict {split}") as progress:
        return predict_cohort(
            model,
            labelled,
            packed,
            split,
            some_labels=True,
            device=device_of(device),
            progress=progress,
        )


def _cohort_of(
    model: Model, path: Path, task: str | None, store: Path | None, *, some: bool = False
) -> tuple[Cohort, Store]:
    """Open a cohort with the model's labels, and its store.

    With `some`, a table may have only some of them.
    """
    from einthoven.cli.paths import check_cohort_options, labelled_cohort, store_of
    from einthoven.cohorts.ptbxl import TASKS
    from einthoven.cohorts.table import columns_of

    check_cohort_options(path, task=task)
    trained_for = ((model.config.get("provenance") or {}).get("cohort") or {}).get("task")
    labels = list(model.labels)
    if some and path.is_file():
        columns = columns_of(path)
        labels = [label for label in labels if label in columns] or labels
    cohort = labelled_cohort(
        path, task or (trained_for if trained_for in TASKS else None), labels=labels
    )
    if len(model.labels) < len(cohort.labels):
        cohort = cohort.with_labels(model.labels)
        if path.is_dir():  # as for PTB-XL's tasks: a record without any label is left out
            cohort = cohort.select(cohort.matrix.sum(axis=1) > 0)
    return cohort, store_of(path, store, labels=labels)


def _print_score(score: Any, predictions: Predictions) -> None:
    metadata = ", ".join(f"{key} {value}" for key, value in predictions.metadata.items() if value)
    table = new_table(
        f"{score.records} records" + (f" ({metadata})" if metadata else ""),
        [
            ("label", "left"),
            ("positives", "right"),
            ("AUROC", "right"),
            ("95 % CI", "right"),
            ("AP", "right"),
            ("95 % CI", "right"),
        ],
    )
    macro = [
        "macro",
        f"{score.defined_labels} of {len(score.labels)} labels",
        number(score.macro_auroc, places=4),
        interval(score.macro_auroc_interval, places=4),
        number(score.macro_auprc, places=4),
        interval(score.macro_auprc_interval, places=4),
    ]
    add_row(table, macro, end_section=True)
    aurocs, precisions = score.auroc_intervals, score.auprc_intervals
    for i, label in enumerate(score.labels):
        cells = [
            label,
            str(score.positives[i]),
            number(score.auroc[i], places=4),
            interval(None if aurocs is None else aurocs[i], places=4),
            number(score.auprc[i], places=4),
            interval(None if precisions is None else precisions[i], places=4),
        ]
        add_row(table, cells)
    print_table(table)
    if score.macro_auprc_bias is not None:
        note(
            f"{_bootstrap_text(score)}. Bootstrap bias (mean minus estimate): AUROC "
            f"{number(score.macro_auroc_bias, signed=True, places=4)}, AP "
            f"{number(score.macro_auprc_bias, signed=True, places=4)}; repeated positives of rare "
            "labels raise AP."
        )


def _bootstrap_text(score: Any) -> str:
    return (
        f"{score.resamples} {score.unit} resamples, seed {score.seed}, {score.interval} intervals, "
        f"undefined labels: {score.undefined_labels}"
    )


def _print_comparison(comparison: Any, a: str, b: str) -> None:
    # Quantities are rows, so that all numbers fit into a terminal of 80 columns.
    table = new_table(
        f"A: {a}\nB: {b}", [("", "left"), ("macro AUROC", "right"), ("macro AP", "right")]
    )
    aurocs, precisions = _quantities(comparison, "auroc"), _quantities(comparison, "auprc")
    for (name, auroc), (_, precision) in zip(aurocs, precisions, strict=True):
        add_row(table, [name, auroc, precision])
    print_table(table)
    if comparison.a.resamples:
        note(
            f"{_bootstrap_text(comparison.a)}. Intervals of labels are not corrected for multiple "
            "comparisons."
        )


def _quantities(comparison: Any, metric: str) -> list[tuple[str, str]]:
    difference = getattr(comparison, metric)
    quantities = [
        ("A", number(getattr(comparison.a, f"macro_{metric}"), places=4)),
        ("B", number(getattr(comparison.b, f"macro_{metric}"), places=4)),
        ("A minus B", number(difference.macro, signed=True, places=4)),
        ("relative gain", percent(difference.relative_gain, signed=True)),
        ("labels with A above B", f"{difference.improved} of {len(comparison.labels)}"),
    ]
    if difference.macro_interval is not None:
        limits = interval(difference.macro_interval, signed=True, places=4)
        quantities[3:3] = [("95 % CI", limits)]
        quantities += [
            ("  interval above zero", str(difference.significantly_better)),
            ("  interval below zero", str(difference.significantly_worse)),
        ]
    return quantities
