"""Patches of leads, sine-cosine positions along time, and the base of Transformers over patches."""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from einthoven.backbones.config import BackboneConfig, Count
from einthoven.backbones.contract import PatchBackbone


@dataclass(frozen=True, kw_only=True)
class PatchTransformerConfig(BackboneConfig):
    """Shared configuration of Transformers over patches.

    Attributes
    ----------
    rate : int
        Sampling rate in Hz that the patches are meant for.
    patch : int
        Samples in a patch.
    max_patches : int
        Patches of a row in the longest input; there is one position for each patch and one for each
        special token.
    width, depth, heads : int
        Token width, number of blocks, attention heads.
    window : int or None
        Samples of the prepared input when it is to be shorter than the longest one.
    """

    rate: Count
    patch: Count
    max_patches: Count
    width: Count
    heads: Count
    depth: Count = 12
    window: Count | None = None


class PatchTransformer(PatchBackbone):
    """A Transformer over patches with `pos_embed`, `embedding_dropout` and a list of `blocks`."""

    final_parameters = ("norm.", "fc_norm.")
    embedding_dropout: nn.Dropout

    def __init__(self, config: PatchTransformerConfig) -> None:
        super().__init__(config, config.width)
        self.patch, self.max_patches, self.rate = config.patch, config.max_patches, config.rate
        self.multiple, self.longest = self.patch, self.patch * self.max_patches
        self.window = self.longest if config.window is None else config.window
        self.check_samples(self.window)

    def other_dropouts(self) -> list[nn.Dropout]:
        """Dropouts on the embedding and after each attention."""
        return [self.embedding_dropout, *super().other_dropouts()]

    def position_parameters(self) -> list[str]:
        """The table of positions."""
        return ["pos_embed"]


def sincos_positions(count: int, width: int, *, before: int = 0, after: int = 0) -> Tensor:
    """One row of sines and cosines for every position, zero rows for special tokens.

    Row t is ``[sin(t w_0), sin(t w_1), ..., cos(t w_0), cos(t w_1), ...]`` with
    ``w_k = 10000 ** (-k / (width / 2))``, t = 0 ... count - 1 (MAE; ST-MEM's pretraining model).

    Parameters
    ----------
    count : int
        Number of positions.
    width : int
        Width of a row; even.
    before, after : int
        Zero rows in front and behind, for class or separator tokens.

    Returns
    -------
    Tensor, shape (1, before + count + after, width), float32
    """
    half = width // 2
    frequency = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(count, dtype=torch.float64)[:, None] * frequency
    table = torch.zeros(before + count + after, width, dtype=torch.float64)
    table[before : before + count, :half] = angle.sin()
    table[before : before + count, half:] = angle.cos()
    return table.to(torch.float32)[None]


def cut_patches(x: Tensor, patch: int) -> Tensor:
    """Map (batch, leads, samples) to (batch, leads, patches, patch), without a copy."""
    return x.reshape(*x.shape[:2], x.shape[-1] // patch, patch)
