"""Verbs that use what there is: predict, embed, doctor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from einthoven.cli.bundles import TABLES, bundle_first, ecg_file, is_cohort, named_bundle
from einthoven.cli.device import DeviceOption, device_of
from einthoven.cli.options import Labels, Options, StorePath, backbone_options, lead_names
from einthoven.cli.progress import counting, shown_warnings
from einthoven.errors import BackboneError, CohortError, EinthovenError, EvaluationError
from einthoven.models import SHIPPED

if TYPE_CHECKING:
    from einthoven.embed import Embedded
    from einthoven.models import Model
    from einthoven.predict import RecordPrediction


class Level(StrEnum):
    """What is embedded."""

    pooled = "pooled"
    token = "token"
    lead = "lead"


def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Raw ECG files.")],
    bundle: Annotated[
        Path,
        typer.Option(help="The bundle of a run, or the shipped one.", envvar="EINTHOVEN_MODEL"),
    ] = Path(SHIPPED),
    top: Annotated[int, typer.Option(min=1, help="Labels to print a file.")] = 8,
    leads: Annotated[
        str | None, typer.Option(help="Use these leads only, where files lack others: I,II,V5.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a file, with every label.")
    ] = False,
) -> None:
    """Named probabilities for raw ECG files. Not a medical device.

    Probabilities are calibrated where the bundle has a calibration; labels that reach their
    threshold are marked, and shown however many others are more probable.

    A file that cannot be used is reported and does not stop the others; the exit status is then 1.
    """
    from einthoven.models import load_model
    from einthoven.predict import predict_record
    from einthoven.records import read_record

    chosen = lead_names(leads) if leads else None
    with shown_warnings():
        model = load_model(named_bundle(bundle))
    failed = False
    for file in files:
        try:
            done = predict_record(model, read_record(ecg_file(file)), leads=chosen)
        except EinthovenError as error:
            failed = True
            typer.echo(f"einthoven: {error}", err=True)
            continue
        if as_json:
            typer.echo(json.dumps(_entry(file, done)))
        else:
            _print_prediction(file, done, model, top)
    if failed:
        raise typer.Exit(1)


def _entry(file: Path, done: RecordPrediction) -> dict[str, Any]:
    above = done.above_threshold
    return {
        "record": str(file),
        "probabilities": done.probabilities,
        "above_threshold": None if above is None else list(above),
        "derived_leads": list(done.derived_leads),
        "left_out_leads": list(done.left_out_leads),
        "seconds_left_out": done.seconds_left_out,
        "doubts": list(done.doubts),
    }


def _print_prediction(file: Path, done: RecordPrediction, model: Model, top: int) -> None:
    from rich.console import Console
    from rich.table import Table

    record, calibration = done.record, model.calibration
    table = Table(
        title=f"{file}: {len(record.leads)} leads, {record.duration:.1f} s at {record.rate:g} Hz",
        title_justify="left",
        caption="; ".join(_remarks(done, model)) or None,
        caption_justify="left",
    )
    table.add_column("label")
    table.add_column("probability", justify="right")
    if calibration is not None:
        table.add_column("threshold", justify="right")
    table.add_column("")
    table.add_column("meaning")
    limits = dict(zip(model.labels, calibration.thresholds if calibration else (), strict=False))
    ranked = sorted(done.probabilities.items(), key=lambda item: -item[1])
    present = done.above_threshold or ()
    shown = [item for i, item in enumerate(ranked) if i < top or item[0] in present]
    for label, value in shown:
        above = label in present
        limit = [f"{limits[label]:.3f}"] if label in limits else []
        bar = "█" * round(10 * value) + (" above" if above else "")
        meaning = model.descriptions.get(label, "")
        table.add_row(label, f"{value:.3f}", *limit, bar, meaning, style="bold" if above else None)
    Console().print(table)


def _remarks(done: RecordPrediction, model: Model) -> list[str]:
    said = [f"doubtful: {doubt}" for doubt in done.doubts]
    if model.calibration is None:
        said.append("not calibrated: the bundle has no calibration")
    if done.seconds_left_out > 0.01 * done.record.duration:
        said.append(
            f"{done.seconds_left_out:.3g} s of {done.record.duration:.3g} s are in none of the "
            f"bundle's {model.preparation.evaluation_crops} crops"
        )
    if done.derived_leads:
        said.append(f"{', '.join(done.derived_leads)} computed from the other limb leads")
    if done.left_out_leads:
        said.append(
            f"without {', '.join(done.left_out_leads)}: network, calibration and thresholds were "
            f"fitted with all {len(model.preparation.leads)} leads, and answers from fewer can be "
            "far off; the bundle's card tells by how much"
        )
    return said


def embed(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="[BUNDLE] COHORT|FILE...",
            help="A bundle (the shipped one by default), then a cohort as for `pack` or ECG files.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="A .parquet file, or .npy with ids in a .json.")],
    level: Annotated[
        Level, typer.Option(help="One vector a record, all tokens, or one vector a lead.")
    ] = Level.pooled,
    split: Annotated[
        str | None, typer.Option(help="train, validation or test; all records without it.")
    ] = None,
    store: StorePath = None,
    labels: Labels = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Records of a cohort at a time; 64 without it."),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Embeddings by the bundle's backbone, streamed to a file that appears when it is complete.

    An ECG file that cannot be used is reported and left out; the exit status is then 1. Of a
    cohort, records in its store's quarantine are left out, as packing told.

    `--level lead` encodes each lead alone. An encoder that was trained on twelve leads makes weaker
    vectors from one: how much weaker its predictions are, the bundle's card says under "Fewer leads
    and noise" (README.md in its folder).
    """
    from einthoven.embed import embed_cohort, embed_files
    from einthoven.models import load_model

    folder, sources = bundle_first(sources)
    of_cohort = len(sources) == 1 and is_cohort(sources[0])
    if not of_cohort:
        _refuse_options(
            {"--split": split, "--store": store, "--label": labels, "--batch-size": batch_size}
        )
    with shown_warnings():
        model = load_model(folder)
    options: dict[str, Any] = {"level": level.value, "device": device_of(device)}
    if of_cohort:
        from einthoven.cli.stores import check_typed, every_record, store_of

        check_typed(sources[0], labels=labels)
        cohort = every_record(sources[0], labels=labels)
        packed = store_of(sources[0], store, labels=labels)
        with counting("embed") as progress:
            done = embed_cohort(
                model, cohort, packed, out, split=split, batch_size=batch_size or 64,
                progress=progress, **options,
            )  # fmt: skip
        _tell_embedded(done)
        return
    refusals: list[EinthovenError] = []
    try:
        with counting("embed") as progress:
            done = embed_files(
                model, sources, out, refused=lambda _, error: refusals.append(error),
                progress=progress, **options,
            )  # fmt: skip
    finally:  # below the bar, and also where no file could be used
        for error in refusals:
            typer.echo(f"einthoven: {error}", err=True)
    _tell_embedded(done)
    if refusals:
        raise typer.Exit(1)


