"""ST-MEM: a Vision Transformer over 0.3 s patches of single leads.

Na et al., "Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship of
Electrocardiogram", ICLR 2024 (arXiv 2402.09450). Every lead is cut into patches that share one
embedding; positional embeddings encode time, lead embeddings the lead, a separator stands at both
ends of every lead, and all tokens of all leads attend to each other. There is no class token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from einthoven.backbones.config import Count
from einthoven.backbones.layers.patches import (
    PatchTransformer,
    PatchTransformerConfig,
    cut_patches,
    sincos_positions,
)
from einthoven.backbones.layers.transformer import Block, initialise_linears
from einthoven.backbones.leads import lead_rows
from einthoven.backbones.registry import Entry
from einthoven.licences import Licence
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Filter, Resample, Standardise, Window


@dataclass(frozen=True, kw_only=True)
class STMEMConfig(PatchTransformerConfig):
    """Configuration of an ST-MEM encoder; the release has heads of 64 features each."""

    rate: Count = 250
    patch: Count = 75
    max_patches: Count = 30


class PatchEmbedding(nn.Module):
    """Norm, linear, norm: one embedding for the patches of all leads."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(patch)
        self.proj = nn.Linear(patch, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, patches: Tensor) -> Tensor:
        """Map (..., patch) to (..., width)."""
        out: Tensor = self.norm2(self.proj(self.norm1(patches)))
        return out


