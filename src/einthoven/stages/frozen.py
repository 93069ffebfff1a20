"""What the head reads from a frozen backbone: computed once, and cached on disk.

The cache of a crop is a file of NumPy that is mapped into memory, so that no more of it is in
memory than a batch needs. The processes of a training compute it together, each its share of the
batches; they share the folder, as they do the rest of a run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from einthoven.backbones.classifier import Classifier
from einthoven.errors import TrainingError
from einthoven.files import unwritable
from einthoven.signals.batches import SignalSource
from einthoven.signals.random import generator_for
from einthoven.stages.data import Context
from einthoven.training.loop import autocast

RECORDS_AT_ONCE = 64
Inputs = NDArray[np.float32]
"""(rows, feature_dim) features, or (rows, tokens, token_dim) tokens; a row is a crop."""


@dataclass(frozen=True, eq=False)
class EvaluationInputs:
    """Inputs of the head for evaluation crops, and the record `(crops,)` of each."""

    inputs: Inputs
    owner: Tensor


def training_inputs(
    classifier: Classifier, source: SignalSource, crop: int, file: Path, context: Context
) -> Inputs:
    """Inputs of the head for one random crop of every record, a row a record.

    Crop 0 is not augmented, so that every record is also seen as it is.
    """

    def crops(records: NDArray[np.intp]) -> Tensor:
        generator = generator_for(context.seed, crop, int(records[0]), 0xFEA7)
        return source.training_batch(records, generator, context.augment if crop else None).signals

    batches = _batches(source)
    rows = [len(batch) for batch in batches]
    task = f"features of crop {crop + 1}"
    return _cached(classifier, crops, batches, rows, file, task, context)


def evaluation_inputs(
    classifier: Classifier, source: SignalSource, file: Path, context: Context
) -> EvaluationInputs:
    """Inputs of the head for the evaluation crops of all records."""
    batches = _batches(source)
    owners = [source.crop_owners(batch) for batch in batches]
    inputs = _cached(
        classifier,
        lambda records: source.evaluation_crops(records)[0],
        batches,
        [len(owner) for owner in owners],
        file,
        f"features, {file.stem}",
        context,
    )
    first = range(0, len(source), RECORDS_AT_ONCE)
    return EvaluationInputs(
        inputs, torch.cat([start + owner for start, owner in zip(first, owners, strict=True)])
    )


def _batches(source: SignalSource) -> list[NDArray[np.intp]]:
    """Records that are encoded together, whatever the number of processes."""
    records = np.arange(len(source))
    return [records[start:][:RECORDS_AT_ONCE] for start in range(0, len(source), RECORDS_AT_ONCE)]


def _cached(
    classifier: Classifier,
    crops: Callable[[NDArray[np.intp]], Tensor],
    batches: Sequence[NDArray[np.intp]],
    rows: Sequence[int],
    file: Path,
    task: str,
    context: Context,
) -> Inputs:
    """Inputs of the head for the crops of some batches of records, from the file if it exists.

    `crops` prepares those of a batch, `(crops, leads, window)`, and `rows` counts them.
    """
    processes = context.processes
    if not file.is_file():
        temporary = file.with_name(f"{file.name}.part")
        mine = range(processes.rank, len(batches), processes.world)
        starts = np.cumsum([0, *rows])
        parts = (_encode(classifier, crops(batches[number]), context) for number in mine)
        first = next(parts, None)
        try:
            if processes.is_main and first is not None:
                _create(temporary, (int(starts[-1]), *first.shape[1:]), task)
            processes.wait()
            encoded = parts if first is None else chain([first], parts)
            for number, part in zip(mine, encoded, strict=True):
                _write(temporary, int(starts[number]), part)
                if context.progress and processes.is_main:
                    done = min(number + processes.world, len(batches)) * RECORDS_AT_ONCE
                    total = sum(map(len, batches))
                    context.progress(task, min(done, total), total)
            processes.wait()
            if processes.is_main:
                temporary.replace(file)
        except OSError as error:
            raise unwritable(file, error) from error
        processes.wait()
    cached: Inputs = np.load(file, mmap_mode="r")
    return cached


def _encode(classifier: Classifier, crops: Tensor, context: Context) -> Inputs:
    device = context.processes.device
    classifier.to(device).eval()
    with torch.no_grad(), autocast(device, context.precision):
        inputs: Inputs = classifier.head_inputs(crops.to(device)).float().cpu().numpy()
    return inputs


def _create(file: Path, shape: tuple[int, ...], task: str) -> None:
    """Create a file of NumPy without values, if there is room for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    required, free = 4 * int(np.prod(shape)), shutil.disk_usage(file.parent).free
    if required > free:
        raise TrainingError(
            f"{task}: the cache of the frozen backbone takes {required / 1e9:.1f} GB, and "
            f"{free / 1e9:.1f} GB are free in {file.parent}",
            remedy="free some space, or lower data.crop_seconds or data.evaluation_crops; "
            "head=linear takes one vector a crop",
        )
    open_memmap(file, mode="w+", dtype=np.float32, shape=shape)


def _write(file: Path, start: int, rows: Inputs) -> None:
    """Write rows of a file, from one row on."""
    # Not through a map: on a shared file system, processes would write each other's pages.
    offset = open_memmap(file, mode="r").offset
    with file.open("r+b") as handle:
        handle.seek(offset + start * rows[0].nbytes)
        handle.write(np.ascontiguousarray(rows).data)
