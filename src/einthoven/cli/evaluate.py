"""Commands that score predictions: evaluate, compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from einthoven.cli.model_cohorts import (
    ModelTarget,
    ModelTask,
    cohort_of,
    note_labels,
    scored_split,
    shared_statements,
)
from einthoven.cli.options import (
    AsJson,
    Device,
    Resamples,
    ResamplingUnit,
    ScoredSplit,
    Seed,
    Sidecar,
    Split,
    StorePath,
    one_of,
    output_file,
)
from einthoven.cli.progress import echo, note, output, progress_bars
from einthoven.errors import EvaluationError
from einthoven.files import Json
from einthoven.models import is_model
from einthoven.report.format import counted, interval_text, number, percent

if TYPE_CHECKING:
    from einthoven.predictions import Predictions

AUTO = "auto"

UndefinedLabels = Annotated[
    str,
    one_of(
        AUTO,
        "resample",
        "skip",
        "zero",
        "error",
        help="Labels without both classes; auto: resample if possible, otherwise skip.",
    ),
]
KIND = "Kind of confidence interval; auto: percentile for AUROC, leave-one-out for AP."
Interval = Annotated[str, one_of(AUTO, "percentile", "basic", "bca", help=KIND)]
MinPositives = Annotated[
    int,
    typer.Option(
        min=0,
        help="Leave out labels with fewer positives, whose values a single record can change.",
    ),
]


def evaluate(
    source: Annotated[
        Path | None, typer.Argument(help="A run folder or a predictions table.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="A model, to evaluate on --cohort.")
    ] = None,
    cohort: Annotated[
        Path | None, typer.Option(help="Labelled cohort for --model; other codes are matched.")
    ] = None,
    task: ModelTask = None,
    target: ModelTarget = None,
    split: ScoredSplit = None,
    store: StorePath = None,
    sidecar: Sidecar = None,
    save: Annotated[
        Path | None,
        typer.Option(callback=output_file, help="Write the predictions to this table."),
    ] = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    undefined_labels: UndefinedLabels = AUTO,
    interval: Interval = AUTO,
    by: ResamplingUnit = "record",
    min_positives: MinPositives = 0,
    auprc: Annotated[
        str,
        one_of(
            "average-precision",
            "trapezoid",
            help="Definition of the area under the precision-recall curve.",
        ),
    ] = "average-precision",
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score predictions: macro and per-label AUROC and average precision, with intervals.

    Classes and numbers have metrics of their own: accuracy, kappa, MAE, R² and others.
    """
    from einthoven.evaluate.scores import score_predictions

    only = {"--cohort": cohort, "--task": task, "--target": target, "--store": store}
    if model is None and (names := [name for name, value in only.items() if value]):
        raise EvaluationError(
            f"{' and '.join(names)}: only with --model",
            remedy="leave it out, or name the model that is evaluated on a cohort",
        )
    if model is not None:
        predictions = _predict(model, cohort, task, target, split, store, device)
    elif source is not None:
        predictions = load_predictions(source, split or "test")
    else:
        raise EvaluationError(
            "nothing to evaluate",
            remedy="name a run folder or a predictions table, or add --model and --cohort",
        )
    if save:
        predictions.save(save)
    if min_positives:
        _refuse_positives(predictions)
        predictions = predictions.with_positives(min_positives)
    score = score_predictions(
        predictions,
        undefined_labels=undefined_labels,
        by=by,
        resamples=resamples,
        seed=seed,
        interval=interval,
        auprc=auprc,
    )
    if as_json:
        echo(json.dumps(score.to_dict() | {"predictions": dict(predictions.metadata)}))
        return
    if predictions.form != "labels":
        _print_measures(score, predictions)
    if predictions.form != "values":
        _print_score(score, predictions)
    _note_unverified(source, predictions)


def _note_unverified(source: Path | None, predictions: Predictions) -> None:
    if not predictions.is_verified:
        note(
            f"{source} has no digest, as CSV and files of other programs: nothing shows whether "
            "its values are those that a model predicted"
        )


