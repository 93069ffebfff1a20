"""Preparation steps: one frozen value a step, which applies, checks and describes itself.

A step is added by one class that subclasses `Step`, has a `name` and annotated fields, and is
decorated with `register_step`. `Preparation.to_dict` writes its fields under its name. Arithmetic
that needs more than a few lines is in `filters`.

A step is applied to PyTorch's tensors or to numpy's arrays, which share the operations used here,
so that a record can be prepared without PyTorch. Steps after the window are also traced when a
model is exported; they work on tensors then, and must not depend on values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar, dataclass_transform

import numpy as np
import scipy
from pydantic import Field, PositiveFloat, PositiveInt

from einthoven.errors import PreparationError, validated
from einthoven.records.limb_leads import derivable_leads, derivation
from einthoven.signals import filters
from einthoven.signals.filters import Signal, is_traced

# Standard deviation, in mV, at or below which a signal counts as flat: a three-hundredth of the
# noise that storing whole microvolts adds.
_FLAT = 1e-6
_RANGE_EPSILON = 1e-8  # mV, of the published scaling by extremes

Band = tuple[PositiveFloat, PositiveFloat]


@dataclass(frozen=True)
class Frame:
    """The signal between two steps.

    Attributes
    ----------
    leads : tuple of str
        Lead of each row.
    samples : int
        Number of samples; 0 where a preparation is checked without a record.
    rate : float
        Hz; infinite where a preparation is checked without a record.
    windowed : bool
        Whether it is a crop: the window lies behind it.
    """

    leads: tuple[str, ...]
    samples: int = 0
    rate: float = math.inf
    windowed: bool = False


@dataclass(frozen=True)
class Step:
    """Base class of all steps; the methods below are what a step may override.

    `str(step)` is a short description without a semicolon.
    """

    name: ClassVar[str]
    """Name in `Preparation.to_dict`."""
    fills_missing: ClassVar[bool] = False
    """Whether the step replaces NaN; without such a step, records with NaN are refused."""

    @property
    def removes_offsets(self) -> bool:
        """Whether a constant that is added to a lead has no effect on the result."""
        return False

    def removes(self, frequency: float) -> bool:
        """Whether the step removes mains hum of a frequency in Hz."""
        return False

    def check(self, frame: Frame) -> None:
        """Raise PreparationError if the step cannot be applied to a signal."""

    def after(self, frame: Frame) -> Frame:
        """Leads, length and rate of the result."""
        return frame

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        """Apply the step to (batch, leads, samples) float32; `x` itself is never changed.

        `starts` are the (batch,) positions of the crops, for the window.
        """
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON types, and the name under `step`."""
        values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        return {"step": self.name, **values}


StepClass = TypeVar("StepClass", bound=Step)
STEPS: dict[str, type[Step]] = {}
"""Registered steps by name."""


@dataclass_transform(frozen_default=True)
def register_step(kind: type[StepClass]) -> type[StepClass]:
    """Make a class a frozen, validated step, which `Preparation.from_dict` finds by its name.

    Invalid fields are refused with PreparationError (`einthoven.errors.validated`).

    Raises
    ------
    PreparationError
        If another class has this name.
    """
    if kind.name in STEPS:
        raise PreparationError(
            f"a step named {kind.name!r} exists already", remedy="choose another name"
        )
    STEPS[kind.name] = step = validated(kind.name, PreparationError)(kind)
    return step


def step_from_dict(values: Mapping[str, Any]) -> Step:
    """Read what `Step.to_dict` wrote.

    Raises
    ------
    PreparationError
        If the step is not registered, or a key is unknown, missing or invalid.
    """
    if not isinstance(values, Mapping):
        raise PreparationError(
            f"preparation step {values!r} is not a table of keys",
            remedy='write the step as {"step": NAME, ...}',
        )
    options = dict(values)
    name = str(options.pop("step", None))
    if name not in STEPS:
        raise PreparationError(
            f"unknown preparation step {name!r}", remedy=f"use one of {', '.join(sorted(STEPS))}"
        )
    return STEPS[name](**{str(key): value for key, value in options.items()})


