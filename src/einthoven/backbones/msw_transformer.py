"""MSW-Transformer: one Transformer layer with several window sizes side by side; our reading.

Cheng et al., "MSW-Transformer: Multi-Scale Shifted Windows Transformer Networks for 12-Lead ECG
Classification", 2023 (arXiv 2306.12098). Nothing beyond the abstract could be read, and there is no
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
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from einthoven.backbones.config import override
from einthoven.backbones.layers.patches import cut_patches
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.structure import initialise_linears
from einthoven.backbones.layers.transformer import FeedForward
from einthoven.backbones.layers.windowed import WindowedBackbone, WindowedConfig
from einthoven.backbones.leads import check_leads, lead_rows
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS

__all__ = [
    "ENTRIES",
    "MSWTransformer",
    "MSWTransformerConfig",
    "WindowAttention",
    "msw_transformer",
]


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a learned weight for every distance.

    The first half of the heads cuts the sequence into windows from its beginning; the other half
    cuts it half a window earlier, so that what one half separates, the other joins. Windows at the
    ends are shorter where the length asks for it.

    Parameters
    ----------
    width : int
        Token width.
    heads : int
        An even number that divides the width.
    window : int
        Tokens of a window.

    Raises
    ------
    BackboneError
        For heads that do not share out the width, or a window below two tokens.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        if heads < 2 or heads % 2 or width % heads or window < 2:
            raise BackboneError(
                f"width = {width}, heads = {heads}, window = {window}",
                remedy="give an even number of heads that divides the width, since half of them "
                "attend in shifted windows, and windows of two tokens or more.",
            )
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.distance = nn.Parameter(torch.zeros(heads, 2 * window - 1))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) in and out."""
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


@dataclass(frozen=True)
class MSWTransformerConfig(WindowedConfig):
    """Configuration of an MSW-Transformer.

    Attributes
    ----------
    patch : int
        Samples in a token.
    scales : tuple of int
        Tokens in the attention windows, one branch each.
    width, heads : int
        Token width, and attention heads of a branch.
    """

    patch: int = 5
    scales: tuple[int, ...] = (5, 10, 20)
    width: int = 128
    heads: int = 4


class MultiScaleBlock(nn.Module):
    """Windowed attention at several scales, fused; then a feed-forward. Both pre-norm residuals.

    Parameters
    ----------
    width, heads : int
        Token width, and attention heads of a branch.
    scales : sequence of int
        Tokens in the windows of the branches.
    """

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
        """(batch, tokens, width) to the same shape."""
        x = self.drop_path1(x, lambda kept: self.fused(self.norm1(kept)))
        out: Tensor = self.drop_path2(x, lambda kept: self.mlp(self.norm2(kept)))
        return out

    def fused(self, x: Tensor) -> Tensor:
        """Sum of the branches, weighted by a softmax; of the input's shape."""
        parts = zip(self.fusion.softmax(0), self.branches, strict=True)
        fused: Tensor = self.output_dropout(sum(share * branch(x) for share, branch in parts))
        return fused


class MSWTransformer(WindowedBackbone):
    """The MSW-Transformer.

    Parameters
    ----------
    config : MSWTransformerConfig
        Its shape.

    Raises
    ------
    BackboneError
        For an impossible shape.

    Notes
    -----
    With `leads` the embedding is restricted to those leads, picked by name; that equals giving all
    twelve with the missing ones set to zero.
    """

    family = "msw_transformer"
    final_parameters = ("norm.",)

    def __init__(self, config: MSWTransformerConfig) -> None:
        if config.patch < 1 or not config.scales:
            raise BackboneError(
                f"patch = {config.patch}, scales = {config.scales}",
                remedy="give tokens of one sample or more, and one window size or more.",
            )
        scales = tuple(config.scales)  # a list, when the config was read from a file
        super().__init__(replace(config, scales=scales), config.width)
        self.embedding = nn.Linear(len(STANDARD_LEADS) * config.patch, config.width)
        block = MultiScaleBlock(config.width, config.heads, scales)
        self.blocks = nn.ModuleList([block])
        self.norm = nn.LayerNorm(config.width)
        initialise_linears(self, rule="truncated-normal")

    # ------------------------------------------------------------------ forward

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Tokens after the final norm, (batch, samples / patch, width).

        The number of samples is a multiple of the patch.
        """
        tokens = self._embed(x, self.leads if leads is None else leads)
        for block in self.blocks:
            tokens = block(tokens)
        normalised: Tensor = self.norm(tokens)
        return normalised

    def _embed(self, x: Tensor, leads: Sequence[str]) -> Tensor:
        check_leads(x, leads)
        patch = self.config.patch
        if not x.shape[-1] or x.shape[-1] % patch:
            raise BackboneError(
                f"input of {x.shape[-1]} samples for {self.name}",
                remedy=f"give a positive multiple of {patch} samples.",
            )
        weight = self.embedding.weight.view(-1, len(STANDARD_LEADS), patch)[:, lead_rows(leads)]
        patches = cut_patches(x, patch).transpose(1, 2).flatten(2)
        return linear(patches, weight.flatten(1), self.embedding.bias)

    # ------------------------------------------------------------------ for the recipe

    def feedforward_dropouts(self) -> list[nn.Dropout]:
        """Both dropouts of the feed-forward."""
        return [drop for block in self._layers() for drop in (block.mlp.drop1, block.mlp.drop2)]

    def other_dropouts(self) -> list[nn.Dropout]:
        """The dropout behind the fused attention."""
        return [block.output_dropout for block in self._layers()]

    def _layers(self) -> list[MultiScaleBlock]:
        return [block for block in self.blocks if isinstance(block, MultiScaleBlock)]

    def no_weight_decay(self) -> set[str]:
        """Fusion weights and weights of distances, by our choice."""
        names = (name for name, _ in self.named_parameters())
        return {name for name in names if name.endswith((".fusion", ".distance"))}


def msw_transformer(**overrides: Any) -> MSWTransformer:
    """MSW-Transformer over 10 s at 100 Hz: one layer of width 128 with three window sizes."""
    return MSWTransformer(override(MSWTransformerConfig(name="msw_transformer"), overrides))


ENTRIES = (
    Entry(
        name="msw_transformer",
        build=msw_transformer,
        family="msw_transformer",
        summary="MSW-Transformer, our reading: one layer, windows of three sizes, 100 Hz, 10 s",
        origin="our reading of its paper",
        paper="Cheng et al., MSW-Transformer: Multi-Scale Shifted Windows Transformer Networks "
        "for 12-Lead ECG Classification, 2023 (arXiv 2306.12098)",
        parameters=338_703,
        recipe="msw-transformer",
        missing_leads="it works as if the missing ones were zero",
    ),
)