def _refuse_positives(predictions: Predictions) -> None:
    if predictions.form != "labels":
        raise EvaluationError(
            f"--min-positives applies to labels, and these are predictions of {predictions.kind}",
            remedy="leave it out",
        )


def compare(
    a: Annotated[Path, typer.Argument(help="Run folder or predictions table.")],
    b: Annotated[Path, typer.Argument(help="Run folder or predictions table to compare with.")],
    split: Split = "test",
    resamples: Resamples = 1000,
    seed: Seed = 0,
    undefined_labels: UndefinedLabels = AUTO,
    interval: Interval = AUTO,
    by: ResamplingUnit = "record",
    min_positives: MinPositives = 0,
    as_json: AsJson = False,
) -> None:
    """Compare two sets of predictions: paired differences A minus B, with intervals."""
    from einthoven.evaluate import compare

    first, second = load_predictions(a, split), load_predictions(b, split)
    if min_positives:
        _refuse_positives(first)
        first = first.with_positives(min_positives)
        second = second.with_labels(first.labels)
    comparison = compare(
        first,
        second,
        undefined_labels=undefined_labels,
        by=by,
        resamples=resamples,
        seed=seed,
        interval=interval,
        names=(str(a), str(b)),
    )
    if as_json:
        origins = {"predictions": [dict(table.metadata) for table in (first, second)]}
        echo(json.dumps(comparison.to_dict() | origins))
        return
    if comparison.measures:
        _print_differences(comparison, str(a), str(b))
    if comparison.auroc is not None:
        _print_comparison(comparison, str(a), str(b))
    for source, predictions in ((a, first), (b, second)):
        _note_unverified(source, predictions)


def load_predictions(source: Path, split: str) -> Predictions:
    """Read the predictions of a run folder, or a predictions table."""
    from einthoven.predictions import Predictions
    from einthoven.predictions.table import run_table, table_file

    if not source.exists():
        raise EvaluationError(f"{source} is missing", remedy="check the path")
    if not source.is_dir():
        return Predictions.load(source)
    if table_file(source, split).is_file():
        return run_table(source, split)
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
    target: list[str] | None,
    split: str | None,
    store: Path | None,
    device: str,
) -> Predictions:
    from einthoven.cli.paths import model_folder
    from einthoven.inference import device_of, predict_cohort
    from einthoven.inference.cohorts import predict_statements
    from einthoven.models import load_model
    from einthoven.stages.leakage import check_evaluation_records
    from einthoven.tasks import Task

    if cohort is None:
        raise EvaluationError("--model without a cohort", remedy="add --cohort PATH")
    model = load_model(model_folder(folder))
    labelled, packed = cohort_of(model, cohort, task, store, target=target, some=True)
    shared = None
    if model.task.kind == Task.kind and not set(labelled.labels) <= set(model.labels):
        shared = shared_statements(model, labelled)
    elif len(labelled.labels) < len(model.labels):
        note_labels(model, labelled)
    split = split or scored_split(folder, labelled, packed)
    check_evaluation_records(folder, (labelled, packed), split)
    with progress_bars() as progress:
        options: dict[str, Any] = {"device": device_of(device), "progress": progress}
        if shared is not None:
            return predict_statements(model, labelled, packed, split, shared, **options)
        return predict_cohort(model, labelled, packed, split, some_labels=True, **options)


