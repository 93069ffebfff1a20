"""The parts of a post-norm wav2vec 2.0 network, which HuBERT-ECG and ECG-FM share.

Strided convolutions turn a signal into tokens; a linear projection widens them; a long grouped
convolution, added to its input, encodes positions; Transformer blocks follow that normalise
*after* each addition (Baevski et al., "wav2vec 2.0", arXiv 2006.11477, its base size; Hsu et al.,
"HuBERT", arXiv 2106.07447). A network of this kind holds the parts as

    self.extractor = ConvExtractor(...)       (batch, channels, samples) to (batch, tokens, conv)
    self.projection = FeatureProjection(...)  conv to width
    self.pos_conv = ConvPositions(...)        adds positions; a residual branch
    self.norm = nn.LayerNorm(width)           before the blocks: there is none behind them
    self.embed_dropout = nn.Dropout(0.0)
    self.blocks = PostNormBlocks(...)

under these very names (`Wav2VecBackbone`): layer groups use them, and so does the recipe's
`freeze_positions`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import gelu

from einthoven.backbones.config import BackboneConfig, Count, Counts, Share
from einthoven.backbones.contract import Backbone
from einthoven.backbones.layers.convolution import convolve
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.transformer import Attention, Block, initialise_linears
from einthoven.backbones.leads import with_derived
from einthoven.errors import BackboneError

Samples = TypeVar("Samples", int, Tensor)


class ConvExtractor(nn.Module):
    """Strided convolutions without padding or bias, each followed by an exact GELU.

    The first one's channels are normalised over time, each on its own (a group norm with as many
    groups as channels), between convolution and GELU.
    """

    def __init__(
        self, channels: int, width: int, *, kernels: Sequence[int], strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.kernels, self.strides = tuple(kernels), tuple(strides)
        widths = [channels] + [width] * len(self.kernels)
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel, stride, bias=False)
            for before, after, kernel, stride in zip(
                widths[:-1], widths[1:], self.kernels, self.strides, strict=True
            )
        )
        self.norm = nn.GroupNorm(width, width)
        for part in self.convs.parameters():
            nn.init.kaiming_normal_(part)

    @property
    def receptive_field(self) -> int:
        """Samples that one token sees: the shortest input."""
        field = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            field = (field - 1) * stride + kernel
        return field

    def tokens_of(self, samples: Samples) -> Samples:
        """Tokens that an input of so many samples gives; 0 or less below the receptive field."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, samples) to (batch, tokens, width)."""
        weights = self.convs.parameters()
        for index, (weight, stride) in enumerate(zip(weights, self.strides, strict=True)):
            x = convolve(x, weight, stride=stride)
            x = gelu(self.norm(x) if index == 0 else x)
        return x.transpose(1, 2)


class FeatureProjection(nn.Module):
    """Layer norm, linear layer, dropout: the extractor's tokens at the width of the blocks."""

    def __init__(self, conv_width: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(conv_width)
        self.linear = nn.Linear(conv_width, width)
        self.dropout = nn.Dropout(0.0)
        initialise_linears(self, rule="normal")

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., conv_width) to (..., width)."""
        out: Tensor = self.dropout(self.linear(self.norm(x)))
        return out


class ConvPositions(nn.Module):
    """Positions by a grouped convolution over all tokens: ``x + gelu(conv(x))``.

    The convolution's weight is held as a direction and a length for each of its taps (weight
    norm, Salimans & Kingma, arXiv 1602.07868): ``gain * direction / |direction|``, the norm over
    all but the last axis. With an even number of taps the output is centred half a token early, as
    in wav2vec 2.0.
    """

    def __init__(self, width: int, *, kernel: int, groups: int) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.direction = nn.Parameter(torch.empty(width, width // groups, kernel))
        self.gain = nn.Parameter(torch.empty(1, 1, kernel))
        self.bias = nn.Parameter(torch.zeros(width))
        self.drop_path = StochasticDepth()
        nn.init.normal_(self.direction, std=math.sqrt(4 / (kernel * width)))
        with torch.no_grad():
            self.gain.copy_(self._length())

    def _length(self) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(self.direction, dim=(0, 1), keepdim=True)
        return length

    @property
    def weight(self) -> Tensor:
        """The convolution's weight, (width, width // groups, kernel)."""
        return self.direction * (self.gain / self._length())

    def forward(self, x: Tensor) -> Tensor:
        """Add its position to every token; (batch, tokens, width) in and out."""
        out: Tensor = self.drop_path(x, self._positions)
        return out

    def _positions(self, x: Tensor) -> Tensor:
        out = convolve(
            x.transpose(1, 2), self.weight, self.bias, padding=self.kernel // 2, groups=self.groups
        )
        return gelu(out[..., : x.shape[1]]).transpose(1, 2)  # an even kernel gives one too many


