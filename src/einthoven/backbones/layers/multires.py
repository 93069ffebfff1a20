"""The multiresolution layer: a cascade of short filters that remembers fading detail.

Shi, Wang and Fox, "Sequence Modeling with Multiresolution Convolutional Memory", ICML 2023
(MULTIRES), in its "fading" form. Every channel has a low-pass and a high-pass filter of two taps
each, shared by all scales as in a wavelet transform without downsampling. The signal is split over
and over, at twice the dilation each time; a weighted sum of all high-pass signals, of the last
low-pass signal and of the input is the output.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from einthoven.backbones.layers.long_convolution import convolve
from einthoven.errors import BackboneError

__all__ = ["TAPS", "MultiresLayer", "multires", "response"]

TAPS = 2  # of a filter


def response(low: Tensor, high: Tensor, weights: Tensor, *, tokens: int) -> Tensor:
    """The layer's answer to an impulse: it is linear, one causal kernel a channel.

    Parameters
    ----------
    low, high, weights : Tensor
        As for `multires`.
    tokens : int
        Length of the kernel.

    Returns
    -------
    Tensor, shape (channels, tokens)

    Notes
    -----
    A kernel at one scale is that of the scale before times a polynomial of two terms, so that all
    scales take as many products as the kernel has taps, a few times over.
    """
    scales = weights.shape[1] - 2
    smooth = torch.ones_like(weights[:, :1])
    total = torch.zeros_like(smooth)
    for scale in range(scales):
        detail = torch.cat([smooth * high[:, 1:], smooth * high[:, :1]], dim=1)
        total = pad(total, (0, detail.shape[1] - total.shape[1]))
        total = total + weights[:, scales - scale, None] * detail
        smooth = torch.cat([smooth * low[:, 1:], smooth * low[:, :1]], dim=1)
    total = total + weights[:, :1] * smooth
    now = total[:, :1] + weights[:, scales + 1 :]
    whole = torch.cat([now, total[:, 1:tokens]], dim=1)
    return pad(whole, (0, tokens - whole.shape[1]))


def multires(x: Tensor, low: Tensor, high: Tensor, weights: Tensor) -> Tensor:
    """A weighted sum of a signal's details at all scales.

    Parameters
    ----------
    x : Tensor, shape (batch, tokens, channels)
    low, high : Tensor, shape (channels, 2)
        Filters; the first tap is of the past, the second of the present.
    weights : Tensor, shape (channels, scales + 2)
        Of the last low-pass signal, of the details from the coarsest to the finest, and of x.

    Returns
    -------
    Tensor, shape (batch, tokens, channels)

    Notes
    -----
    The layer is linear, so it is one long convolution with its `response`.
    """
    with torch.autocast(x.device.type, enabled=False):
        kernels = response(low, high, weights, tokens=x.shape[1])
    return convolve(x, kernels[None], kernels.new_zeros(len(kernels)))


class MultiresLayer(nn.Module):
    """The layer with its parameters, drawn as the published ones are.

    Parameters
    ----------
    channels : int
        Each has filters of its own.
    scales : int
        How often a signal is split. After s scales an output depends on 2**s samples.

    Raises
    ------
    BackboneError
        When there is no channel or no scale.
    """

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__()
        if channels < 1 or scales < 1:
            raise BackboneError(
                f"channels = {channels}, scales = {scales}", remedy="give at least one of each."
            )
        bound = math.sqrt(2.0 / (2 * TAPS))
        self.low = nn.Parameter(torch.empty(channels, TAPS).uniform_(-bound, bound))
        self.high = nn.Parameter(torch.empty(channels, TAPS).uniform_(-bound, bound))
        bound = math.sqrt(2.0 / (2 * (scales + 1) + 2))
        self.weights = nn.Parameter(torch.empty(channels, scales + 2).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, channels) to the same shape; causal."""
        return multires(x, self.low, self.high, self.weights)

    def extra_repr(self) -> str:
        """Show what the network's printout needs."""
        channels, columns = self.weights.shape
        return f"channels={channels}, scales={columns - 2}"
