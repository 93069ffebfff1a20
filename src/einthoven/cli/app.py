"""The commands, grouped by task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from einthoven.cli import (
    backbones,
    data,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    init,
    map,
    predict,
    pretrain,
    recalibrate,
    recipes,
    report,
    reproduce,
    serve,
    train,
)
from einthoven.cli.progress import echo

app = typer.Typer(
    name="einthoven",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
Post-train ECG foundation models: a linear probe, then regularised fine-tuning, then evaluation.

**Try it**

    einthoven predict                   the included model on a simulated ECG

    einthoven init first-cohort         a small simulated cohort, with commands

    einthoven demo                      everything, on simulated ECGs

**Your own ECGs** (a table: path, patient, labels of 0 and 1)

    einthoven posttrain ecgs.csv --folds 5 --out runs/pt

    einthoven posttrain ecgs.csv --folds 5 --out runs/lp --recipe linear-probe

    einthoven compare runs/pt runs/lp   paired differences, with intervals

    einthoven report runs/pt runs/lp --cohort ecgs.csv --out report.html

    einthoven predict --model runs/pt/model my_ecg.hea

    einthoven predict --model runs/pt/model new.csv --out predictions.csv
""",
)


def _version(value: bool) -> None:
    if value:
        from einthoven import __version__

        echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options without a command."""


COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Start": (init.init, demo.demo, doctor.doctor),
    "Train on labelled ECGs": (train.posttrain, train.search, train.ensemble, recipes.recipes),
    "Predict": (
        predict.predict,
        predict.embed,
        serve.serve,
        serve.site,
        export.export,
        recalibrate.recalibrate,
    ),
    "Explain": (explain.explain, explain.similar, map.map),
    "Evaluate": (evaluate.evaluate, evaluate.compare, report.report, report.card),
    "Data": (data.label, data.convert_ecg, data.pack, data.download, data.synthesize),
    "Encoders": (backbones.backbones, backbones.convert_weights, pretrain.pretrain),
    "Papers": (reproduce.reproduce,),
}
for _panel, _commands in COMMANDS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