class PaddedAttention(Attention):
    """Self-attention that can leave tokens of padding out."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """As `Attention`; `valid` is (batch, tokens) booleans, False for padding."""
        if valid is None:
            return super().forward(x)
        if len(valid) != len(x):  # stochastic depth took some samples out, and hides which
            raise BackboneError(
                "records of different lengths under stochastic depth",
                remedy="train on whole windows, or set the drop path rate to 0",
            )
        return super().forward(x, valid[:, None, None, :])


class PostNormBlock(Block):
    """Attention and feed-forward, each added to its input and normalised after.

    The parts are `Block`'s, and so are their names; a dropped branch leaves the norm of the
    input, not the input.
    """

    def __init__(self, width: int, heads: int, *, attention_dropout: float = 0.0) -> None:
        super().__init__(width, heads)
        self.attn = PaddedAttention(width, heads)
        self.attn.attention_dropout.p = attention_dropout
        initialise_linears(self, rule="normal")

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Transform the tokens of each sample; (batch, tokens, width) in and out."""
        x = self.norm1(self.drop_path1(x, lambda part: self.attn(part, valid)))
        out: Tensor = self.norm2(self.drop_path2(x, self.mlp))
        return out


class PostNormBlocks(nn.ModuleList):
    """The stack of blocks, with LayerDrop.

    LayerDrop (Fan et al., "Reducing Transformer Depth on Demand", arXiv 1909.11556) is the option
    of the released pretrainings that stochastic depth refines: in training it skips a *whole*
    block, both norms included, for the *whole* batch, and rescales nothing. The two are drawn
    independently and may be combined.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        *,
        layerdrop: float = 0.0,
        attention_dropout: float = 0.0,
    ) -> None:
        super().__init__(
            PostNormBlock(width, heads, attention_dropout=attention_dropout) for _ in range(depth)
        )
        self.layerdrop = layerdrop

    def _blocks(self) -> Iterator[PostNormBlock]:
        return (block for block in self if isinstance(block, PostNormBlock))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Run the blocks; (batch, tokens, width), `valid` as in `PaddedAttention`."""
        for block in self._blocks():
            x = self._skip(block, x) if self._skipped() else block(x, valid)
        return x

    def _skipped(self) -> bool:
        # On the CPU, as stochastic depth draws: the same seed skips the same blocks everywhere.
        active = self.training and self.layerdrop > 0.0
        return active and torch.rand((), device="cpu").item() < self.layerdrop

    def _skip(self, block: PostNormBlock, x: Tensor) -> Tensor:
        # One sample at weight zero: every parameter still gets a (zero) gradient, without which
        # DistributedDataParallel would wait and AdamW would skip its decay.
        if x.shape[0] == 0 or not torch.is_grad_enabled():
            return x
        first = torch.zeros(1, dtype=torch.long, device=x.device)
        return x.index_add(0, first, block(x[:1]).to(x.dtype), alpha=0)


def valid_tokens(extractor: ConvExtractor, valid_samples: Tensor, *, tokens: int) -> Tensor:
    """Mask of the tokens that belong to the record rather than to the padding after its end.

    From (batch,) integers, how many samples of each input are the record, to (batch, tokens)
    booleans; a record's tokens are those whose samples all belong to it. A record that is too short
    for a single token, or longer than the input, is refused.
    """
    counts = extractor.tokens_of(valid_samples)
    if len(counts) and not 1 <= int(counts.min()) <= int(counts.max()) <= tokens:
        raise BackboneError(
            f"valid samples between {int(valid_samples.min())} and {int(valid_samples.max())}; "
            f"a token takes {extractor.receptive_field}, and the input gives {tokens} tokens",
            remedy="give for each record the number of samples that are not padding",
        )
    return torch.arange(tokens, device=counts.device) < counts[:, None]


