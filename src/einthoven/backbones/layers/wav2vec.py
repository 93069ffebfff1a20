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
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from einthoven.backbones.config import check_choice
from einthoven.backbones.contract import Backbone
from einthoven.backbones.layers.convolution import convolve
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.structure import (
    attention_dropouts,
    block_branches,
    feedforward_dropouts,
)
from einthoven.backbones.layers.transformer import Attention, Block
from einthoven.backbones.leads import with_derived
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS

__all__ = [
    "ConvExtractor",
    "ConvPositions",
    "FeatureProjection",
    "PaddedAttention",
    "PostNormBlock",
    "PostNormBlocks",
    "Wav2VecBackbone",
    "Wav2VecConfig",
    "mean_of_valid",
    "valid_tokens",
]

LINEAR_STD = 0.02
Count = TypeVar("Count", int, Tensor)


class ConvExtractor(nn.Module):
    """Strided convolutions without padding or bias, each followed by an exact GELU.

    The first one's channels are normalised over time, each on its own (a group norm with as many
    groups as channels), between convolution and GELU.

    Parameters
    ----------
    channels : int
        Channels of the signal.
    width : int
        Channels of every convolution's output.
    kernels, strides : sequence of int
        One number for each convolution.
    eps : float
        Epsilon of the norm.

    Raises
    ------
    BackboneError
        If there are no convolutions, or not as many strides as kernels.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        kernels: Sequence[int],
        strides: Sequence[int],
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if not kernels or len(kernels) != len(strides):
            raise BackboneError(
                f"conv_kernels = {tuple(kernels)} with conv_strides = {tuple(strides)}",
                remedy="give one kernel and one stride for each convolution.",
            )
        self.kernels, self.strides = tuple(kernels), tuple(strides)
        widths = [channels] + [width] * len(self.kernels)
        self.convs = nn.ModuleList(
            nn.Conv1d(before, after, kernel, stride, bias=False)
            for before, after, kernel, stride in zip(
                widths[:-1], widths[1:], self.kernels, self.strides, strict=True
            )
        )
        self.norm = nn.GroupNorm(width, width, eps=eps)
        for part in self.convs.parameters():
            nn.init.kaiming_normal_(part)

    @property
    def receptive_field(self) -> int:
        """Samples that one token sees: the shortest input."""
        field = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            field = (field - 1) * stride + kernel
        return field

    def tokens_of(self, samples: Count) -> Count:
        """Tokens that an input of so many samples gives; 0 or less below the receptive field."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, samples) to (batch, tokens, width)."""
        weights = self.convs.parameters()
        for index, (weight, stride) in enumerate(zip(weights, self.strides, strict=True)):
            x = convolve(x, weight, stride=stride)
            x = gelu(self.norm(x) if index == 0 else x)
        return x.transpose(1, 2)


