"""Convolution of every channel with a kernel as long as the window."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from einthoven.signals.filters import is_traced

# Nanoseconds on a CPU core, forward and backward: a Toeplitz product costs (a + b * batch) for
# every channel and tokens squared, an FFT c * batch for every channel, token and doubling.
_TOEPLITZ_FP32, _TOEPLITZ_BF16, _FFT = (4.2, 0.125), (2.9, 0.067), 3.2


def convolve(x: Tensor, kernels: Tensor, skip: Tensor) -> Tensor:
    """Filter every channel with its kernel and add the skip.

    Parameters
    ----------
    x : Tensor, shape (batch, tokens, channels)
    kernels : Tensor, shape (directions, channels, tokens)
        The first looks at the present and the past; a second one, ``k[m]`` for m steps + 1 ahead,
        at the future.
    skip : Tensor, shape (channels,)
        Added to the weight of the present.

    Returns
    -------
    Tensor, shape (batch, tokens, channels)

    Notes
    -----
    Short windows of a large batch are one batched Toeplitz product, in the autocast's precision;
    the others go through the FFT, in fp32 unless x is in double precision. In an exported graph,
    which has no complex numbers, the transforms are products with real matrices.
    """
    if is_traced():
        return _matrix_convolve(x, _taps(kernels, skip))
    if not len(x):
        return x  # MKL's FFT refuses an empty batch
    taps = _taps(kernels, skip)
    kind = x.device.type
    low = torch.is_autocast_enabled(kind)
    if _toeplitz_is_faster(x.shape[0], x.shape[1], low=low):
        dtype = torch.get_autocast_dtype(kind) if low else x.dtype
        filtered: Tensor = _Toeplitz.apply(x.to(dtype), taps.to(dtype))  # type: ignore[no-untyped-call]
        return filtered
    with torch.autocast(x.device.type, enabled=False):
        return _fft_convolve(x.to(torch.promote_types(x.dtype, torch.float32)), taps)


def _toeplitz_is_faster(batch: int, tokens: int, *, low: bool) -> bool:
    fixed, per_record = _TOEPLITZ_BF16 if low else _TOEPLITZ_FP32
    return tokens * (fixed + per_record * batch) < _FFT * batch * math.log2(2 * tokens)


def _taps(kernels: Tensor, skip: Tensor) -> Tensor:
    """Weights of lags 1 - tokens to tokens - 1, shape (channels, 2 * tokens - 1)."""
    past = kernels[0]
    now = past[:, :1] + skip.float()[:, None]
    if len(kernels) == 2:
        future = kernels[1, :, :-1].flip(-1)
    else:
        future = past.new_zeros(past.shape[0], past.shape[1] - 1)
    return torch.cat([future, now, past[:, 1:]], dim=1)


# Both ways bring channels first by one copy, and back by another: a Fourier transform over places
# far apart, and elementwise operations on tensors of two layouts, take several times as long.


class _Toeplitz(Function):
    """Batched product with Toeplitz matrices."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        columns = _channels_first(x)
        matrices = _matrices(taps, tokens)
        ctx.save_for_backward(columns, matrices)
        return _channels_last(torch.bmm(columns, matrices), batch)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        columns, matrices = ctx.saved_tensors
        above = _channels_first(grad.to(columns.dtype))
        below = _channels_last(torch.bmm(above, matrices.transpose(1, 2)), grad.shape[0])
        return below, _lag_sums(torch.bmm(columns.transpose(1, 2), above))


def _channels_first(x: Tensor) -> Tensor:
    batch, tokens, channels = x.shape
    return x.reshape(batch * tokens, channels).t().contiguous().view(channels, batch, tokens)


def _channels_last(x: Tensor, batch: int) -> Tensor:
    channels, _, tokens = x.shape
    return x.reshape(channels, batch * tokens).t().contiguous().view(batch, tokens, channels)


def _matrices(taps: Tensor, tokens: int) -> Tensor:
    """``m[c, i, j] = taps[c, tokens - 1 + j - i]``."""
    taps = taps.contiguous()
    hankel = taps.as_strided((len(taps), tokens, tokens), (2 * tokens - 1, 1, 1))
    return hankel.flip(1)


