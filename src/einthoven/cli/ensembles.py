"""The verb that averages: ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from einthoven.cli.options import Resamples
from einthoven.cli.train import tell


def ensemble(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Finished runs of `posttrain`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the ensemble.")],
    resamples: Resamples = 1000,
) -> None:
    """Average finished runs: the mean of their probabilities, record by record, unweighted.

    Members may differ in network, recipe and seed. They were predicted for the same records of the
    same task, with the same labels in the same order; a member that was not is refused by name.
    Each has joined the crops of its records already, by its own recipe.

    Train the members first, for example the PTB-XL benchmark's seven:

        einthoven posttrain data/ptb-xl --backbone fcn_wang --recipe strodthoff --out runs/fcn

        einthoven posttrain data/ptb-xl --backbone lstm --recipe strodthoff-rnn --out runs/lstm

        einthoven ensemble runs/fcn runs/lstm --out runs/ensemble

    Leaves predictions, metrics.json and report.html in OUT, which `report`, `compare` and
    `evaluate` read as those of any run:

        einthoven compare runs/ensemble runs/post-training

    There is no bundle in it: an ensemble is no network. To predict new ECGs, run `predict` with
    the bundle of each member.
    """
    from einthoven.experiment.ensembles import ensemble as average

    done = average(runs, out, resamples=resamples)
    tell(done, out)
