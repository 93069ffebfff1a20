"""inception1d: six modules that look at a signal through kernels of three lengths at once.

InceptionTime's network (Ismail Fawaz et al., Data Mining and Knowledge Discovery 34, 2020, arXiv
1909.04939) as the PTB-XL benchmark trained it (`einthoven.backbones.layers.benchmark`): six modules
with a shortcut around every three; kernels of 39, 19 and 9 taps, which are the published 40, 20 and
10 made odd; a bottleneck in every module, the first included.
"""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from einthoven.backbones.config import Count, OddCounts
from einthoven.backbones.layers.benchmark import (
    BenchmarkBackbone,
    BenchmarkConfig,
    Dense,
    benchmark_entry,
    draw_weights,
)
from einthoven.backbones.layers.convolution import ConvNorm, as_image, as_tokens, convolution
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.records.record import STANDARD_LEADS


@dataclass(frozen=True, kw_only=True)
class Inception1dConfig(BenchmarkConfig):
    """Configuration of an inception network.

    Attributes
    ----------
    blocks : int
        Shortcuts, each around three modules.
    width : int
        Channels of the bottleneck and of each kernel.
    kernels : tuple of int
        Taps of the kernels of a module.
    """

    blocks: Count = 2
    width: Count = 32
    kernels: OddCounts = (39, 19, 9)


class InceptionModule(nn.Module):
    """Kernels of several lengths over a bottleneck, and a max-pooling of the input beside them."""

    def __init__(self, inputs: int, width: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.bottleneck = convolution(inputs, width, 1)
        self.convs = nn.ModuleList(convolution(width, width, kernel) for kernel in kernels)
        self.maximum = nn.MaxPool2d((1, 3), stride=1, padding=(0, 1))
        self.pooled = convolution(inputs, width, 1)
        self.norm = nn.BatchNorm2d(width * (len(kernels) + 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, 1, samples) to (batch, width * (kernels + 1), 1, samples)."""
        narrow = self.bottleneck(x)
        branches = [conv(narrow) for conv in self.convs]
        joined = torch.cat([*branches, self.pooled(self.maximum(x))], dim=1)
        out: Tensor = self.norm(joined)
        return out.relu_()


class InceptionBlock(nn.Module):
    """Three modules one after the other and a shortcut around them, a convolution of one tap."""

    def __init__(self, inputs: int, width: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        outputs = width * (len(kernels) + 1)
        self.layers = nn.Sequential(
            *(InceptionModule(outputs if layer else inputs, width, kernels) for layer in range(3))
        )
        self.shortcut = ConvNorm(inputs, outputs, 1, relu=False)
        self.drop_path = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, 1, samples) to (batch, outputs, 1, samples)."""
        out: Tensor = self.drop_path(x, self.layers, shortcut=self.shortcut(x))
        return out.relu_()


class Inception1d(BenchmarkBackbone):
    """The inception network."""

    def __init__(self, config: Inception1dConfig) -> None:
        super().__init__(config)
        outputs = config.width * (len(config.kernels) + 1)
        self.blocks = nn.Sequential(
            *(
                InceptionBlock(
                    outputs if block else len(STANDARD_LEADS),
                    config.width,
                    config.kernels,
                )
                for block in range(config.blocks)
            )
        )
        self.token_dim = outputs
        self.dense = Dense(2 * self.token_dim, config)
        draw_weights(self)

    def encode(self, x: Tensor) -> Tensor:
        """Map (batch, 12, samples) to (batch, samples, 128)."""
        return as_tokens(self.blocks(as_image(x)))

    def layer_prefixes(self) -> list[tuple[str, ...]]:
        """Layers that read the leads, the rest of each block, the dense layers."""
        first = ("blocks.0.layers.0.bottleneck.", "blocks.0.layers.0.pooled.", "blocks.0.shortcut.")
        return [first, *super().layer_prefixes()[1:]]


ENTRIES = (
    benchmark_entry(
        Inception1d,
        Inception1dConfig(name="inception1d"),
        "Six modules of kernels of 39, 19 and 9 samples at once, 100 Hz, 2.5 s",
        parameters=507_008,
        after="Ismail Fawaz et al., InceptionTime: Finding AlexNet for "
        "Time Series Classification, Data Mining and Knowledge Discovery 34, 2020 "
        "(arXiv 1909.04939)",
    ),
)