def _lag_sums(products: Tensor) -> Tensor:
    """Sums over the diagonals: the gradient of `_matrices`, with respect to the taps."""
    channels, tokens, _ = products.shape
    lags = 2 * tokens - 1
    # Rows of `lags` places, cut anew into rows of one more, move by one place from row to row:
    # diagonals become columns. Their sum is a matrix product, which is much faster than `sum`.
    flat = products.new_zeros(channels, tokens * (lags + 1))
    flat[:, : tokens * lags].view(channels, tokens, lags)[:, :, tokens - 1 :] = products
    columns = flat.view(channels, tokens, lags + 1)
    ones = products.new_ones(1, 1, tokens).expand(channels, 1, tokens)
    return torch.bmm(ones, columns)[:, 0, :lags]


class _Circular(Function):
    """Products of spectra; the kernel's gradient is summed over the batch before its transform."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, circle: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        ctx.size = circle.shape[1]
        signal = torch.fft.rfft(_channels_first(x), ctx.size)
        response = torch.fft.rfft(circle, ctx.size)[:, None]
        ctx.save_for_backward(signal, response)
        filtered = torch.fft.irfft(signal * response, ctx.size)
        return _channels_last(filtered[..., :tokens], batch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        signal, response = ctx.saved_tensors
        batch, tokens, _ = grad.shape
        above = torch.fft.rfft(_channels_first(grad), ctx.size)
        below = taps = None
        if ctx.needs_input_grad[1]:
            taps = torch.fft.irfft((above * signal.conj()).sum(1), ctx.size)
        if ctx.needs_input_grad[0]:
            columns = torch.fft.irfft(above.mul_(response.conj()), ctx.size)
            below = _channels_last(columns[..., :tokens], batch)
        return below, taps


def _fft_convolve(x: Tensor, taps: Tensor) -> Tensor:
    tokens = x.shape[1]
    # Lags before zero sit at the end of the circle.
    circle = torch.cat(
        [taps[:, tokens - 1 :], taps.new_zeros(len(taps), 1), taps[:, : tokens - 1]], dim=1
    )
    filtered: Tensor = _Circular.apply(x, circle.to(x.dtype))  # type: ignore[no-untyped-call]
    return filtered


def _matrix_convolve(x: Tensor, taps: Tensor) -> Tensor:
    """The circular convolution by real matrices, over places that are centred on the window.

    Around the centre, cosines are even and sines odd, so that they need only the sums and the
    differences of both halves: half of the products. On a CPU core, onnxruntime takes a half of
    the time of Toeplitz products for one record, whose matrices do not fit into the cache, and
    about the same for 64.
    """
    tokens = x.shape[1]
    half, middle = tokens // 2, tokens % 2
    waves = (torch.from_numpy(part).to(x.dtype) for part in _centred_waves(tokens))
    cosines, sines, lag_cosines, lag_sines = waves
    backwards = torch.arange(half - 1, -1, -1)
    real, imaginary = lag_cosines @ taps.t(), lag_sines @ taps.t()
    left, right = x[:, :half].index_select(1, backwards), x[:, half + middle :]
    even, odd = left + right, right - left
    if middle:
        even = torch.cat([x[:, half : half + 1], even], dim=1)
    cosine_part, sine_part = cosines @ even, sines @ odd
    even = cosines.t() @ (cosine_part * real + sine_part * imaginary)
    odd = sines.t() @ (cosine_part * imaginary - sine_part * real)
    centre, even = even[:, :middle], even[:, middle:]
    parts = [(even + odd).index_select(1, backwards), *([centre] if middle else []), even - odd]
    return torch.cat(parts, dim=1)


@lru_cache(maxsize=4)
def _centred_waves(tokens: int) -> tuple[NDArray[np.float64], ...]:
    """Waves of `2 * tokens` places over the right half of a window, and over the lags of taps.

    (frequencies, places): cosines with the middle, if there is one, and sines without; then both
    over the lags, scaled by the inverse transform.
    """
    frequency = np.arange(tokens + 1)[:, None] * (np.pi / tokens)
    half, middle = tokens // 2, tokens % 2
    places = np.arange(tokens)[half:] - (tokens - 1) / 2
    lags = np.arange(1 - tokens, tokens)
    share = np.full((tokens + 1, 1), 1.0 / tokens)  # a frequency stands for its negative too
    share[[0, -1]] = 0.5 / tokens
    return (
        np.cos(frequency * places),
        np.sin(frequency * places[middle:]),
        share * np.cos(frequency * lags),
        share * -np.sin(frequency * lags),
    )