class FeatureProjection(nn.Module):
    """Layer norm, linear layer, dropout: the extractor's tokens at the width of the blocks."""

    def __init__(self, conv_width: int, width: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(conv_width, eps=eps)
        self.linear = nn.Linear(conv_width, width)
        self.dropout = nn.Dropout(0.0)
        _initialise_linears(self)

    def forward(self, x: Tensor) -> Tensor:
        """(..., conv_width) to (..., width)."""
        out: Tensor = self.dropout(self.linear(self.norm(x)))
        return out


class ConvPositions(nn.Module):
    """Positions by a grouped convolution over all tokens: ``x + gelu(conv(x))``.

    The convolution's weight is held as a direction and a length for each of its taps (weight
    norm, Salimans & Kingma, arXiv 1602.07868): ``gain * direction / |direction|``, the norm over
    all but the last axis.

    Parameters
    ----------
    width : int
        Token width.
    kernel : int
        Taps; with an even number the output is centred half a token early, as in wav2vec 2.0.
    groups : int
        Groups of channels.

    Raises
    ------
    BackboneError
        If the groups do not divide the width.
    """

    def __init__(self, width: int, *, kernel: int = 128, groups: int = 16) -> None:
        super().__init__()
        if width % groups:
            raise BackboneError(
                f"width = {width} is not a multiple of pos_groups = {groups}",
                remedy="choose a number of groups that divides the width.",
            )
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
        """Attend among the valid tokens of each sample.

        Parameters
        ----------
        x : Tensor, shape (batch, tokens, width)
        valid : Tensor, optional
            (batch, tokens) booleans, False for padding; all are valid when left out.
        """
        if valid is None:
            return super().forward(x)
        if len(valid) != len(x):  # stochastic depth took some samples out, and hides which
            raise BackboneError(
                "records of different lengths under stochastic depth",
                remedy="train on whole windows, or set the drop path rate to 0.",
            )
        shape = (*x.shape[:2], self.heads, x.shape[-1] // self.heads)
        chunks = self.qkv(x).chunk(3, dim=-1)
        query, key, value = (chunk.reshape(shape).transpose(1, 2) for chunk in chunks)
        dropout = self.attention_dropout.p if self.training else 0.0
        mask = valid[:, None, None, :]
        mixed = scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        out: Tensor = self.output_dropout(self.proj(mixed.transpose(1, 2).flatten(2)))
        return out


class PostNormBlock(Block):
    """Attention and feed-forward, each added to its input and normalised after.

    The parts are `Block`'s, and so are their names; a dropped branch leaves the norm of the
    input, not the input.
    """

    def __init__(
        self, width: int, heads: int, *, hidden: int | None = None, eps: float = 1e-5
    ) -> None:
        super().__init__(width, heads, hidden=hidden, eps=eps)
        self.attn = PaddedAttention(width, heads)
        _initialise_linears(self)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Transform the tokens of each sample; (batch, tokens, width) in and out."""
        x = self.norm1(self.drop_path1(x, lambda kept: self.attn(kept, valid)))
        out: Tensor = self.norm2(self.drop_path2(x, self.mlp))
        return out


class PostNormBlocks(nn.ModuleList):
    """The stack of blocks, with LayerDrop.

    LayerDrop (Fan et al., "Reducing Transformer Depth on Demand", arXiv 1909.11556) is the option
    of the released pretrainings that stochastic depth refines: in training it skips a *whole*
    block, both norms included, for the *whole* batch, and rescales nothing. The two are drawn
    independently and may be combined.

    Parameters
    ----------
    depth, width, heads, hidden : int
        Number of blocks; token width, attention heads and feed-forward width of each.
    layerdrop : float
        Probability of skipping a block in training, 0 <= layerdrop < 1.
    attention_dropout : float
        Dropout on attention probabilities in training.
    eps : float
        Epsilon of the layer norms.

    Raises
    ------
    BackboneError
        If there are no blocks, or a probability is outside [0, 1).
    """

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        *,
        hidden: int | None = None,
        layerdrop: float = 0.0,
        attention_dropout: float = 0.0,
        eps: float = 1e-5,
    ) -> None:
        for name, value in (("layerdrop", layerdrop), ("attention_dropout", attention_dropout)):
            if not 0.0 <= value < 1.0:
                raise BackboneError(
                    f"{name} = {value!r} is outside [0, 1)",
                    remedy="choose a probability from 0 (off) to below 1; 0.1 is usual.",
                )
        if depth < 1:
            raise BackboneError(f"depth = {depth} blocks", remedy="choose a depth of at least 1.")
        super().__init__(PostNormBlock(width, heads, hidden=hidden, eps=eps) for _ in range(depth))
        self.layerdrop = layerdrop
        for block in self._blocks():
            block.attn.attention_dropout.p = attention_dropout

    def _blocks(self) -> Iterator[PostNormBlock]:
        return (block for block in self if isinstance(block, PostNormBlock))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Run the blocks; (batch, tokens, width) in and out, `valid` as in `PaddedAttention`."""
        for block in self._blocks():
            x = self._skip(block, x) if self._skipped() else block(x, valid)
        return x

    def _skipped(self) -> bool:
        # On the CPU, as stochastic depth draws: the same seed skips the same blocks everywhere.
        drawn = self.training and self.layerdrop > 0.0
        return drawn and torch.rand((), device="cpu").item() < self.layerdrop

    def _skip(self, block: PostNormBlock, x: Tensor) -> Tensor:
        # One sample at weight zero: every parameter still gets a (zero) gradient, without which
        # DistributedDataParallel would wait and AdamW would skip its decay.
        if not len(x) or not torch.is_grad_enabled():
            return x
        first = torch.zeros(1, dtype=torch.long, device=x.device)
        return x.index_add(0, first, block(x[:1]).to(x.dtype), alpha=0)


def valid_tokens(extractor: ConvExtractor, valid_samples: Tensor, *, tokens: int) -> Tensor:
    """Mask of the tokens that belong to the record rather than to the padding after its end.

    Parameters
    ----------
    extractor : ConvExtractor
        What makes tokens of samples.
    valid_samples : Tensor
        (batch,) integers: how many samples of each input, from its start, are the record.
    tokens : int
        Tokens of the whole input.

    Returns
    -------
    Tensor
        (batch, tokens) booleans; a record's tokens are those whose samples all belong to it.

    Raises
    ------
    BackboneError
        If a record is too short for a single token, or longer than the input.
    """
    counts = extractor.tokens_of(valid_samples)
    if len(counts) and not 1 <= int(counts.min()) <= int(counts.max()) <= tokens:
        raise BackboneError(
            f"valid samples between {int(valid_samples.min())} and {int(valid_samples.max())}; "
            f"a token takes {extractor.receptive_field}, and the input gives {tokens} tokens",
            remedy="give for each record how many samples of its input are no padding.",
        )
    return torch.arange(tokens, device=counts.device) < counts[:, None]


def mean_of_valid(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over the valid tokens; (batch, tokens, width) to (batch, width)."""
    if valid is None:
        return x.mean(1)
    kept = x.masked_fill(~valid[..., None], 0.0)
    return kept.sum(1) / valid.sum(1, keepdim=True)


def _initialise_linears(module: nn.Module) -> None:
    """BERT's start: weights normal of std 0.02, biases zero."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=LINEAR_STD)
            nn.init.zeros_(part.bias)


@dataclass(frozen=True, kw_only=True)
class Wav2VecConfig:
    """Shared configuration of wav2vec 2.0 networks.

    Attributes
    ----------
    name : str
        Registry name.
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
    missing_leads : str
        What happens to an input without some of the twelve leads.
    leads : tuple of str
        Leads that records have. Limb leads that follow from two of them are computed in the
        preparation and are leads of the input too.
    init : {"scratch", "pretraining"}
        Both draw the same weights here.
    """

    name: str
    width: int
    depth: int
    heads: int
    conv_width: int
    conv_kernels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    pos_kernel: int = 128
    pos_groups: int = 16
    layerdrop: float = 0.0
    attention_dropout: float = 0.0
    missing_leads: str
    leads: tuple[str, ...] = STANDARD_LEADS
    init: str = "scratch"


class Wav2VecBackbone(Backbone):
    """A backbone made of the parts of `einthoven.backbones.layers.wav2vec`.

    Subclasses turn a signal into the extractor's input, and handle missing leads.

    Parameters
    ----------
    config : Wav2VecConfig
        Its shape.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config, config.width)
        self.leads, self._derive = with_derived(self.config.leads)
        check_choice("init", config.init, ("scratch", "pretraining"))

    def build_parts(self, channels: int) -> None:
        """Draw the parts that `config` describes, for a signal of so many channels."""
        config = self.config
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

    def extractor_parameters(self) -> list[str]:
        """The convolutions in front, which the released fine-tunings keep frozen."""
        return [name for name, _ in self.named_parameters() if name.startswith("extractor.")]

    def position_parameters(self) -> list[str]:
        """The positional convolution."""
        return [f"pos_conv.{name}" for name, _ in self.pos_conv.named_parameters()]
