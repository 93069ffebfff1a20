"""Arithmetic of the preparation steps that need more than a few lines: resampling and filters.

Zero-phase filters of a crop are the one optimisation of preparation. Forward-backward filtering is
linear in the crop, edge effects included, but a dense matrix costs millions of operations a lead.
`CropFilter` uses the structure of that matrix. Let C be the *periodic* version of the filter, which
is a multiplication by |h(f)|^2 in the spectrum. The filter F that `scipy.signal.sosfiltfilt` runs,
with its extension and initial states, differs from C only by the transients at both ends of the
crop: for a filter with m poles, m transients forwards and m backwards. So

    F(x) = C(x) + U (V x)          with U V of rank 2 m, exactly.

U and V are found with random probes (Halko, Martinsson and Tropp, SIAM Review 53, 2011) in float64
from F and its transpose, without forming a matrix. Every map is compared with scipy when it is
made; if float32 would lose accuracy, it works in float64. A map depends on the length of the
window, never on the length of a record: a cohort of many lengths needs no more maps than a uniform
one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import scipy
from numpy.typing import NDArray

from einthoven.errors import PreparationError

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Signal = Any
"""A tensor or an array, `(batch, leads, samples)`."""

# Largest deviation from scipy, relative to the largest output, at which float32 is used.
FLOAT32_LIMIT = 3e-6
_NO_TAP = 1e-9  # share of the largest tap that a convolution leaves out


class Recursive(Protocol):
    """A step that runs a recursive filter forwards and backwards; hashable."""

    def sections(self, rate: float) -> Array:
        """Second-order sections at a rate in Hz, (sections, 6)."""


def is_traced() -> bool:
    """Whether a model is being exported: operations are recorded, and values are not there."""
    onnx = sys.modules.get("torch.onnx")  # whose import takes a second
    return onnx is not None and bool(onnx.is_in_onnx_export())


def on_arrays(function: Callable[..., Floats]) -> Callable[..., Signal]:
    """Let a function of an array take a tensor too, and return one then."""

    @wraps(function)
    def wrapped(x: Signal, *arguments: Any) -> Signal:
        if isinstance(x, np.ndarray):
            return function(x, *arguments)
        import torch

        return torch.from_numpy(function(x.numpy(), *arguments))

    return wrapped


def _threads() -> int:
    """Threads that PyTorch uses; 1 without it."""
    torch = sys.modules.get("torch")
    return 1 if torch is None else int(torch.get_num_threads())


@on_arrays
def fourier_resampled(x: Floats, samples: int) -> Floats:
    """Resample (..., old samples) as `scipy.signal.resample` does, for a length of any size.

    scipy's transforms take down to half the time of torch's for lengths with large prime factors.
    """
    old, workers = x.shape[-1], _threads()
    shared = min(old, samples)
    spectrum = scipy.fft.rfft(x, norm="forward", workers=workers)[..., : shared // 2 + 1]
    if shared % 2 == 0 and old != samples:
        spectrum[..., -1] *= 2.0 if samples < old else 0.5  # the shared Nyquist bin, as in scipy
    return np.asarray(scipy.fft.irfft(spectrum, samples, norm="forward", workers=workers))


@on_arrays
def interpolated(x: Floats, samples: int) -> Floats:
    """Resample along straight lines; the first and the last sample stay where they are."""
    old = x.shape[-1]
    places = np.arange(samples) * ((old - 1) / max(1, samples - 1))
    before = places.astype(np.intp).clip(max=old - 1)
    share = (places - before).astype(np.float32)
    left = x.take(before, axis=-1)
    change: Floats = x.take((before + 1).clip(max=old - 1), axis=-1)
    change -= left
    change *= share
    change += left
    return change


@dataclass(frozen=True, eq=False)
class CropFilter:
    """Zero-phase filters for crops of one length and rate.

    Attributes
    ----------
    response : array
        (bins,) real: gain of the periodic filter at every frequency, in the type of the transforms.
    from_crop, to_crop : array
        (window, rank) and (rank, window) float64: V and U of the module's docstring, transposed.
    """

    response: NDArray[np.floating[Any]]
    from_crop: Array
    to_crop: Array

    def __call__(self, x: Tensor) -> Tensor:
        """Filter (batch, leads, window); the result is float32."""
        import torch

        if is_traced():
            return self._traced(x)
        response, from_crop, to_crop = map(torch.from_numpy, vars(self).values())
        window, period = x.shape[-1], _period(x.shape[-1])
        spectrum = torch.fft.rfft(x.to(response.dtype), n=period)
        spectrum *= response
        filtered: Tensor = torch.fft.irfft(spectrum, n=period)[..., :window]
        # In float64, as the settings of the process may let float32 products have fewer bits.
        return filtered.add_(x.double() @ from_crop @ to_crop).float()

    def _traced(self, x: Tensor) -> Tensor:
        """The filter without a Fourier transform: a convolution with the periodic response."""
        import torch

        window, period = x.shape[-1], _period(x.shape[-1])
        taps = np.fft.irfft(self.response.astype(np.float64), n=period)
        reach = int(np.flatnonzero(np.abs(taps[: period // 2]) > _NO_TAP * np.abs(taps).max())[-1])
        ends = torch.from_numpy(self.from_crop), torch.from_numpy(self.to_crop)
        if 2 * reach + 1 >= window:
            lags = np.arange(window) - np.arange(window)[:, None]
            matrix = taps[lags % period] + self.from_crop @ self.to_crop
            dtype = torch.from_numpy(self.response).dtype
            product: Tensor = x.to(dtype) @ torch.from_numpy(matrix).to(dtype)
            return product.float()
        gap = x.new_zeros(*x.shape[:-1], period - window)
        circle = torch.cat([x, gap], dim=-1)
        circle = torch.cat([circle[..., -reach:], circle, circle[..., :reach]], dim=-1)
        kernel = np.concatenate([taps[-reach:], taps[: reach + 1]])[None, None]
        rows = circle.flatten(0, 1).unsqueeze(1)
        filtered = torch.nn.functional.conv1d(rows, torch.from_numpy(kernel).to(x.dtype))
        filtered = filtered.view(*x.shape[:-1], period)[..., :window]
        return filtered + (x.double() @ ends[0] @ ends[1]).float()


@lru_cache(maxsize=32)
def crop_filter(steps: tuple[Recursive, ...], window: int, rate: float) -> CropFilter:
    """Build the map of filters, or return the one built before.

    Raises
    ------
    PreparationError
        If the crop is too short for the filters.
    """
    import torch

    sections = [step.sections(rate) for step in steps]
    if window <= (shortest := max(_edge(part) for part in sections)):
        raise PreparationError(
            f"a window of {window} samples is too short for its filters",
            remedy=f"use a window of more than {shortest} samples",
        )
    response = _periodic_response(sections, _period(window))
    to_crop, from_crop = _end_effects(sections, response, window)
    ends = [part.T.copy() for part in (from_crop, to_crop)]
    exact = CropFilter(response, *ends)
    fast = CropFilter(response.astype(np.float32), *ends)
    deviation = _deviation(
        lambda x: fast(torch.from_numpy(x)), lambda x: _filtered(sections, x), window
    )
    return fast if deviation <= FLOAT32_LIMIT else exact


@on_arrays
def record_filtered(x: Floats, steps: Sequence[Recursive], rate: float) -> Floats:
    """Filter whole records, whose lengths differ too much for maps; float32."""
    sections = [step.sections(rate) for step in steps]
    return _filtered(sections, x.astype(np.float64)).astype(np.float32)


def _filtered(sections: Sequence[Array], x: Array) -> Array:
    """Forwards and backwards along the last axis through one filter after the other."""
    for part in sections:
        if x.shape[-1] <= (shortest := _edge(part)):
            raise PreparationError(
                f"a record of {x.shape[-1]} samples is too short for its filters",
                remedy=f"use records of more than {shortest} samples",
            )
        x = np.asarray(scipy.signal.sosfiltfilt(part, x, axis=-1))
    return x


def _period(window: int) -> int:
    return int(scipy.fft.next_fast_len(window, real=True))


def _edge(sections: Array) -> int:
    """Samples of odd extension at each end, the default of `scipy.signal.sosfiltfilt`."""
    zeros_at_origin = min(int((sections[:, 2] == 0).sum()), int((sections[:, 5] == 0).sum()))
    return 3 * (2 * len(sections) + 1 - zeros_at_origin)


def _periodic_response(sections: Sequence[Array], period: int) -> Array:
    angles = 2 * np.pi * np.arange(period // 2 + 1) / period
    gains = [np.abs(scipy.signal.sosfreqz(part, worN=angles)[1]) ** 2 for part in sections]
    response = np.prod(gains, axis=0)
    return np.where(response < 1e-16, 0.0, response)  # their products would be slow denormals


def _end_effects(sections: Sequence[Array], response: Array, window: int) -> tuple[Array, Array]:
    """U (window, rank) and V (rank, window) in float64."""
    period = _period(window)

    def periodic(x: Array) -> Array:
        return np.fft.irfft(np.fft.rfft(x, n=period) * response, n=period)[..., :window]

    def difference(x: Array) -> Array:
        return _filtered(sections, x) - periodic(x)

    def difference_transposed(v: Array) -> Array:
        out = -periodic(v)
        for part in reversed(sections):
            v = _transposed(part, v)
        return out + v

    # Two poles a section, forwards and backwards; a few probes more make the basis safe.
    count = min(4 * sum(len(part) for part in sections) + 8, window)
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(difference(random.standard_normal((count, window))).T)
    left, scale, right = np.linalg.svd(difference_transposed(basis.T), full_matrices=False)
    rank = int((scale > 1e-9 * max(1.0, float(scale[0]))).sum())
    root = np.sqrt(scale[:rank])
    return (basis @ left[:, :rank]) * root, root[:, None] * right[:rank]


def _transposed(sections: Array, v: Array) -> Array:
    """Apply the transpose of ``x -> sosfiltfilt(sections, x)`` along the last axis.

    Forward-backward filtering is ``crop . flip . S . flip . S . extend`` with S the causal filter
    that starts in the steady state of its first sample; here every factor is transposed, in reverse
    order.
    """
    edge = _edge(sections)
    w = np.zeros((*v.shape[:-1], v.shape[-1] + 2 * edge))
    w[..., edge:-edge] = v
    for _ in range(2):
        w = _causal_transposed(sections, w[..., ::-1])
    return _extension_transposed(w, edge)


def _causal_transposed(sections: Array, v: Array) -> Array:
    start = scipy.signal.sosfilt_zi(sections)
    response = scipy.signal.sosfilt(sections, np.zeros(v.shape[-1]), zi=start)[0]
    out = np.asarray(scipy.signal.sosfilt(sections, v[..., ::-1], axis=-1))[..., ::-1].copy()
    out[..., 0] += v @ response
    return out


def _extension_transposed(w: Array, edge: int) -> Array:
    out = w[..., edge:-edge].copy()
    left, right = w[..., :edge], w[..., -edge:]
    out[..., 0] += 2 * left.sum(-1)
    out[..., -1] += 2 * right.sum(-1)
    out[..., 1 : edge + 1] -= left[..., ::-1]
    out[..., -edge - 1 : -1] -= right[..., ::-1]
    return out


def _deviation(
    candidate: Callable[[Floats], Signal], reference: Callable[[Array], Array], samples: int
) -> float:
    """Largest difference from scipy on noise, drift and offsets, relative to scipy's maximum."""
    random = np.random.default_rng(1)
    x = random.standard_normal((1, 4, samples))
    x[0, 1:3] = np.cumsum(x[0, 1:3], axis=-1) / np.sqrt(samples)
    x[0, 2:] += 3.0
    expected = reference(x)
    result = np.asarray(candidate(x.astype(np.float32)))
    return float(np.abs(result - expected).max() / np.abs(expected).max())