@register_step
class Resample(Step):
    """Bring the signal to another rate.

    Parameters
    ----------
    rate : float
        Rate after this step, in Hz.
    method : {"fourier", "linear"}
        `fourier` is the band-limited periodic interpolation of `scipy.signal.resample`. `linear`
        draws straight lines between samples, the first and the last of which stay the first and
        the last; to a lower rate it aliases. The new length is
        ``floor(samples * rate / old_rate)``. A signal that has the rate already does not change.
    """

    name: ClassVar[str] = "resample"
    rate: PositiveFloat
    method: Literal["fourier", "linear"] = "fourier"

    def __str__(self) -> str:
        return f"{self.method} resampling to {self.rate:g} Hz"

    def after(self, frame: Frame) -> Frame:
        if self.rate == frame.rate or frame.samples == 0:
            return replace(frame, rate=self.rate)
        samples = math.floor(frame.samples * self.rate / frame.rate)
        return replace(frame, samples=samples, rate=self.rate)

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        if self.rate == frame.rate:
            return x
        resampled = filters.fourier_resampled if self.method == "fourier" else filters.interpolated
        return resampled(x, self.after(frame).samples)


@register_step
class Window(Step):
    """Keep a stretch of fixed length.

    Parameters
    ----------
    samples : int
        Length of the stretch, in samples at the rate reached by then.
    evaluation_crops : int
        Number of equally spaced stretches of a record that are used in evaluation.
    short : {"refuse", "pad"}
        Treatment of a record shorter than the window: refused, or zeros added at its end.
    """

    name: ClassVar[str] = "window"
    samples: PositiveInt
    evaluation_crops: PositiveInt = 3
    short: Literal["refuse", "pad"] = "refuse"

    def __str__(self) -> str:
        return f"window of {self.samples} samples ({self.evaluation_crops} evaluation crops)"

    def length(self, frame: Frame) -> int:
        """Length of the signal that crops are cut from, padding included."""
        if frame.samples >= self.samples:
            return frame.samples
        if self.short == "pad":
            return self.samples
        raise PreparationError(
            f"a record of {frame.samples} samples at {frame.rate:g} Hz is shorter than the window "
            f"of {self.samples}",
            remedy=f"leave out records of less than {self.samples / frame.rate:g} s, or train a "
            "model for them: `overrides=['data.crop_seconds=SECONDS']`, or "
            "`overrides=['data.short=pad']`",
        )

    def after(self, frame: Frame) -> Frame:
        return replace(frame, samples=self.samples, windowed=True)

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        import torch

        if x.shape[2] < self.samples:
            return torch.nn.functional.pad(x, (0, self.samples - x.shape[2]))
        return x.unfold(2, self.samples, 1)[torch.arange(len(x)), :, starts.long()]


@register_step
class Decimate(Step):
    """Keep one sample in `factor` of the crop after a low-pass; only after the window.

    As `scipy.signal.decimate` does by default: a Chebyshev filter of the first kind, order 8, with
    0.05 dB of ripple and its corner at 0.8 of half the new rate, forwards and backwards with odd
    extension at the ends. At 0 Hz its gain is 0.9886, not 1.

    Parameters
    ----------
    factor : int
        Number of samples that become one.
    over : {"lead", "end-to-end"}
        Each lead alone, or all leads concatenated in their order: the filter then rings across
        the seams between them.
    """

    name: ClassVar[str] = "decimate"
    factor: Annotated[int, Field(ge=2)]
    over: Literal["lead", "end-to-end"] = "lead"

    def __str__(self) -> str:
        over = "each lead" if self.over == "lead" else "all leads end to end"
        return f"decimation by {self.factor} of {over}"

    def sections(self, rate: float) -> filters.Array:
        """Second-order sections of the low-pass, (sections, 6), the same for every rate."""
        return np.asarray(scipy.signal.cheby1(8, 0.05, 0.8 / self.factor, output="sos"))

    def check(self, frame: Frame) -> None:
        _check_windowed(self, frame)
        if frame.samples % self.factor:
            raise PreparationError(
                f"a window of {frame.samples} samples cannot be decimated by {self.factor}",
                remedy=f"use a length that is a multiple of {self.factor} samples",
            )

    def after(self, frame: Frame) -> Frame:
        samples = frame.samples // self.factor
        return replace(frame, samples=samples, rate=frame.rate / self.factor)

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        rows = x.flatten(1).unsqueeze(1) if self.over == "end-to-end" else x
        filtered = filters.crop_filter((self,), rows.shape[-1], frame.rate)(rows)
        return filtered[..., :: self.factor].reshape(*x.shape[:2], -1)