class STMEM(PatchTransformer):
    """The ST-MEM encoder.

    Notes
    -----
    Layer norms have eps 1e-5. The position table is trained along with the rest in a classifier
    (as in the released code) and fixed in pretraining.

    Reduced leads pick rows of the lead embedding by name, so that lead II alone is seen as lead II;
    the released code picks them by position.
    """

    family = "st_mem"
    reader = "einthoven.weights.st_mem:ENCODER"
    special_tokens = (1, 1)  # a separator at both ends of a lead

    def __init__(self, config: STMEMConfig) -> None:
        super().__init__(config)
        width = config.width
        self.patch_embed = PatchEmbedding(config.patch, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.max_patches + 2, width))
        self.sep_token = nn.Parameter(torch.zeros(width))
        self.lead_embed = nn.Parameter(torch.zeros(len(STANDARD_LEADS), width))
        self.embedding_dropout = nn.Dropout(0.0)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)
        self._initialise(config.init)

    def _initialise(self, kind: str) -> None:
        """Draw fresh weights.

        "scratch", for training a classifier without pretraining: linear layers stay as PyTorch
        drew them, all three tables are standard normal and trained. "pretraining": Xavier-uniform
        linear layers, separator and lead embeddings normal of std 0.02, positions fixed to sines
        and cosines.
        """
        pretraining = kind == "pretraining"
        std = 0.02 if pretraining else 1.0
        nn.init.normal_(self.sep_token, std=std)
        nn.init.normal_(self.lead_embed, std=std)
        self.pos_embed.requires_grad_(not pretraining)
        if pretraining:
            initialise_linears(self, rule="xavier")
            table = sincos_positions(self.max_patches, self.feature_dim, before=1, after=1)
            with torch.no_grad():
                self.pos_embed.copy_(table)
        else:
            nn.init.normal_(self.pos_embed)

    @property
    def preparation(self) -> Preparation:
        """Preparation of a record, as in the released code.

        250 Hz, a crop of 9 s (three of them in evaluation), zero-phase Butterworth filters of
        order 5 at 0.67 and 40 Hz on the crop, and one mean and deviation for the crop, so that
        leads keep their relative amplitude. The cut comes before the filters there, and here.
        """
        return Preparation(
            leads=self.leads,
            steps=(
                Resample(self.rate),
                Window(self.window, evaluation_crops=3),
                Filter("highpass", 0.67, order=5),
                Filter("lowpass", 40.0, order=5),
                Standardise(over="record"),
            ),
        )

    # ------------------------------------------------------------------ forward

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Patch tokens without separators, (batch, leads * patches, width), lead-major.

        Each is normalised, as in pretraining. The number of samples is a multiple of the patch, at
        most the longest input.
        """
        out: Tensor = self.norm(self._patch_tokens(x, leads))
        return out

    def features(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """One vector for each record; input as for `tokens`, output (batch, feature_dim).

        The mean of the patch tokens first, the final norm after it: not the mean of `tokens`.
        """
        out: Tensor = self.norm(self._patch_tokens(x, leads).mean(1))
        return out

    def _patch_tokens(self, x: Tensor, leads: Sequence[str] | None) -> Tensor:
        encoded = self._encode(self.embed_grid(x, leads=leads), leads)
        return encoded[:, :, 1:-1].flatten(1, 2)

    # ------------------------------------------------------------------ for masked objectives

    def patch_grid(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Cut every lead into patches; (batch, leads, patches, patch)."""
        self.input_leads(x, leads)
        return cut_patches(x, self.patch)

    def embed_grid(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Embedded patches with their positions, shape (batch, leads, patches, width)."""
        embedded: Tensor = self.patch_embed(self.patch_grid(x, leads=leads))
        return embedded + self.pos_embed[:, None, 1 : 1 + embedded.shape[2]]

    def encode_grid(self, grid: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Run the encoder on some embedded patches of every lead, (batch, leads, kept, width).

        Returns separator, patches and separator of every lead, (batch, leads, 2 + kept, width),
        each token normalised.
        """
        out: Tensor = self.norm(self._encode(grid, leads))
        return out

    def _encode(self, grid: Tensor, leads: Sequence[str] | None) -> Tensor:
        names = self.leads if leads is None else leads
        batch, rows = grid.shape[:2]
        ends = (self.sep_token + self.pos_embed[:, [0, -1]]).to(grid.dtype)
        ends = ends[:, None].expand(batch, rows, -1, -1)
        x = torch.cat([ends[:, :, :1], grid, ends[:, :, 1:]], dim=2)
        x = (x + self.lead_embed[lead_rows(names), None]).flatten(1, 2)
        x = self.embedding_dropout(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = x.reshape(batch, rows, grid.shape[2] + 2, self.feature_dim)
        return out


_PAPER = (
    "Na et al., Guiding Masked Representation Learning to Capture Spatio-Temporal Relationship of "
    "Electrocardiogram, ICLR 2024 (arXiv 2402.09450)"
)
_MISSING_LEADS = "it makes no tokens of the missing ones"
# The released constructors st_mem_vit_*_dec256d4b.
_MAE = {"mask_ratio": 0.75, "masking": "per-lead"}

ENTRIES = (
    Entry(
        network=STMEM,
        config=STMEMConfig(name="st_mem_base", width=768, heads=12),
        summary="ST-MEM ViT-B: 0.3 s patches of single leads, 250 Hz, 9 s",
        origin="ST-MEM, Na et al. 2024",
        paper=_PAPER,
        parameters=85_150_614,
        weights_from="files st_mem_vit_base_encoder and st_mem_vit_base_full, linked from "
        "github.com/vuno/ST-MEM",
        weights_name="vuno/ST-MEM",
        weights_file="st_mem_vit_base_encoder.pth",
        pretraining_data="Chapman-Shaoxing, Ningbo and CODE-15 (188,480 records)",
        licence=Licence("CC-BY-NC-4.0", "with VUNO Inc.'s all-rights-reserved notice", False),
        contains_ptbxl=False,
        missing_leads=_MISSING_LEADS,
        mae=_MAE,
    ),
    Entry(
        network=STMEM,
        config=STMEMConfig(name="st_mem_small", width=384, heads=6),
        summary="ST-MEM ViT-S: 0.3 s patches of single leads, 250 Hz, 9 s",
        origin="ST-MEM, Na et al. 2024",
        paper=_PAPER,
        parameters=21_341_718,
        missing_leads=_MISSING_LEADS,
        mae=_MAE,
    ),
    Entry(
        network=STMEM,
        config=STMEMConfig(name="st_mem_tiny", width=192, heads=3),
        summary="ST-MEM at width 192, our size for work without an accelerator",
        origin="our size of ST-MEM",
        paper=_PAPER,
        parameters=5_362_518,
        missing_leads=_MISSING_LEADS,
        mae=_MAE,
    ),
)