def _refuse_options(given: Mapping[str, Any]) -> None:
    """Refuse what is of a cohort where ECG files are named."""
    idle = [name for name, value in given.items() if value is not None]
    if idle:
        raise EvaluationError(
            f"{' and '.join(idle)} {'are' if idle[1:] else 'is'} of a cohort, and ECG files are "
            "named",
            remedy="leave it out, or name a cohort: PTB-XL's folder, a table or a folder of files",
        )


def _tell_embedded(done: Embedded) -> None:
    shape = " x ".join(map(str, done.shape))
    typer.echo(f"Embeddings: {done.file} ({shape}, {done.about['level']})")


def doctor(
    file: Annotated[
        Path | None, typer.Argument(help="An ECG file, a cohort folder or a store to check.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Show the file as this backbone receives it.")
    ] = None,
    options: Options = None,
    labels: Labels = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Draw the ECG before and after preparation here: .html, .png or .svg; "
            "FILE-BACKBONE.html in this folder without it."
        ),
    ] = None,
) -> None:
    """Check an installation, or an ECG file, a cohort or a store, and say what is wrong with it.

    With --backbone, an ECG file is drawn lead by lead as recorded and, below, as that backbone
    receives it.
    """
    from einthoven.doctor import examine, installation
    from einthoven.models import start_from

    if options and backbone is None:
        raise BackboneError("--option is of a backbone's config", remedy="add --backbone NAME")
    if labels and (file is None or file.suffix not in TABLES):
        raise CohortError("--label is of an own table", remedy="name one, or leave it out")
    if file is None and (backbone is not None or picture is not None):
        raise BackboneError("a backbone's view is of an ECG file", remedy="name one")
    if file is not None and file.is_file() and backbone is not None and picture is None:
        picture = Path(f"{file.stem}-{backbone}.html")
    given: dict[str, Any] = {"labels": labels, "picture": picture}
    if backbone is not None:
        start = start_from(backbone, random=True)  # the shipped bundle's name is one as well
        network = backbone_options(start.backbone, options, beside=start.options)
        given |= {"backbone": start.backbone, "options": network, "centred": start.centred}
    for line in installation() if file is None else examine(file, **given):
        typer.echo(line)