def mean_of_valid(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over the valid tokens; (batch, tokens, width) to (batch, width)."""
    if valid is None:
        return x.mean(1)
    tokens = x.masked_fill(~valid[..., None], 0.0)
    return tokens.sum(1) / valid.sum(1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Wav2VecConfig(BackboneConfig):
    """Shared configuration of wav2vec 2.0 networks.

    Attributes
    ----------
    width, depth, heads : int
        Token width, number of blocks, attention heads; the feed-forward is four times as wide.
    conv_width : int
        Channels of the convolutional extractor.
    conv_kernels, conv_strides : tuple of int
        Its convolutions.
    pos_kernel, pos_groups : int
        Taps and groups of the positional convolution.
    layerdrop : float
        Probability of skipping a whole block in training (see `PostNormBlocks`), beside the
        recipe's stochastic depth.
    attention_dropout : float
        Dropout on attention probabilities in training.
    """

    width: Count
    depth: Count
    heads: Count
    conv_width: Count
    conv_kernels: Counts
    conv_strides: Counts
    pos_kernel: Count = 128
    pos_groups: Count = 16
    layerdrop: Share = 0.0
    attention_dropout: Share = 0.0

    def __post_init__(self) -> None:
        same = len(self.conv_strides) == len(self.conv_kernels)
        self.require(same, "conv_strides", "give a stride for each of conv_kernels")
        self.require(self.width % self.heads == 0, "heads", "give a divisor of the width")
        self.require(self.width % self.pos_groups == 0, "pos_groups", "give a divisor of width")


class Wav2VecBackbone(Backbone):
    """A backbone made of the parts of `einthoven.backbones.layers.wav2vec`.

    Subclasses turn a signal into the extractor's input of so many `channels`. Limb leads that
    follow from two of the config's leads are computed in the preparation and are leads of the input
    too.
    """

    def __init__(self, config: Any, channels: int) -> None:
        super().__init__(config, config.width)
        self.leads, self._derive = with_derived(config.leads)
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

    def contextualise(self, z: Tensor, valid: Tensor | None = None) -> Tensor:
        """Run positions and blocks.

        Parameters
        ----------
        z : Tensor, shape (batch, tokens, width)
            Output of `projection`, or part of it replaced.
        valid : Tensor, optional
            (batch, tokens) booleans, False for tokens of padding, see `valid_tokens`; their outputs
            mean nothing. As in the release of ECG-FM, the positional convolution still reads into
            the padding; the blocks do not.

        Returns
        -------
        Tensor, shape (batch, tokens, width)
        """
        out: Tensor = self.blocks(self.embed_dropout(self.norm(self.pos_conv(z))), valid)
        return out

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """The positional convolution's holder, then two a block: attention, feed-forward."""
        return [[self.pos_conv.drop_path], *super().residual_branches()]

    def other_dropouts(self) -> list[nn.Dropout]:
        """Dropouts on the projection, on the embedding and after each attention."""
        return [self.projection.dropout, self.embed_dropout, *super().other_dropouts()]

    def layer_prefixes(self) -> list[tuple[str, ...]]:
        """Extractor; projection and positions; each block; the last block's second norm.

        That norm is what a final norm is elsewhere.
        """
        final = (f"blocks.{self.config.depth - 1}.norm2.",)
        return [("extractor.",), *super().layer_prefixes()[:-1], final]

    def extractor_parameters(self) -> list[str]:
        """The convolutions in front, which the released fine-tunings keep frozen."""
        return [name for name, _ in self.named_parameters() if name.startswith("extractor.")]

    def position_parameters(self) -> list[str]:
        """The positional convolution."""
        return [f"pos_conv.{name}" for name, _ in self.pos_conv.named_parameters()]