@register_step
class Derive(Step):
    """Compute limb leads from two others, in millivolts; only as the first step.

    The law holds between voltages and after no other step (`einthoven.records.limb_leads`).

    Parameters
    ----------
    leads : tuple of str
        Leads of the preparation that are computed.
    of : (str, str)
        The two leads that they are computed from. They are read from the record even if they are
        not among the preparation's leads.
    """

    name: ClassVar[str] = "derive"
    leads: tuple[str, ...]
    of: tuple[str, str]

    def __post_init__(self) -> None:
        if not self.leads or not set(self.leads) <= set(derivable_leads(self.of)):
            raise PreparationError(
                f"derive: {', '.join(self.leads) or 'no lead'} from {', '.join(self.of)}",
                remedy="name two limb leads, and leads among the other four that follow from them",
            )

    def __str__(self) -> str:
        return f"{', '.join(self.leads)} computed from {' and '.join(self.of)}, in mV"

    def after(self, frame: Frame) -> Frame:
        return replace(frame, leads=(*frame.leads, *self.leads))

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        pair, shares = derivation(self.of)
        first, second = (x[:, frame.leads.index(lead)] for lead in pair)
        share = dict(zip(derivable_leads(self.of), shares.tolist(), strict=True))
        computed = [share[lead][0] * first + share[lead][1] * second for lead in self.leads]
        library = _library(x)
        return library.concatenate([x, library.stack(computed, axis=1)], axis=1)


@register_step
class Filter(Step):
    """Filter every lead forwards and backwards (no phase shift).

    Filters are second-order sections, and the ends are extended oddly, as by default in
    `scipy.signal.sosfiltfilt`.
    Neighbouring filters after the window are one map, which is fast. Before the
    window they run in scipy, as records have any length.

    Parameters
    ----------
    kind : {"highpass", "lowpass", "bandpass", "notch"}
        Butterworth for the first three; `notch` is a second-order notch of quality 30.
    cutoff : float or tuple of float
        Corner frequency in Hz (two for `bandpass`, the centre for `notch`).
    order : int
        Order of the Butterworth design; 2 for `notch`.
    """

    name: ClassVar[str] = "filter"
    kind: Literal["highpass", "lowpass", "bandpass", "notch"]
    cutoff: PositiveFloat | tuple[PositiveFloat, ...]
    order: PositiveInt = 5

    def __post_init__(self) -> None:
        _check_corners(self, 2 if self.kind == "bandpass" else 1)
        if self.kind == "notch" and self.order != 2:
            raise PreparationError(
                f"filter: order = {self.order}, but a notch has order 2",
                remedy="use order=2 for a notch",
            )

    def __str__(self) -> str:
        corners = "-".join(f"{corner:g}" for corner in _corners(self))
        return f"{self.kind} {corners} Hz (order {self.order})"

    @property
    def removes_offsets(self) -> bool:
        return self.kind in ("highpass", "bandpass")

    def removes(self, frequency: float) -> bool:
        upper = _corners(self)[-1]
        if self.kind == "notch":
            return upper == frequency
        return self.kind != "highpass" and upper < frequency

    def check(self, frame: Frame) -> None:
        _check_below_nyquist(self, frame.rate)

    def sections(self, rate: float) -> filters.Array:
        """Second-order sections at a rate in Hz, (sections, 6)."""
        if self.kind == "notch":
            notch = scipy.signal.iirnotch(_corners(self)[0], 30.0, fs=rate)
            return np.asarray(scipy.signal.tf2sos(*notch))
        corners = _corners(self) if self.kind == "bandpass" else _corners(self)[0]
        design: Any = scipy.signal.butter(self.order, corners, self.kind, fs=rate, output="sos")
        return np.asarray(design)

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        return apply_filters((self,), x, frame)


