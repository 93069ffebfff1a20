"""Verbs that judge: evaluate, compare, report, card."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einthoven.cli.device import DeviceOption, device_of
from einthoven.cli.options import AsJson, Resamples, StorePath
from einthoven.cli.progress import console, counting, shown_warnings, training
from einthoven.errors import EvaluationError
from einthoven.report.format import interval, number, percent

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.models import Model
    from einthoven.predictions import Predictions
    from einthoven.signals.store import Store

Seed = Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")]


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
    """Which area under the precision-recall curve."""

    average_precision = "average-precision"
    trapezoid = "trapezoid"


UndefinedOption = Annotated[
    UndefinedLabels,
    typer.Option(help="Undefined labels; auto: resample where possible, otherwise skip."),
]
IntervalOption = Annotated[Interval, typer.Option(help="Kind of interval.")]
UnitOption = Annotated[Unit, typer.Option(help="What is resampled.")]
MinPositives = Annotated[
    int,
    typer.Option(
        min=0,
        help="Leave out labels with fewer positives in the table: of those one record decides.",
    ),
]


def evaluate(
    what: Annotated[
        Path | None, typer.Argument(help="A run folder, a bundle, or a predictions table.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="A bundle, to evaluate on --cohort.")] = None,
    cohort: Annotated[Path | None, typer.Option(help="Labelled cohort for a bundle.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Task of PTB-XL's folder; the bundle's own without it.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    store: StorePath = None,
    save: Annotated[Path | None, typer.Option(help="Keep the predictions in this table.")] = None,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    undefined_labels: UndefinedOption = UndefinedLabels.auto,
    interval: IntervalOption = Interval.percentile,
    by: UnitOption = Unit.record,
    min_positives: MinPositives = 0,
    auprc: Annotated[Auprc, typer.Option(help="Definition.")] = Auprc.average_precision,
    device: DeviceOption = "auto",
    as_json: AsJson = False,
) -> None:
    """Macro and per-label AUROC and average precision, F-max, with bootstrap intervals."""
    from einthoven.evaluate.scores import score_predictions
    from einthoven.models import is_model

    place = what or bundle
    if place is None:
        raise EvaluationError(
            "nothing to evaluate", remedy="name a run folder, a bundle or a predictions table"
        )
    predictions = (
        _predict(place, cohort, task, split, store, device)
        if is_model(place)
        else load_predictions(place, split)
    )
    if save:
        predictions.save(save)
    if min_positives:
        predictions = predictions.with_positives(min_positives)
    found = score_predictions(
        predictions,
        undefined_labels=None
        if undefined_labels is UndefinedLabels.auto
        else undefined_labels.value,
        by=by.value,
        resamples=resamples,
        seed=seed,
        interval=interval.value,
        auprc=auprc.value,
    )
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    _print_score(found, predictions)


def compare(
    a: Annotated[Path, typer.Argument(help="Run folder or predictions table.")],
    b: Annotated[Path, typer.Argument(help="Run folder or predictions table to compare with.")],
    split: Annotated[str, typer.Option(help="Of run folders: validation or test.")] = "test",
    resamples: Resamples = 1000,
    seed: Seed = 0,
    undefined_labels: UndefinedOption = UndefinedLabels.auto,
    interval: IntervalOption = Interval.percentile,
    by: UnitOption = Unit.record,
    min_positives: MinPositives = 0,
    as_json: AsJson = False,
) -> None:
    """Paired differences A minus B on the same records, macro and per label, with intervals."""
    from einthoven.evaluate import compare as paired
    from einthoven.evaluate.scores import suitable_policy

    ours, theirs = load_predictions(a, split), load_predictions(b, split)
    if min_positives:
        ours = ours.with_positives(min_positives)
        theirs = theirs.with_labels(ours.labels)
    policy = (
        suitable_policy(ours)
        if undefined_labels is UndefinedLabels.auto
        else undefined_labels.value
    )
    found = paired(
        ours,
        theirs,
        resamples=resamples,
        seed=seed,
        undefined_labels=policy,
        interval=interval.value,
        by=by.value,
    )
    if as_json:
        typer.echo(json.dumps(found.to_dict()))
        return
    _print_comparison(found, str(a), str(b))


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, the one of interest first.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    reference: Annotated[
        Path | None, typer.Option(help="Run that the others are compared with; else the last.")
    ] = None,
    cohort: Annotated[Path | None, typer.Option(help="Cohort, to draw example ECGs from.")] = None,
    resamples: Resamples = 1000,
) -> None:
    """One self-contained HTML page: tables, per-label differences, curves and example ECGs.

    Writes every number on it to a .json beside it.
    """
    from einthoven.cohorts import open_cohort
    from einthoven.report import write_report

    source = open_cohort(cohort) if cohort else None
    with shown_warnings():
        page = write_report(runs, out, reference=reference, cohort=source, resamples=resamples)
    typer.echo(f"Report: {page}")


def card(
    bundle: Annotated[Path, typer.Argument(help="The bundle of a run.")],
    cohort: Annotated[Path, typer.Option(help="Labelled cohort to measure it on.")],
    task: Annotated[
        str | None, typer.Option(help="Task of the cohort; the one it was trained for.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    store: StorePath = None,
    robustness: Annotated[
        bool, typer.Option(help="Predict again with fewer leads, noise, offsets: 14 times.")
    ] = True,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    by: UnitOption = Unit.record,
    device: DeviceOption = "auto",
) -> None:
    """Measure a bundle and write its model card: scores, calibration, subgroups, leads, noise.

    Leaves README.md and every number of it, evaluation.json, in the bundle; nothing that decides a
    prediction changes. `einthoven report` of the bundle's run shows the same numbers.
    """
    from einthoven.experiment.evaluation import evaluate_model
    from einthoven.models import load_model

    with shown_warnings():
        model = load_model(bundle)
    chosen, packed = _cohort_of(model, cohort, task, store)
    with training() as progress, shown_warnings():
        page = evaluate_model(
            bundle,
            chosen,
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


def load_predictions(place: Path, split: str) -> Predictions:
    """The predictions of a run folder, or a predictions table."""
    from einthoven.predictions import Predictions

    if not place.exists():
        raise EvaluationError(f"{place} is missing", remedy="check the path")
    if not place.is_dir():
        return Predictions.load(place)
    file = place / "predictions" / f"{split}.parquet"
    if not file.is_file():
        raise EvaluationError(
            f"{place} holds no predictions of {split}",
            remedy="name a finished run or a predictions table; of a bundle, "
            "`einthoven evaluate BUNDLE --cohort COHORT --save TABLE` makes one",
        )
    return Predictions.load(file)


def _predict(
    bundle: Path,
    cohort: Path | None,
    task: str | None,
    split: str,
    store: Path | None,
    device: str,
) -> Predictions:
    from einthoven.models import load_model
    from einthoven.predict import predict_cohort
    from einthoven.stages.leakage import check_scored

    if cohort is None:
        raise EvaluationError(
            f"{bundle} is a bundle, and no cohort is named", remedy="add --cohort PATH"
        )
    with shown_warnings():
        model = load_model(bundle)
    chosen, packed = _cohort_of(model, cohort, task, store, some=True)
    if len(chosen.labels) < len(model.labels):
        said = f"{cohort} has columns of {len(chosen.labels)} of the bundle's {len(model.labels)}"
        console.print(f"{said} labels; these are scored", highlight=False, markup=False)
    with shown_warnings():
        check_scored(bundle, (chosen, packed), split)
    with counting(f"predict {split}") as progress:
        return predict_cohort(
            model,
            chosen,
            packed,
            split,
            some_labels=True,
            device=device_of(device),
            progress=progress,
        )


def _cohort_of(
    model: Model, cohort: Path, task: str | None, store: Path | None, *, some: bool = False
) -> tuple[Cohort, Store]:
    """A cohort with a bundle's labels, or those that a table has of them, and its store."""
    from einthoven.cli.stores import check_typed, labelled, store_of
    from einthoven.cohorts.ptbxl import TASKS
    from einthoven.cohorts.table import columns_of

    check_typed(cohort, task=task)
    trained_for = ((model.config.get("provenance") or {}).get("cohort") or {}).get("task")
    chosen_task = task or (trained_for if trained_for in TASKS else None)

    labels = list(model.labels)
    if some and cohort.is_file():
        there = columns_of(cohort)
        labels = [label for label in labels if label in there] or labels
    chosen = labelled(cohort, chosen_task, labels=labels)
    if len(model.labels) < len(chosen.labels):
        chosen = chosen.with_labels(model.labels)
        if cohort.is_dir():  # PTB-XL's rule: a record without any of the labels is left out
            chosen = chosen.select(chosen.matrix.sum(axis=1) > 0)
    return chosen, store_of(cohort, store, labels=labels)


