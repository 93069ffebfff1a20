"""From a tuple of steps to operations on tensors of one length and rate.

Neighbouring linear steps (resample, window, filters) become one `SpectralMap`. Plans are cached: a
training run builds one for every length and rate that its records have.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from einthoven.errors import PreparationError
from einthoven.signals.linear import (
    MapKey,
    SpectralMap,
    check_cutoff,
    full_precision,
    spectral_map,
)
from einthoven.signals.steps import Filter, Resample, Scale, Standardise, Step, Window


class Operation(Protocol):
    """One step, or several linear ones, on (batch, leads, samples)."""

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        """Return a new tensor, or `out` where the operation is able to fill it directly."""
        ...


# Records are prepared a few at a time, so that their spectra stay in a core's cache.
_CHUNK_VALUES = {"cpu": 1 << 20}
_CHUNK_VALUES_ELSEWHERE = 1 << 26

# Windows in a record from which on resampling and the filters of the crop are kept apart.
_LONG = 4

# Standard deviation, in mV, at or below which a signal counts as flat: a three-hundredth of the
# noise that storing whole microvolts adds.
FLAT = 1e-6


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
        Unless there is exactly one window, a rate is declared before it, and every filter after
        that suits the rate.
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
    for step in steps:
        rate = step.rate if isinstance(step, Resample) else rate
        if isinstance(step, Filter):
            check_cutoff(step, rate)


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
    out = torch.empty(batch, leads, window, device=device)
    budget = _CHUNK_VALUES.get(device.type, _CHUNK_VALUES_ELSEWHERE)
    size = max(1, budget // (leads * max(window, samples)))
    starts = starts.to(device)
    with full_precision(device):
        operations = _operations(steps, Shape(samples, rate), gain, device)
        for begin in range(0, batch, size):
            part = slice(begin, begin + size)
            x, target = _as_float(signals[part], begin), out[part]
            for operation in operations:
                last = operation is operations[-1]
                x = operation(x, starts[part], target if last else None)
            if x is not target:
                target.copy_(x)
    return out


def _as_float(signals: Tensor, first: int) -> Tensor:
    if not signals.is_floating_point():
        return signals.float()
    x = signals.float()
    # NaN and infinity survive a sum, which is cheaper than a look at every value.
    if not bool(torch.isfinite(x.sum())):
        bad = (~torch.isfinite(x)).flatten(1).any(1).nonzero().flatten() + first
        if len(bad):
            raise PreparationError(
                f"NaN or infinity in {len(bad)} of the records; the first is number {int(bad[0])}",
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
            if gain != 1.0 and _does_something(taken[0], shape):
                operations.append(_Gain(gain))
                gain = 1.0
            operations.extend(_plain(taken[0], shape))
        for step in taken:
            shape = _after(step, shape)
        position += len(taken)
    return tuple(operations)


def _linear_run(steps: Sequence[Step], shape: Shape) -> tuple[Step, ...]:
    """The leading steps that one `SpectralMap` can carry out together."""
    taken: list[Step] = []
    if isinstance(steps[0], Resample) and _does_something(steps[0], shape):
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
    return _Linear(spectral_map(key, device), cropped)


def _plain(step: Step, shape: Shape) -> list[Operation]:
    if isinstance(step, Window):
        return [_Crop(step.samples)]
    if isinstance(step, Standardise):
        return [_Standardise((1, 2) if step.over == "record" else (2,))]
    if isinstance(step, Scale):
        return [_Constants(step.mean, step.std)]
    return []


def _does_something(step: Step, shape: Shape) -> bool:
    return not (isinstance(step, Resample) and step.rate == shape.rate)


def _is_window(step: Step) -> bool:
    return isinstance(step, Window)


@dataclass(frozen=True)
class _Linear:
    chain: SpectralMap
    cropped: bool

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        return self.chain(x, starts if self.cropped else None)


@dataclass(frozen=True)
class _Gain:
    factor: float

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        return x * self.factor


@dataclass(frozen=True)
class _Constants:
    mean: float
    std: float

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        return (x - self.mean) / self.std


@dataclass(frozen=True)
class _Crop:
    samples: int

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        if x.shape[2] < self.samples:
            return torch.nn.functional.pad(x, (0, self.samples - x.shape[2]))
        crops = [r[:, s : s + self.samples] for r, s in zip(x, starts.tolist(), strict=True)]
        return torch.stack(crops)


@dataclass(frozen=True)
class _Standardise:
    axes: tuple[int, ...]

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        mean = x.mean(self.axes, keepdim=True)
        out = torch.sub(x, mean, out=out)
        count = math.prod(x.shape[axis] for axis in self.axes)
        std = torch.linalg.vector_norm(out, dim=self.axes, keepdim=True) / math.sqrt(count)
        # In float32 a flat signal leaves rounding behind, which must not be blown up to unit size.
        flat = std <= FLAT * mean.abs().clamp(min=1.0)
        return out.mul_(torch.where(flat, 0.0, 1.0 / std))


def _after(step: Step, shape: Shape) -> Shape:
    if isinstance(step, Resample):
        if step.rate == shape.rate or shape.samples == 0:
            return Shape(shape.samples, step.rate)
        return Shape(math.floor(shape.samples * step.rate / shape.rate), step.rate)
    if isinstance(step, Window):
        return Shape(step.samples, shape.rate)
    return shape


def _window_input(window: Window, shape: Shape) -> Shape:
    if shape.samples >= window.samples:
        return shape
    if window.short == "pad":
        return Shape(window.samples, shape.rate)
    raise PreparationError(
        f"a record of {shape.samples} samples at {shape.rate:g} Hz is shorter than the window of "
        f"{window.samples}",
        remedy=f"Use records of at least {window.samples / shape.rate:g} s, a shorter window "
        "(with_window), or Window(short='pad'), which adds zeros at the end.",
    )
