"""Beginning a run: what can be refused is refused before its folder exists."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from einthoven.backbones.contract import Backbone, UnfittedWarning
from einthoven.signals.batches import Source
from einthoven.training.distributed import Processes
from einthoven.training.run import RunFolder


def begin_run(out: str | Path, asked: dict[str, Any], processes: Processes) -> RunFolder:
    """Begin a run, or go on with it: the main process writes the folder, the others follow.

    Raises
    ------
    TrainingError
        When the folder holds a run that asked for something else, or cannot be written.
    """
    if not processes.is_main:
        processes.wait()
    run = RunFolder.begin(out, asked)
    if processes.is_main:
        processes.wait()
    return run


@contextmanager
def alone(run: RunFolder, processes: Processes) -> Iterator[None]:
    """Keep other processes than those that train together out of a run's folder.

    Raises
    ------
    TrainingError
        When one of them is at work there.
    """
    with run.alone() if processes.is_main else nullcontext():
        yield


def check_fit(backbone: Backbone, source: Source) -> None:
    """Prepare one record and encode it, so that a crop of a wrong length is refused now.

    Raises
    ------
    EinthovenError
        When the records are too short for the crop, or the backbone does not take it.
    """
    crop = source.crops(np.arange(1), torch.zeros(1, dtype=torch.long))
    was_training = backbone.training
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfittedWarning)  # what is measured is measured later
        backbone.eval().features(crop)
    backbone.train(was_training)
