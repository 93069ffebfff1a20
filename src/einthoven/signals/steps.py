"""Preparation steps: one frozen value a step, which applies, checks and describes itself.

A step is added by one class: a frozen dataclass that subclasses `Step`, has a `name`, and is
decorated with `register_step`. `Preparation.to_dict` writes its fields under its name. Arithmetic
that needs more than a few lines is in `filters`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal, TypeVar, get_args

import torch
from torch import Tensor

from einthoven.errors import PreparationError
from einthoven.records.limb_leads import derivable_leads, derivation
from einthoven.signals import filters

__all__ = [
    "STEPS",
    "Baseline",
    "Centre",
    "Decimate",
    "Derive",
    "Fill",
    "Filter",
    "Fir",
    "Frame",
    "MinMax",
    "Resample",
    "Scale",
    "Standardise",
    "Step",
    "Window",
    "register_step",
    "step_from_dict",
    "step_to_dict",
]

# Standard deviation, in mV, at or below which a signal counts as flat: a three-hundredth of the
# noise that storing whole microvolts adds.
_FLAT = 1e-6
_RANGE_EPSILON = 1e-8  # mV, of the published scaling by extremes

ResampleMethod = Literal["fourier", "linear"]
ShortPolicy = Literal["refuse", "pad"]
FilterKind = Literal["highpass", "lowpass", "bandpass", "notch"]
FilterForm = Literal["sos-zero-phase"]
StandardiseOver = Literal["record", "lead"]
FillValue = Literal["zero", "crop-mean"]
DecimateOver = Literal["lead", "end-to-end"]


@dataclass(frozen=True)
class Frame:
    """The signal between two steps.

    Attributes
    ----------
    leads : tuple of str
        Its rows.
    samples : int
        Its length; 0 where a preparation is checked without a record.
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

    def check(self, frame: Frame) -> None:
        """Raise PreparationError if the step cannot be applied to a signal."""

    def after(self, frame: Frame) -> Frame:
        """Leads, length and rate of the result."""
        return frame

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        """Apply the step to (batch, leads, samples) float32; `x` itself is never changed.

        `starts` are the (batch,) positions of the crops, for the window.
        """
        raise NotImplementedError


StepClass = TypeVar("StepClass", bound=Step)
STEPS: dict[str, type[Step]] = {}
"""Registered steps by name."""


def register_step(kind: type[StepClass]) -> type[StepClass]:
    """Register a step class under its name, so that `Preparation.from_dict` finds it.

    Raises
    ------
    PreparationError
        If another class has this name.
    """
    if STEPS.setdefault(kind.name, kind) is not kind:
        raise PreparationError(
            f"a step named {kind.name!r} exists already", remedy="choose another name"
        )
    return kind


# ------------------------------------------------------------------ rate, length and leads


@register_step
@dataclass(frozen=True)
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
    rate: float
    method: ResampleMethod = "fourier"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", _positive(self.rate, "resample: rate", "Hz"))
        _check_choice(self.method, get_args(ResampleMethod), "resample: method")

    def __str__(self) -> str:
        return f"{self.method} resampling to {self.rate:g} Hz"

    def after(self, frame: Frame) -> Frame:
        if self.rate == frame.rate or frame.samples == 0:
            return replace(frame, rate=self.rate)
        samples = math.floor(frame.samples * self.rate / frame.rate)
        return replace(frame, samples=samples, rate=self.rate)

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        if self.rate == frame.rate:
            return x
        resampled = filters.fourier_resampled if self.method == "fourier" else filters.interpolated
        return resampled(x, self.after(frame).samples)


@register_step
@dataclass(frozen=True)
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
    samples: int
    evaluation_crops: int = 3
    short: ShortPolicy = "refuse"

    def __post_init__(self) -> None:
        for field in ("samples", "evaluation_crops"):
            _check_integer(getattr(self, field), 1, f"window: {field}")
        _check_choice(self.short, get_args(ShortPolicy), "window: short")

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
            remedy=f"use records of at least {self.samples / frame.rate:g} s, a shorter window "
            "(with_window), or zeros at the end (Window(short='pad'))",
        )

    def after(self, frame: Frame) -> Frame:
        return replace(frame, samples=self.samples, windowed=True)

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        if x.shape[2] < self.samples:
            return torch.nn.functional.pad(x, (0, self.samples - x.shape[2]))
        crops = [r[:, s : s + self.samples] for r, s in zip(x, starts.tolist(), strict=True)]
        return torch.stack(crops)


