"""Convolutional network over the tokens of the stem: Net1D with stride 1.

The CNN of arXiv 2605.12241: ECGFounder's Net1D behind the stem that S4 has, without striding, so
that every token stays. Blocks and gates are those of `einthoven.backbones.ecgfounder`, without
batch norm. `net1d` has the released defaults at 240 Hz; `net1d_small` is our size for two CPU
cores.

The released network sees the future, so that contrastive predictive coding over it would see what
it has to predict; how the paper ran that cell is not known. ``causal=True`` is our form: every
convolution sees the past only, and the squeeze-and-excitation gates, which depend on the mean over
time, are left out.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from einthoven.backbones.config import TYPICAL_DEVIATION_MV, Count, Counts
from einthoven.backbones.ecgfounder import Bottleneck, same_conv
from einthoven.backbones.layers.convolution import convolve
from einthoven.backbones.layers.stem import StemBackbone, StemConfig
from einthoven.backbones.registry import Entry


@dataclass(frozen=True, kw_only=True)
class Net1DConfig(StemConfig):
    """Configuration of a Net1D; the other fields are those of `StemConfig`.

    Attributes
    ----------
    first_width : int
        Channels of the first convolution.
    widths, depths : tuple of int
        Channels and blocks of each stage; channels do not fall.
    group_width : int
        Channels in a group of the grouped convolutions; divides every width.
    kernel : int
        Taps of the first and of the grouped convolutions.
    causal : bool
        Whether a token sees the past only.
    """

    first_width: Count = 64
    widths: Counts = (64, 128, 128, 256, 256, 512, 512)
    depths: Counts = (2, 2, 2, 3, 3, 4, 4)
    group_width: Count = 16
    kernel: Annotated[int, Field(ge=2)] = 16
    causal: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        widths = (self.first_width, *self.widths)
        rising = list(widths) == sorted(widths)
        self.require(rising, "widths", f"give widths that do not fall, from {widths[0]} on")
        self.require(len(self.depths) == len(self.widths), "depths", "give a number for each width")
        self.require(
            not any(width % self.group_width for width in self.widths),
            "group_width",
            f"choose a number that divides the widths {self.widths}",
        )
        self.require(
            self.widths[-1] == self.width,
            "width",
            f"choose that of the last stage, {self.widths[-1]}",
        )


class CausalBottleneck(Bottleneck):
    """Residual block whose convolution sees the past only, without gate."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.se: nn.Module = nn.Identity()

    def _convolve(self, x: Tensor) -> Tensor:
        conv = self.conv2
        past = pad(x, (conv.weight.shape[-1] - 1, 0))
        return convolve(past, conv.weight, conv.bias, groups=conv.groups)


class Net1D(StemBackbone):
    """The convolutional encoder."""

    family = "net1d"
    channels_first = True

    def __init__(self, config: Net1DConfig) -> None:
        super().__init__(config)
        self.causal = config.causal
        self.first = nn.Conv1d(config.width, config.first_width, config.kernel)
        blocks: list[Bottleneck] = []
        inputs = config.first_width
        kind = CausalBottleneck if config.causal else Bottleneck
        for width, depth in zip(config.widths, config.depths, strict=True):
            for _ in range(depth):
                block = kind(
                    inputs,
                    width,
                    groups=width // config.group_width,
                    kernel=config.kernel,
                    stride=1,
                    activated=not blocks,
                    use_bn=False,
                )
                for part in (block.act2, block.act3):
                    part.dropout.p = config.dropout
                blocks.append(block)
                inputs = width
        self.blocks = nn.ModuleList(blocks)

    def contextualise(self, z: Tensor) -> Tensor:
        """Run the convolutions: (batch, tokens, width) to the same shape."""
        x, conv = z.transpose(1, 2), self.first
        if self.causal:
            past = pad(x, (conv.weight.shape[-1] - 1, 0))
            x = convolve(past, conv.weight, conv.bias)
        else:
            x = same_conv(x, conv.weight, conv.bias, stride=1, groups=1)
        # As in ECGFounder's stem, the stream that blocks add to has the parameters' precision.
        x = silu(x.to(conv.weight.dtype))
        for block in self.blocks:
            x = block(x)
        return x.transpose(1, 2)

    def feedforward_dropouts(self) -> list[nn.Dropout]:
        """Dropouts in front of the grouped and of the last convolution of every block."""
        return [part.dropout for block in self.blocks for part in (block.act2, block.act3)]


_PAPER = "arXiv 2605.12241; network after Li et al., NEJM AI 2025 (ECGFounder)"

ENTRIES = (
    Entry(
        network=Net1D,
        config=Net1DConfig(name="net1d"),
        summary="Net1D of stride 1 behind the stem: 20 blocks up to width 512, 240 Hz, 2.5 s",
        origin="arXiv 2605.12241",
        paper=_PAPER,
        parameters=10_487_424,
        recipes="s4-240hz",
        pretraining_recipe="jepa-240hz",
    ),
    Entry(
        network=Net1D,
        config=Net1DConfig(
            name="net1d_small",
            rate=100,
            window=250,
            width=128,
            stem_depth=2,
            first_width=32,
            widths=(32, 64, 128),
            depths=(2, 2, 4),
            kernel=8,
            pool="mean-max",
            scale=TYPICAL_DEVIATION_MV,
        ),
        summary="The same with 8 blocks up to width 128 at 100 Hz, our size for two CPU cores",
        origin="our size of it",
        paper=_PAPER,
        parameters=364_672,
        recipes="s4-100hz-cpu",
        pretraining_recipe="jepa-100hz-cpu",
    ),
)
