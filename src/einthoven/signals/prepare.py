"""Preparation of signals for a network: the one place where a `Preparation` is applied.

A `Preparation` names the leads and the steps, in order. It is frozen, and its JSON form and digest
identify it. Every backbone declares one; store, model folder and estimator use the same object.

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

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from einthoven.errors import PreparationError
from einthoven.records.limb_leads import derivable_leads
from einthoven.records.record import Record
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import (
    Baseline,
    Centre,
    Decimate,
    Derive,
    Fill,
    Filter,
    Fir,
    Frame,
    MinMax,
    Resample,
    Scale,
    Standardise,
    Step,
    Window,
    apply_filters,
    register_step,
)

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
    "prepare_mixed",
    "prepare_record",
    "random_starts",
    "register_step",
    "resampled_length",
    "seconds_left_out",
]

Unit = Literal["mV", "uV"]
_MILLIVOLTS: dict[str, float] = {"mV": 1.0, "uV": 1e-3}

# Records are prepared a few at a time, so that intermediate results stay in a core's cache.
_VALUES_AT_A_TIME = {"cpu": 1 << 20}
_VALUES_AT_A_TIME_ELSEWHERE = 1 << 26


def resampled_length(preparation: Preparation, samples: int, *, rate: float) -> int:
    """Length of a record when it reaches the window, in samples.

    Parameters
    ----------
    preparation : Preparation
        Leads and steps.
    samples : int
        Length of the record at `rate`.
    rate : float
        Rate of the record, in Hz.

    Returns
    -------
    int
        ``floor(samples * target / rate)``; the window's length if the record is shorter and the
        window pads.

    Raises
    ------
    PreparationError
        If the rate is not positive or the record is shorter than the window.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise PreparationError(
            f"rate = {rate!r} Hz", remedy="pass the record's sampling rate in Hz, above 0"
        )
    frame = Frame(preparation.sources, samples, rate)
    for step in preparation.before_window:
        frame = step.after(frame)
    return preparation.crop.length(frame)


def evaluation_starts(preparation: Preparation, samples: int, *, rate: float) -> list[int]:
    """First samples of the evaluation crops of a record.

    Starts are 0, s, 2s, ... with s the whole part of (length - window) / (crops - 1), as in
    ST-MEM's evaluation, but at most `evaluation_crops` of them, and every possible start once if
    there are fewer. One crop is taken from the middle.

    Parameters
    ----------
    preparation, samples, rate
        As in `resampled_length`.

    Returns
    -------
    list of int
        Starts in samples at the rate of the window, ascending, all different.
    """
    room = _room(preparation, samples, rate)
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
    preparation, samples, rate
        As in `resampled_length`.
    count : int
        Number of positions.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    Tensor
        (count,) int64, uniform on 0 ... length - window, in samples at the rate of the window.
    """
    room = _room(preparation, samples, rate)
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
        Leads and steps.
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
        If shapes, rate, starts or values do not suit the preparation: a record shorter than the
        window, NaN without a `Fill` step, infinity, a cutoff above half the rate, a start outside
        the record.
    """
    return prepare_mixed(preparation, [(signals, rate, starts)], unit=unit)


