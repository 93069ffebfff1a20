"""Verbs that use what there is: predict, backbones, doctor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from einthoven.errors import BundleError, EinthovenError

if TYPE_CHECKING:
    from einthoven.bundle import Bundle
    from einthoven.predict import RecordPrediction


def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Raw ECG files.")],
    bundle: Annotated[
        Path | None, typer.Option(help="The bundle of a run.", envvar="EINTHOVEN_BUNDLE")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to print a file.")] = 8,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a file, with every label.")
    ] = False,
) -> None:
    """Named probabilities for raw ECG files. Not a medical device.

    A file that cannot be used is reported and does not stop the others; the exit status is then 1.
    """
    from einthoven.bundle import load_bundle
    from einthoven.predict import predict_record
    from einthoven.records import read_record

    if bundle is None:
        raise BundleError(
            "no bundle is named",
            remedy="add --bundle RUN/bundle, or set EINTHOVEN_BUNDLE; `einthoven demo` makes one",
        )
    model = load_bundle(bundle)
    failed = False
    for file in files:
        try:
            done = predict_record(model, read_record(file))
        except EinthovenError as error:
            failed = True
            typer.echo(f"einthoven: {error}", err=True)
            continue
        if as_json:
            typer.echo(json.dumps({"record": str(file), "probabilities": done.probabilities}))
        else:
            _print_prediction(file, done, model, top)
    if failed:
        raise typer.Exit(1)


def _print_prediction(file: Path, done: RecordPrediction, model: Bundle, top: int) -> None:
    from rich.console import Console
    from rich.table import Table

    record = done.record
    table = Table(
        title=f"{file}: {len(record.leads)} leads, {record.duration:.1f} s at {record.rate:g} Hz",
        title_justify="left",
    )
    table.add_column("label")
    table.add_column("probability", justify="right")
    table.add_column("")
    table.add_column("meaning")
    ranked = sorted(done.probabilities.items(), key=lambda item: -item[1])
    for label, value in ranked[:top]:
        bar = "█" * round(20 * value)
        table.add_row(label, f"{value:.3f}", bar, model.descriptions.get(label, ""))
    Console().print(table)


def backbones(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The catalogue: parameters, input, public weights and their licence."""
    from dataclasses import asdict

    from einthoven.backbones.registry import backbone_names, entry

    if as_json:
        typer.echo(json.dumps({name: asdict(entry(name)) for name in backbone_names()}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=True)
    for column in ("name", "parameters", "what", "public weights", "their licence"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for name in backbone_names():
        about = entry(name)
        table.add_row(
            name,
            f"{about.parameters:,}",
            f"{about.summary}\n{about.paper}",
            about.weights_from,
            about.weights_licence,
        )
    Console().print(table)


def doctor(
    file: Annotated[
        Path | None, typer.Argument(help="An ECG file, a cohort folder or a store to check.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Show the file as this backbone receives it.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the ECG before and after preparation here (.png).")
    ] = None,
) -> None:
    """Check an installation, or an ECG file, a cohort or a store, and say what is wrong with it."""
    from einthoven.doctor import examine, installation

    lines = installation() if file is None else examine(file, backbone=backbone, picture=picture)
    for line in lines:
        typer.echo(line)