def _print_score(found: Any, predictions: Predictions) -> None:
    from rich.console import Console
    from rich.table import Table

    about = ", ".join(f"{k} {v}" for k, v in predictions.metadata.items() if v)
    table = Table(title=f"{found.records} records" + (f" ({about})" if about else ""))
    for name in ("label", "positives", "AUROC", "95 % interval", "AP", "95 % interval "):
        table.add_column(name, justify="left" if name == "label" else "right")
    table.add_row(
        "macro",
        f"{found.defined_labels} of {len(found.labels)} labels",
        number(found.macro_auroc, places=4),
        interval(found.macro_auroc_interval, places=4),
        number(found.macro_auprc, places=4),
        interval(found.macro_auprc_interval, places=4),
        end_section=True,
    )
    rocs, precisions = found.auroc_intervals, found.auprc_intervals
    for i, label in enumerate(found.labels):
        table.add_row(
            label,
            str(found.positives[i]),
            number(found.auroc[i], places=4),
            interval(None if rocs is None else rocs[i], places=4),
            number(found.auprc[i], places=4),
            interval(None if precisions is None else precisions[i], places=4),
        )
    Console().print(table)
    if found.macro_auprc_bias is not None:
        console.print(
            f"{found.resamples} {found.unit} resamples, seed {found.seed}, {found.interval}, "
            f"undefined labels: {found.undefined_labels}. Bootstrap bias (mean minus point): AUROC "
            f"{number(found.macro_auroc_bias, signed=True, places=4)}, AP "
            f"{number(found.macro_auprc_bias, signed=True, places=4)}; duplicated "
            "positives of rare labels raise AP."
        )


