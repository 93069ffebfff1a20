"""Zero-phase filters as scipy has them, their transposes, and what a faster form is tried on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sps

from einthoven.errors import PreparationError
from einthoven.signals.released_steps import Decimate, Fir
from einthoven.signals.steps import Filter

Array = NDArray[np.float64]

# Largest deviation from scipy, relative to the largest output, at which float32 may be used.
FLOAT32_LIMIT = 3e-6
_NOTCH_QUALITY = 30.0


def check_cutoff(filter: Filter | Fir, rate: float) -> None:
    """Refuse a filter that a rate cannot carry.

    Raises
    ------
    PreparationError
        When a cutoff is not below half the rate.
    """
    corner = filter.cutoff[-1] if isinstance(filter.cutoff, tuple) else filter.cutoff
    if corner >= rate / 2:
        raise PreparationError(
            f"{filter.kind}: cutoff {corner:g} Hz is not below half the rate of {rate:g} Hz",
            remedy=f"Lower the cutoff below {rate / 2:g} Hz, or resample to a higher rate first.",
        )


def design(filter: Filter | Decimate, rate: float) -> Array:
    """Second-order sections of a filter.

    Parameters
    ----------
    filter : Filter or Decimate
        The filter; of a decimation, its low-pass.
    rate : float
        Rate of the signal that it will run on, in Hz.

    Returns
    -------
    ndarray
        (sections, 6).

    Raises
    ------
    PreparationError
        When a cutoff is not below half the rate.
    """
    if isinstance(filter, Decimate):
        return np.asarray(sps.cheby1(8, 0.05, 0.8 / filter.factor, output="sos"))
    check_cutoff(filter, rate)
    kind = filter.kind
    if kind == "notch":
        centre = float(np.max(filter.cutoff))
        return np.asarray(sps.tf2sos(*sps.iirnotch(centre, _NOTCH_QUALITY, fs=rate)))
    return np.asarray(sps.butter(filter.order, filter.cutoff, kind, fs=rate, output="sos"))


def edge_of(sections: Array) -> int:
    """Samples of odd extension at each end, the default of `scipy.signal.sosfiltfilt`."""
    zeros_at_origin = min(int((sections[:, 2] == 0).sum()), int((sections[:, 5] == 0).sum()))
    return 3 * (2 * len(sections) + 1 - zeros_at_origin)


def filtered(filters: Sequence[Array], y: Array) -> Array:
    """Forwards and backwards along the last axis through one filter after the other."""
    for part in filters:
        y = np.asarray(sps.sosfiltfilt(part, y, axis=-1))
    return y


def transposed(sections: Array, v: Array) -> Array:
    """Apply the transpose of ``x -> sosfiltfilt(sections, x)`` along the last axis.

    Forward-backward filtering is ``crop . flip . S . flip . S . extend`` with S the causal filter
    that starts in the steady state of its first sample; here every factor is transposed, in reverse
    order.
    """
    edge = edge_of(sections)
    w = np.zeros((*v.shape[:-1], v.shape[-1] + 2 * edge))
    w[..., edge:-edge] = v
    for _ in range(2):
        w = _causal_transposed(sections, w[..., ::-1])
    return _extend_transposed(w, edge)


def _causal_transposed(sections: Array, v: Array) -> Array:
    start = sps.sosfilt_zi(sections)
    response = sps.sosfilt(sections, np.zeros(v.shape[-1]), zi=start)[0]
    out = np.asarray(sps.sosfilt(sections, v[..., ::-1], axis=-1))[..., ::-1].copy()
    out[..., 0] += v @ response
    return out


def _extend_transposed(w: Array, edge: int) -> Array:
    out = w[..., edge:-edge].copy()
    left, right = w[..., :edge], w[..., -edge:]
    out[..., 0] += 2 * left.sum(-1)
    out[..., -1] += 2 * right.sum(-1)
    out[..., 1 : edge + 1] -= left[..., ::-1]
    out[..., -edge - 1 : -1] -= right[..., ::-1]
    return out


def probes(samples: int) -> Array:
    """Noise, drift and offsets, (1, 4, samples): what a filter is tried on."""
    random = np.random.default_rng(1)
    made = random.standard_normal((1, 4, samples))
    made[0, 1:3] = np.cumsum(made[0, 1:3], axis=-1) / np.sqrt(samples)
    made[0, 2:] += 3.0
    return made
