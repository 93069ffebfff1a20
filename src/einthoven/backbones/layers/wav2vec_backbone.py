"""What HuBERT-ECG and ECG-FM have in common as backbones: their parts, and what recipes ask."""

from __future__ import annotations

from torch import nn

from einthoven.backbones.contract import Backbone
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.structure import (
    attention_dropouts,
    block_branches,
    feedforward_dropouts,
)
from einthoven.backbones.layers.wav2vec import (
    ConvExtractor,
    ConvPositions,
    FeatureProjection,
    PostNormBlocks,
)

__all__ = ["Wav2VecBackbone"]


class Wav2VecBackbone(Backbone):
    """A backbone made of the parts of `einthoven.backbones.layers.wav2vec`.

    What a signal is to the extractor, and what becomes of missing leads, is each network's own.

    Attributes
    ----------
    config : dataclass
        With `width`, `depth`, `heads`, `conv_width`, `conv_kernels`, `conv_strides`, `pos_kernel`,
        `pos_groups`, `layerdrop` and `attention_dropout`.
    """

    def build_parts(self, channels: int) -> None:
        """Draw the parts that `config` describes, for a signal of so many channels."""
        config = self.config
        self.feature_dim = config.width
        self.extractor = ConvExtractor(
            channels, config.conv_width, kernels=config.conv_kernels, strides=config.conv_strides
        )
        self.projection = FeatureProjection(config.conv_width, config.width)
        self.pos_conv = ConvPositions(
            config.width, kernel=config.pos_kernel, groups=config.pos_groups
        )
        self.norm = nn.LayerNorm(config.width)
        self.embed_dropout = nn.Dropout(0.0)
        self.blocks = PostNormBlocks(
            config.depth,
            config.width,
            config.heads,
            layerdrop=config.layerdrop,
            attention_dropout=config.attention_dropout,
        )

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """The positional convolution's holder, then two a block: attention, feed-forward."""
        return [[self.pos_conv.drop_path], *block_branches(self.blocks)]

    def feedforward_dropouts(self) -> list[nn.Dropout]:
        """Dropouts inside the feed-forwards."""
        return feedforward_dropouts(self.blocks)

    def other_dropouts(self) -> list[nn.Dropout]:
        """Dropouts on the projection, on the embedding and behind each attention."""
        return [self.projection.dropout, self.embed_dropout, *attention_dropouts(self.blocks)]

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by layer: extractor; projection and positions; each block; last norm.

        The last group is the last block's second norm, which is what a final norm is elsewhere.
        """
        depth = self.config.depth
        groups: list[list[str]] = [[] for _ in range(depth + 3)]
        for name, _ in self.named_parameters():
            if name.startswith("extractor."):
                groups[0].append(name)
            elif name.startswith(f"blocks.{depth - 1}.norm2."):
                groups[-1].append(name)
            elif name.startswith("blocks."):
                groups[2 + int(name.split(".")[1])].append(name)
            else:
                groups[1].append(name)
        return groups

    def no_weight_decay(self) -> set[str]:
        """Nothing: the released codes decay every parameter."""
        return set()

    def extractor_parameters(self) -> list[str]:
        """The convolutions in front, which the released fine-tunings keep frozen."""
        return [name for name, _ in self.named_parameters() if name.startswith("extractor.")]

    def position_parameters(self) -> list[str]:
        """The positional convolution."""
        return [f"pos_conv.{name}" for name, _ in self.pos_conv.named_parameters()]