def apply_filters(steps: tuple[Filter, ...], x: Signal, frame: Frame) -> Signal:
    """Apply neighbouring filters: in one map to a crop, with scipy to a record of any length."""
    for step in steps:
        step.check(frame)
    if frame.windowed:
        return filters.crop_filter(steps, frame.samples, frame.rate)(x)
    return filters.record_filtered(x, steps, frame.rate)


@register_step
class Fir(Step):
    """Filter every lead forwards and backwards with a linear-phase band-pass.

    Taps are those of `scipy.signal.firwin`, with its Hamming window, for as many samples as
    `seconds` has, made odd; they run forwards and backwards with odd extension at the ends, as
    `scipy.signal.filtfilt` does by default. The number of taps depends on the rate of the signal,
    so that the same step has another effect on records of another rate.

    Parameters
    ----------
    cutoff : (float, float)
        Lower and upper corner, in Hz.
    seconds : float
        Length of the filter.
    """

    name: ClassVar[str] = "fir"
    removes_offsets = True
    kind: ClassVar[str] = "bandpass"
    cutoff: Band
    seconds: PositiveFloat = 0.3

    def __post_init__(self) -> None:
        _check_corners(self, 2)

    def __str__(self) -> str:
        low, high = self.cutoff
        return f"linear-phase bandpass {low:g}-{high:g} Hz ({self.seconds:g} s)"

    def removes(self, frequency: float) -> bool:
        return self.cutoff[1] < frequency

    def check(self, frame: Frame) -> None:
        _check_below_nyquist(self, frame.rate)

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        taps = int(self.seconds * frame.rate) | 1
        if frame.samples < taps:
            raise PreparationError(
                f"a record of {frame.samples} samples at {frame.rate:g} Hz is shorter than its "
                f"filter of {taps} taps",
                remedy=f"use records of at least {taps / frame.rate:g} s",
            )
        return filters.fir_filtered(x, taps, self.cutoff, frame.rate)


@register_step
class Baseline(Step):
    """Subtract a running median, with zeros beyond the ends as `scipy.signal.medfilt` has them.

    Parameters
    ----------
    seconds : float
        Length of the median's window: ``int(seconds * rate) + 1`` samples, one more if that is
        even.
    """

    name: ClassVar[str] = "baseline"
    removes_offsets = True
    seconds: PositiveFloat

    def __str__(self) -> str:
        return f"minus a running median of {self.seconds:g} s"

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        return x - filters.running_median(x, (int(self.seconds * frame.rate) + 1) | 1)


@register_step
class Centre(Step):
    """Subtract each lead's mean over the signal as it is by then.

    Before the window that is the whole record: its offset is removed, and a crop keeps its level
    relative to its record. NaN stays NaN and does not count.
    """

    name: ClassVar[str] = "centre"
    removes_offsets = True

    def __str__(self) -> str:
        return "minus each lead's mean"

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        mean = x.mean(axis=-1, keepdims=True)
        if _has_nan(mean):
            mean = _library(x).nanmean(x, axis=-1, keepdims=True)
        return x - mean


@register_step
class Standardise(Step):
    """Subtract the mean and divide by the population standard deviation.

    Parameters
    ----------
    over : {"record", "lead"}
        One mean and deviation for all leads together, or one for each lead. Where the deviation
        is zero, the output is zero.
    """

    name: ClassVar[str] = "standardise"
    over: Literal["record", "lead"] = "record"

    def __str__(self) -> str:
        return f"standardised over each {self.over}"

    @property
    def removes_offsets(self) -> bool:
        return self.over == "lead"

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        axes = (1, 2) if self.over == "record" else (2,)
        mean = x.mean(axis=axes, keepdims=True)
        centred = x - mean
        deviation = (centred * centred).mean(axis=axes, keepdims=True) ** 0.5
        # In float32 a flat signal leaves rounding behind, which must not be scaled to unit size.
        flat = deviation <= _FLAT * abs(mean).clip(min=1.0)
        return centred * (~flat / (deviation + flat))


