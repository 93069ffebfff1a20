"""Resampling, cropping and zero-phase filtering as one linear map, exact and fast.

Fourier resampling, cropping, and forward-backward filtering of the crop are linear in the signal,
edge effects included, but a dense matrix costs a hundred million operations a record. This module
uses the structure of that map instead. Let C be the *periodic* version of a zero-phase filter,
which is a multiplication by |h(f)|^2 in the spectrum. The filter F that `scipy.signal.sosfiltfilt`
runs over a crop of finite length, with its extension and initial states, differs from C only by
what the states bring in at the two ends of the crop: for a filter with m poles, m transients
forwards and m backwards. So

    F(crop(y)) = crop(C(y)) + U (V y)          with U V of rank 2 m, exactly,

for every start of the crop, because C commutes with shifts. Fourier resampling and the shift live
in the same spectrum, so the chain is one transform forth, one back and two thin products.

U and V are found with random probes (Halko, Martinsson and Tropp, SIAM Review 53, 2011) in float64
from F and its transpose, without forming a matrix. Every map is compared with scipy when it is
made; one that would lose accuracy in float32 works in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy import signal as sps
from torch import Tensor

from einthoven.errors import PreparationError
from einthoven.signals.filters import (
    FLOAT32_LIMIT,
    Array,
    design,
    edge_of,
    filtered,
    probes,
    transposed,
)
from einthoven.signals.released_steps import Decimate
from einthoven.signals.steps import Filter

_KEPT_SHIFTS = 1 << 20


@dataclass(frozen=True)
class MapKey:
    """What a map does: everything that its numbers depend on.

    Parameters
    ----------
    samples : int
        Length of the input.
    resampled : int
        Length after Fourier resampling; `samples` when nothing is resampled.
    window : int
        Length of the crop of the resampled signal.
    rate : float
        Rate of the resampled signal, in Hz.
    filters : tuple of Filter or Decimate
        Zero-phase filters of the crop, in order; of a decimation, its low-pass.
    gain : float
        Constant factor of the whole map.
    """

    samples: int
    resampled: int
    window: int
    rate: float
    filters: tuple[Filter | Decimate, ...] = ()
    gain: float = 1.0


@dataclass(frozen=True, eq=False)
class SpectralMap:
    """A resample-crop-filter chain, ready to run on one device.

    Attributes
    ----------
    key : MapKey
        What it does.
    response : Tensor
        (bins,) real: gain of the periodic chain at every kept frequency.
    from_spectrum : Tensor or None
        (2 bins, rank): V of the module's text, acting on real and imaginary parts in turn.
    to_crop : Tensor or None
        (rank, window): U of the module's text.
    shifts : Tensor or None
        (starts, bins) complex: the factors that move a crop's start to 0; None where they are too
        many to keep.
    """

    key: MapKey
    response: Tensor
    from_spectrum: Tensor | None
    to_crop: Tensor | None
    shifts: Tensor | None

    @property
    def rank(self) -> int:
        """Rank of the part that the two ends of the crop need."""
        return 0 if self.to_crop is None else self.to_crop.shape[0]

    def __call__(self, x: Tensor, starts: Tensor | None = None) -> Tensor:
        """Apply to (batch, leads, samples); the result is (batch, leads, window) float32.

        Parameters
        ----------
        x : Tensor
            Signals, never changed.
        starts : Tensor, optional
            (batch,) where each crop begins, in resampled samples; 0 when left out.
        """
        key, bins = self.key, len(self.response)
        spectrum = torch.fft.rfft(x.to(self.response.dtype).contiguous())[..., :bins]
        # From here on in place: a batch is limited by memory more than by arithmetic.
        spectrum = spectrum.clone() if starts is None else spectrum * self._shift(starts)[:, None]
        ends = self._ends(spectrum)
        spectrum *= self.response
        periodic: Tensor = torch.fft.irfft(spectrum, n=key.resampled, norm="forward")
        if ends is not None and self.to_crop is not None:
            periodic.view(-1, key.resampled)[:, : key.window].addmm_(ends, self.to_crop)
        return periodic[..., : key.window].float()

    def _ends(self, spectrum: Tensor) -> Tensor | None:
        """V y for every row, (batch * leads, rank)."""
        if self.from_spectrum is None:
            return None
        parts = torch.view_as_real(spectrum).view(-1, 2 * spectrum.shape[-1])
        return parts @ self.from_spectrum

    def _shift(self, starts: Tensor) -> Tensor:
        """exp(2 pi i start k / resampled) for every kept bin k, (batch, bins)."""
        if self.shifts is not None:
            return self.shifts.index_select(0, starts)
        bins = torch.arange(len(self.response), device=starts.device)
        return _phases(starts, bins, self.key.resampled).to(self.response.dtype.to_complex())


@lru_cache(maxsize=128)
def spectral_map(key: MapKey, device: torch.device) -> SpectralMap:
    """Make a map, or hand back the one made before.

    Raises
    ------
    PreparationError
        When a cutoff is too high for the rate or the crop is too short for the filters.
    """
    sections = [design(filter, key.rate) for filter in key.filters]
    if sections and key.window <= (shortest := max(edge_of(s) for s in sections)):
        raise PreparationError(
            f"a window of {key.window} samples is too short for its filters",
            remedy=f"Use a window of more than {shortest} samples.",
        )
    weights = _resample_weights(key)
    response = _periodic_response(sections, key.resampled)
    factors = _end_effects(sections, response, key)
    exact = _assemble(key, weights, response, factors, torch.float64, device)
    fast = _assemble(key, weights, response, factors, torch.float32, device)
    return fast if _deviation(fast, sections) <= FLOAT32_LIMIT else exact


def _resample_weights(key: MapKey) -> Array:
    """Factor of every kept bin in Fourier resampling, the shared Nyquist bin as scipy has it."""
    kept = min(key.samples, key.resampled)
    weights = np.ones(kept // 2 + 1)
    if kept % 2 == 0 and key.samples != key.resampled:
        weights[-1] = 2.0 if key.resampled < key.samples else 0.5
    return weights * (key.gain / key.samples)


def _periodic_response(sections: Sequence[Array], period: int) -> Array:
    angles = 2 * np.pi * np.arange(period // 2 + 1) / period
    response = np.ones(len(angles))
    for part in sections:
        response *= np.abs(sps.freqz_sos(part, worN=angles)[1]) ** 2
    return response


def _end_effects(
    sections: Sequence[Array], response: Array, key: MapKey
) -> tuple[Array, Array] | None:
    """U (window, rank) and V (rank, resampled) in float64."""
    if not sections:
        return None
    n, window = key.resampled, key.window

    def periodic(y: Array) -> Array:
        return np.fft.irfft(np.fft.rfft(y) * response, n=n)

    def difference(y: Array) -> Array:
        return filtered(sections, y[..., :window]) - periodic(y)[..., :window]

    def difference_transposed(v: Array) -> Array:
        padded = np.zeros((*v.shape[:-1], n))
        padded[..., :window] = v
        out = -periodic(padded)
        for part in reversed(sections):
            v = transposed(part, v)
        out[..., :window] += v
        return out

    # Two poles a section, forwards and backwards; a few probes more make the basis safe.
    probes = min(4 * sum(len(part) for part in sections) + 8, window)
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(difference(random.standard_normal((probes, n))).T)
    left, scale, right = np.linalg.svd(difference_transposed(basis.T), full_matrices=False)
    kept = scale > 1e-9 * max(1.0, float(scale[0]))
    root = np.sqrt(scale[kept])
    return _sorted_by_reach((basis @ left[:, kept]) * root, root[:, None] * right[kept])


def _sorted_by_reach(to_crop: Array, from_signal: Array) -> tuple[Array, Array]:
    """The same product with other factors: what is felt in the middle of the crop comes first.

    The transients of a fast filter die out near the ends, so that most of a crop needs few columns.
    """
    window = len(to_crop)
    middle = to_crop[window // 4 : window - window // 4]
    # Only a middle shorter than the rank needs the whole square, whose other side is the window.
    turn = np.linalg.svd(middle, full_matrices=len(middle) < middle.shape[1])[2].T
    to_crop = to_crop @ turn
    # Far below rounding; their products would be slow denormal numbers.
    to_crop[np.abs(to_crop) < 1e-16 * np.abs(to_crop).max()] = 0.0
    return to_crop, turn.T @ from_signal


def _assemble(
    key: MapKey,
    weights: Array,
    response: Array,
    factors: tuple[Array, Array] | None,
    dtype: torch.dtype,
    device: torch.device,
) -> SpectralMap:
    # Factors far below rounding are dropped: their products would be slow denormal numbers.
    response = np.where(response < 1e-16, 0.0, response)

    def place(values: Array) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(dtype).to(device)

    bins = len(weights)
    spectral = place(weights * response[:bins])
    shifts = None
    starts = torch.arange(key.resampled - key.window + 1)
    if len(starts) * bins <= _KEPT_SHIFTS:
        shifts = _phases(starts, torch.arange(bins), key.resampled)
        shifts = shifts.to(device=device, dtype=dtype.to_complex())
    if factors is None:
        return SpectralMap(key, spectral, None, None, shifts)
    # Bins other than 0 and Nyquist stand for two frequencies of the real signal.
    counted = np.full(bins, 2.0)
    counted[0] = 1.0
    if key.resampled % 2 == 0 and bins == key.resampled // 2 + 1:
        counted[-1] = 1.0
    rows = np.fft.rfft(factors[1])[:, :bins] * (weights * counted)
    interleaved = np.stack([rows.real, rows.imag], axis=-1).reshape(len(rows), -1)
    return SpectralMap(key, spectral, place(interleaved.T), place(factors[0].T), shifts)


def _phases(starts: Tensor, bins: Tensor, period: int) -> Tensor:
    """exp(2 pi i start bin / period) in complex128, (starts, bins)."""
    # Whole turns are dropped in integers: the cosine of thousands of turns is inexact.
    turns = torch.outer(starts, bins).remainder_(period).double()
    return torch.polar(torch.ones_like(turns), turns * (2 * torch.pi / period))


def _deviation(candidate: SpectralMap, sections: Sequence[Array]) -> float:
    """Largest difference from scipy on noise, drift and offsets, relative to its maximum."""
    key, device = candidate.key, candidate.response.device
    given = probes(key.samples)
    starts = [0, key.resampled - key.window]
    whole = given
    if key.resampled != key.samples:
        whole = np.asarray(sps.resample(given, key.resampled, axis=-1))
    worst = 0.0
    for start in starts:
        expected = key.gain * filtered(sections, whole[..., start : start + key.window])
        x = torch.from_numpy(given.astype(np.float32)).to(device)
        found = candidate(x, torch.tensor([start], device=device)).cpu().numpy()
        worst = max(worst, float(np.abs(found - expected).max() / np.abs(expected).max()))
    return worst


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast, no gradients, no reduced-precision products, whatever the caller has set."""
    settings: Any = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    before = settings.matmul.fp32_precision
    # "none" inherits a full-precision default; anything but these two is a reduction.
    reduced = before not in ("ieee", "none")
    if reduced:
        settings.matmul.fp32_precision = "ieee"
    try:
        with torch.autocast(device.type, enabled=False), torch.no_grad():
            yield
    finally:
        if reduced:
            settings.matmul.fp32_precision = before
