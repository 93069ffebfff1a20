"""Preparation of signals for a network: the one place where a `Preparation` is applied.

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

Everything runs on the CPU, in float32 whatever autocast the caller has. `whole_record` needs no
PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import PreparationError
from einthoven.records.limb_leads import derivable_leads
from einthoven.records.record import Record
from einthoven.signals.filters import Signal, is_traced
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Derive, Filter, Frame, Step, apply_filters

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Unit = Literal["mV", "uV"]

_VALUES_AT_A_TIME = 1 << 20  # intermediate results stay in a core's cache


def resampled_length(preparation: Preparation, samples: int, *, rate: float) -> int:
    """Length of a record of a rate in Hz when it reaches the window, in samples.

    It is ``floor(samples * target / rate)``, and the window's length if the record is shorter and
    the window pads.

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
    """First samples of the evaluation crops of a record, at the rate of the window, ascending.

    Starts are 0, s, 2s, ... with s the whole part of (length - window) / (crops - 1), as in
    ST-MEM's evaluation, but at most `evaluation_crops` of them, and every possible start once if
    there are fewer. One crop is taken from the middle.
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
    """Seconds of a record outside all evaluation crops."""
    covered, end = 0.0, 0.0
    for begin, until in evaluation_seconds(preparation, record):
        covered += until - max(begin, end)
        end = until
    return record.duration - covered


def random_starts(
    preparation: Preparation,
    samples: int,
    *,
    rate: float,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Draw `starts` for `prepare_batch`: (count,) int64, uniform on 0 ... length - window."""
    import torch

    room = _room(preparation, samples, rate)
    return torch.randint(room + 1, (count,), generator=generator)


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
        (batch, leads, window), float32, leads as `preparation.leads`.

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

    Batches are at least one (signals, rate, starts) as in `prepare_batch`; the result holds their
    crops one after the other, (records, leads, window).
    """
    import torch

    crops = []
    with torch.no_grad():
        for signals, rate, starts in batches:
            _check_batch(preparation, signals, rate, starts, unit)
            for part in _parts(signals, preparation):
                crops.append(_cut(preparation, signals, float(rate), starts, unit, part))
        return finish_crops(preparation, torch.cat(crops))


def prepare_record(preparation: Preparation, record: Record) -> Tensor:
    """Prepare the evaluation crops of one record.

    Leads are picked by name. Missing leads are computed only if the preparation does so
    (`Preparation.deriving`).

    Returns
    -------
    Tensor
        (crops, leads, window), float32.

    Raises
    ------
    PreparationError
        If leads are missing, and as in `prepare_batch`.
    """
    import torch

    whole = whole_record(preparation, record)
    samples, window = record.signal.shape[1], preparation.crop.samples
    starts = evaluation_starts(preparation, samples, rate=record.rate)
    crops = np.stack([whole[:, start : start + window] for start in starts])
    with _named(record), torch.no_grad():
        return finish_crops(preparation, torch.from_numpy(crops))


def whole_record(preparation: Preparation, record: Record) -> NDArray[np.float32]:
    """Apply the steps before the window to a record, without PyTorch.

    Returns
    -------
    array
        (leads, samples) at the rate of the window, leads as `preparation.leads`; as long as the
        window if the record is shorter and the window pads.

    Raises
    ------
    PreparationError
        As in `prepare_record`.
    """
    _check_leads(preparation, record)
    signal = record.select(preparation.sources).signal.astype(np.float32)  # a writeable copy
    with _named(record):
        _check_values(signal[None], preparation)
        length = resampled_length(preparation, signal.shape[1], rate=record.rate)
        frame = Frame(preparation.sources, signal.shape[1], float(record.rate))
        x = _apply(preparation.before_window, signal[None], frame, None, preparation.leads)[0]
    return np.pad(x, ((0, 0), (0, length - x.shape[1])))


@contextmanager
def _named(record: Record) -> Iterator[None]:
    """Let errors of preparation begin with the name of the record."""
    try:
        yield
    except PreparationError as error:
        problem = f"{record.source or record.name}: {error.problem}"
        raise PreparationError(problem, remedy=error.remedy) from error


def _cut(
    preparation: Preparation, signals: Tensor, rate: float, starts: Tensor, unit: Unit, part: slice
) -> Tensor:
    """Apply the steps up to the window to a part of a batch."""
    x = signals[part].float()
    _check_values(x, preparation, first=part.start)
    if unit == "uV":
        x = x * 1e-3
    steps = (*preparation.before_window, preparation.crop)
    frame = Frame(preparation.sources, signals.shape[2], rate)
    cut: Tensor = _apply(steps, x, frame, starts[part], preparation.leads)
    return cut


def finish_crops(preparation: Preparation, crops: Tensor) -> Tensor:
    """Apply the steps after the window to crops, (batch, leads, samples of the window)."""
    steps, frame, leads = preparation.after_window, preparation.cropped, preparation.leads
    if not steps:
        return crops
    if is_traced():
        traced: Tensor = _apply(steps, crops, frame, None, leads)
        return traced
    import torch

    parts = _parts(crops, preparation)
    return torch.cat([_apply(steps, crops[part], frame, None, leads) for part in parts])


def _apply(
    steps: Sequence[Step], x: Signal, frame: Frame, starts: Signal, leads: tuple[str, ...]
) -> Signal:
    """Apply steps in order; neighbouring filters go together."""
    for are_filters, group in groupby(steps, key=lambda step: isinstance(step, Filter)):
        if are_filters:
            neighbours: Any = tuple(group)
            x = apply_filters(neighbours, x, frame)
            continue
        for step in group:
            step.check(frame)
            x, frame = step.apply(x, frame, starts), step.after(frame)
            if isinstance(step, Derive):
                x = x[:, [frame.leads.index(lead) for lead in leads]]
                frame = replace(frame, leads=leads)
    return x


def _parts(x: Tensor, preparation: Preparation) -> Iterator[slice]:
    """Slices of a batch that suit a core's cache; one if the batch is empty."""
    longest = max(x.shape[2], preparation.crop.samples)
    size = max(1, _VALUES_AT_A_TIME // (x.shape[1] * longest))
    return (slice(begin, begin + size) for begin in range(0, max(1, len(x)), size))


def _room(preparation: Preparation, samples: int, rate: float) -> int:
    """Largest possible start of a crop."""
    return resampled_length(preparation, samples, rate=rate) - preparation.crop.samples


def _check_values(x: Signal, preparation: Preparation, *, first: int | None = None) -> None:
    """Refuse infinity, and NaN unless a step fills it, in (records, leads, samples).

    `first` is the number of the first record in its batch; None for a single record.
    """
    # NaN and infinity survive a sum, which is cheaper than a look at every value.
    with np.errstate(invalid="ignore", over="ignore"):
        if math.isfinite(float(x.sum())):
            return
    x = np.asarray(x)
    counts = (np.isinf(x) if preparation.fills_missing else ~np.isfinite(x)).sum(axis=2)
    bad = np.flatnonzero(counts.any(axis=1))
    if not len(bad):
        return
    values = "infinity" if preparation.fills_missing else "NaN or infinity"
    row = int(bad[0])
    leads = zip(preparation.sources, counts[row].tolist(), strict=True)
    text = ", ".join(f"{lead} ({count} of {x.shape[2]} samples)" for lead, count in leads if count)
    others = f"; {len(bad) - 1} other records as well" if len(bad) > 1 else ""
    raise PreparationError(
        ("" if first is None else f"record {first + row} of the batch: ")
        + f"{values} in lead {text}{others}",
        remedy="leave these records out, or repair them before preparation",
    )


def _check_leads(preparation: Preparation, record: Record) -> None:
    missing = [lead for lead in preparation.sources if lead not in record.leads]
    if not missing:
        return
    remedy = (
        "use a record with these leads, or name some that it has when you predict: "
        "`lead_subset=...`"
    )
    if set(missing) <= set(derivable_leads(record.leads)):
        remedy = "they follow from the others: preparation.deriving(record.leads) computes them"
    raise PreparationError(
        f"{record.source or record.name}: leads {', '.join(missing)} are missing; the record has "
        f"{', '.join(record.leads)}",
        remedy=remedy,
    )


def _check_batch(
    preparation: Preparation, signals: Tensor, rate: float, starts: Tensor, unit: Unit
) -> None:
    sources = preparation.sources
    if signals.ndim != 3 or signals.shape[1] != len(sources):
        raise PreparationError(
            f"signals of shape {tuple(signals.shape)}, but (batch, {len(sources)}, "
            "samples) is needed",
            remedy=f"select the leads {', '.join(sources)}, in this order",
        )
    if unit not in ("mV", "uV"):
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
