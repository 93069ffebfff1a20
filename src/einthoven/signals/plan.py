"""From a tuple of steps to operations on tensors of one length and rate.

Neighbouring linear steps (resample, window, filters) become one `SpectralMap`. Plans are cached: a
training run builds one for every length and rate that its records have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from einthoven.errors import PreparationError
from einthoven.signals import operations as ops
from einthoven.signals.filters import check_cutoff
from einthoven.signals.fir import zero_phase_fir
from einthoven.signals.linear import MapKey, full_precision, spectral_map
from einthoven.signals.operations import Operation
from einthoven.signals.released_steps import Baseline, Decimate, Derive, Fill, Fir, MinMax
from einthoven.signals.steps import Centre, Filter, Resample, Scale, Standardise, Step, Window

# Records are prepared a few at a time, so that their spectra stay in a core's cache.
_CHUNK_VALUES = {"cpu": 1 << 20}
_CHUNK_VALUES_ELSEWHERE = 1 << 26

# Windows in a record from which on resampling and the filters of the crop are kept apart.
_LONG = 4


@dataclass(frozen=True)
class Shape:
    """Length and rate of the signal between two steps."""

    samples: int
    rate: float


def check_steps(steps: Sequence[Step]) -> None:
    """Refuse steps that no signal could go through.

    Raises
    ------
    PreparationError
        Unless there is exactly one window, a rate is declared before it, every filter after that
        suits the rate, and steps that need a certain place have it.
    """
    windows = [i for i, step in enumerate(steps) if isinstance(step, Window)]
    if len(windows) != 1:
        raise PreparationError(
            f"{len(windows)} windows among the steps, but a preparation has exactly one",
            remedy="Give one Window step.",
        )
    if not any(isinstance(step, Resample) for step in steps[: windows[0]]):
        raise PreparationError(
            "no Resample before the Window, so the window has no duration",
            remedy="Give the rate with a Resample step first; records that have it are left alone.",
        )
    rate = math.inf
    for place, step in enumerate(steps):
        _check_place(step, place, windows[0], steps)
        rate = step.rate if isinstance(step, Resample) else rate
        rate = rate / step.factor if isinstance(step, Decimate) else rate
        if isinstance(step, Filter | Fir):
            check_cutoff(step, rate)


def _check_place(step: Step, place: int, window: int, steps: Sequence[Step]) -> None:
    late = isinstance(step, Decimate) or (isinstance(step, Fill) and step.value == "crop-mean")
    if late and place < window:
        raise PreparationError(
            f"{step.name} before the window, but it works on crops",
            remedy="Put it behind the Window step.",
        )
    if isinstance(step, Derive) and place > 0:
        raise PreparationError(
            f"derive is step {place + 1}, but leads can only be computed from voltages as recorded",
            remedy="Put it first.",
        )
    if isinstance(step, Decimate):
        samples = prepared_shape(steps[:place]).samples
        if samples % step.factor:
            raise PreparationError(
                f"a window of {samples} samples cannot be decimated by {step.factor}",
                remedy=f"Take a length that is a multiple of {step.factor} samples.",
            )


def window_shape(steps: Sequence[Step], samples: int, rate: float) -> Shape:
    """Length and rate that a record has when it reaches the window, padding included.

    Raises
    ------
    PreparationError
        For a rate that is not positive or a record that is too short.
    """
    if not (math.isfinite(rate) and rate > 0):
        raise PreparationError(
            f"rate = {rate!r} Hz", remedy="Give the record's sampling rate in Hz, above 0."
        )
    shape = Shape(samples, rate)
    for step in steps:
        if isinstance(step, Window):
            return _window_input(step, shape)
        shape = _after(step, shape)
    raise AssertionError("check_steps lets no preparation without a window pass")


def prepared_shape(steps: Sequence[Step]) -> Shape:
    """Length and rate of every prepared signal."""
    shape = Shape(0, 0.0)
    for step in steps:
        shape = _after(step, shape)
    return shape


def run(
    steps: tuple[Step, ...], signals: Tensor, starts: Tensor, *, rate: float, gain: float
) -> Tensor:
    """Carry out the steps on signals (batch, leads, samples), a few records at a time."""
    batch, leads, samples = signals.shape
    device = signals.device
    window = prepared_shape(steps).samples
    fills = any(isinstance(step, Fill) for step in steps)
    out = torch.empty(batch, leads, window, device=device)
    starts = starts.to(device)
    chunk = _CHUNK_VALUES.get(device.type, _CHUNK_VALUES_ELSEWHERE)
    size = max(1, chunk // (leads * max(window, samples)))
    with full_precision(device):
        operations = _operations(steps, Shape(samples, rate), gain, device)
        for begin in range(0, batch, size):
            part = slice(begin, begin + size)
            x, target = _as_float(signals[part], begin, fills=fills), out[part]
            for operation in operations:
                last = operation is operations[-1]
                x = operation(x, starts[part], target if last else None)
            if x is not target:
                target.copy_(x)
    return out


def _as_float(signals: Tensor, first: int, *, fills: bool) -> Tensor:
    """Float32; refuses infinity, and NaN where no step fills it."""
    if not signals.is_floating_point():
        return signals.float()
    x = signals.float()
    # NaN and infinity survive a sum, which is cheaper than a look at every value.
    if not bool(torch.isfinite(x.sum())):
        bad = (x.isinf() if fills else ~x.isfinite()).flatten(1).any(1).nonzero().flatten() + first
        if len(bad):
            what = "infinity" if fills else "NaN or infinity"
            raise PreparationError(
                f"{what} in {len(bad)} of the records; the first is number {int(bad[0])}",
                remedy="Leave these records out, or repair them before preparation.",
            )
    return x


@lru_cache(maxsize=256)
def _operations(
    steps: tuple[Step, ...], shape: Shape, gain: float, device: torch.device
) -> tuple[Operation, ...]:
    operations: list[Operation] = []
    position = 0
    while position < len(steps):
        taken = _linear_run(steps[position:], shape)
        if taken:
            key = _map_key(taken, shape, gain)
            operations.append(_linear(key, device, cropped=any(map(_is_window, taken))))
            gain = 1.0
        else:
            taken = steps[position : position + 1]
            if gain != 1.0 and _needs_volts(taken[0], shape):
                operations.append(ops.Gain(gain))
                gain = 1.0
            operations.extend(_plain(taken[0], shape, device))
        for step in taken:
            shape = _after(step, shape)
        position += len(taken)
    return tuple(operations)


def _linear_run(steps: Sequence[Step], shape: Shape) -> tuple[Step, ...]:
    """The leading steps that one `SpectralMap` can carry out together."""
    taken: list[Step] = []
    if _is_fourier(steps[0]) and _does_something(steps[0], shape):
        taken.append(steps[0])
        following = steps[1] if len(steps) > 1 else None
        length = _after(steps[0], shape).samples
        if isinstance(following, Window):
            # A crop out of a long recording is cheaper to filter after it is cut.
            if not following.samples <= length <= _LONG * following.samples:
                return tuple(taken)
            taken.append(following)
    for step in steps[len(taken) :]:
        if not isinstance(step, Filter):
            break
        taken.append(step)
    return tuple(taken)


def _map_key(steps: Sequence[Step], shape: Shape, gain: float) -> MapKey:
    samples = resampled = window = shape.samples
    rate = shape.rate
    for step in steps:
        if isinstance(step, Resample):
            rate = step.rate
            resampled = window = _after(step, shape).samples
        elif isinstance(step, Window):
            window = step.samples
    filters = tuple(step for step in steps if isinstance(step, Filter))
    return MapKey(samples, resampled, window, rate, filters, gain)


def _linear(key: MapKey, device: torch.device, *, cropped: bool) -> Operation:
    return ops.Linear(spectral_map(key, device), cropped)


def _plain(step: Step, shape: Shape, device: torch.device) -> list[Operation]:
    """The operation of a step that is no part of a map; none where it does nothing."""
    match step:
        case Window():
            return [ops.Crop(step.samples)]
        case Standardise():
            return [ops.Standardised((1, 2) if step.over == "record" else (2,))]
        case Centre():
            return [ops.Centred()]
        case Scale():
            return [ops.Constants(step.mean, step.std)]
        case Resample() if _does_something(step, shape):
            return [ops.Interpolation(shape.samples, _after(step, shape).samples)]
        case Fir():
            return [zero_phase_fir(step, shape.samples, shape.rate, device)]
        case MinMax():
            return [ops.ScaledByExtremes()]
        case Baseline():
            return [ops.MinusMedian(step.samples(shape.rate))]
        case Fill():
            return [ops.FillZero() if step.value == "zero" else ops.FillMean()]
        case Decimate():
            return [ops.Decimation(step, shape.rate)]
    return []


def _does_something(step: Step, shape: Shape) -> bool:
    return not (isinstance(step, Resample) and step.rate == shape.rate)


def _needs_volts(step: Step, shape: Shape) -> bool:
    """Whether a factor in front of a step cannot wait until behind it."""
    return _does_something(step, shape) and not isinstance(step, Fill | Derive | Centre)


def _is_fourier(step: Step) -> bool:
    return isinstance(step, Resample) and step.method == "fourier"


def _is_window(step: Step) -> bool:
    return isinstance(step, Window)


def _after(step: Step, shape: Shape) -> Shape:
    if isinstance(step, Resample):
        if step.rate == shape.rate or shape.samples == 0:
            return Shape(shape.samples, step.rate)
        return Shape(math.floor(shape.samples * step.rate / shape.rate), step.rate)
    if isinstance(step, Window):
        return Shape(step.samples, shape.rate)
    if isinstance(step, Decimate):
        return Shape(-(-shape.samples // step.factor), shape.rate / step.factor)
    return shape


def _window_input(window: Window, shape: Shape) -> Shape:
    if shape.samples >= window.samples:
        return shape
    if window.short == "pad":
        return Shape(window.samples, shape.rate)
    raise PreparationError(
        f"a record of {shape.samples} samples at {shape.rate:g} Hz is shorter than the window of "
        f"{window.samples}",
        remedy=f"Use records of at least {window.samples / shape.rate:g} s. A preparation of your "
        "own may have a shorter window (with_window), or add zeros at the end "
        "(Window(short='pad')).",
    )
