"""xresnet1d50 and xresnet1d101: deep residual networks of bottleneck blocks, 64 channels inside.

One-dimensional forms of the residual networks with the tricks of He et al., "Bag of Tricks for
Image Classification with Convolutional Neural Networks", CVPR 2019 (arXiv 1812.01187), as the
PTB-XL benchmark trained them (`einthoven.backbones.layers.benchmark`): a stem of three convolutions
instead of one, the stride of a block in its middle convolution, and an average pooling on the
shortcut. All stages are 64 channels wide inside and 256 outside. The benchmark drew the last norm
of every branch at one, not at zero.
"""

from __future__ import annotations

from itertools import pairwise

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
class XResNet1dConfig(BenchmarkConfig):
    """Configuration of an xresnet.

    Attributes
    ----------
    stem_widths : (int, int, int)
        Channels of the convolutions in front; the first of them halves the length, and so does
        the pooling behind them.
    width : int
        Channels inside the blocks; `expansion` times as many outside.
    expansion : int
        See `width`.
    kernel : int
        Taps of the stem and of the middle convolutions.
    depths : tuple of int
        Blocks of each stage; the first block of every stage but the first halves the length.
    """

    stem_widths: tuple[Count, Count, Count] = (32, 32, 64)
    width: Count = 64
    expansion: Count = 4
    kernel: Odd = 5
    depths: Counts = (3, 4, 23, 3)


class Bottleneck(nn.Module):
    """Convolutions of one, `kernel` and one tap, and a shortcut that averages `stride` samples."""

    def __init__(self, inputs: int, width: int, outputs: int, *, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, width, 1)
        self.conv2 = ConvNorm(width, width, kernel, stride=stride)
        self.conv3 = ConvNorm(width, outputs, 1, relu=False)
        self.average: nn.Module = nn.Identity()
        if stride > 1:  # of an odd length, the last sample is averaged with nothing
            self.average = nn.AvgPool2d((1, stride), ceil_mode=True)
        self.project: nn.Module = nn.Identity()
        if inputs != outputs:
            self.project = ConvNorm(inputs, outputs, 1, relu=False)
        self.drop_path = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, 1, samples) to (batch, outputs, 1, samples / stride, rounded up)."""
        shortcut = self.project(self.average(x))
        out: Tensor = self.drop_path(x, self._branch, shortcut=shortcut)
        return out.relu_()

    def _branch(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(self.conv2(self.conv1(x)))
        return out


class XResNet1d(BenchmarkBackbone):
    """The residual network of bottleneck blocks."""

    def __init__(self, config: XResNet1dConfig) -> None:
        super().__init__(config)
        widths = (len(STANDARD_LEADS), *config.stem_widths)
        self.stem = nn.Sequential(
            *(
                ConvNorm(inputs, outputs, config.kernel, stride=1 if layer else 2)
                for layer, (inputs, outputs) in enumerate(pairwise(widths))
            )
        )
        self.shorten = nn.MaxPool2d((1, 3), stride=(1, 2), padding=(0, 1))
        outputs = config.width * config.expansion
        self.stages = nn.Sequential()
        for stage, depth in enumerate(config.depths):
            first = self._block(outputs if stage else widths[-1], 2 if stage else 1)
            rest = (self._block(outputs, 1) for _ in range(depth - 1))
            self.stages.append(nn.Sequential(first, *rest))
        self.token_dim = outputs
        self.dense = Dense(2 * self.token_dim, config)
        draw_weights(self)

    def _block(self, inputs: int, stride: int) -> Bottleneck:
        config = self.config
        outputs = config.width * config.expansion
        return Bottleneck(inputs, config.width, outputs, kernel=config.kernel, stride=stride)

    def encode(self, x: Tensor) -> Tensor:
        """Map (batch, 12, samples) to (batch, samples / 32, 256); 250 samples give 8 tokens."""
        return as_tokens(self.stages(self.shorten(self.stem(as_image(x)))))

    def _blocks(self) -> dict[str, Bottleneck]:
        return {name: part for name, part in self.named_modules() if isinstance(part, Bottleneck)}

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """One holder a block."""
        return [[block.drop_path] for block in self._blocks().values()]

    def layer_prefixes(self) -> list[tuple[str, ...]]:
        """Stem, each block, the dense layers."""
        return [("stem.",), *((f"{name}.",) for name in self._blocks()), self.final_parameters]


ENTRIES = (
    benchmark_entry(
        XResNet1d,
        XResNet1dConfig(name="xresnet1d50", depths=(3, 4, 6, 3)),
        "Residual network of 16 bottleneck blocks of 64 channels, 100 Hz, 2.5 s",
        parameters=953_344,
        after="He et al., Bag of Tricks for Image Classification with "
        "Convolutional Neural Networks, CVPR 2019 (arXiv 1812.01187)",
    ),
    benchmark_entry(
        XResNet1d,
        XResNet1dConfig(name="xresnet1d101"),
        "Residual network of 33 bottleneck blocks of 64 channels, 100 Hz, 2.5 s",
        parameters=1_871_616,
        after="He et al., Bag of Tricks for Image Classification with "
        "Convolutional Neural Networks, CVPR 2019 (arXiv 1812.01187)",
    ),
)
