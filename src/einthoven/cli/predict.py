"""Commands that apply a model: predict, embed."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from einthoven.cli.options import (
    Device,
    Labels,
    ModelPath,
    Runtime,
    Sidecar,
    StorePath,
    lead_names,
    one_of,
    output_file,
)
from einthoven.cli.progress import echo, note, output, progress_bars
from einthoven.errors import EvaluationError
from einthoven.models import SHIPPED, refuse_models
from einthoven.report.format import counted

if TYPE_CHECKING:
    from einthoven.inference import EmbeddingFile, PredictionFile, RecordPrediction
    from einthoven.inference.runtimes import AnyModel
    from einthoven.models import Model

SAMPLE = Path("SIMULATED ECG")
_VISIBLE_SHARE = 0.01  # of a record outside all crops, from which on it is mentioned


def predict(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SOURCE...",
            help="ECG files; with --out also a table or a folder. Default: a simulated ECG.",
        ),
    ] = None,
    model: ModelPath = Path(SHIPPED),
    out: Annotated[
        Path | None,
        typer.Option(
            callback=output_file, help="Write a .csv or .parquet table instead of printing."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of labels to print.")] = 8,
    leads: Annotated[
        str | None,
        typer.Option(help="Use these leads only, such as I,II,V5. Default: all of each file."),
    ] = None,
    sidecar: Sidecar = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Records in one batch, with --out.")] = 64,
    device: Device = "auto",
    runtime: Runtime = "auto",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a file, with all labels.")
    ] = False,
) -> None:
    """Predict probabilities of labels or classes, or numbers, for ECGs. Not a medical device.

    Probabilities are calibrated if the model has a calibration. Labels above their threshold, and
    the most probable class, are marked, and always printed. Without SOURCE, an ECG that einthoven
    simulates is predicted.

    A table needs a column `path` only; labels are not read:

        einthoven predict ecgs.csv --model RUN/model --out predictions.csv

    Each file is predicted with the leads that it has, or with --leads. Without leads of the model,
    a label is answered only where it keeps its accuracy, as measured by `einthoven card`. A model
    without that measurement makes no calls; `einthoven posttrain --leads` trains one for the leads.

    A file that cannot be used is reported, and the others are predicted; the exit status is then 1.
    With --out, such records are listed in NAME.refused.csv beside the result, and an interrupted
    command resumes when it is repeated. A finished table of another request is not replaced.
    """
    from einthoven.cli.paths import model_to_predict
    from einthoven.models import open_model

    sources = sources or []
    refuse_models(sources)
    names = None if leads is None else lead_names(leads)
    if out is not None and not sources:
        raise EvaluationError("--out without an ECG", remedy="name ECG files, a table or a folder")
    cohort = _cohort_of(sources, "predict")
    if cohort is not None and out is None:
        raise EvaluationError(
            f"{cohort} is a table or a folder of ECGs",
            remedy=f"write a table: einthoven predict {cohort} --out predictions.csv",
        )
    if out is not None and as_json:
        raise EvaluationError("--out writes a table, not JSON", remedy="leave --json or --out out")
    loaded = open_model(model_to_predict(model, runtime))
    if out is not None:
        options = {"lead_subset": names, "batch_size": batch_size, "device": device}
        _write_predictions(loaded, cohort or sources, out, options)
    else:
        _print_predictions(loaded, sources, names, device, top=None if as_json else top)


def _cohort_of(sources: list[Path], command: str) -> Path | None:
    """The table or folder that is the only source; None if all sources are ECG files."""
    from einthoven.cohorts import is_cohort

    cohorts = [source for source in sources if is_cohort(source)]
    if cohorts and len(sources) > 1:
        raise EvaluationError(
            f"{cohorts[0]} is a table or a folder of ECGs, and one of {len(sources)} sources",
            remedy=f"{command} it alone, or name ECG files only",
        )
    return cohorts[0] if cohorts else None


def _print_predictions(
    model: AnyModel,
    sources: list[Path],
    leads: tuple[str, ...] | None,
    device: str,
    *,
    top: int | None,
) -> None:
    """Print a table for each ECG file, or for a simulated ECG without any; JSON without `top`."""
    from einthoven.inference import Predictor
    from einthoven.records.formats import read_excerpt, records_of, suffixes

    predictor = Predictor(model, leads=leads, device=device)
    files = [record for source in sources for record in records_of(source)]
    if not sources:
        from einthoven.cohorts.synthetic import sample_record

        note("No ECG file is named: this is the prediction of a SIMULATED ECG, not of a patient.")
        files = [SAMPLE]
    failed = False
    for file in files:
        read = partial(read_excerpt, file) if sources else sample_record
        (prediction,) = predictor([read])
        if isinstance(prediction, Exception):
            failed = True
            echo(f"einthoven: {prediction}", err=True)
        elif top is None:
            echo(json.dumps(prediction.to_json(str(file))))
        else:
            _print_prediction(file, prediction, model, top)
    if not sources:
        note(f"Your own ECG: einthoven predict FILE ({', '.join(suffixes())})")
        note("A table or a folder of ECGs: einthoven predict ecgs.csv --out predictions.csv")
    if failed:
        raise typer.Exit(1)


def _write_predictions(
    model: AnyModel, source: Path | list[Path], out: Path, options: dict[str, Any]
) -> None:
    from einthoven.inference import write_predictions

    with progress_bars() as progress:
        result = write_predictions(source, out, model, progress=progress, **options)
    echo(f"Predictions: {result.file} ({counted(result.predicted, 'record')})")
    _report_refused(result)


def _report_refused(result: PredictionFile | EmbeddingFile) -> None:
    """Print how many records are refused, and exit with status 1, if there are any."""
    if result.refused:
        note(f"{counted(result.refused, 'record')} refused: {result.refused_file}", style="yellow")
        raise typer.Exit(1)


def _print_prediction(file: Path, prediction: RecordPrediction, model: AnyModel, top: int) -> None:
    record, has_thresholds = prediction.record, prediction.thresholds is not None
    form = model.task.behaviour.form
    has_meanings, has_units = any(model.descriptions.values()), any(prediction.units.values())
    answers = prediction.answers
    columns: list[Column | str] = [
        Column("probability", justify="right"),
        *([Column("threshold", justify="right")] if has_thresholds else []),
        "",
        *([Column("answer", no_wrap=True)] if answers or prediction.class_set else []),
        *([Column("meaning", overflow="fold")] if has_meanings else []),
    ]
    if form == "values":
        intervals = ["interval"] if prediction.intervals else []
        columns = [Column("value", justify="right"), *(["unit"] if has_units else []), *intervals]
    table = Table(
        Column({"labels": "label", "classes": "class"}.get(form, "number"), overflow="fold"),
        *columns,
        title=f"{file}: {counted(len(record.leads), 'lead')}, {record.duration:.1f} s at "
        f"{record.rate:g} Hz",
        title_justify="left",
        caption="; ".join(_remarks(prediction, model)) or None,
        caption_justify="left",
    )
    limits = {x: f"{limit:.3f}" for x, limit in (prediction.thresholds or {}).items()}
    limits |= dict.fromkeys(prediction.without_call if limits else (), "no call")
    above = prediction.above_threshold or ()
    for name, value in prediction.values.items():
        unit = [prediction.units.get(name, "")] if has_units else []
        ends = [prediction.intervals[name]] if prediction.intervals else []
        table.add_row(name, f"{value:.4g}", *unit, *(f"{a:.4g} to {b:.4g}" for a, b in ends))
    answered = {x: value for x, value in prediction.probabilities.items() if not math.isnan(value)}
    for place, (label, value) in enumerate(sorted(answered.items(), key=lambda item: -item[1])):
        is_above = label in above
        if place < top or is_above:
            limit = [limits[label]] if label in limits else []
            is_predicted = label == prediction.predicted_class
            bar = "█" * round(10 * value) + " above" * is_above + " predicted" * is_predicted
            answer = [answers[label] or "-"] if answers else []
            if prediction.class_set:
                answer = ["possible" if label in prediction.class_set else "ruled out"]
            meaning = [model.descriptions.get(label, "")] if has_meanings else []
            style = "bold" if is_above or is_predicted else None
            table.add_row(label, f"{value:.3f}", *limit, bar, *answer, *meaning, style=style)
    for warning in prediction.warnings:  # before the answer, which may rest on an artefact
        output.print(f"Warning: {warning}", style="yellow", soft_wrap=True)
    output.print(table)


def _remarks(prediction: RecordPrediction, model: AnyModel) -> list[str]:
    remarks = []
    if prediction.answers or prediction.class_set or prediction.intervals:
        assert model.sets is not None
        subject = "interval" if prediction.intervals else "answer"
        remarks.append(
            f"{subject}: what the calibration records do not rule out, at a coverage of "
            f"{100 * model.sets.coverage:g} %"
        )
    if model.calibration is None and not prediction.values:
        remarks.append("not calibrated: the model has no calibration")
    if prediction.seconds_left_out > _VISIBLE_SHARE * prediction.record.duration:
        remarks.append(
            f"{prediction.seconds_left_out:.3g} s of {prediction.record.duration:.3g} s are "
            f"outside the model's {model.preparation.evaluation_crops} crops"
        )
    if prediction.derived_leads:
        remarks.append(f"{', '.join(prediction.derived_leads)} computed from the other limb leads")
    return remarks


def embed(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="COHORT|FILE...", help="A cohort as for `pack`, or ECG files."),
    ],
    out: Annotated[
        Path,
        typer.Option(callback=output_file, help="A .parquet file, or .npy with ids in a .json."),
    ],
    model: ModelPath = Path(SHIPPED),
    level: Annotated[
        str,
        one_of(
            "pooled",
            "token",
            "lead",
            help="One vector per record, all tokens, or one vector per lead.",
        ),
    ] = "pooled",
    split: Annotated[
        str | None, typer.Option(help="train, validation or test. Default: all records.")
    ] = None,
    store: StorePath = None,
    sidecar: Sidecar = None,
    labels: Labels = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Records of a cohort in one batch. Default: 64.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Write embeddings by a model's backbone.

    The file appears when it is complete. Records that cannot be used are left out and listed in
    NAME.refused.csv beside it, with reason and remedy; the exit status is then 1. The signals of a
    cohort are packed once, in --store or in the cache folder, which is printed.

    `--level lead` encodes each lead alone, which is less informative for an encoder trained on
    twelve leads: see "Fewer leads and noise" in its model card.
    """
    from einthoven.cli.paths import model_folder
    from einthoven.inference import device_of
    from einthoven.models import load_model

    refuse_models(sources, "embed")
    cohort = _cohort_of(sources, "embed")
    only = {"--split": split, "--store": store, "--target": labels, "--batch-size": batch_size}
    names = [name for name, value in only.items() if value is not None]
    if names and cohort is None:
        raise EvaluationError(
            f"{' and '.join(names)}: only for cohorts, not for ECG files",
            remedy="leave it out, or name a cohort: a data set, a table or a folder of files",
        )
    loaded = load_model(model_folder(model))
    options: dict[str, Any] = {"level": level, "device": device_of(device)}
    if cohort is not None:
        options |= {"split": split, "batch_size": batch_size or 64}
        result = _embed_cohort(loaded, cohort, out, store, labels, options)
    else:
        result = _embed_files(loaded, sources, out, options)
    shape = " x ".join(map(str, result.shape))
    echo(f"Embeddings: {result.file} ({shape}, {level})")
    _report_refused(result)


def _embed_cohort(
    model: Model,
    source: Path,
    out: Path,
    store: Path | None,
    labels: list[str] | None,
    options: dict[str, Any],
) -> EmbeddingFile:
    from einthoven.cli.paths import full_cohort, store_of
    from einthoven.inference import embed_cohort

    # A table without splits is divided by its labels; apart from that they are not needed.
    columns = labels if labels or options["split"] else ()
    cohort = full_cohort(source, labels=columns)
    packed = store_of(source, store, labels=columns, leads=model.preparation.sources)
    with progress_bars() as progress:
        return embed_cohort(model, cohort, packed, out, progress=progress, **options)


def _embed_files(
    model: Model, files: list[Path], out: Path, options: dict[str, Any]
) -> EmbeddingFile:
    from einthoven.inference import embed_files

    with progress_bars() as progress:
        return embed_files(
            model,
            files,
            out,
            refused=lambda _, error: note(f"einthoven: {error}"),
            progress=progress,
            **options,
        )
