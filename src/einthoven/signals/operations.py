"""What steps do to tensors: small operations on (batch, leads, samples), made by `plan`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from einthoven.errors import PreparationError
from einthoven.signals.linear import MapKey, SpectralMap, spectral_map
from einthoven.signals.median import running_median
from einthoven.signals.released_steps import Decimate

__all__ = [
    "Centred",
    "Constants",
    "Crop",
    "Decimation",
    "FillMean",
    "FillZero",
    "Gain",
    "Interpolation",
    "Linear",
    "MinusMedian",
    "Operation",
    "ScaledByExtremes",
    "Standardised",
]

# Standard deviation, in mV, at or below which a signal counts as flat: a three-hundredth of the
# noise that storing whole microvolts adds.
_FLAT = 1e-6
_RANGE_EPS = 1e-8  # mV, of the published scaling by extremes


class Operation(Protocol):
    """One step, or several linear ones, on (batch, leads, samples)."""

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        """Return a new tensor, or `out` where the operation is able to fill it directly."""
        ...


@dataclass(frozen=True)
class Linear:
    """Neighbouring linear steps in one map."""

    chain: SpectralMap
    cropped: bool

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        return self.chain(x, starts if self.cropped else None)


@dataclass(frozen=True)
class Gain:
    """A constant factor."""

    factor: float

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        return x * self.factor


@dataclass(frozen=True)
class Constants:
    """Minus a constant, over a constant."""

    mean: float
    std: float

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        return (x - self.mean) / self.std


@dataclass(frozen=True)
class Centred:
    """Every lead less the mean of its values that are numbers."""

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        if _any_nan(mean):
            mean = x.nanmean(-1, keepdim=True)
        return torch.sub(x, mean, out=out)


@dataclass(frozen=True)
class Crop:
    """A stretch of every record; zeros behind one that is too short."""

    samples: int

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        if x.shape[2] < self.samples:
            return torch.nn.functional.pad(x, (0, self.samples - x.shape[2]))
        crops = [r[:, s : s + self.samples] for r, s in zip(x, starts.tolist(), strict=True)]
        return torch.stack(crops)


@dataclass(frozen=True)
class Standardised:
    """Zero mean and unit deviation over some axes; zero where there is no deviation."""

    axes: tuple[int, ...]

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        mean = x.mean(self.axes, keepdim=True)
        out = torch.sub(x, mean, out=out)
        count = math.prod(x.shape[axis] for axis in self.axes)
        std = torch.linalg.vector_norm(out, dim=self.axes, keepdim=True) / math.sqrt(count)
        # In float32 a flat signal leaves rounding behind, which must not be blown up to unit size.
        flat = std <= _FLAT * mean.abs().clamp(min=1.0)
        return out.mul_(torch.where(flat, 0.0, 1.0 / std))


@dataclass(frozen=True)
class ScaledByExtremes:
    """Every lead from -1 at its lowest to 1 at its highest; -1 where it is flat."""

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        lowest, highest = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        span = highest - lowest
        # As in `Standardised`; the extremes of rounding lie further apart than its deviation.
        flat = span <= 4 * _FLAT * lowest.abs().clamp(min=1.0)
        factor = torch.where(flat, 0.0, 2.0 / (span + _RANGE_EPS))
        return torch.sub(x, lowest, out=out).mul_(factor).sub_(1.0)


@dataclass(frozen=True)
class Interpolation:
    """Straight lines between samples, the ends of both grids together."""

    samples: int
    resampled: int

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        before, behind, share = _neighbours(self.samples, self.resampled, x.device)
        first = x.index_select(-1, before)
        return first.lerp_(x.index_select(-1, behind), share)


@lru_cache(maxsize=64)
def _neighbours(samples: int, resampled: int, device: torch.device) -> tuple[Tensor, ...]:
    """For every new sample the old ones around it, and how far it is from the first of them."""
    places = np.arange(resampled) * ((samples - 1) / max(1, resampled - 1))
    before = np.minimum(places.astype(np.int64), samples - 1)
    behind = np.minimum(before + 1, samples - 1)
    share = (places - before).astype(np.float32)
    return tuple(torch.from_numpy(values).to(device) for values in (before, behind, share))


@dataclass(frozen=True)
class MinusMedian:
    """Less the median of the samples around."""

    window: int

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.sub(x, running_median(x, self.window), out=out)


@dataclass(frozen=True)
class Decimation:
    """One sample in so many behind a low-pass, of each lead or of all of them end to end."""

    step: Decimate
    rate: float

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        rows = x.flatten(1).unsqueeze(1) if self.step.over == "end-to-end" else x
        samples = rows.shape[-1]
        key = MapKey(samples, samples, samples, self.rate, (self.step,))
        kept = spectral_map(key, x.device)(rows)[..., :: self.step.factor]
        return kept.reshape(*x.shape[:2], -1)


@dataclass(frozen=True)
class FillZero:
    """0 for values that are not numbers."""

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.nan_to_num(x, nan=0.0) if _any_nan(x) else x


@dataclass(frozen=True)
class FillMean:
    """The mean of a crop's other values, all leads together, for those that are not numbers."""

    def __call__(self, x: Tensor, starts: Tensor, out: Tensor | None = None) -> Tensor:
        if not _any_nan(x):
            return x
        mean = x.nanmean((1, 2), keepdim=True)
        if bool(mean.isnan().any()):
            raise PreparationError(
                "every lead of a record has a value that is not a number, and nothing is left",
                remedy="Leave this record out, or repair it before preparation.",
            )
        return torch.where(x.isnan(), mean, x)


def _any_nan(x: Tensor) -> bool:
    # NaN survives a sum, which is cheaper than a look at every value.
    return bool(x.sum().isnan())
