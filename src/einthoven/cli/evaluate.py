"""Commands that score predictions: evaluate, compare, report, card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from einthoven.cli.options import (
    AsJson,
    Device,
    ModelPath,
    Resamples,
    ScoredSplit,
    Seed,
    Sidecar,
    Split,
    StorePath,
    one_of,
    output_file,
    output_folder,
)
from einthoven.cli.progress import echo, note, output, progress_bars
from einthoven.errors import EvaluationError
from einthoven.files import RUN_FILE, Json, check_output, read_json
from einthoven.models import CARD, is_model, model_path
from einthoven.report.format import counted, interval_text, number, percent

if TYPE_CHECKING:
    from einthoven.cohorts import Cohort
    from einthoven.models import Model
    from einthoven.predictions import Predictions
    from einthoven.signals.store import Store
    from einthoven.tasks import Task as Goal

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
Unit = Annotated[str, one_of("record", "patient", help="Unit of the bootstrap.")]
MinPositives = Annotated[
    int,
    typer.Option(
        min=0,
        help="Leave out labels with fewer positives, whose values a single record can change.",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        help="Labels of a data set, or a task.toml. Default: those that the model was trained for.",
        show_default=False,
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "--label",
        help="Only this label or number of the model; the column of classes, if it has another "
        "name than in training. Repeatable.",
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
    task: Task = None,
    target: Target = None,
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
    by: Unit = "record",
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
    by: Unit = "record",
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


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, the main one first.")],
    out: Annotated[Path, typer.Option(callback=output_file, help="The page to write.")] = Path(
        "report.html"
    ),
    reference: Annotated[
        Path | None, typer.Option(help="Run to compare the others with. Default: the last.")
    ] = None,
    cohort: Annotated[Path | None, typer.Option(help="Cohort, to draw example ECGs from.")] = None,
    sidecar: Sidecar = None,
    prevalence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=SHARE",
            help="Also state predictive values at this prevalence, such as AFIB=0.02. Repeatable.",
        ),
    ] = None,
    resamples: Resamples = 1000,
) -> None:
    """Write one self-contained HTML page: tables, differences, curves, examples and wrong calls.

    Beside it, a .json file has its numbers, and a .errors.csv file all wrong calls of the main run.

    With --cohort, example ECGs are drawn; with the extra `explain`, three have colours that show
    what speaks for and against the label.
    """
    from einthoven.cli.paths import full_cohort
    from einthoven.experiment.explanation import explainer
    from einthoven.report.page import write_report

    source = full_cohort(cohort, labels=()) if cohort else None  # only its paths are used
    page = write_report(
        runs,
        out,
        reference=reference,
        cohort=source,
        resamples=resamples,
        prevalence=_shares(prevalence or []),
        options=["--cohort", str(cohort)] if cohort else (),
        explain=explainer(runs[0]) if cohort else None,
    )
    echo(f"Report: {page}")


def _shares(texts: list[str]) -> dict[str, float]:
    """Shares by label, of texts such as `AFIB=0.02`."""
    shares = {}
    for text in texts:
        label, _, share = text.rpartition("=")
        try:
            shares[label] = float(share)
        except ValueError:
            raise EvaluationError(
                f"--prevalence {text}: {share!r} is not a number",
                remedy="write LABEL=SHARE, such as AFIB=0.02",
            ) from None
    return shares


def card(
    model: ModelPath,
    cohort: Annotated[
        Path | None,
        typer.Option(help="Labelled cohort to evaluate it on. Default: only print the card."),
    ] = None,
    task: Task = None,
    target: Target = None,
    split: ScoredSplit = None,
    store: StorePath = None,
    sidecar: Sidecar = None,
    out: Annotated[
        Path | None,
        typer.Option(
            callback=output_folder,
            help="Folder for README.md and evaluation.json. Default: the model folder, which must "
            "not have an evaluation on other records.",
        ),
    ] = None,
    robustness: Annotated[
        bool, typer.Option(help="Also predict with fewer leads, noise and offsets: 27 times.")
    ] = True,
    resamples: Resamples = 1000,
    seed: Seed = 0,
    by: Unit = "record",
    device: Device = "auto",
) -> None:
    """Print a model's card, or evaluate it: scores, calibration, subgroups, leads, noise.

    Without --cohort, prints the card of a model, a run, an ensemble, a pretrained encoder or
    converted weights: what it is, what it has been trained on, its results and its licence.

    With --cohort, writes README.md and evaluation.json, with all numbers, to the model folder, or
    to --out, so that results on another cohort do not replace those of the model's own run; its
    probabilities do not change. The accuracy with fewer leads, measured on the validation split, is
    stored in config.json: `einthoven predict` answers only the labels that keep theirs. `einthoven
    report` of the model's run shows the same numbers.
    """
    from einthoven.cli.paths import model_folder
    from einthoven.experiment.evaluation import evaluate_model
    from einthoven.inference import device_of
    from einthoven.models import load_model

    if cohort is None:
        echo(_stored_card(model))
        return
    if out is None and model.is_dir():
        check_output(model, folder=True)
    loaded = load_model(model_folder(model))
    labelled, packed = cohort_of(loaded, cohort, task, store, target=target, some=True)
    labelled = _with_labels_of(loaded, labelled)
    with progress_bars() as progress:
        page = evaluate_model(
            model,
            labelled,
            packed,
            split or _scored_split(model, labelled, packed),
            out=out,
            robustness=robustness,
            resamples=resamples,
            seed=seed,
            by=by,
            device=device_of(device),
            progress=progress,
        )
    echo(f"Card: {page}")


def _stored_card(folder: Path) -> str:
    """The card in a model folder or run; a run without a model has one written from its run.json.

    Raises ModelError if the folder holds neither.
    """
    from einthoven.cli.paths import model_folder
    from einthoven.report.card import model_card

    inner = folder / "model" if is_model(folder / "model") else folder
    if not is_model(inner) and (folder / RUN_FILE).is_file():
        return model_card(read_json(folder / RUN_FILE))
    return (model_path(model_folder(inner)) / CARD).read_text(encoding="utf-8")


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
        shared = _shared_statements(model, labelled)
    elif len(labelled.labels) < len(model.labels):
        _note_labels(model, labelled)
    split = split or _scored_split(folder, labelled, packed)
    check_evaluation_records(folder, (labelled, packed), split)
    with progress_bars() as progress:
        options: dict[str, Any] = {"device": device_of(device), "progress": progress}
        if shared is not None:
            return predict_statements(model, labelled, packed, split, shared, **options)
        return predict_cohort(model, labelled, packed, split, some_labels=True, **options)


def _note_labels(model: Model, cohort: Cohort) -> None:
    note(
        f"Only {len(cohort.labels)} of the model's {counted(len(model.labels), 'label')} are "
        f"scored: those of {cohort.name}"
    )


def _with_labels_of(model: Model, cohort: Cohort) -> Cohort:
    """The cohort with labels of a model, by the statement map if they have other names.

    Raises EvaluationError if there is none.
    """
    from einthoven.cohorts.statements import with_labels_of
    from einthoven.tasks import Task

    if model.task.kind != Task.kind or set(cohort.labels) == set(model.labels):
        return cohort
    if set(cohort.labels) < set(model.labels):
        _note_labels(model, cohort)
        return cohort
    shared = _shared_statements(model, cohort)
    several = [name for name, (of_model, _) in shared.items() if len(of_model) > 1]
    if len(several) == len(shared):
        raise EvaluationError(
            f"each statement of {cohort.name} is several labels of the model: {', '.join(several)}",
            remedy="score them with einthoven evaluate",
        )
    if several:
        note(
            f"Not on the card, as several labels of the model: {', '.join(several)} (einthoven "
            "evaluate scores them)"
        )
    return with_labels_of(cohort, model.labels, shared)


def _shared_statements(model: Model, cohort: Cohort) -> dict[str, list[tuple[int, ...]]]:
    """Statements that model and cohort share, printed with the labels that have no counterpart.

    Raises EvaluationError if there is none.
    """
    from einthoven.cohorts.statements import shared_statements, statements
    from einthoven.errors import listed

    sides = {"the model": model.labels, cohort.name: cohort.labels}
    shared = shared_statements(*sides.values())
    if not shared:
        raise EvaluationError(
            f"no statement is shared by the model ({listed(model.labels)}) and {cohort.name} "
            f"({listed(cohort.labels)})",
            remedy="name a cohort that has the model's labels, or statements of the map "
            "(docs/cohorts.md)",
        )
    texts = {statement.name: f" ({statement.description})" for statement in statements()}
    note(f"Scored by the statement map: {counted(len(shared), 'statement')} of {cohort.name}")
    for name, places in shared.items():
        of_model, of_cohort = (
            " or ".join(labels[place] for place in of)
            for labels, of in zip(sides.values(), places, strict=True)
        )
        note(f"  {name}{texts.get(name, '')}: model {of_model}; cohort {of_cohort}")
    for index, (side, labels) in enumerate(sides.items()):
        used = {place for places in shared.values() for place in places[index]}
        rest = [label for place, label in enumerate(labels) if place not in used]
        if rest:
            note(f"Labels of {side} without counterpart: {', '.join(rest)}")
    return shared


def _scored_split(model: Path, cohort: Cohort, store: Store) -> str:
    """The split to score by default; says so if it is all records."""
    from einthoven.stages.leakage import evaluation_split

    split = evaluation_split(model, (cohort, store))
    if split != "test":
        records = counted(len(cohort), "record")
        note(f"{cohort.name} states no splits, and the model has not seen it: {records} scored")
    return split


def cohort_of(
    model: Model,
    path: Path,
    task: str | None,
    store: Path | None,
    *,
    target: list[str] | None = None,
    some: bool = False,
) -> tuple[Cohort, Store]:
    """Open a cohort with the model's labels, and its store.

    With `some`, it may have only some of them (a table), or codes of another vocabulary.
    """
    from einthoven.cli.paths import labelled_cohort, stated_task, store_of
    from einthoven.cohorts import layout_of, ptbxl, table
    from einthoven.cohorts.cohort import WITHOUT_LABEL
    from einthoven.cohorts.statements import codes_in
    from einthoven.tasks import Task
    from einthoven.tasks.task import is_read_from

    layout = layout_of(path)
    goal: Task | str | None = stated_task(task, target=target)
    if target:
        goal = _task_of_targets(model, target)
    trained = ((model.config.get("provenance") or {}).get("cohort") or {}).get("task")
    if goal is None and trained in layout.tasks:
        goal = str(trained)
    elif goal is None and model.task.kind != Task.kind:
        goal = model.task.stated()
    elif goal is None and layout is table.TABLE:
        columns = table.columns_of(path) if some else model.labels
        labels = [x for x in model.labels if is_read_from(x, columns)] or codes_in(columns)
        goal = Task(target=tuple(labels or model.labels))
    elif goal is None:
        goal = layout.codes or None
    cohort = labelled_cohort(path, goal)
    if set(model.labels) < set(cohort.labels):
        cohort = cohort.with_labels(model.labels)
        if layout is ptbxl.LAYOUT:  # as for its tasks: a record without any label is left out
            cohort = cohort.select((cohort.matrix == 1).any(axis=1), reason=WITHOUT_LABEL)
    return cohort, store_of(path, store, labels=(), leads=model.preparation.sources)


def _task_of_targets(model: Model, target: list[str]) -> Goal:
    """The model's task about these columns."""
    task = model.task.stated()
    if task.behaviour.form == "classes":
        return replace(task, target=tuple(target))
    known = [name for name in target if name in model.labels]
    if task.behaviour.form == "values" and len(known) < len(target):
        raise EvaluationError(
            f"--target {' '.join(target)}: the model predicts {', '.join(model.labels)}",
            remedy="name a number that it predicts",
        )
    selected = task.select([model.labels.index(name) for name in known], model.labels)
    return replace(selected, target=tuple(target))


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
