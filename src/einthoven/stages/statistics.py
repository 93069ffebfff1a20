"""What is measured on training records before training begins; no other split is looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from einthoven.backbones.contract import Backbone
from einthoven.errors import RecipeError
from einthoven.files import read_json
from einthoven.signals.batches import SignalSource
from einthoven.signals.prepare import (
    MinMax,
    Preparation,
    Scale,
    Standardise,
    Step,
    Window,
    resampled_length,
)
from einthoven.signals.random import generator_for
from einthoven.training.run import ABOUT

STANDARDISER = "standardiser"  # of what was asked, in run.json
_TOGETHER = 1 << 20  # values that are looked at together: 8 MiB
_BATCH = 128


@dataclass(frozen=True)
class Standardiser:
    """Mean and population deviation of all samples of all leads of some records.

    Attributes
    ----------
    mean, std : float
        In mV, or in what steps in front of the scaling make of it.
    records, values : int
        How many were measured.
    """

    mean: float
    std: float
    records: int
    values: int


def measured(source: SignalSource) -> Standardiser:
    """Measure the records of a source as the scaling of their preparation will find them.

    Every step in front of the scaling is carried out on whole records: the window cuts nothing.
    Sums are in float64 and combined a few records at a time (Chan et al. 1983), so that memory
    does not grow with the records and a large mean costs no digits.

    Raises
    ------
    RecipeError
        When the preparation standardises already, or all samples are alike.
    """
    before = _in_front_of_scaling(source.preparation)
    count, mean, spread = 0, 0.0, 0.0
    for values in _whole_records(source, before):
        own, middle = values.size, float(values.mean())
        apart, total = middle - mean, count + values.size
        spread += float(np.square(values - middle).sum()) + apart**2 * count * own / total
        mean += apart * own / total
        count = total
    deviation = math.sqrt(spread / count)
    if not deviation > 0:
        raise RecipeError(
            f"data.standardise = scalar, and all {count} samples are {mean:g}",
            remedy="check the records, or set data.standardise = none",
        )
    return Standardiser(mean, deviation, len(source), count)


def with_scale(preparation: Preparation, found: Standardiser) -> Preparation:
    """The preparation with a measured scaling, in place of a constant one where it has one."""
    before = _in_front_of_scaling(preparation)
    after = [step for step in preparation.steps[len(before) :] if not isinstance(step, Scale)]
    return replace(preparation, steps=(*before, Scale(found.mean, found.std), *after))


def recorded(out: str | Path) -> Standardiser | None:
    """What a run that goes on has measured; None for a new one.

    Measuring again could differ in the last bit on another machine.
    """
    file = Path(out) / ABOUT
    values = read_json(file)["request"].get(STANDARDISER) if file.is_file() else None
    return Standardiser(**values) if values else None


def fit_statistics(backbone: Backbone, train: SignalSource, *, seed: int) -> None:
    """Let a network measure one crop of every training record, in batches."""
    backbone.fit_statistics(_crops(train, seed))


def _crops(train: SignalSource, seed: int) -> Iterator[Tensor]:
    for start in range(0, len(train), _BATCH):
        chosen = np.arange(start, min(start + _BATCH, len(train)))
        generator = generator_for(seed, start, 0x57A7)
        yield train.training_batch(chosen, generator, None).signals


def _in_front_of_scaling(preparation: Preparation) -> tuple[Step, ...]:
    """The steps before a constant scaling; all of them without one."""
    steps = preparation.steps
    twice = [step for step in steps if isinstance(step, Standardise | MinMax)]
    scales = [place for place, step in enumerate(steps) if isinstance(step, Scale)]
    if twice or len(scales) > 1:
        what = twice[0] if twice else steps[scales[1]]
        raise RecipeError(
            f"data.standardise = scalar, but the backbone's preparation scales already ({what})",
            remedy="set data.standardise = none",
        )
    return steps[: scales[0]] if scales else steps


def _whole_records(
    source: SignalSource, steps: tuple[Step, ...]
) -> Iterator[np.ndarray[Any, np.dtype[np.float64]]]:
    """Values of a few records at a time, float64, without a crop."""
    leads = source.preparation.leads
    for rate, samples, places in source.store.groups(source.rows):
        length = resampled_length(source.preparation, samples, rate=rate)
        uncut = tuple(replace(s, samples=length) if isinstance(s, Window) else s for s in steps)
        whole = replace(source, preparation=Preparation(leads, uncut))
        size = max(1, _TOGETHER // (len(leads) * max(length, samples)))
        for begin in range(0, len(places), size):
            chosen = places[begin : begin + size]
            starts = torch.zeros(len(chosen), dtype=torch.long)
            yield whole.crops(chosen, starts).numpy().astype(np.float64)
