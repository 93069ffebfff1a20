"""The command `doctor`: examine an installation, an ECG file, a cohort or a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from einthoven.cli.options import (
    Kind,
    Labels,
    Options,
    Sidecar,
    Task,
    Unit,
    backbone_options,
    output_file,
)
from einthoven.cli.progress import as_options, echo
from einthoven.errors import BackboneError, CohortError
from einthoven.files import STORE_FILE
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
    kind: Kind = None,
    unit: Unit = None,
    task: Task = None,
    sidecar: Sidecar = None,
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

    Of a folder, a table or a file of many records, up to 50 records are read, spread over all:
    formats, rates, leads, durations, findings, and files that are refused.

    The targets of a cohort are those of `posttrain`: --task, or --kind and --target.

    With --backbone or --picture, the ECG is drawn lead by lead as recorded and as that backbone
    receives it.

    The exit status is 1 if the ECG, the cohort or the store is unusable as a whole: no file is
    there, or all records that were read are refused or unusable.
    """
    from einthoven.cli.paths import stated_task
    from einthoven.cohorts import is_cohort
    from einthoven.doctor import examine, installation, text_of
    from einthoven.models import initialisation_of
    from einthoven.records.formats import is_record
    from einthoven.records.quality import Finding

    goal = stated_task(task, kind=kind, target=labels, unit=unit)
    if goal and (file is None or (file / STORE_FILE).is_file() or not is_cohort(file)):
        raise CohortError(
            "--task, --kind, --target and --unit apply to cohorts",
            remedy="name a table or the folder of a data set, or leave them out",
        )
    if options and backbone is None:
        raise BackboneError("--option applies to a backbone", remedy="add --backbone NAME")
    if file is None and (backbone is not None or picture is not None):
        raise BackboneError("--backbone and --picture need an ECG file", remedy="name an ECG file")
    if picture is not None and backbone is None and file is not None and is_record(file):
        backbone = SHIPPED
    arguments: dict[str, Any] = {"task": goal, "picture": picture}
    if backbone is not None and file is not None:
        start = initialisation_of(backbone, random=True)
        fields = backbone_options(start.backbone, options, defaults=start.options)
        arguments |= {"backbone": start.backbone, "options": fields, "centred": start.centred}
        if picture is None and file.is_file():
            arguments["picture"] = Path(f"{file.stem}-{backbone}.html")
    lines = installation() if file is None else examine(file, **arguments)
    for line in lines:
        echo(as_options(text_of(line)))
    if any(isinstance(line, Finding) and line.level == "unusable" for line in lines):
        raise typer.Exit(1)