def prepare_mixed(
    preparation: Preparation,
    batches: Sequence[tuple[Tensor, float, Tensor]],
    *,
    unit: Unit = "mV",
) -> Tensor:
    """Prepare one crop of every record of batches that differ in length and rate.

    Up to the window, a batch is prepared on its own; the steps after the window work on the crops
    of all batches together, so that a cohort of many lengths costs little more than a uniform one.

    Parameters
    ----------
    preparation : Preparation
        Leads and steps.
    batches : sequence of (signals, rate, starts)
        As in `prepare_batch`; at least one.
    unit : {"mV", "uV"}
        Unit of the signals.

    Returns
    -------
    Tensor
        (records, leads, window), float32, batch after batch.
    """
    device = batches[0][0].device
    total = sum(len(signals) for signals, _, _ in batches)
    crops = torch.empty(total, len(preparation.leads), preparation.crop.samples, device=device)
    done = 0
    with _full_precision(device):
        for signals, rate, starts in batches:
            starts = _checked(preparation, signals, rate, starts, unit)
            for part in _parts(signals, preparation):
                cut = _cut(preparation, signals[part], float(rate), starts[part], unit, part.start)
                crops[done : done + len(cut)] = cut
                done += len(cut)
        if not preparation.after_window:
            return crops
        out = torch.empty(total, len(preparation.leads), preparation.window, device=device)
        for part in _parts(crops, preparation):
            out[part] = _finish(preparation, crops[part])
    return out


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
        Leads and steps.
    record : Record
        The record; leads are picked by name. Missing leads are computed only if the preparation
        does so (`Preparation.deriving`).
    crops : {"evaluation", "all"}
        The evaluation crops, or consecutive crops without overlap from the start on (the rest at
        the end is dropped).

    Returns
    -------
    Tensor
        (crops, leads, window), float32.

    Raises
    ------
    PreparationError
        If leads are missing, and as in `prepare_batch`.
    """
    _check_present(preparation, record)
    signal = record.select(preparation.sources).signal.astype(np.float32)  # a writeable copy
    try:
        starts = _starts(preparation, signal.shape[1], record.rate, crops)
        batch = torch.from_numpy(signal).expand(len(starts), -1, -1)
        return prepare_batch(preparation, batch, rate=record.rate, starts=torch.tensor(starts))
    except PreparationError as error:
        problem = f"{_name(record)}: {error.problem}"
        raise PreparationError(problem, remedy=error.remedy) from error


# ------------------------------------------------------------------ the steps, in order


def _cut(
    preparation: Preparation, signals: Tensor, rate: float, starts: Tensor, unit: Unit, first: int
) -> Tensor:
    """Apply the steps up to the window; `first` is the number of the first record, for refusals."""
    x = _as_millivolts(signals, unit, first, fills_missing=preparation.fills_missing)
    frame = Frame(preparation.sources, signals.shape[2], rate)
    x, frame = _apply(preparation.before_window, x, frame, starts, preparation.leads)
    x, _ = _apply((preparation.crop,), x, frame, starts, preparation.leads)
    return x


def _finish(preparation: Preparation, crops: Tensor) -> Tensor:
    """Apply the steps after the window."""
    frame = preparation.cropped
    starts = torch.zeros(len(crops), dtype=torch.long, device=crops.device)
    return _apply(preparation.after_window, crops, frame, starts, preparation.leads)[0]


def _apply(
    steps: Sequence[Step], x: Tensor, frame: Frame, starts: Tensor, leads: tuple[str, ...]
) -> tuple[Tensor, Frame]:
    """Apply steps in order; neighbouring filters go together."""
    place = 0
    while place < len(steps):
        step = steps[place]
        step.check(frame)
        if isinstance(step, Filter):
            run = _leading_filters(steps[place:])
            x = apply_filters(run, x, frame)
            place += len(run)
            continue
        x, frame = step.apply(x, frame, starts), step.after(frame)
        if isinstance(step, Derive):
            x = x[:, [frame.leads.index(lead) for lead in leads]]
            frame = replace(frame, leads=leads)
        place += 1
    return x, frame


def _leading_filters(steps: Sequence[Step]) -> tuple[Filter, ...]:
    filters = []
    for step in steps:
        if not isinstance(step, Filter):
            break
        filters.append(step)
    return tuple(filters)


def _as_millivolts(signals: Tensor, unit: Unit, first: int, *, fills_missing: bool) -> Tensor:
    """Float32 millivolts; refuses infinity, and NaN unless a step fills it."""
    x = signals.float()
    # NaN and infinity survive a sum, which is cheaper than a look at every value.
    if signals.is_floating_point() and not bool(torch.isfinite(x.sum())):
        bad = (x.isinf() if fills_missing else ~x.isfinite()).flatten(1).any(1).nonzero().flatten()
        if len(bad):
            values = "infinity" if fills_missing else "NaN or infinity"
            raise PreparationError(
                f"{values} in {len(bad)} of the records; the first is number {int(bad[0]) + first}",
                remedy="leave these records out, or repair them before preparation",
            )
    return x if unit == "mV" else x * _MILLIVOLTS[unit]


def _parts(x: Tensor, preparation: Preparation) -> Iterator[slice]:
    """Slices of a batch, each of a size that suits the device."""
    at_a_time = _VALUES_AT_A_TIME.get(x.device.type, _VALUES_AT_A_TIME_ELSEWHERE)
    longest = max(x.shape[2], preparation.crop.samples)
    size = max(1, at_a_time // (x.shape[1] * max(1, longest)))
    return (slice(begin, begin + size) for begin in range(0, len(x), size))


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Without autocast and gradients; both settings belong to the current thread."""
    with torch.autocast(device.type, enabled=False), torch.no_grad():
        yield


