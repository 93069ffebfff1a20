"""MULTIRESNET: multiresolution convolutions over the whole record, without downsampling.

Shi, Wang and Fox, "Sequence Modeling with Multiresolution Convolutional Memory", ICML 2023, in the
configuration that its public code trains on PTB-XL: all six tasks, full records of 10 s at 100 Hz,
six layers of 128 channels, ten scales, "fading" memory. A layer is a cascade of short filters
(`MultiresLayer`), GELU, a gated linear map over the channels, both with dropout of whole channels;
then the residual sum and a layer norm.

The layer
---------
Every channel has a low-pass and a high-pass filter of two taps
each, shared by all scales as in a wavelet transform without downsampling. The signal is split over
and over, at twice the dilation each time; a weighted sum of all high-pass signals, of the last
low-pass signal and of the input is the output.
"""

from __future__ import annotations

import math

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import gelu, glu, pad

from einthoven.backbones.config import Count, Share
from einthoven.backbones.layers.long_convolution import convolve
from einthoven.backbones.layers.state_space import TiedDropout
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.windowed import SampleStack, WindowedConfig
from einthoven.backbones.registry import Entry

TAPS = 2  # of a filter


def response(low: Tensor, high: Tensor, weights: Tensor, *, tokens: int) -> Tensor:
    """Impulse response of the layer, (channels, tokens): one causal kernel for each channel.

    `low`, `high` and `weights` are as for `multires`. A kernel at one scale is that of the scale
    before times a polynomial of two terms, so that all scales take as many products as the kernel
    has taps, a few times over.
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
    """A weighted sum of a signal's details at all scales, of its shape (batch, tokens, channels).

    The filters `low` and `high` are (channels, 2): the first tap is of the past, the second of the
    present. `weights`, (channels, scales + 2), are those of the last low-pass signal, of the
    details from coarse to fine, and of x. The layer is linear, so it is one long convolution with
    its `response`.
    """
    with torch.autocast(x.device.type, enabled=False):
        kernels = response(low, high, weights, tokens=x.shape[1])
    return convolve(x, kernels[None], kernels.new_zeros(len(kernels)))


class MultiresLayer(nn.Module):
    """The layer with its parameters, drawn as the published ones are.

    Parameters
    ----------
    channels : int
        Number of channels; each has its filters.
    scales : int
        How often a signal is split. After s scales an output depends on 2**s samples.
    """

    def __init__(self, channels: int, scales: int) -> None:
        super().__init__()
        bound = math.sqrt(2.0 / (2 * TAPS))
        self.low = nn.Parameter(torch.empty(channels, TAPS).uniform_(-bound, bound))
        self.high = nn.Parameter(torch.empty(channels, TAPS).uniform_(-bound, bound))
        bound = math.sqrt(2.0 / (2 * (scales + 1) + 2))
        self.weights = nn.Parameter(torch.empty(channels, scales + 2).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, channels) to the same shape; causal."""
        return multires(x, self.low, self.high, self.weights)


@dataclass(frozen=True, kw_only=True)
class MultiresNetConfig(WindowedConfig):
    """Configuration of a MULTIRESNET.

    Attributes
    ----------
    width, depth : int
        Channels and blocks.
    scales : int
        Dilation levels of every layer. The published number is the least with which the last sample
        of the window depends on the first, ``ceil(log2(window))``.
    dropout : float
        Dropout of whole channels, applied twice a block. The network's own: a recipe does not
        change it.
    """

    width: Count = 128
    depth: Count = 6
    scales: Count = 10
    dropout: Share = 0.2


class MultiresBlock(nn.Module):
    """Filters at all scales, GELU, a gated linear map; added to the input, then normalised."""

    def __init__(self, width: int, scales: int, *, dropout: float) -> None:
        super().__init__()
        self.multires = MultiresLayer(width, scales)
        self.drop1 = TiedDropout(dropout)
        self.mix = nn.Linear(width, 2 * width)
        self.drop2 = TiedDropout(dropout)
        self.depth = StochasticDepth()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same shape."""
        out: Tensor = self.norm(self.depth(x, self.branch))
        return out

    def branch(self, x: Tensor) -> Tensor:
        """Residual branch; (batch, tokens, width)."""
        filtered = self.drop1(gelu(self.multires(x)))
        gated: Tensor = self.drop2(glu(self.mix(filtered), dim=-1))
        return gated


class MultiresNet(SampleStack):
    """The network without its last linear layer; every token depends on the past only."""

    family = "multiresnet"

    def __init__(self, config: MultiresNetConfig) -> None:
        blocks = [
            MultiresBlock(config.width, config.scales, dropout=config.dropout)
            for _ in range(config.depth)
        ]
        super().__init__(config, blocks)
        # Blocks are post-norm: the norm of the last one is the final norm.
        self.final_parameters = (f"blocks.{config.depth - 1}.norm.",)


ENTRIES = (
    Entry(
        network=MultiresNet,
        config=MultiresNetConfig(name="multiresnet"),
        summary="MULTIRESNET: causal filters at ten scales over the whole record, 100 Hz, 10 s",
        origin="Shi et al. 2023",
        paper="Shi et al., Sequence Modeling with Multiresolution Convolutional Memory, ICML 2023",
        parameters=213_632,
        recipe="multiresnet",
    ),
)
