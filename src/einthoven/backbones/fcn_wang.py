"""fcn_wang: three convolutions, each followed by batch norm and ReLU, without downsampling.

The fully convolutional network of Wang et al., "Time Series Classification from Scratch with Deep
Neural Networks", IJCNN 2017 (arXiv 1611.06455), with the kernels 8, 5 and 3 and the dense layers
that the PTB-XL benchmark gave it (`einthoven.backbones.layers.benchmark`). The kernel of 8 is
padded by three zeros at both ends, as there, so that one sample is lost.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from einthoven.backbones.config import Counts
from einthoven.backbones.layers.benchmark import (
    BenchmarkBackbone,
    BenchmarkConfig,
    Dense,
    benchmark_entry,
    draw_weights,
)
from einthoven.backbones.layers.convolution import ConvNorm, as_image, as_tokens
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.records.record import STANDARD_LEADS


@dataclass(frozen=True, kw_only=True)
class FCNWangConfig(BenchmarkConfig):
    """Configuration of a fully convolutional network.

    Attributes
    ----------
    widths, kernels : tuple of int
        Channels and taps of each convolution.
    """

    widths: Counts = (128, 256, 128)
    kernels: Counts = (8, 5, 3)

    def __post_init__(self) -> None:
        same = len(self.kernels) == len(self.widths)
        self.require(same, "kernels", "give a number of taps for each width")


class FCNWang(BenchmarkBackbone):
    """The fully convolutional network."""

    def __init__(self, config: FCNWangConfig) -> None:
        super().__init__(config)
        self.shortest = 1 + sum(kernel % 2 == 0 for kernel in config.kernels)
        inputs = (len(STANDARD_LEADS), *config.widths)
        self.blocks = nn.Sequential(*map(ConvNorm, inputs[:-1], config.widths, config.kernels))
        self.token_dim = config.widths[-1]
        self.dense = Dense(2 * self.token_dim, config)
        draw_weights(self)

    def encode(self, x: Tensor) -> Tensor:
        """Map (batch, 12, samples) to (batch, samples - 1, 128)."""
        return as_tokens(self.blocks(as_image(x)))

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """Empty lists: the network has no shortcuts. The first convolution is its stem."""
        return [[] for _ in self.config.widths[1:]]

    def layer_prefixes(self) -> list[tuple[str, ...]]:
        """Each convolution, the dense layers."""
        return super().layer_prefixes()[1:]


ENTRIES = (
    benchmark_entry(
        FCNWang,
        FCNWangConfig(name="fcn_wang"),
        "Three convolutions and no pooling between them, 100 Hz, 2.5 s",
        parameters=309_120,
        after="Wang et al., Time Series Classification from Scratch with "
        "Deep Neural Networks: A Strong Baseline, IJCNN 2017 (arXiv 1611.06455)",
    ),
)
