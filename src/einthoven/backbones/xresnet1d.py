"""xresnet1d50 and xresnet1d101: deep residual networks of bottleneck blocks, 64 channels inside.

One-dimensional forms of the residual networks with the tricks of He et al., "Bag of Tricks for
Image Classification with Convolutional Neural Networks", CVPR 2019 (arXiv 1812.01187), as the
PTB-XL benchmark trained them (`einthoven.backbones.layers.benchmark`): a stem of three convolutions
instead of one, the stride of a block in its middle convolution, and an average pooling on the
shortcut. All stages are 64 channels wide inside and 256 outside. The benchmark drew the last norm
of every branch at one, not at zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

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
from einthoven.backbones.layers.structure import block_branches
from einthoven.records.record import STANDARD_LEADS

__all__ = ["ENTRIES", "XResNet1d", "XResNet1dConfig", "xresnet1d50", "xresnet1d101"]


@dataclass(frozen=True)
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

    stem_widths: tuple[int, int, int] = (32, 32, 64)
    width: int = 64
    expansion: int = 4
    kernel: int = 5
    depths: tuple[int, ...] = (3, 4, 23, 3)


class Bottleneck(nn.Module):
    """Convolutions of one, `kernel` and one tap, and a shortcut.

    Parameters
    ----------
    inputs, width, outputs : int
        Channels that come in, inside, and that go out.
    kernel : int
        Taps of the middle convolution.
    stride : int
        Stride of the middle convolution; the shortcut averages as many samples.
    """

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
        """(batch, inputs, 1, samples) to (batch, outputs, 1, samples / stride, rounded up)."""
        shortcut = self.project(self.average(x))
        out: Tensor = self.drop_path(x, self._branch, shortcut=shortcut)
        return out.relu_()

    def _branch(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3(self.conv2(self.conv1(x)))
        return out


class XResNet1d(BenchmarkBackbone):
    """The residual network of bottleneck blocks.

    Parameters
    ----------
    config : XResNet1dConfig
        Its shape.
    """

    config: XResNet1dConfig

    def __init__(self, config: XResNet1dConfig) -> None:
        super().__init__(config)
        _check(config)
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
        self.dense = Dense(2 * outputs, config.hidden, config.hidden_dropouts)
        draw_weights(self)

    def _block(self, inputs: int, stride: int) -> Bottleneck:
        config = self.config
        outputs = config.width * config.expansion
        return Bottleneck(inputs, config.width, outputs, kernel=config.kernel, stride=stride)

    def encode(self, x: Tensor) -> Tensor:
        """(batch, 12, samples) to (batch, samples / 32, 256); 250 samples give 8 tokens."""
        return as_tokens(self.stages(self.shorten(self.stem(as_image(x)))))

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """One holder a block."""
        blocks = [block for stage in self.stages for block in cast("nn.Sequential", stage)]
        return block_branches(blocks)

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by layer: stem, each block, the dense layers."""
        blocks = [n for n, part in self.named_modules() if isinstance(part, Bottleneck)]
        names = [name for name, _ in self.named_parameters()]
        return [
            [name for name in names if name.startswith(f"{layer}.")]
            for layer in ("stem", *blocks, "dense")
        ]


def _check(config: XResNet1dConfig) -> None:
    check_possible(
        config,
        {
            "stem_widths": (
                min(config.stem_widths) > 0,
                "give the channels of each convolution in front.",
            ),
            "width": (config.width > 0, "give a number of channels."),
            "expansion": (config.expansion > 0, "give a factor of 1 or more."),
            "kernel": (
                config.kernel > 0 and config.kernel % 2 == 1,
                "give an odd number of taps, which keeps the length.",
            ),
            "depths": (min(config.depths, default=0) > 0, "give every stage a block."),
        },
    )


def xresnet1d50(**overrides: Any) -> XResNet1d:
    """Stages of 3, 4, 6 and 3 blocks, 0.95 M parameters."""
    preset = XResNet1dConfig(name="xresnet1d50", depths=(3, 4, 6, 3))
    return XResNet1d(override(preset, overrides))


def xresnet1d101(**overrides: Any) -> XResNet1d:
    """Stages of 3, 4, 23 and 3 blocks, 1.87 M parameters."""
    return XResNet1d(override(XResNet1dConfig(name="xresnet1d101"), overrides))


ENTRIES = (
    benchmark_entry(
        "xresnet1d50",
        xresnet1d50,
        "Residual network of 16 bottleneck blocks of 64 channels, 100 Hz, 2.5 s",
        parameters=953_344,
        after="He et al., Bag of Tricks for Image Classification with "
        "Convolutional Neural Networks, CVPR 2019 (arXiv 1812.01187)",
    ),
    benchmark_entry(
        "xresnet1d101",
        xresnet1d101,
        "Residual network of 33 bottleneck blocks of 64 channels, 100 Hz, 2.5 s",
        parameters=1_871_616,
        after="He et al., Bag of Tricks for Image Classification with "
        "Convolutional Neural Networks, CVPR 2019 (arXiv 1812.01187)",
    ),
)