def _print_comparison(found: Any, a: str, b: str) -> None:
    from rich.console import Console
    from rich.table import Table

    # Quantities are rows, so that no number is cut in a terminal of 80 columns.
    table = Table(title=f"A: {a}\nB: {b}", title_justify="left")
    for name in ("", "macro AUROC", "macro AP"):
        table.add_column(name, justify="right" if name else "left")
    quantities = zip(_quantities(found, "auroc"), _quantities(found, "auprc"), strict=True)
    for (name, auroc), (_, auprc) in quantities:
        table.add_row(name, auroc, auprc)
    Console().print(table)
    if found.a.resamples:
        console.print(
            f"{found.a.resamples} {found.a.unit} resamples, seed {found.a.seed}, "
            f"{found.a.interval}, undefined labels: {found.a.undefined_labels}. The labels' "
            "intervals are not corrected for their number."
        )


def _quantities(found: Any, metric: str) -> list[tuple[str, str]]:
    difference = getattr(found, metric)
    labels = len(found.labels)
    lines = [
        ("A", number(getattr(found.a, f"macro_{metric}"), places=4)),
        ("B", number(getattr(found.b, f"macro_{metric}"), places=4)),
        ("A minus B", number(difference.macro, signed=True, places=4)),
        ("relative gain", percent(difference.relative_gain, signed=True)),
        ("labels with A above B", f"{difference.improved} of {labels}"),
    ]
    if difference.macro_interval is not None:
        lines[3:3] = [("95 % interval", interval(difference.macro_interval, signed=True, places=4))]
        lines += [
            ("  interval above zero", str(difference.significantly_better)),
            ("  interval below zero", str(difference.significantly_worse)),
        ]
    return lines
