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

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from einthoven.errors import PreparationError
from einthoven.records.record import Record
from einthoven.signals import plan
from einthoven.signals.steps import (
    Filter,
    Resample,
    Scale,
    Standardise,
    Step,
    Window,
    step_from_dict,
    step_to_dict,
)

__all__ = [
    "Filter",
    "Preparation",
    "Resample",
    "Scale",
    "Standardise",
    "Step",
    "Window",
    "evaluation_starts",
    "prepare_batch",
    "prepare_record",
    "random_starts",
    "resampled_length",
]

Unit = Literal["mV", "uV"]
_MILLIVOLTS: dict[str, float] = {"mV": 1.0, "uV": 1e-3}


@dataclass(frozen=True)
class Preparation:
    """Leads and steps, in order.

    Parameters
    ----------
    leads : tuple of str
        Names of the leads that the network reads, in its order.
    steps : tuple of Step
        What is done, in this order. Exactly one `Window`, and at least one `Resample`, which
        declares the rate (it costs nothing where the record has that rate already).

    Raises
    ------
    PreparationError
        When the leads or the steps contradict each other.
    """

    leads: tuple[str, ...]
    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        if not self.leads or len(set(self.leads)) != len(self.leads):
            raise PreparationError(
                f"leads = {self.leads!r}", remedy="Name at least one lead, and none twice."
            )
        object.__setattr__(self, "leads", tuple(self.leads))
        object.__setattr__(self, "steps", tuple(self.steps))
        plan.check_steps(self.steps)

    @property
    def rate(self) -> float:
        """Rate of the prepared signal, in Hz."""
        return plan.prepared_shape(self.steps).rate

    @property
    def window(self) -> int:
        """Length of the prepared signal, in samples at `rate`."""
        return plan.prepared_shape(self.steps).samples

    @property
    def evaluation_crops(self) -> int:
        """How many stretches of a record are used in evaluation, at most."""
        return self._window.evaluation_crops

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hexadecimal."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` gives back an equal value."""
        return {"leads": list(self.leads), "steps": [step_to_dict(step) for step in self.steps]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preparation:
        """Read what `to_dict` wrote.

        Raises
        ------
        PreparationError
            For a missing or an unknown key.
        """
        # A string would pass for a sequence of one-letter leads.
        whole = set(values) == {"leads", "steps"} and not isinstance(values["leads"], str)
        if not whole:
            raise PreparationError(
                f"a preparation has the keys leads and steps, two lists, but this is {values!r}",
                remedy="Use the dictionary that Preparation.to_dict wrote.",
            )
        steps = tuple(step_from_dict(step) for step in values["steps"])
        return cls(leads=tuple(values["leads"]), steps=steps)

    def with_window(self, *, seconds: float) -> Preparation:
        """A copy with shorter or longer crops; they must be a whole number of samples."""
        samples = seconds * self._window_rate
        if samples < 1 or abs(samples - round(samples)) > 1e-6:
            raise PreparationError(
                f"a window of {seconds} s is {samples:g} samples at {self._window_rate:g} Hz",
                remedy="Give a length that is a whole number of samples.",
            )
        return self._with(replace(self._window, samples=round(samples)))

    def with_evaluation_crops(self, count: int) -> Preparation:
        """A copy that evaluates on another number of crops."""
        return self._with(replace(self._window, evaluation_crops=count))

    def describe(self) -> str:
        """One line for people."""
        return f"{len(self.leads)} leads; " + "; ".join(str(step) for step in self.steps)

    @property
    def _window(self) -> Window:
        return next(step for step in self.steps if isinstance(step, Window))

    @property
    def _window_rate(self) -> float:
        """Rate at which the window is cut, in Hz."""
        before = self.steps[: self.steps.index(self._window)]
        return [step.rate for step in before if isinstance(step, Resample)][-1]

    def _with(self, window: Window) -> Preparation:
        steps = tuple(window if isinstance(step, Window) else step for step in self.steps)
        return replace(self, steps=steps)


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
        (batch, leads, samples), floating point or integer, leads as `preparation.leads`.
    rate : float
        Rate of the signals, in Hz.
    starts : Tensor
        (batch,) integers: where each crop begins, in samples at the rate of the window.
    unit : {"mV", "uV"}
        Unit of the signals; the store holds int16 microvolts.

    Returns
    -------
    Tensor
        (batch, leads, window), float32, on the device of `signals`; full float32 precision also
        under autocast.

    Raises
    ------
    PreparationError
        When shapes, rate, starts or values do not suit the preparation: a record shorter than the
        window, NaN or infinity, a cutoff above half the rate, a start outside the record.
    """
    if signals.ndim != 3 or signals.shape[1] != len(preparation.leads):
        raise PreparationError(
            f"signals of shape {tuple(signals.shape)}, but (batch, {len(preparation.leads)}, "
            "samples) is needed",
            remedy=f"Select the leads {', '.join(preparation.leads)}, in this order.",
        )
    if unit not in _MILLIVOLTS:
        raise PreparationError(
            f"unit = {unit!r} is unknown", remedy="Use 'mV' for millivolts or 'uV' for microvolts."
        )
    room = resampled_length(preparation, signals.shape[2], rate=rate) - preparation._window.samples
    starts = _checked_starts(starts, len(signals), room)
    gain = _MILLIVOLTS[unit]
    return plan.run(preparation.steps, signals, starts, rate=float(rate), gain=gain)


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
        The record; leads are picked by name.
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
    missing = [lead for lead in preparation.leads if lead not in record.leads]
    if missing:
        raise PreparationError(
            f"{record.name}: leads {', '.join(missing)} are missing; the record has "
            f"{', '.join(record.leads)}",
            remedy="Use a record with these leads, or a backbone that reads fewer.",
        )
    samples = record.signal.shape[1]
    if crops == "all":
        window = preparation._window.samples
        length = resampled_length(preparation, samples, rate=record.rate)
        starts = list(range(0, length - window + 1, window))
    elif crops == "evaluation":
        starts = evaluation_starts(preparation, samples, rate=record.rate)
    else:
        raise PreparationError(f"crops = {crops!r} is unknown", remedy="Use 'evaluation' or 'all'.")
    rows = [record.leads.index(lead) for lead in preparation.leads]
    signal = torch.from_numpy(np.ascontiguousarray(record.signal[rows], dtype=np.float32))
    batch = signal.expand(len(starts), -1, -1)
    return prepare_batch(preparation, batch, rate=record.rate, starts=torch.tensor(starts))


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
