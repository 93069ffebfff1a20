"""Statistics of the training records, computed before training; no other split is used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from einthoven.backbones.contract import Backbone
from einthoven.errors import RecipeError
from einthoven.files import RUN_FILE
from einthoven.signals.batches import SignalSource
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import resampled_length
from einthoven.signals.random import generator_for
from einthoven.signals.steps import MinMax, Scale, Standardise, Step, Window
from einthoven.training.run import RunFolder

STANDARDISER = "standardiser"  # key of the request in run.json
_CHUNK_VALUES = 1 << 20  # float64 values in memory at a time: 8 MiB
_BATCH = 128


@dataclass(frozen=True)
class Standardiser:
    """Mean and population standard deviation over all samples, leads and records.

    The unit is mV, or that of the steps before the scaling. `records` and `values` are the numbers
    of records and of samples.
    """

    mean: float
    std: float
    records: int
    values: int


def fit_standardiser(source: SignalSource) -> Standardiser:
    """Compute mean and standard deviation of records at the scaling step of their preparation.

    All steps before the scaling are applied to whole records, without the crop. Sums are float64
    and combined a few records at a time (Chan et al. 1983), so that memory does not grow with the
    records and a large mean costs no precision.

    Raises
    ------
    RecipeError
        If the preparation already standardises, or all samples are equal.
    """
    before = _steps_before_scaling(source.preparation)
    count, mean, squares = 0, 0.0, 0.0
    for values in _whole_records(source, before):
        size, chunk_mean = values.size, float(values.mean())
        difference, total = chunk_mean - mean, count + values.size
        squares += float(np.square(values - chunk_mean).sum())
        squares += difference**2 * count * size / total
        mean += difference * size / total
        count = total
    std = math.sqrt(squares / count)
    if not std > 0:
        raise RecipeError(
            f"data.standardise = scalar, and all {count} samples are {mean:g}",
            remedy="check the records, or set data.standardise = none",
        )
    return Standardiser(mean, std, len(source), count)


def with_scale(preparation: Preparation, fitted: Standardiser) -> Preparation:
    """Preparation with a fitted scaling, which replaces a constant one."""
    before = _steps_before_scaling(preparation)
    after = [step for step in preparation.steps[len(before) :] if not isinstance(step, Scale)]
    return replace(preparation, steps=(*before, Scale(fitted.mean, fitted.std), *after))


def recorded_standardiser(out: str | Path) -> Standardiser | None:
    """Read the standardiser of a run that is resumed; None for a new run.

    Computing it again could differ in the last bit on another machine.
    """
    is_run = (Path(out) / RUN_FILE).is_file()
    values = RunFolder(Path(out)).request.get(STANDARDISER) if is_run else None
    return Standardiser(**values) if values else None


def fit_statistics(backbone: Backbone, train: SignalSource, *, seed: int) -> None:
    """Fit the statistics of a network on one crop of every training record."""
    rows = np.arange(len(train))
    backbone.fit_statistics(
        train.training_batch(
            rows[start : start + _BATCH], generator_for(seed, start, 0x57A7), None
        ).signals
        for start in range(0, len(train), _BATCH)
    )


def _steps_before_scaling(preparation: Preparation) -> tuple[Step, ...]:
    """Steps before a constant scaling; all steps if there is none."""
    steps = preparation.steps
    standardising = [step for step in steps if isinstance(step, Standardise | MinMax)]
    scales = [index for index, step in enumerate(steps) if isinstance(step, Scale)]
    if standardising or len(scales) > 1:
        step = standardising[0] if standardising else steps[scales[1]]
        raise RecipeError(
            f"data.standardise = scalar, but the backbone's preparation already scales ({step})",
            remedy="set data.standardise = none",
        )
    return steps[: scales[0]] if scales else steps


def _whole_records(
    source: SignalSource, steps: tuple[Step, ...]
) -> Iterator[np.ndarray[Any, np.dtype[np.float64]]]:
    """Yield float64 values of a few whole records at a time."""
    leads = source.preparation.leads
    for rate, samples, places in source.store.groups(source.rows):
        length = resampled_length(source.preparation, samples, rate=rate)
        uncut = tuple(replace(s, samples=length) if isinstance(s, Window) else s for s in steps)
        whole = replace(source, preparation=Preparation(leads, uncut))
        size = max(1, _CHUNK_VALUES // (len(leads) * max(length, samples)))
        for begin in range(0, len(places), size):
            rows = places[begin : begin + size]
            starts = torch.zeros(len(rows), dtype=torch.long)
            yield whole.crops(rows, starts).numpy().astype(np.float64)