@register_step
class Scale(Step):
    """Subtract a constant and divide by a constant.

    Parameters
    ----------
    mean, std : float
        The constants, in mV.
    """

    name: ClassVar[str] = "scale"
    mean: float
    std: PositiveFloat

    def __str__(self) -> str:
        return f"subtract {self.mean:g} mV, divide by {self.std:g} mV"

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        return (x - self.mean) / self.std


@register_step
class MinMax(Step):
    """Scale every lead so that its lowest value becomes -1 and its highest 1.

    ``2 * (x - lowest) / (highest - lowest + 1e-8) - 1``, over the lead as it is by then; a flat
    lead becomes -1.
    """

    name: ClassVar[str] = "min-max"
    removes_offsets = True

    def __str__(self) -> str:
        return "each lead's extremes to -1 and 1"

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        library = _library(x)
        lowest, highest = (
            extreme(x, axis=-1, keepdims=True) for extreme in (library.amin, library.amax)
        )
        span = highest - lowest
        # As in `Standardise`; the extremes of rounding lie further apart than its deviation.
        flat = span <= 4 * _FLAT * abs(lowest).clip(min=1.0)
        return (x - lowest) * (2.0 * (~flat / (span + _RANGE_EPSILON))) - 1.0


@register_step
class Fill(Step):
    """Replace NaN. A preparation without this step refuses records with NaN.

    A filter or a resampling before this step spreads one NaN over its whole lead.

    Parameters
    ----------
    value : {"zero", "crop-mean"}
        Replacement: 0, or the mean of the other values of all leads, after the window.
    """

    name: ClassVar[str] = "fill"
    fills_missing: ClassVar[bool] = True
    value: Literal["zero", "crop-mean"]

    def __str__(self) -> str:
        replacement = "0" if self.value == "zero" else "the mean of the crop"
        return f"{replacement} for values that are not numbers"

    def check(self, frame: Frame) -> None:
        if self.value == "crop-mean":
            _check_windowed(self, frame)

    def apply(self, x: Signal, frame: Frame, starts: Signal) -> Signal:
        if not _has_nan(x):
            return x
        library = _library(x)
        missing = library.isnan(x)
        if self.value == "zero":
            return library.where(missing, library.zeros_like(x), x)
        mean = library.nanmean(x, axis=(1, 2), keepdims=True)
        if not is_traced() and bool(library.isnan(mean).any()):
            raise PreparationError(
                "fill: a record has no value left, only NaN",
                remedy="leave this record out, or repair it before preparation",
            )
        return library.where(missing, mean, x)


def _check_windowed(step: Step, frame: Frame) -> None:
    if not frame.windowed:
        raise PreparationError(
            f"{step.name} before the window, but it works on crops",
            remedy="put it after the Window step",
        )


def _corners(step: Filter | Fir) -> tuple[float, ...]:
    return step.cutoff if isinstance(step.cutoff, tuple) else (step.cutoff,)


def _check_corners(step: Filter | Fir, count: int) -> None:
    corners = _corners(step)
    if len(corners) != count or list(corners) != sorted(set(corners)):
        raise PreparationError(
            f"{step.name}: {step.kind} with cutoff = {step.cutoff!r}",
            remedy="use two frequencies in Hz for a band, the lower one first, and else one",
        )


def _check_below_nyquist(step: Filter | Fir, rate: float) -> None:
    corner = _corners(step)[-1]
    if corner >= rate / 2:
        raise PreparationError(
            f"{step.kind}: cutoff {corner:g} Hz is not below half the rate of {rate:g} Hz",
            remedy=f"lower the cutoff below {rate / 2:g} Hz, or resample to a higher rate first",
        )


def _has_nan(x: Signal) -> bool:
    """Whether there is NaN; a graph has to expect it."""
    # NaN survives a sum, which is cheaper than a look at every value.
    return is_traced() or math.isnan(float(x.sum()))


def _library(x: Signal) -> Any:
    """The library of an array or tensor, for functions that have the same name in both."""
    if isinstance(x, np.ndarray):
        return np
    import torch

    return torch
