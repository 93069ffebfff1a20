"""The compiled path of preparation: a `SpectralMap` and a standardisation in one go over a record.

Needs numba (`pip install einthoven[fast]`). Sixteen leads go through together, in a work space of a
second-level cache's size, and come out as finished rows:

1. rows become columns, a vector for each sample (`load_tile`);
2. a transform of half the length, of even and odd samples as one complex signal (`butterflies`);
3. the spectrum, shifted to each record's crop (`unfold`), and what it says about the crop's ends
   (`project`);
4. the filters, and back to even and odd samples (`fold`, `butterflies`);
5. columns become rows, with the ends' part added (`store_tile`).

The sums are those of `SpectralMap` in another order. A lane never sees another, so what becomes of
a record does not depend on its batch, nor on the number of threads.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from einthoven.signals.butterflies import COST, passes
from einthoven.signals.kernels import FINE, prepare_rows
from einthoven.signals.lanes import ENDS, LANES
from einthoven.signals.linear import SpectralMap

Floats = NDArray[np.float32]

_NEGLIGIBLE = 1e-9  # of an output, what the ends of a crop may lack
_LONGEST = 1 << 16  # samples: more than this is no longer a cache's content


class Tables(NamedTuple):
    """Everything that a map needs and that does not depend on the signals.

    Attributes
    ----------
    lengths : array of int64, shape (4,)
        Samples of a row, of the resampled row and of the crop; bins.
    passes_in, passes_out : array of int64
        Radices of both transforms.
    twiddles_in, twiddles_out : array
        Factors of every pass, one pass after the other, from `_twiddles`.
    unfolding, folding, circle : array
        Factors exp(-2 pi i k / samples), i exp(2 pi i k / resampled), exp(2 pi i k / resampled).
    gains : array
        Of every bin.
    from_spectrum : array
        The part of the ends, (2 bins, columns); columns beyond the rank are zero.
    to_crop : array
        (rank, window).
    depths : array of int64
        How many rows of `to_crop` matter, for each sixteen samples.
    """

    lengths: NDArray[np.int64]
    passes_in: NDArray[np.int64]
    passes_out: NDArray[np.int64]
    twiddles_in: Floats
    twiddles_out: Floats
    unfolding: Floats
    folding: Floats
    circle: Floats
    gains: Floats
    from_spectrum: Floats
    to_crop: Floats
    depths: NDArray[np.int64]

    @property
    def window(self) -> int:
        """Length of the crop, in samples."""
        return int(self.lengths[2])


def suits(chain: SpectralMap) -> bool:
    """Whether there is a compiled path for a map: even lengths of small factors, in float32."""
    key = chain.key
    lengths = key.samples, key.resampled
    return (
        chain.response.dtype == torch.float32
        and chain.response.device.type == "cpu"
        and min(*lengths, key.window) >= LANES
        and max(lengths) <= _LONGEST
        and all(n % 2 == 0 and passes(n // 2) is not None for n in lengths)
    )


def tables(chain: SpectralMap) -> Tables:
    """The tables of a map that `suits`."""
    key, bins = chain.key, len(chain.response)
    halves = key.samples // 2, key.resampled // 2
    ways = [np.array(passes(half), dtype=np.int64) for half in halves]
    columns = -(-chain.rank // ENDS) * ENDS
    # Half of every gain, as `unfold` leaves the bins doubled.
    from_spectrum = np.zeros((2 * bins, columns), np.float32)
    to_crop = np.zeros((0, key.window), np.float32)
    if chain.from_spectrum is not None and chain.to_crop is not None:
        from_spectrum[:, : chain.rank] = chain.from_spectrum.numpy() / 2
        to_crop = chain.to_crop.numpy()
    largest = np.linalg.norm(from_spectrum[:, : chain.rank], axis=0) * key.samples / key.gain
    return Tables(
        lengths=np.array([key.samples, key.resampled, key.window, bins]),
        passes_in=ways[0],
        passes_out=ways[1],
        twiddles_in=_twiddles(halves[0], ways[0]),
        twiddles_out=_twiddles(halves[1], ways[1]),
        unfolding=_circle(np.arange(bins), -key.samples),
        folding=_circle(np.arange(halves[1] // 2 + 1) * 4 + key.resampled, 4 * key.resampled),
        circle=_circle(np.arange(key.resampled), key.resampled),
        gains=chain.response.numpy() * np.float32(0.5),
        from_spectrum=from_spectrum.ravel(),
        to_crop=np.ascontiguousarray(to_crop).ravel(),
        depths=_depths(to_crop * largest[:, None]),
    )


def _depths(terms: Floats) -> NDArray[np.int64]:
    """How many of the rows matter in each tile of samples, the last of which overlaps."""
    rank, window = terms.shape
    begins = [min(t, window - LANES) for t in range(0, window, LANES)]
    matters = [np.abs(terms[:, t : t + LANES]).max(1) > _NEGLIGIBLE for t in begins]
    return np.array([rank - int(m[::-1].argmax()) if m.any() else 0 for m in matters])


def _circle(steps: NDArray[np.int64], period: int) -> Floats:
    """exp(2 pi i step / period), real and imaginary parts in turn."""
    turn = np.exp(2j * np.pi * (steps % abs(period)) / period)
    return np.stack([turn.real, turn.imag], -1).astype(np.float32).ravel()


def _twiddles(n: int, radices: NDArray[np.int64]) -> Floats:
    parts = []
    for radix in radices.tolist():
        steps = np.outer(np.arange(n // radix), np.arange(1, radix))
        parts.append(_circle(steps.ravel(), -n))
        n //= radix
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def prepare(
    tables: Tables,
    x: Tensor,
    starts: Tensor | None,
    out: Tensor,
    *,
    leads_together: int,
    flat: float,
) -> None:
    """Fill `out` with prepared crops.

    Parameters
    ----------
    tables : Tables
        Of the map.
    x : Tensor
        (batch, leads, samples), int16 or float32.
    starts : Tensor or None
        (batch,) where each crop begins.
    out : Tensor
        (batch, leads, window), float32, contiguous.
    leads_together : int
        How many leads share a mean and a deviation: all of a record, 1, or 0 for no
        standardisation.
    flat : float
        Deviation below which a signal becomes zero, per unit of its mean, or per mV.
    """
    batch, leads, _ = x.shape
    rows = x.detach().contiguous().view(-1).numpy()
    begins = np.zeros(batch, np.int64) if starts is None else starts.contiguous().numpy()
    # As many records as fill the vectors: what a thread prepares together.
    unit = LANES // math.gcd(leads, LANES)
    units = -(-batch // unit)
    threads = max(1, min(torch.get_num_threads(), units))
    bounds = [min(batch, unit * (units * i // threads)) for i in range(threads)] + [batch]

    to = out.view(-1).numpy(), leads_together, flat

    def share(i: int) -> None:
        part = begins, leads, bounds[i], bounds[i + 1], unit
        prepare_rows(tables, rows, *part, *to, _space(tables))

    # Threads of our own, as numba's default pool aborts when two threads enter it.
    with ThreadPoolExecutor(max(1, threads - 1)) as pool:
        others = [pool.submit(share, i) for i in range(1, threads)]
        share(0)
        for other in others:
            other.result()


def _space(tables: Tables) -> tuple[Floats, ...]:
    """Two buffers for a transform, shifts, ends and a part of them, and a butterfly's scratch."""
    samples, resampled, _, bins = tables.lengths.tolist()
    points = 2 * (max(samples, resampled) // 2 + 1)
    ends = tables.from_spectrum.size // (2 * bins)
    vectors = points, points, 2 * (bins // FINE + 1 + FINE), ends, ends, 2 * max(COST) ** 2
    return tuple(_aligned(LANES * count) for count in vectors)


def _aligned(count: int) -> Floats:
    """Uninitialised float32 that begin where a line of the cache does."""
    raw = np.empty(count + LANES, np.float32)
    skipped = -(raw.ctypes.data // 4) % LANES
    return raw[skipped : skipped + count]
