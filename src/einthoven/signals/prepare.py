"""Preparation: what is done to a signal before a network sees it, as a value.

A `Preparation` names the leads and the steps, in order. It is frozen, it can be written to JSON and
read back exactly, and its digest tells two of them apart. Every backbone declares one; the store,
the bundle and the server use the same object, and `prepare_batch` is the only code that carries it
out.

    preparation = Preparation(
        leads=STANDARD_LEADS,
        steps=(
            Resample(250),
            Window(2250, evaluation_crops=3),
            Filter("highpass", 0.67, order=5),
            Filter("lowpass", 40, order=5),
            Standardise(over="record"),
        ),
    )
    x = prepare_batch(preparation, signals, rate=500, starts=starts)
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from einthoven.errors import PreparationError
from einthoven.records.limb_leads import derivable_leads, derivation
from einthoven.records.record import Record
from einthoven.signals import plan
from einthoven.signals.preparation import Preparation
from einthoven.signals.released_steps import Baseline, Decimate, Derive, Fill, Fir, MinMax
from einthoven.signals.steps import Centre, Filter, Resample, Scale, Standardise, Step, Window

__all__ = [
    "Baseline",
    "Centre",
    "Decimate",
    "Derive",
    "Fill",
    "Filter",
    "Fir",
    "MinMax",
    "Preparation",
    "Resample",
    "Scale",
    "Standardise",
    "Step",
    "Window",
    "evaluation_seconds",
    "evaluation_starts",
    "prepare_batch",
    "prepare_record",
    "random_starts",
    "resampled_length",
    "seconds_left_out",
]

Unit = Literal["mV", "uV"]
_MILLIVOLTS: dict[str, float] = {"mV": 1.0, "uV": 1e-3}


def resampled_length(preparation: Preparation, samples: int, *, rate: float) -> int:
    """Length of a record when it reaches the window, in samples.

    Parameters
    ----------
    preparation : Preparation
        What is done.
    samples : int
        Length of the record at `rate`.
    rate : float
        Rate of the record, in Hz.

    Returns
    -------
    int
        ``floor(samples * target / rate)``; the window's length when the record is shorter and the
        window pads.

    Raises
    ------
    PreparationError
        When the rate is not positive or the record is shorter than the window.
    """
    return plan.window_shape(preparation.steps, samples, rate).samples


def evaluation_starts(preparation: Preparation, samples: int, *, rate: float) -> list[int]:
    """Where the evaluation crops of a record begin.

    Starts are 0, s, 2s, ... with s the whole part of (length - window) / (crops - 1), as ST-MEM's
    evaluation does, but never more than the number of crops asked for, and every possible start
    once where there are fewer than that. One crop is taken from the middle.

    Parameters
    ----------
    preparation : Preparation
        What is done.
    samples : int
        Length of the record at `rate`.
    rate : float
        Rate of the record, in Hz.

    Returns
    -------
    list of int
        Starts in samples at the rate of the window, ascending, all different.
    """
    room = resampled_length(preparation, samples, rate=rate) - preparation._window.samples
    crops = preparation.evaluation_crops
    if crops == 1:
        return [room // 2]
    stride = max(1, room // (crops - 1))
    return list(range(0, room + 1, stride))[:crops]


def evaluation_seconds(preparation: Preparation, record: Record) -> list[tuple[float, float]]:
    """Begin and end of every evaluation crop in a record's own time, s.

    Crops overlap where a record is short, and leave something out where it is long.
    """
    samples, window = record.signal.shape[1], preparation.window / preparation.rate
    length = resampled_length(preparation, samples, rate=record.rate)
    starts = evaluation_starts(preparation, samples, rate=record.rate)
    begins = [start / length * record.duration for start in starts]
    return [(begin, min(begin + window, record.duration)) for begin in begins]


def seconds_left_out(preparation: Preparation, record: Record) -> float:
    """How much of a record is in none of its evaluation crops, s."""
    seen, end = 0.0, 0.0
    for begin, until in evaluation_seconds(preparation, record):
        seen += until - max(begin, end)
        end = until
    return record.duration - seen


def random_starts(
    preparation: Preparation,
    samples: int,
    *,
    rate: float,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Uniform random crop positions.

    Parameters
    ----------
    preparation : Preparation
        What is done.
    samples : int
        Length of the records at `rate`.
    rate : float
        Rate of the records, in Hz.
    count : int
        How many to draw.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    Tensor
        (count,) int64, uniform on 0 ... length - window, in samples at the rate of the window.
    """
    room = resampled_length(preparation, samples, rate=rate) - preparation._window.samples
    return torch.randint(room + 1, (count,), generator=generator, device=generator.device)


