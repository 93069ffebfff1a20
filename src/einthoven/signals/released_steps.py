"""Steps that single public networks were trained with, next to the general ones in `steps`.

Each is what a release's code does, in numbers: whoever changes one feeds its network something else
than it knows. What they cost and how they are carried out is in `operations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from einthoven.errors import PreparationError
from einthoven.records.limb_leads import derivable_leads
from einthoven.signals.step_checks import check_choice, positive, whole

__all__ = ["Baseline", "Decimate", "Derive", "Fill", "Fir", "MinMax"]

FillValue = Literal["zero", "crop-mean"]
DecimateOver = Literal["lead", "end-to-end"]


@dataclass(frozen=True)
class Derive:
    """Compute limb leads from two others, in millivolts; only as the first step.

    A law between voltages, which no later step keeps (`einthoven.records.limb_leads`).

    Parameters
    ----------
    leads : tuple of str
        Those of the preparation's leads that are computed.
    of : (str, str)
        The two that they are computed from. They are read from the record whether or not the
        preparation has them among its leads.
    """

    name: ClassVar[str] = "derive"
    leads: tuple[str, ...]
    of: tuple[str, str]

    def __post_init__(self) -> None:
        for field in ("leads", "of"):
            value = getattr(self, field)
            if isinstance(value, str) or not all(isinstance(lead, str) for lead in value):
                raise PreparationError(
                    f"derive: {field} = {value!r}", remedy="Give a list of names of leads."
                )
            object.__setattr__(self, field, tuple(value))
        possible = derivable_leads(self.of) if len(self.of) == 2 else ()
        if not self.leads or not set(self.leads) <= set(possible):
            raise PreparationError(
                f"derive: {', '.join(self.leads) or 'no lead'} from {', '.join(self.of)}",
                remedy="Name two limb leads, and what follows from them: the other four.",
            )

    def __str__(self) -> str:
        return f"{', '.join(self.leads)} computed from {' and '.join(self.of)}, in mV"


@dataclass(frozen=True)
class Fill:
    """Replace values that are not numbers. A preparation without this step refuses them.

    A filter or a resampling before this step makes one such value spread over its whole lead.

    Parameters
    ----------
    value : {"zero", "crop-mean"}
        What takes their place: 0, or the mean of all leads' other values, behind the window.
    """

    name: ClassVar[str] = "fill"
    value: FillValue

    def __post_init__(self) -> None:
        check_choice(self.value, get_args(FillValue), "fill: value")

    def __str__(self) -> str:
        value = "0" if self.value == "zero" else "the mean of the crop"
        return f"{value} for values that are not numbers"


@dataclass(frozen=True)
class Fir:
    """Filter every lead forwards and backwards with a linear-phase band-pass.

    Taps are those of `scipy.signal.firwin`, with its Hamming window, for as many samples as
    `seconds` has, made odd; they run forwards and backwards with odd extension at the ends, as
    `scipy.signal.filtfilt` does by default. The number of taps follows from the rate that the
    signal has, so that the same step does something else to records of another rate.

    Parameters
    ----------
    cutoff : (float, float)
        Lower and upper corner, in Hz.
    seconds : float
        Length of the filter.
    """

    name: ClassVar[str] = "fir"
    kind: ClassVar[str] = "bandpass"  # what a refusal calls it
    cutoff: tuple[float, float]
    seconds: float = 0.3

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", positive(self.seconds, "fir: seconds", "s"))
        corners = self.cutoff if isinstance(self.cutoff, list | tuple) else (self.cutoff,)
        values = tuple(positive(corner, "fir: cutoff", "Hz") for corner in corners)
        if len(values) != 2 or values[0] >= values[1]:
            raise PreparationError(
                f"fir: cutoff = {self.cutoff!r} does not suit a band-pass",
                remedy="Give 2 frequencies in Hz, the lower one first.",
            )
        object.__setattr__(self, "cutoff", values)

    def taps(self, rate: float) -> int:
        """Number of taps at a rate: ``int(seconds * rate)``, one more where that is even."""
        return int(self.seconds * rate) | 1

    def __str__(self) -> str:
        low, high = self.cutoff
        return f"linear-phase bandpass {low:g}-{high:g} Hz ({self.seconds:g} s)"


@dataclass(frozen=True)
class Baseline:
    """Subtract a running median, with zeros beyond the ends as `scipy.signal.medfilt` has them.

    Parameters
    ----------
    seconds : float
        Length of the median's window: ``int(seconds * rate) + 1`` samples, one more where that is
        even.
    """

    name: ClassVar[str] = "baseline"
    seconds: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", positive(self.seconds, "baseline: seconds", "s"))

    def samples(self, rate: float) -> int:
        """Length of the window at a rate."""
        return (int(self.seconds * rate) + 1) | 1

    def __str__(self) -> str:
        return f"minus a running median of {self.seconds:g} s"


@dataclass(frozen=True)
class MinMax:
    """Scale every lead so that its lowest value becomes -1 and its highest 1.

    ``2 * (x - lowest) / (highest - lowest + 1e-8) - 1``, over all that there is of the lead by
    then; a flat lead becomes -1.
    """

    name: ClassVar[str] = "min-max"

    def __str__(self) -> str:
        return "each lead's extremes to -1 and 1"


@dataclass(frozen=True)
class Decimate:
    """Keep one sample in `factor` of the crop, behind a low-pass; only after the window.

    As `scipy.signal.decimate` does by default: a Chebyshev filter of the first kind, order 8, with
    0.05 dB of ripple and its corner at 0.8 of half the new rate, forwards and backwards with odd
    extension at the ends. At 0 Hz its gain is 0.9886, not 1.

    Parameters
    ----------
    factor : int
        Samples that become one.
    over : {"lead", "end-to-end"}
        Each lead alone, or all leads laid end to end in their order: the filter then rings across
        the seams between them.
    """

    name: ClassVar[str] = "decimate"
    factor: int
    over: DecimateOver = "lead"

    def __post_init__(self) -> None:
        whole(self.factor, 2, "decimate: factor", "Say how many samples become one.")
        check_choice(self.over, get_args(DecimateOver), "decimate: over")

    def __str__(self) -> str:
        over = "each lead" if self.over == "lead" else "all leads end to end"
        return f"decimation by {self.factor} of {over}"
