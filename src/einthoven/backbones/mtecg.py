"""MTECG: a tiny Vision Transformer over time segments of all twelve leads together.

Zhou et al., "Masked Transformer for Electrocardiogram Classification", arXiv 2309.07136. A patch
is 50 ms of all leads; a class token gathers the record. The network takes 12 x 25-sample patches
at 500 Hz (`mtecg_tiny`); `mtecg_tiny_100hz` is our preset with the same 50 ms patches at
100 Hz (12 x 5), small enough to be pretrained on PTB-XL's 100 Hz signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import linear

from einthoven.backbones.config import TYPICAL_DEVIATION_MV, Count
from einthoven.backbones.layers.patches import (
    PatchTransformer,
    PatchTransformerConfig,
    cut_patches,
)
from einthoven.backbones.layers.transformer import Block, initialise_linears
from einthoven.backbones.leads import weight_of_leads
from einthoven.backbones.registry import Entry
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Resample, Scale, Window


@dataclass(frozen=True, kw_only=True)
class MTECGConfig(PatchTransformerConfig):
    """Configuration of an MTECG network.

    Attributes
    ----------
    global_pool : {"cls", "mean"}
        Feature: the class token after the final norm, or the mean of the patch tokens through
        `fc_norm`, which then stands in for `norm` (MAE's option of the same name).
    """

    max_patches: Count = 200
    width: Count = 192
    heads: Count = 3
    global_pool: Literal["cls", "mean"] = "cls"


class PatchEmbedding(nn.Module):
    """Segments of all leads to tokens, as one matrix product.

    The weight has the layout (width, leads, patch) of the published convolution without its
    one-channel axis.
    """

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        fan_in = len(STANDARD_LEADS) * patch
        bound = fan_in**-0.5
        shape = (width, len(STANDARD_LEADS), patch)
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, patches: Tensor, leads: Sequence[str]) -> Tensor:
        """Embed (..., leads * patch) values, lead-major."""
        return linear(patches, weight_of_leads(self.weight, leads).flatten(1), self.bias)


class MTECG(PatchTransformer):
    """The MTECG encoder.

    Notes
    -----
    Layer norms have eps 1e-6; linear layers, the class token and the positions start from a
    truncated normal of std 0.02, biases from zero (the authors' SPEED-TR release).

    With `leads` the kernel of the patch embedding is restricted to those leads, picked by name;
    that equals giving all twelve with the missing ones set to zero.
    """

    family = "mtecg"
    special_tokens = (1, 0)  # in front of and behind the patches: the class token

    def __init__(self, config: MTECGConfig) -> None:
        super().__init__(config)
        self.patch_embed = PatchEmbedding(config.width, config.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.max_patches, config.width))
        self.embedding_dropout = nn.Dropout(0.0)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, eps=1e-6) for _ in range(config.depth)
        )
        norm = nn.LayerNorm(config.width, eps=1e-6)
        if config.global_pool == "cls":
            self.norm = norm
        else:
            self.fc_norm = norm
        initialise_linears(self, rule="truncated-normal")
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    @property
    def preparation(self) -> Preparation:
        """Preparation of a record: our choice, because MTECG's is not published.

        The network's rate, its whole window, no filter, and millivolts over 0.25, which brings an
        ordinary ECG near unit size and leaves low or high voltage visible as such.
        """
        return Preparation(
            leads=self.leads,
            steps=(
                Resample(self.rate),
                Window(self.window),
                Scale(mean=0.0, std=TYPICAL_DEVIATION_MV),
            ),
        )

    # ------------------------------------------------------------------ forward

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Patch tokens after the final norm, (batch, patches, width)."""
        return self._final_norm(self._encode(self.embed_grid(x, leads=leads)))[:, 1:]

    def features(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """One vector for each record; input as for `tokens`, output (batch, feature_dim)."""
        encoded = self._encode(self.embed_grid(x, leads=leads))
        if self.config.global_pool == "mean":
            return self._final_norm(encoded[:, 1:].mean(1))
        return self._final_norm(encoded[:, 0])

    # ------------------------------------------------------------------ for masked objectives

    def patch_grid(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Cut an input into patches; (batch, 1, patches, leads * patch), lead-major values."""
        self.input_leads(x, leads)
        return cut_patches(x, self.patch).transpose(1, 2).flatten(2).unsqueeze(1)

    def embed_grid(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Embedded patches with their positions, shape (batch, 1, patches, width)."""
        patches = self.patch_grid(x, leads=leads)
        embedded: Tensor = self.patch_embed(patches, self.leads if leads is None else leads)
        return embedded + self.pos_embed[:, 1 : 1 + patches.shape[2]]

    def encode_grid(self, grid: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Run the encoder on some embedded patches, (batch, 1, kept, width), of all leads.

        Returns class token and patches, (batch, 1, 1 + kept, width), normalised.
        """
        encoded: Tensor = self._final_norm(self._encode(grid))
        return encoded.unsqueeze(1)

    def _encode(self, grid: Tensor) -> Tensor:
        patches = grid[:, 0]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(patches.shape[0], -1, -1)
        x: Tensor = self.embedding_dropout(torch.cat([first.to(patches.dtype), patches], dim=1))
        for block in self.blocks:
            x = block(x)
        return x

    def _final_norm(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x) if self.config.global_pool == "cls" else self.fc_norm(x)
        return out

    # ------------------------------------------------------------------ for the recipe

    def no_weight_decay(self) -> set[str]:
        """Positions and class token, as the authors exempt them."""
        return {"pos_embed", "cls_token"}


_PAPER = "Zhou et al., Masked Transformer for Electrocardiogram Classification, arXiv 2309.07136"
# One decoder layer is published; width 128 and 4 heads follow from the published parameter count.
# Results are reported as stable from 5 to 75 %; the ratio of the headline results is not known.
_MAE = {
    "mask_ratio": 0.25,
    "masking": "all-lead",
    "decoder_width": 128,
    "decoder_depth": 1,
    "block_eps": 1e-6,
}

ENTRIES = (
    Entry(
        network=MTECG,
        config=MTECGConfig(name="mtecg_tiny", rate=500, patch=25),
        summary="MTECG ViT-Ti: 50 ms patches of all leads, 500 Hz, 10 s",
        origin="MTECG, Zhou et al. 2023",
        paper=_PAPER,
        parameters=5_435_328,
        mae=_MAE,
    ),
    Entry(
        network=MTECG,
        config=MTECGConfig(name="mtecg_tiny_100hz", rate=100, patch=5),
        summary="MTECG ViT-Ti with the same 50 ms patches at 100 Hz, our preset",
        origin="our preset of MTECG",
        paper=_PAPER,
        parameters=5_389_248,
        mae=_MAE,
    ),
)
