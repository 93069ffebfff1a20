"""resnet1d_wang: a residual network of three basic blocks, 128 channels wide throughout.

After Wang et al., "Time Series Classification from Scratch with Deep Neural Networks", IJCNN 2017
(arXiv 1611.06455), in the form and with the dense layers that the PTB-XL benchmark gave it
(`einthoven.backbones.layers.benchmark`): a stem of 7 taps without stride or pooling, then blocks of
a convolution of 5 and one of 3 taps; the second and the third block halve the length.
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
from einthoven.records.record import STANDARD_LEADS

__all__ = ["ENTRIES", "ResNet1dWang", "ResNet1dWangConfig", "resnet1d_wang"]


@dataclass(frozen=True)
class ResNet1dWangConfig(BenchmarkConfig):
    """Configuration of the residual network.

    Attributes
    ----------
    width : int
        Channels.
    stem_kernel : int
        Taps of the first convolution.
    kernels : (int, int)
        Taps of a block's two convolutions.
    strides : tuple of int
        Stride of each block, one for every block.
    """

    width: int = 128
    stem_kernel: int = 7
    kernels: tuple[int, int] = (5, 3)
    strides: tuple[int, ...] = (1, 2, 2)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut; the shortcut is a convolution of one tap where it strides.

    Parameters
    ----------
    width : int
        Channels that come in and go out.
    kernels : (int, int)
        Taps of the convolutions.
    stride : int
        Stride of the first of them, and of the shortcut.
    """

    def __init__(self, width: int, kernels: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, width, kernels[0], stride=stride)
        self.conv2 = ConvNorm(width, width, kernels[1], relu=False)
        self.shortcut = (
            nn.Identity() if stride == 1 else ConvNorm(width, width, 1, stride=stride, relu=False)
        )
        self.drop_path = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, 1, samples) to (batch, width, 1, samples / stride)."""
        out: Tensor = self.drop_path(x, self._branch, shortcut=self.shortcut(x))
        return out.relu_()

    def _branch(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(x))
        return out


class ResNet1dWang(BenchmarkBackbone):
    """The residual network of basic blocks.

    Parameters
    ----------
    config : ResNet1dWangConfig
        Its shape.
    """

    config: ResNet1dWangConfig

    def __init__(self, config: ResNet1dWangConfig) -> None:
        super().__init__(config)
        odd = "give odd numbers of taps, which keep the length."
        check_possible(
            config,
            {
                "width": (config.width > 0, "give a number of channels."),
                "stem_kernel": (config.stem_kernel > 0 and config.stem_kernel % 2 == 1, odd),
                "kernels": (all(k > 0 and k % 2 == 1 for k in config.kernels), odd),
                "strides": (
                    min(config.strides, default=0) > 0,
                    "give a stride for each block, at least one.",
                ),
            },
        )
        self.stem = ConvNorm(len(STANDARD_LEADS), config.width, config.stem_kernel)
        self.blocks = nn.Sequential(
            *(BasicBlock(config.width, config.kernels, stride) for stride in config.strides)
        )
        self.dense = Dense(2 * config.width, config.hidden, config.hidden_dropouts)
        draw_weights(self)

    def encode(self, x: Tensor) -> Tensor:
        """(batch, 12, samples) to (batch, samples / 4, 128)."""
        return as_tokens(self.blocks(self.stem(as_image(x))))


def resnet1d_wang(**overrides: Any) -> ResNet1dWang:
    """The benchmark's shape, 0.47 M parameters."""
    return ResNet1dWang(override(ResNet1dWangConfig(name="resnet1d_wang"), overrides))


ENTRIES = (
    benchmark_entry(
        "resnet1d_wang",
        resnet1d_wang,
        "Residual network of three basic blocks, 128 channels, 100 Hz, 2.5 s",
        parameters=472_704,
        after="Wang et al., Time Series Classification from Scratch with "
        "Deep Neural Networks: A Strong Baseline, IJCNN 2017 (arXiv 1611.06455)",
    ),
)
