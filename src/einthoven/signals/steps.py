"""The vocabulary of preparation: one small frozen value a step.

A step says *what* is done, never how: the arithmetic is in `operations` and `linear`. Every number
carries its unit in the docstring, and a step that contradicts itself cannot be made. Steps that
only single public networks know are in `released_steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from einthoven.errors import PreparationError
from einthoven.signals.released_steps import Baseline, Decimate, Derive, Fill, Fir, MinMax
from einthoven.signals.step_checks import check_choice, finite, positive, whole

ResampleMethod = Literal["fourier", "linear"]
ShortPolicy = Literal["refuse", "pad"]
FilterKind = Literal["highpass", "lowpass", "bandpass", "notch"]
FilterForm = Literal["sos-zero-phase"]
StandardiseOver = Literal["record", "lead"]


@dataclass(frozen=True)
class Resample:
    """Bring the signal to another rate.

    Parameters
    ----------
    rate : float
        Rate after this step, in Hz.
    method : {"fourier", "linear"}
        `fourier` is the band-limited periodic interpolation of `scipy.signal.resample`. `linear`
        draws straight lines between samples, the first and the last of which stay the first and
        the last; to a lower rate it aliases. The new length is
        ``floor(samples * rate / old_rate)``. A signal that has the rate is left alone.
    """

    name: ClassVar[str] = "resample"
    rate: float
    method: ResampleMethod = "fourier"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rate", positive(self.rate, "resample: rate", "Hz"))
        check_choice(self.method, get_args(ResampleMethod), "resample: method")

    def __str__(self) -> str:
        return f"{self.method} resampling to {self.rate:g} Hz"


@dataclass(frozen=True)
class Window:
    """Keep a stretch of fixed length.

    Parameters
    ----------
    samples : int
        Length of the stretch, in samples at the rate reached by then.
    evaluation_crops : int
        How many equally spaced stretches of a record are used in evaluation.
    short : {"refuse", "pad"}
        What becomes of a record shorter than the window: refused, or zeros added at its end.
    """

    name: ClassVar[str] = "window"
    samples: int
    evaluation_crops: int = 3
    short: ShortPolicy = "refuse"

    def __post_init__(self) -> None:
        for field in ("samples", "evaluation_crops"):
            remedy = f"Give {field} as a positive integer."
            whole(getattr(self, field), 1, f"window: {field}", remedy)
        check_choice(self.short, get_args(ShortPolicy), "window: short")

    def __str__(self) -> str:
        return f"window of {self.samples} samples ({self.evaluation_crops} evaluation crops)"


@dataclass(frozen=True)
class Filter:
    """Filter every lead forwards and backwards (no phase shift).

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
        check_choice(self.kind, get_args(FilterKind), "filter: kind")
        check_choice(self.form, get_args(FilterForm), "filter: form")
        corners = self.cutoff if isinstance(self.cutoff, list | tuple) else (self.cutoff,)
        values = tuple(positive(corner, "filter: cutoff", "Hz") for corner in corners)
        expected = 2 if self.kind == "bandpass" else 1
        if len(values) != expected or list(values) != sorted(set(values)):
            raise PreparationError(
                f"filter: cutoff = {self.cutoff!r} does not suit a {self.kind} filter",
                remedy=f"Give {expected} frequency in Hz"
                + (", the lower one first." if expected == 2 else "."),
            )
        whole(self.order, 1, "filter: order", "Give the order of the design, for example 5.")
        if self.kind == "notch" and self.order != 2:
            raise PreparationError(
                f"filter: order = {self.order}, but a notch has order 2",
                remedy="Give order=2 for a notch.",
            )
        object.__setattr__(self, "cutoff", values[0] if expected == 1 else values)

    def __str__(self) -> str:
        corners = self.cutoff if isinstance(self.cutoff, tuple) else (self.cutoff,)
        return f"{self.kind} {'-'.join(f'{c:g}' for c in corners)} Hz (order {self.order})"


@dataclass(frozen=True)
class Standardise:
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
        check_choice(self.over, get_args(StandardiseOver), "standardise: over")

    def __str__(self) -> str:
        return f"standardised over each {self.over}"


@dataclass(frozen=True)
class Centre:
    """Subtract each lead's mean over all that there is of it by then.

    Before the window that is the whole record: its offset goes, and a crop keeps where it lies in
    its record. Values that are not numbers stay, and do not count.
    """

    name: ClassVar[str] = "centre"

    def __str__(self) -> str:
        return "minus each lead's mean"


@dataclass(frozen=True)
class Scale:
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
        object.__setattr__(self, "std", positive(self.std, "scale: std", "mV"))
        object.__setattr__(self, "mean", finite(self.mean, "scale: mean", "mV"))

    def __str__(self) -> str:
        return f"minus {self.mean:g} mV, over {self.std:g} mV"


Step = (
    Resample
    | Window
    | Filter
    | Standardise
    | Centre
    | Scale
    | Derive
    | Fill
    | Fir
    | Baseline
    | MinMax
    | Decimate
)
STEPS: dict[str, type[Step]] = {kind.name: kind for kind in get_args(Step)}


def step_to_dict(step: Step) -> dict[str, Any]:
    """Plain JSON types, with the step's name under `step`."""
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(step).items()}
    return {"step": step.name, **values}


def step_from_dict(values: Mapping[str, Any]) -> Step:
    """Read what `step_to_dict` wrote.

    Raises
    ------
    PreparationError
        For an unknown step, an unknown key or a missing one.
    """
    if not isinstance(values, Mapping):
        raise PreparationError(
            f"preparation step {values!r} is not a table of keys",
            remedy='Give the step as {"step": NAME, ...}.',
        )
    values = dict(values)
    name = values.pop("step", None)
    if name not in STEPS:
        raise PreparationError(
            f"unknown preparation step {name!r}",
            remedy=f"Use one of {', '.join(sorted(STEPS))}.",
        )
    known = [field.name for field in fields(STEPS[name])]
    if unknown := sorted(set(values) - set(known)):
        raise PreparationError(
            f"{name}: unknown key {unknown[0]!r}", remedy=f"Use only {', '.join(known)}."
        )
    try:
        return STEPS[name](**values)
    except TypeError as error:
        raise PreparationError(
            f"{name}: a key is missing ({error})", remedy=f"Give {', '.join(known)}."
        ) from error
