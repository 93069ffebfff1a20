"""resnet1d_wang: a residual network of three basic blocks, 128 channels wide throughout.

After Wang et al., "Time Series Classification from Scratch with Deep Neural Networks", IJCNN 2017
(arXiv 1611.06455), in the form and with the dense layers that the PTB-XL benchmark gave it
(`einthoven.backbones.layers.benchmark`): a stem of 7 taps without stride or pooling, then blocks of
a convolution of 5 and one of 3 taps; the second and the third block halve the length.
"""

from __future__ import annotations

from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from einthoven.backbones.config import Count, Counts, Odd
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

    width: Count = 128
    stem_kernel: Odd = 7
    kernels: tuple[Odd, Odd] = (5, 3)
    strides: Counts = (1, 2, 2)


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut, which is a convolution of one tap where it strides."""

    def __init__(self, width: int, kernels: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(width, width, kernels[0], stride=stride)
        self.conv2 = ConvNorm(width, width, kernels[1], relu=False)
        self.shortcut = (
            nn.Identity() if stride == 1 else ConvNorm(width, width, 1, stride=stride, relu=False)
        )
        self.drop_path = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width, 1, samples) to (batch, width, 1, samples / stride)."""
        out: Tensor = self.drop_path(x, self._branch, shortcut=self.shortcut(x))
        return out.relu_()

    def _branch(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.conv1(x))
        return out


class ResNet1dWang(BenchmarkBackbone):
    """The residual network of basic blocks."""

    def __init__(self, config: ResNet1dWangConfig) -> None:
        super().__init__(config)
        self.stem = ConvNorm(len(STANDARD_LEADS), config.width, config.stem_kernel)
        self.blocks = nn.Sequential(
            *(BasicBlock(config.width, config.kernels, stride) for stride in config.strides)
        )
        self.token_dim = config.width
        self.dense = Dense(2 * self.token_dim, config)
        draw_weights(self)

    def encode(self, x: Tensor) -> Tensor:
        """Map (batch, 12, samples) to (batch, samples / 4, 128)."""
        return as_tokens(self.blocks(self.stem(as_image(x))))


ENTRIES = (
    benchmark_entry(
        ResNet1dWang,
        ResNet1dWangConfig(name="resnet1d_wang"),
        "Residual network of three basic blocks, 128 channels, 100 Hz, 2.5 s",
        parameters=472_704,
        after="Wang et al., Time Series Classification from Scratch with "
        "Deep Neural Networks: A Strong Baseline, IJCNN 2017 (arXiv 1611.06455)",
    ),
)