def _print_measures(score: Any, predictions: Predictions) -> None:
    """Print the metrics of classes or numbers."""
    from einthoven.report.measures import measured

    table = Table(
        "",
        Column("value", justify="right"),
        Column("95 % CI", justify="right", no_wrap=True),
        title=f"{counted(len(predictions), 'record')}, {predictions.kind}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for item in measured(score.to_dict()):
        table.add_row(item.name + (f" ({item.unit})" if item.unit else ""), *item.parts())
    output.print(table)
    if predictions.form == "values":
        note(_bootstrap_text(score.settings))


def _print_score(score: Any, predictions: Predictions) -> None:
    metadata = ", ".join(f"{key} {value}" for key, value in predictions.metadata.items() if value)
    table = Table(
        Column("label", overflow="fold"),
        *(
            Column(name, justify="right", no_wrap=True)
            for name in ("positives", "AUROC", "95 % CI", "AP", "95 % CI")
        ),
        title=counted(score.records, "record") + (f" ({metadata})" if metadata else ""),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    values = score.to_dict()
    defined = f"{score.defined_labels} of {len(score.labels)}\nlabels"
    table.add_row("macro", defined, *_cells(values, prefix="macro_"), end_section=True)
    for label, entry in values["per_label"].items():
        table.add_row(label, str(entry["positives"]), *_cells(entry))
    output.print(table)
    if score.macro_auprc_bias is not None:
        note(
            f"{_bootstrap_text(score.settings)}. Estimated bias of the macro values: AUROC "
            f"{number(score.macro_auroc_bias, signed=True, places=4)}, AP "
            f"{number(score.macro_auprc_bias, signed=True, places=4)}. Intervals are for the value "
            "in the population; with fewer than five positives or negatives there are too few to "
            "say."
        )


def _cells(values: Json, *, prefix: str = "") -> list[str]:
    cells = []
    for metric in ("auroc", "auprc"):
        cells += [
            number(values[f"{prefix}{metric}"], places=4),
            values[f"{prefix}{metric}_interval_reason"]
            or interval_text(values[f"{prefix}{metric}_interval"], places=4),
        ]
    return cells


def _bootstrap_text(settings: Any) -> str:
    return (
        f"{settings.resamples} {settings.by} resamples, seed {settings.seed}, "
        f"{settings.interval} intervals, undefined labels: {settings.undefined_labels}"
    )


def _print_differences(comparison: Any, a: str, b: str) -> None:
    """Print the differences of metrics of classes or numbers."""
    from einthoven.report.measures import compared, measured

    values = comparison.to_dict()
    table = Table(
        "",
        *(Column(name, justify="right") for name in ("A", "B", "A minus B", "95 % CI")),
        title=f"A: {a}\nB: {b}",
        title_justify="left",
    )
    pairs = zip(measured(values["a"]), measured(values["b"]), compared(values), strict=True)
    for ours, theirs, gap in pairs:
        table.add_row(ours.name, ours.parts()[0], theirs.parts()[0], *gap.parts(signed=True))
    output.print(table)
    if comparison.auroc is None:
        note(_bootstrap_text(comparison.a.settings))


def _print_comparison(comparison: Any, a: str, b: str) -> None:
    # Quantities are rows, so that all numbers fit into a terminal of 80 columns.
    table = Table(
        "",
        Column("macro AUROC", justify="right"),
        Column("macro AP", justify="right"),
        title=f"A: {a}\nB: {b}",
        title_justify="left",
    )
    aurocs, precisions = _quantities(comparison, "auroc"), _quantities(comparison, "auprc")
    for name, value in aurocs.items():
        table.add_row(name, value, precisions[name])
    output.print(table)
    if comparison.a.settings.resamples:
        note(
            f"{_bootstrap_text(comparison.a.settings)}. Intervals of labels are not corrected for "
            "multiple comparisons."
        )


def _quantities(comparison: Any, metric: str) -> dict[str, str]:
    difference = getattr(comparison, metric)
    quantities = {
        "A": number(getattr(comparison.a, f"macro_{metric}"), places=4),
        "B": number(getattr(comparison.b, f"macro_{metric}"), places=4),
        "A minus B": number(difference.macro, signed=True, places=4),
        "95 % CI": difference.macro_interval_reason
        or interval_text(difference.macro_interval, signed=True, places=4),
        "estimated bias": number(difference.bias, signed=True, places=4),
        "defined labels": f"{comparison.a.defined_labels} of {len(comparison.labels)}",
        "relative gain": percent(difference.relative_gain, signed=True),
        "labels with A above B": f"{difference.improved} of {len(comparison.labels)}",
    }
    if difference.intervals is not None:
        quantities["  interval above zero"] = str(difference.significantly_better)
        quantities["  interval below zero"] = str(difference.significantly_worse)
    return quantities
