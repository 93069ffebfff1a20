"""fcn_wang: three convolutions, batch norm and ReLU behind each, and nothing that shortens time.

The fully convolutional network of Wang et al., "Time Series Classification from Scratch with Deep
Neural Networks", IJCNN 2017 (arXiv 1611.06455), with the kernels 8, 5 and 3 and the dense layers
that the PTB-XL benchmark gave it (`einthoven.backbones.layers.benchmark`). The kernel of 8 is
padded by three zeros at both ends, as there, so that one sample is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from einthoven.backbones.config import override
from einthoven.backbones.layers.benchmark import (
    BenchmarkBackbone,
    BenchmarkConfig,
    Dense,
    benchmark_entry,
    check_possible,
    draw_weights,
)
from einthoven.backbones.layers.convolution import ConvNorm, as_image, as_tokens
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.structure import group_by_depth
from einthoven.records.record import STANDARD_LEADS

__all__ = ["ENTRIES", "FCNWang", "FCNWangConfig", "fcn_wang"]


@dataclass(frozen=True)
class FCNWangConfig(BenchmarkConfig):
    """Configuration of a fully convolutional network.

    Attributes
    ----------
    widths, kernels : tuple of int
        Channels and taps of each convolution.
    """

    widths: tuple[int, ...] = (128, 256, 128)
    kernels: tuple[int, ...] = (8, 5, 3)


class FCNWang(BenchmarkBackbone):
    """The fully convolutional network.

    Parameters
    ----------
    config : FCNWangConfig
        Its shape.
    """

    config: FCNWangConfig

    def __init__(self, config: FCNWangConfig) -> None:
        super().__init__(config)
        check_possible(
            config,
            {
                "widths": (min(config.widths, default=0) > 0, "give channels for each layer."),
                "kernels": (
                    len(config.kernels) == len(config.widths) and min(config.kernels) > 0,
                    "give a number of taps for each width.",
                ),
            },
        )
        self.shortest = 1 + sum(kernel % 2 == 0 for kernel in config.kernels)
        inputs = (len(STANDARD_LEADS), *config.widths)
        self.blocks = nn.Sequential(*map(ConvNorm, inputs[:-1], config.widths, config.kernels))
        self.dense = Dense(2 * config.widths[-1], config.hidden, config.hidden_dropouts)
        draw_weights(self)

    def encode(self, x: Tensor) -> Tensor:
        """(batch, 12, samples) to (batch, samples - 1, 128)."""
        return as_tokens(self.blocks(as_image(x)))

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """Empty lists: the network has no shortcuts. The first convolution is its stem."""
        return [[] for _ in self.config.widths[1:]]

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by layer: each convolution, the dense layers."""
        return group_by_depth(self, depth=len(self.config.widths), final=self.final_parameters)[1:]


def fcn_wang(**overrides: Any) -> FCNWang:
    """The benchmark's shape, 0.31 M parameters."""
    return FCNWang(override(FCNWangConfig(name="fcn_wang"), overrides))


ENTRIES = (
    benchmark_entry(
        "fcn_wang",
        fcn_wang,
        "Three convolutions and no pooling between them, 100 Hz, 2.5 s",
        parameters=309_120,
        after="Wang et al., Time Series Classification from Scratch with "
        "Deep Neural Networks: A Strong Baseline, IJCNN 2017 (arXiv 1611.06455)",
    ),
)
