"""The command `doctor`: examine an installation, an ECG file, a cohort or a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from einthoven.cli.options import Labels, Options, backbone_options, output_file
from einthoven.cli.progress import shown_warnings
from einthoven.errors import BackboneError, CohortError
from einthoven.models import SHIPPED


def doctor(
    file: Annotated[
        Path | None, typer.Argument(help="An ECG file, a cohort or a store to examine.")
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Show the ECG as this backbone receives it.")
    ] = None,
    options: Options = None,
    labels: Labels = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            callback=output_file,
            help="Draw the ECG before and after preparation: .html, .png or .svg. Default: "
            f"FILE-BACKBONE.html in the current folder. The default backbone is {SHIPPED}'s.",
        ),
    ] = None,
) -> None:
    """Examine an installation, an ECG file, a cohort or a store, and list problems.

    With --backbone or --picture, the ECG is drawn lead by lead as recorded and as that backbone
    receives it.
    """
    from einthoven.cohorts import TABLE_SUFFIXES
    from einthoven.doctor import examine, installation
    from einthoven.models import initialisation_of
    from einthoven.records.formats import is_record

    if labels and (file is None or file.suffix not in TABLE_SUFFIXES):
        raise CohortError("--target applies only to tables", remedy="name a table, or leave it out")
    if options and backbone is None:
        raise BackboneError("--option applies to a backbone", remedy="add --backbone NAME")
    if file is None and (backbone is not None or picture is not None):
        raise BackboneError("--backbone and --picture need an ECG file", remedy="name an ECG file")
    if picture is not None and backbone is None and file is not None and is_record(file):
        backbone = SHIPPED
    arguments: dict[str, Any] = {"labels": labels, "picture": picture}
    if backbone is not None and file is not None:
        start = initialisation_of(backbone, random=True)
        fields = backbone_options(start.backbone, options, defaults=start.options)
        arguments |= {"backbone": start.backbone, "options": fields, "centred": start.centred}
        if picture is None and file.is_file():
            arguments["picture"] = Path(f"{file.stem}-{backbone}.html")
    with shown_warnings():
        lines = installation() if file is None else examine(file, **arguments)
    for line in lines:
        typer.echo(line)
