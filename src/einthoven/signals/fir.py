"""A linear-phase filter forwards and backwards over whole records, as one product of spectra.

Forwards and backwards, taps h become the symmetric kernel h * reversed h, which reaches as far to
either side as h is long, less one sample. `scipy.signal.filtfilt` extends a signal by three times
the taps, further than that, so that its initial states are never felt in what it keeps: all there
is to it is the odd extension and a convolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import signal as sps
from scipy.fft import next_fast_len
from torch import Tensor

from einthoven.errors import PreparationError
from einthoven.signals.filters import FLOAT32_LIMIT, Array, check_cutoff, probes
from einthoven.signals.released_steps import Fir

__all__ = ["ZeroPhaseFir", "zero_phase_fir"]


@dataclass(frozen=True, eq=False)
class ZeroPhaseFir:
    """A filter for records of one length and rate, on one device.

    Attributes
    ----------
    edge : int
        Samples of odd extension at each end.
    length : int
        Points of the transforms.
    response : Tensor
        (bins,) real: what every frequency is multiplied by.
    """

    edge: int
    length: int
    response: Tensor

    def __call__(
        self, x: Tensor, starts: Tensor | None = None, out: Tensor | None = None
    ) -> Tensor:
        """Filter (..., samples); the result is float32."""
        edge, samples = self.edge, x.shape[-1]
        x = x.to(self.response.dtype)
        left = 2 * x[..., :1] - x[..., 1 : edge + 1].flip(-1)
        right = 2 * x[..., -1:] - x[..., -edge - 1 : -1].flip(-1)
        spectrum = torch.fft.rfft(torch.cat([left, x, right], dim=-1), n=self.length)
        spectrum *= self.response
        whole: Tensor = torch.fft.irfft(spectrum, n=self.length)
        return whole[..., edge : edge + samples].float()


@lru_cache(maxsize=64)
def zero_phase_fir(step: Fir, samples: int, rate: float, device: torch.device) -> ZeroPhaseFir:
    """Make a filter, or hand back the one made before.

    In float32 where it comes within `FLOAT32_LIMIT` of scipy, else in float64.

    Raises
    ------
    PreparationError
        When the upper corner is too high for the rate, or the records are too short.
    """
    check_cutoff(step, rate)
    taps = step.taps(rate)
    if samples < taps:
        raise PreparationError(
            f"a record of {samples} samples at {rate:g} Hz is shorter than its filter, {taps} taps",
            remedy=f"Use records of at least {taps / rate:g} s.",
        )
    h = sps.firwin(taps, step.cutoff, pass_zero=False, fs=rate)
    length = next_fast_len(samples + 2 * (taps - 1), real=True)
    response = np.abs(np.fft.rfft(h, n=length)) ** 2
    exact = ZeroPhaseFir(taps - 1, length, torch.from_numpy(response).to(device))
    fast = ZeroPhaseFir(taps - 1, length, exact.response.float())
    return fast if _deviation(fast, h, samples) <= FLOAT32_LIMIT else exact


def _deviation(candidate: ZeroPhaseFir, h: Array, samples: int) -> float:
    """Largest difference from scipy, relative to its maximum."""
    given = probes(samples)
    expected = sps.filtfilt(h, np.ones(1), given, padlen=candidate.edge)
    x = torch.from_numpy(given).float().to(candidate.response.device)
    found = candidate(x).cpu().numpy()
    return float(np.abs(found - expected).max() / np.abs(expected).max())