# ------------------------------------------------------------------ one record, and checks


def _starts(preparation: Preparation, samples: int, rate: float, crops: str) -> list[int]:
    if crops == "evaluation":
        return evaluation_starts(preparation, samples, rate=rate)
    if crops == "all":
        room, window = _room(preparation, samples, rate), preparation.crop.samples
        return list(range(0, room + 1, window))
    raise PreparationError(f"crops = {crops!r} is unknown", remedy="use 'evaluation' or 'all'")


def _name(record: Record) -> str:
    return record.source or record.name


def _check_present(preparation: Preparation, record: Record) -> None:
    missing = [lead for lead in preparation.sources if lead not in record.leads]
    if not missing:
        return
    remedy = (
        "use a record with these leads, or go without them: --leads of `einthoven predict`, "
        "leads=... of the function"
    )
    if set(missing) <= set(derivable_leads(record.leads)):
        remedy = "they follow from the others: preparation.deriving(record.leads) computes them"
    raise PreparationError(
        f"{_name(record)}: leads {', '.join(missing)} are missing; the record has "
        f"{', '.join(record.leads)}",
        remedy=remedy,
    )


def _room(preparation: Preparation, samples: int, rate: float) -> int:
    """Largest possible start of a crop."""
    return resampled_length(preparation, samples, rate=rate) - preparation.crop.samples


def _checked(
    preparation: Preparation, signals: Tensor, rate: float, starts: Tensor, unit: Unit
) -> Tensor:
    """Refuse a batch that does not suit the preparation; the starts on its device."""
    sources = preparation.sources
    if signals.ndim != 3 or signals.shape[1] != len(sources):
        raise PreparationError(
            f"signals of shape {tuple(signals.shape)}, but (batch, {len(sources)}, "
            "samples) is needed",
            remedy=f"select the leads {', '.join(sources)}, in this order",
        )
    if unit not in _MILLIVOLTS:
        raise PreparationError(
            f"unit = {unit!r} is unknown", remedy="use 'mV' for millivolts or 'uV' for microvolts"
        )
    room = _room(preparation, signals.shape[2], rate)
    if starts.shape != (len(signals),) or starts.is_floating_point():
        raise PreparationError(
            f"starts of shape {tuple(starts.shape)} and type {starts.dtype} for {len(signals)} "
            "records",
            remedy="pass one integer a record",
        )
    if len(signals) and (int(starts.min()) < 0 or int(starts.max()) > room):
        raise PreparationError(
            f"starts between {int(starts.min())} and {int(starts.max())}, but a crop can begin "
            f"between 0 and {room}",
            remedy="draw starts with random_starts or evaluation_starts",
        )
    return starts.to(device=signals.device, dtype=torch.long)
