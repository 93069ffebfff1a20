"""The commands, grouped by task."""

from __future__ import annotations

from typing import Annotated

import typer

from einthoven.cli import (
    backbones,
    data,
    demo,
    evaluate,
    predict,
    pretrain,
    recipes,
    reproduce,
    train,
)

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

    einthoven demo                            everything, on simulated ECGs

    einthoven predict my_ecg.hea              with the included model

**Your own study**

    einthoven download ptb-xl data/ptb-xl     or write a table, as in docs/data.md

    einthoven posttrain data/ptb-xl --out runs/pt

    einthoven posttrain data/ptb-xl --out runs/ft --recipe fine-tuning

    einthoven compare runs/pt runs/ft         paired differences, with intervals

    einthoven report runs/pt runs/ft --out report.html

    einthoven predict --model runs/pt/model my_ecg.hea

    einthoven predict --model runs/pt/model ecgs.csv --out predictions.csv
""",
)


def _version(value: bool) -> None:
    if value:
        from einthoven import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options without a command."""


COMMANDS = {
    "Data": (data.synthesize, data.download, data.pack, predict.doctor),
    "Models": (backbones.backbones, backbones.convert),
    "Training": (
        demo.demo,
        recipes.recipes,
        pretrain.pretrain,
        train.posttrain,
        train.ensemble,
    ),
    "Evaluation": (evaluate.evaluate, evaluate.compare, evaluate.report, evaluate.card),
    "Prediction": (predict.predict, predict.embed),
    "Papers": (reproduce.reproduce,),
}
for _panel, _commands in COMMANDS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