@register_step
@dataclass(frozen=True)
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
    factor: int
    over: DecimateOver = "lead"

    def __post_init__(self) -> None:
        _check_integer(self.factor, 2, "decimate: factor")
        _check_choice(self.over, get_args(DecimateOver), "decimate: over")

    def __str__(self) -> str:
        over = "each lead" if self.over == "lead" else "all leads end to end"
        return f"decimation by {self.factor} of {over}"

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

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        rows = x.flatten(1).unsqueeze(1) if self.over == "end-to-end" else x
        low_pass = filters.Design("decimate", (0.8 / self.factor,), 8)
        filtered = filters.crop_filter((low_pass,), rows.shape[-1], 2.0, x.device)(rows)
        return filtered[..., :: self.factor].reshape(*x.shape[:2], -1)


@register_step
@dataclass(frozen=True)
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
        for field in ("leads", "of"):
            value = getattr(self, field)
            if isinstance(value, str) or not all(isinstance(lead, str) for lead in value):
                raise PreparationError(
                    f"derive: {field} = {value!r}", remedy="use a list of lead names"
                )
            object.__setattr__(self, field, tuple(value))
        possible = derivable_leads(self.of) if len(self.of) == 2 else ()
        if not self.leads or not set(self.leads) <= set(possible):
            raise PreparationError(
                f"derive: {', '.join(self.leads) or 'no lead'} from {', '.join(self.of)}",
                remedy="name two limb leads, and leads among the other four that follow from them",
            )

    def __str__(self) -> str:
        return f"{', '.join(self.leads)} computed from {' and '.join(self.of)}, in mV"

    def after(self, frame: Frame) -> Frame:
        return replace(frame, leads=(*frame.leads, *self.leads))

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        pair, shares = derivation(self.of)
        first, second = (x[:, frame.leads.index(lead)] for lead in pair)
        share = dict(zip(derivable_leads(self.of), shares.tolist(), strict=True))
        computed = [share[lead][0] * first + share[lead][1] * second for lead in self.leads]
        return torch.cat([x, torch.stack(computed, dim=1)], dim=1)


# ------------------------------------------------------------------ filters


@register_step
@dataclass(frozen=True)
class Filter(Step):
    """Filter every lead forwards and backwards (no phase shift).

    Neighbouring filters after the window are one map, which is fast on every device. Before the
    window they run in scipy, as records have any length.

    Parameters
    ----------
    kind : {"highpass", "lowpass", "bandpass", "notch"}
        Butterworth for the first three; `notch` is a second-order notch of quality 30.
    cutoff : float or pair of float
        Corner frequency in Hz (a pair for `bandpass`, the centre for `notch`).
    order : int
        Order of the Butterworth design; 2 for `notch`.
    form : {"sos-zero-phase"}
        Second-order sections, forward-backward with odd extension at the ends, as
        `scipy.signal.sosfiltfilt` does by default.
    """

    name: ClassVar[str] = "filter"
    kind: FilterKind
    cutoff: float | tuple[float, float]
    order: int = 5
    form: FilterForm = "sos-zero-phase"

    def __post_init__(self) -> None:
        _check_choice(self.kind, get_args(FilterKind), "filter: kind")
        _check_choice(self.form, get_args(FilterForm), "filter: form")
        expected = 2 if self.kind == "bandpass" else 1
        corners = _corners(self.cutoff, expected, f"filter: {self.kind}")
        _check_integer(self.order, 1, "filter: order")
        if self.kind == "notch" and self.order != 2:
            raise PreparationError(
                f"filter: order = {self.order}, but a notch has order 2",
                remedy="use order=2 for a notch",
            )
        object.__setattr__(self, "cutoff", corners[0] if expected == 1 else corners)

    def __str__(self) -> str:
        corners = "-".join(f"{corner:g}" for corner in self.design.cutoff)
        return f"{self.kind} {corners} Hz (order {self.order})"

    @property
    def design(self) -> filters.Design:
        """The filter's design, for the arithmetic."""
        corners = self.cutoff if isinstance(self.cutoff, tuple) else (self.cutoff,)
        return filters.Design(self.kind, corners, self.order)

    @property
    def removes_offsets(self) -> bool:
        return self.kind in ("highpass", "bandpass")

    def check(self, frame: Frame) -> None:
        _check_below_nyquist(self.kind, self.design.cutoff[-1], frame.rate)

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        return apply_filters((self,), x, frame)


def apply_filters(steps: tuple[Filter, ...], x: Tensor, frame: Frame) -> Tensor:
    """Apply neighbouring filters: in one map to a crop, with scipy to a record of any length."""
    designs = tuple(step.design for step in steps)
    for step in steps:
        step.check(frame)
    if frame.windowed:
        return filters.crop_filter(designs, frame.samples, frame.rate, x.device)(x)
    return filters.record_filtered(designs, x, frame.rate)


