"""MSW-Transformer: one Transformer layer with several window sizes side by side; our reading.

Cheng et al., "MSW-Transformer: Multi-Scale Shifted Windows Transformer Networks for 12-Lead ECG
Classification", 2023 (arXiv 2306.12098). Only the abstract was accessible, and there is no
official code.

Known
    A single layer; self-attention restricted to local windows that do not overlap and are shifted;
    several window sizes in parallel; a learned fusion of their branches.
Chosen here
    Everything else. Tokens of 50 ms of all leads, by a linear map; windows of 5, 10 and 20 tokens
    (0.25, 0.5 and 1 s: a complex, most of a beat, a beat and its neighbour); width 128, 4 heads in
    each branch, half of them in windows shifted by half (other designs alternate plain and shifted
    windows from layer to layer, and here there is one layer); a learned weight for each distance,
    no other positions; fusion by softmax weights, one a branch; a feed-forward layer of four times
    the width; norms before and at the end; the mean over time; full records of 10 s at 100 Hz.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from einthoven.backbones.config import Count
from einthoven.backbones.layers.patches import cut_patches
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.transformer import FeedForward, initialise_linears
from einthoven.backbones.layers.windowed import WindowedBackbone, WindowedConfig
from einthoven.backbones.leads import weight_of_leads
from einthoven.backbones.registry import Entry
from einthoven.records.record import STANDARD_LEADS


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a learned weight for every distance.

    The first half of the heads cuts the sequence into windows from its beginning; the other half
    cuts it half a window earlier, so that what one half separates, the other joins. Windows at the
    ends may be shorter.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.distance = nn.Parameter(torch.zeros(heads, 2 * window - 1))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same shape."""
        bias = self._bias()
        halves = self.qkv(x).view(*x.shape[:2], 3, 2, x.shape[2] // 2).unbind(-2)
        mixed = [
            self._attend(half, shift, weights)
            for half, shift, weights in zip(halves, (0, self.window // 2), bias, strict=True)
        ]
        out: Tensor = self.proj(torch.cat(mixed, dim=-1))
        return out

    def _bias(self) -> Tensor:
        """Weights by query and key, (2, heads / 2, window, window)."""
        place = torch.arange(self.window, device=self.distance.device)
        distances = place - place[:, None] + self.window - 1
        return self.distance[:, distances].view(2, -1, self.window, self.window)

    def _attend(self, qkv: Tensor, shift: int, bias: Tensor) -> Tensor:
        """Attend within windows that begin `shift` tokens early.

        (batch, tokens, 3, half of the width) to (batch, tokens, half of the width).
        """
        batch, tokens, _, width = qkv.shape
        heads = self.heads // 2
        behind = -(tokens + shift) % self.window
        count = (tokens + shift + behind) // self.window
        padded = pad(qkv, (0, 0, 0, 0, shift, behind))
        windows = padded.reshape(batch, count, self.window, 3, heads, width // heads)
        query, key, value = windows.permute(3, 0, 1, 4, 2, 5)  # each (..., window, dim)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        # No window is without a real token, so that no row is masked as a whole.
        real = pad(scores.new_ones(tokens, dtype=torch.bool), (shift, behind))
        outside = ~real.view(-1, 1, 1, self.window)
        weights = (scores + bias).masked_fill(outside, -torch.inf).softmax(-1).to(value.dtype)
        mixed: Tensor = (weights @ value).transpose(2, 3).flatten(3).flatten(1, 2)
        return mixed[:, shift : shift + tokens]


@dataclass(frozen=True, kw_only=True)
class MSWTransformerConfig(WindowedConfig):
    """Configuration of an MSW-Transformer.

    Attributes
    ----------
    patch : int
        Samples in a token.
    scales : tuple of int
        Tokens in the attention windows, one branch each.
    width, heads : int
        Token width, and attention heads of a branch, half of them in shifted windows.
    """

    patch: Count = 5
    scales: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1)] = (5, 10, 20)
    width: Count = 128
    heads: Annotated[int, Field(gt=0, multiple_of=2)] = 4

    def __post_init__(self) -> None:
        self.require(self.width % self.heads == 0, "heads", "give a divisor of the width")


class MultiScaleBlock(nn.Module):
    """Windowed attention at several scales, fused; then a feed-forward. Both pre-norm residuals."""

    def __init__(self, width: int, heads: int, scales: Sequence[int]) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.branches = nn.ModuleList(WindowAttention(width, heads, size) for size in scales)
        self.fusion = nn.Parameter(torch.zeros(len(scales)))
        self.output_dropout = nn.Dropout(0.0)
        self.drop_path1 = StochasticDepth()
        self.norm2 = nn.LayerNorm(width)
        self.mlp = FeedForward(width, 4 * width)
        self.drop_path2 = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same shape."""
        x = self.drop_path1(x, lambda part: self.fused(self.norm1(part)))
        out: Tensor = self.drop_path2(x, lambda part: self.mlp(self.norm2(part)))
        return out

    def fused(self, x: Tensor) -> Tensor:
        """Sum of the branches, weighted by a softmax; of the input's shape."""
        parts = zip(self.fusion.softmax(0), self.branches, strict=True)
        fused: Tensor = self.output_dropout(sum(share * branch(x) for share, branch in parts))
        return fused


class MSWTransformer(WindowedBackbone):
    """The MSW-Transformer.

    Notes
    -----
    With `leads` the embedding is restricted to those leads, picked by name; that equals giving all
    twelve with the missing ones set to zero.
    """

    family = "msw_transformer"
    final_parameters = ("norm.",)

    def __init__(self, config: MSWTransformerConfig) -> None:
        super().__init__(config, config.width)
        self.multiple = config.patch
        self.embedding = nn.Linear(len(STANDARD_LEADS) * config.patch, config.width)
        self.blocks = nn.ModuleList([MultiScaleBlock(config.width, config.heads, config.scales)])
        self.norm = nn.LayerNorm(config.width)
        initialise_linears(self, rule="truncated-normal")

    # ------------------------------------------------------------------ forward

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Tokens after the final norm, (batch, samples / patch, width).

        The number of samples is a multiple of the patch.
        """
        names, patch = self.input_leads(x, leads), self.config.patch
        table = self.embedding.weight.view(-1, len(STANDARD_LEADS), patch)
        patches = cut_patches(x, patch).transpose(1, 2).flatten(2)
        tokens = linear(patches, weight_of_leads(table, names).flatten(1), self.embedding.bias)
        for block in self.blocks:
            tokens = block(tokens)
        normalised: Tensor = self.norm(tokens)
        return normalised

    # ------------------------------------------------------------------ for the recipe

    def other_dropouts(self) -> list[nn.Dropout]:
        """The dropout behind the fused attention."""
        blocks = [block for block in self.blocks if isinstance(block, MultiScaleBlock)]
        return [block.output_dropout for block in blocks]

    def no_weight_decay(self) -> set[str]:
        """Fusion weights and weights of distances, by our choice."""
        names = (name for name, _ in self.named_parameters())
        return {name for name in names if name.endswith((".fusion", ".distance"))}


ENTRIES = (
    Entry(
        network=MSWTransformer,
        config=MSWTransformerConfig(name="msw_transformer"),
        summary="MSW-Transformer, our reading: one layer, windows of three sizes, 100 Hz, 10 s",
        origin="our reading of its paper",
        paper="Cheng et al., MSW-Transformer: Multi-Scale Shifted Windows Transformer Networks "
        "for 12-Lead ECG Classification, 2023 (arXiv 2306.12098)",
        parameters=338_703,
        recipe="msw-transformer",
    ),
)