def prepare_batch(
    preparation: Preparation,
    signals: Tensor,
    *,
    rate: float,
    starts: Tensor,
    unit: Unit = "mV",
) -> Tensor:
    """Prepare one crop of every record of a batch.

    Parameters
    ----------
    preparation : Preparation
        What is done.
    signals : Tensor
        (batch, leads, samples), floating point or integer, leads as `preparation.sources`.
    rate : float
        Rate of the signals, in Hz.
    starts : Tensor
        (batch,) integers: where each crop begins, in samples at the rate of the window.
    unit : {"mV", "uV"}
        Unit of the signals; the store holds int16 microvolts.

    Returns
    -------
    Tensor
        (batch, leads, window), float32, leads as `preparation.leads`, on the device of `signals`;
        full float32 precision also under autocast.

    Raises
    ------
    PreparationError
        When shapes, rate, starts or values do not suit the preparation: a record shorter than the
        window, NaN without a `Fill` step, infinity, a cutoff above half the rate, a start outside
        the record.
    """
    sources = preparation.sources
    if signals.ndim != 3 or signals.shape[1] != len(sources):
        raise PreparationError(
            f"signals of shape {tuple(signals.shape)}, but (batch, {len(sources)}, "
            "samples) is needed",
            remedy=f"Select the leads {', '.join(sources)}, in this order.",
        )
    if unit not in _MILLIVOLTS:
        raise PreparationError(
            f"unit = {unit!r} is unknown", remedy="Use 'mV' for millivolts or 'uV' for microvolts."
        )
    room = resampled_length(preparation, signals.shape[2], rate=rate) - preparation._window.samples
    starts = _checked_starts(starts, len(signals), room)
    gain = _MILLIVOLTS[unit]
    signals = _with_derived(preparation, signals)
    return plan.run(preparation.steps, signals, starts, rate=float(rate), gain=gain)


def _with_derived(preparation: Preparation, signals: Tensor) -> Tensor:
    """Rows as `preparation.leads`, from rows as `preparation.sources`."""
    if not preparation.derived:
        return signals
    x = signals if signals.is_floating_point() else signals.float()
    rows = dict(zip(preparation.sources, x.unbind(1), strict=True))
    step = next(step for step in preparation.steps if isinstance(step, Derive))
    pair, shares = derivation(step.of)
    for lead, (much, more) in zip(derivable_leads(step.of), shares.tolist(), strict=True):
        if lead in step.leads:
            rows[lead] = much * rows[pair[0]] + more * rows[pair[1]]
    return torch.stack([rows[lead] for lead in preparation.leads], dim=1)


def prepare_record(
    preparation: Preparation,
    record: Record,
    *,
    crops: Literal["evaluation", "all"] = "evaluation",
) -> Tensor:
    """Prepare one record.

    Parameters
    ----------
    preparation : Preparation
        What is done.
    record : Record
        The record; leads are picked by name. Those that it lacks are computed only where the
        preparation says so (`Preparation.deriving`).
    crops : {"evaluation", "all"}
        The evaluation crops, or consecutive crops without overlap from the start on (what is left
        at the end is dropped).

    Returns
    -------
    Tensor
        (crops, leads, window), float32.

    Raises
    ------
    PreparationError
        When leads are missing, and as in `prepare_batch`.
    """
    _check_present(preparation, record)
    try:
        return _prepared(preparation, record, crops)
    except PreparationError as error:  # of one record it is known which
        raise PreparationError(f"{_named(record)}: {error.problem}", remedy=error.remedy) from error


def _prepared(preparation: Preparation, record: Record, crops: str) -> Tensor:
    samples = record.signal.shape[1]
    if crops == "all":
        window = preparation._window.samples
        length = resampled_length(preparation, samples, rate=record.rate)
        starts = list(range(0, length - window + 1, window))
    elif crops == "evaluation":
        starts = evaluation_starts(preparation, samples, rate=record.rate)
    else:
        raise PreparationError(f"crops = {crops!r} is unknown", remedy="Use 'evaluation' or 'all'.")
    rows = [record.leads.index(lead) for lead in preparation.sources]
    signal = torch.from_numpy(np.ascontiguousarray(record.signal[rows], dtype=np.float32))
    batch = signal.expand(len(starts), -1, -1)
    return prepare_batch(preparation, batch, rate=record.rate, starts=torch.tensor(starts))


def _named(record: Record) -> str:
    return record.source or record.name


def _check_present(preparation: Preparation, record: Record) -> None:
    missing = [lead for lead in preparation.sources if lead not in record.leads]
    if not missing:
        return
    remedy = (
        "Use a record with these leads, or go without them: --leads of `einthoven predict`, "
        "leads=... of the function."
    )
    if set(missing) <= set(derivable_leads(record.leads)):
        remedy = "They follow from the others: preparation.deriving(record.leads) computes them."
    raise PreparationError(
        f"{_named(record)}: leads {', '.join(missing)} are missing; the record has "
        f"{', '.join(record.leads)}",
        remedy=remedy,
    )


def _checked_starts(starts: Tensor, batch: int, room: int) -> Tensor:
    if starts.shape != (batch,) or starts.is_floating_point():
        raise PreparationError(
            f"starts of shape {tuple(starts.shape)} and type {starts.dtype} for {batch} records",
            remedy="Give one whole number a record.",
        )
    if batch and (int(starts.min()) < 0 or int(starts.max()) > room):
        raise PreparationError(
            f"starts between {int(starts.min())} and {int(starts.max())}, but a crop can begin "
            f"between 0 and {room}",
            remedy="Draw starts with random_starts or evaluation_starts.",
        )
    return starts.to(dtype=torch.long)