@register_step
@dataclass(frozen=True)
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
    kind: ClassVar[FilterKind] = "bandpass"
    cutoff: tuple[float, float]
    seconds: float = 0.3

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", _positive(self.seconds, "fir: seconds", "s"))
        object.__setattr__(self, "cutoff", _corners(self.cutoff, 2, "fir: bandpass"))

    def __str__(self) -> str:
        low, high = self.cutoff
        return f"linear-phase bandpass {low:g}-{high:g} Hz ({self.seconds:g} s)"

    @property
    def removes_offsets(self) -> bool:
        return True

    def taps(self, rate: float) -> int:
        """Number of taps at a rate: ``int(seconds * rate)``, plus one if that is even."""
        return int(self.seconds * rate) | 1

    def check(self, frame: Frame) -> None:
        _check_below_nyquist("bandpass", self.cutoff[1], frame.rate)

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        taps = self.taps(frame.rate)
        if frame.samples < taps:
            raise PreparationError(
                f"a record of {frame.samples} samples at {frame.rate:g} Hz is shorter than its "
                f"filter of {taps} taps",
                remedy=f"use records of at least {taps / frame.rate:g} s",
            )
        return filters.fir_filtered(x, taps, self.cutoff, frame.rate)


@register_step
@dataclass(frozen=True)
class Baseline(Step):
    """Subtract a running median, with zeros beyond the ends as `scipy.signal.medfilt` has them.

    Parameters
    ----------
    seconds : float
        Length of the median's window: ``int(seconds * rate) + 1`` samples, one more if that is
        even.
    """

    name: ClassVar[str] = "baseline"
    seconds: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", _positive(self.seconds, "baseline: seconds", "s"))

    def __str__(self) -> str:
        return f"minus a running median of {self.seconds:g} s"

    @property
    def removes_offsets(self) -> bool:
        return True

    def samples(self, rate: float) -> int:
        """Length of the median's window at a rate."""
        return (int(self.seconds * rate) + 1) | 1

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        return x - filters.running_median(x, self.samples(frame.rate))


# ------------------------------------------------------------------ values


@register_step
@dataclass(frozen=True)
class Centre(Step):
    """Subtract each lead's mean over the signal as it is by then.

    Before the window that is the whole record: its offset is removed, and a crop keeps its level
    relative to its record. NaN stays NaN and does not count.
    """

    name: ClassVar[str] = "centre"

    def __str__(self) -> str:
        return "minus each lead's mean"

    @property
    def removes_offsets(self) -> bool:
        return True

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        if _has_nan(mean):
            mean = x.nanmean(-1, keepdim=True)
        return x - mean


@register_step
@dataclass(frozen=True)
class Standardise(Step):
    """Subtract the mean and divide by the population standard deviation.

    Parameters
    ----------
    over : {"record", "lead"}
        One mean and deviation for all leads together, or one for each lead. Where the deviation
        is zero, the output is zero.
    """

    name: ClassVar[str] = "standardise"
    over: StandardiseOver = "record"

    def __post_init__(self) -> None:
        _check_choice(self.over, get_args(StandardiseOver), "standardise: over")

    def __str__(self) -> str:
        return f"standardised over each {self.over}"

    @property
    def removes_offsets(self) -> bool:
        return self.over == "lead"

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        axes = (1, 2) if self.over == "record" else (2,)
        mean = x.mean(axes, keepdim=True)
        centred = x - mean
        count = math.prod(x.shape[axis] for axis in axes)
        deviation = torch.linalg.vector_norm(centred, dim=axes, keepdim=True) / math.sqrt(count)
        # In float32 a flat signal leaves rounding behind, which must not be scaled to unit size.
        flat = deviation <= _FLAT * mean.abs().clamp(min=1.0)
        return centred.mul_(torch.where(flat, 0.0, 1.0 / deviation))


@register_step
@dataclass(frozen=True)
class Scale(Step):
    """Subtract a constant and divide by a constant.

    Parameters
    ----------
    mean, std : float
        The constants, in mV.
    """

    name: ClassVar[str] = "scale"
    mean: float
    std: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", _positive(self.std, "scale: std", "mV"))
        object.__setattr__(self, "mean", _finite(self.mean, "scale: mean", "mV"))

    def __str__(self) -> str:
        return f"minus {self.mean:g} mV, over {self.std:g} mV"

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        return (x - self.mean) / self.std


@register_step
@dataclass(frozen=True)
class MinMax(Step):
    """Scale every lead so that its lowest value becomes -1 and its highest 1.

    ``2 * (x - lowest) / (highest - lowest + 1e-8) - 1``, over the lead as it is by then; a flat
    lead becomes -1.
    """

    name: ClassVar[str] = "min-max"

    def __str__(self) -> str:
        return "each lead's extremes to -1 and 1"

    @property
    def removes_offsets(self) -> bool:
        return True

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        lowest, highest = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        span = highest - lowest
        # As in `Standardise`; the extremes of rounding lie further apart than its deviation.
        flat = span <= 4 * _FLAT * lowest.abs().clamp(min=1.0)
        factor = torch.where(flat, 0.0, 2.0 / (span + _RANGE_EPSILON))
        return (x - lowest).mul_(factor).sub_(1.0)


