"""The verbs, in the order in which a user meets them."""

from __future__ import annotations

from typing import Annotated

import typer

from einthoven.cli import (
    catalogue,
    data,
    ensembles,
    evidence,
    pretrain,
    reproduce,
    train,
    use,
    weights,
)

app = typer.Typer(
    name="einthoven",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
Post-train ECG foundation models: a linear probe, then regularised fine-tuning, and the evidence.

**Start here**

    einthoven demo                                    everything, on simulated ECGs, in minutes

**Your own study**

    einthoven download ptb-xl data/ptb-xl             or bring a CSV of paths, patients and labels

    einthoven pack data/ptb-xl data/ptb-xl.store      read and verify every record once

    einthoven posttrain data/ptb-xl --backbone st_mem_base --weights encoder.pth --out runs/pt

    einthoven posttrain data/ptb-xl --backbone st_mem_base --weights encoder.pth
    --recipe fine-tuning --out runs/ft

    einthoven compare runs/pt runs/ft                 paired differences with intervals

    einthoven report runs/pt runs/ft --out report.html

    einthoven predict --model runs/pt/model my_ecg.hea
""",
)


def _version(value: bool) -> None:
    if value:
        from einthoven.version import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Nothing is done here; the verbs do it."""


app.command()(train.demo)
app.command()(data.synthesize)
app.command()(data.download)
app.command()(data.pack)
app.command()(weights.convert)
app.command()(pretrain.pretrain)
app.command()(train.posttrain)
app.command()(ensembles.ensemble)
app.command()(evidence.evaluate)
app.command()(evidence.compare)
app.command()(evidence.report)
app.command()(evidence.card)
app.command()(reproduce.reproduce)
app.command()(use.predict)
app.command()(use.embed)
app.command()(catalogue.backbones)
app.command()(use.doctor)