@on_arrays
def fir_filtered(x: Floats, taps: int, cutoff: tuple[float, float], rate: float) -> Floats:
    """Filter records forwards and backwards as `scipy.signal.filtfilt` does, to float32.

    Forwards and backwards, the taps h become the symmetric kernel h * reversed h. filtfilt extends
    a signal by three times the taps, further than that kernel reaches, so that its initial states
    have no effect: the filter is the odd extension and a convolution.
    """
    h, dtype = _fir_design(taps, cutoff, rate)
    return _convolved(x, h, dtype)


@lru_cache(maxsize=32)
def _fir_design(taps: int, cutoff: tuple[float, float], rate: float) -> tuple[Array, type[Any]]:
    """Taps, and the type in which they are applied with enough accuracy."""
    h = np.asarray(scipy.signal.firwin(taps, cutoff, pass_zero=False, fs=rate))
    deviation = _deviation(
        lambda x: _convolved(x, h, np.float32),
        lambda x: np.asarray(scipy.signal.filtfilt(h, np.ones(1), x, padlen=taps - 1)),
        16 * taps,
    )
    return h, np.float32 if deviation <= FLOAT32_LIMIT else np.float64


def _convolved(x: Floats, h: Array, dtype: type[Any]) -> Floats:
    edge, samples, workers = len(h) - 1, x.shape[-1], _threads()
    length = int(scipy.fft.next_fast_len(samples + 2 * edge, real=True))
    response = np.abs(np.fft.rfft(h, n=length)) ** 2
    x = x.astype(dtype)
    left = 2 * x[..., :1] - x[..., edge:0:-1]
    right = 2 * x[..., -1:] - x[..., -2 : -edge - 2 : -1]
    extended = np.concatenate([left, x, right], axis=-1)
    spectrum = scipy.fft.rfft(extended, n=length, workers=workers)
    spectrum *= response.astype(dtype)
    convolved = scipy.fft.irfft(spectrum, n=length, workers=workers)
    return np.asarray(convolved[..., edge : edge + samples], dtype=np.float32)


@on_arrays
def running_median(x: Floats, window: int) -> Floats:
    """Median of an odd number of values around every value, with zeros beyond the ends.

    Every row of x, (..., samples) float32 without NaN, is filtered as by `scipy.signal.medfilt`.
    """
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    # A row at a time: scipy's fast path is for one dimension.
    shape = (-1, x.shape[-1])
    for row, result in zip(x.reshape(shape), out.reshape(shape), strict=True):
        scipy.ndimage.median_filter(row, size=window, mode="constant", output=result)
    return out