@register_step
@dataclass(frozen=True)
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
    value: FillValue

    def __post_init__(self) -> None:
        _check_choice(self.value, get_args(FillValue), "fill: value")

    def __str__(self) -> str:
        replacement = "0" if self.value == "zero" else "the mean of the crop"
        return f"{replacement} for values that are not numbers"

    def check(self, frame: Frame) -> None:
        if self.value == "crop-mean":
            _check_windowed(self, frame)

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        if not _has_nan(x):
            return x
        if self.value == "zero":
            return torch.nan_to_num(x, nan=0.0)
        mean = x.nanmean((1, 2), keepdim=True)
        if bool(mean.isnan().any()):
            raise PreparationError(
                "fill: a record has no value left, only NaN",
                remedy="leave this record out, or repair it before preparation",
            )
        return torch.where(x.isnan(), mean, x)


# ------------------------------------------------------------------ JSON


def step_to_dict(step: Step) -> dict[str, Any]:
    """The step as plain JSON types, with its name under `step`."""
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(step).items()}
    return {"step": step.name, **values}


def step_from_dict(values: Mapping[str, Any]) -> Step:
    """Read what `step_to_dict` wrote.

    Raises
    ------
    PreparationError
        If the step is not registered, or a key is unknown or missing.
    """
    if not isinstance(values, Mapping):
        raise PreparationError(
            f"preparation step {values!r} is not a table of keys",
            remedy='write the step as {"step": NAME, ...}',
        )
    values = dict(values)
    name = values.pop("step", None)
    if name not in STEPS:
        raise PreparationError(
            f"unknown preparation step {name!r}", remedy=f"use one of {', '.join(sorted(STEPS))}"
        )
    known = [field.name for field in fields(STEPS[name])]
    if unknown := sorted(set(values) - set(known)):
        raise PreparationError(
            f"{name}: unknown key {unknown[0]!r}", remedy=f"use only {', '.join(known)}"
        )
    try:
        return STEPS[name](**values)
    except TypeError as error:
        raise PreparationError(
            f"{name}: a key is missing ({error})", remedy=f"the keys are {', '.join(known)}"
        ) from error


# ------------------------------------------------------------------ checks of arguments


def _finite(value: object, field: str, unit: str) -> float:
    valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not valid:
        raise PreparationError(
            f"{field} = {value!r} is not a number", remedy=f"use a finite number in {unit}"
        )
    return float(value)  # type: ignore[arg-type]


def _positive(value: object, field: str, unit: str) -> float:
    number = _finite(value, field, unit)
    if number <= 0:
        raise PreparationError(
            f"{field} = {value!r} must be above 0", remedy=f"use a positive number in {unit}"
        )
    return number


def _corners(cutoff: object, expected: int, name: str) -> tuple[float, ...]:
    """Corner frequencies as a tuple, ascending."""
    kind = name.split(": ")[0]
    values = cutoff if isinstance(cutoff, list | tuple) else (cutoff,)
    corners = tuple(_positive(corner, f"{kind}: cutoff", "Hz") for corner in values)
    if len(corners) != expected or list(corners) != sorted(set(corners)):
        raise PreparationError(
            f"{name} with cutoff = {cutoff!r}",
            remedy="use one frequency in Hz"
            if expected == 1
            else "use two frequencies in Hz, the lower one first",
        )
    return corners


def _check_integer(value: object, least: int, field: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PreparationError(
            f"{field} = {value!r}, but it must be an integer of at least {least}",
            remedy="use an integer in this range",
        )


def _check_choice(value: object, choices: tuple[str, ...], field: str) -> None:
    if value not in choices:
        raise PreparationError(
            f"{field} = {value!r} is unknown", remedy=f"use one of {', '.join(choices)}"
        )


def _check_windowed(step: Step, frame: Frame) -> None:
    if not frame.windowed:
        raise PreparationError(
            f"{step.name} before the window, but it works on crops",
            remedy="put it after the Window step",
        )


def _check_below_nyquist(kind: str, corner: float, rate: float) -> None:
    if corner >= rate / 2:
        raise PreparationError(
            f"{kind}: cutoff {corner:g} Hz is not below half the rate of {rate:g} Hz",
            remedy=f"lower the cutoff below {rate / 2:g} Hz, or resample to a higher rate first",
        )


def _has_nan(x: Tensor) -> bool:
    # NaN survives a sum, which is cheaper than a look at every value.
    return bool(x.sum().isnan())
