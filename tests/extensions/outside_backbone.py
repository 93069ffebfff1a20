"""A backbone as another package would add it: config, network and entry in one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from einthoven.backbones.config import check_choice, override
from einthoven.backbones.contract import PatchBackbone
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.leads import check_leads, lead_rows
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Resample, Window


@dataclass(frozen=True)
class MixerConfig:
    """Configuration of the mixer."""

    name: str = "outside_mixer"
    width: int = 24
    depth: int = 2
    window: int = 1000
    leads: tuple[str, ...] = STANDARD_LEADS
    init: str = "scratch"


class Mixer(PatchBackbone):
    """Patches of 50 ms, each mixed with the mean of all by residual layers."""

    family = "outside"
    patch, max_patches, rate, special_tokens = 5, 200, 100.0, (0, 0)

    def __init__(self, config: MixerConfig) -> None:
        super().__init__(config, config.width)
        self.weight = nn.Parameter(torch.empty(config.width, len(STANDARD_LEADS), self.patch))
        self.positions = nn.Parameter(torch.empty(self.max_patches, config.width))
        self.blocks = nn.ModuleList(
            nn.Linear(2 * config.width, config.width) for _ in range(config.depth)
        )
        self.branches = nn.ModuleList(StochasticDepth() for _ in range(config.depth))
        self.drops = nn.ModuleList(nn.Dropout(0.0) for _ in range(config.depth))
        self.post_norm = nn.LayerNorm(config.width)
        self.initialise(config.init)

    def initialise(self, kind: str) -> None:
        check_choice("init", kind, ("scratch", "pretraining"))
        for parameter in (self.weight, self.positions):
            nn.init.normal_(parameter, std=0.2)

    @property
    def preparation(self) -> Preparation:
        return Preparation(leads=self.leads, steps=(Resample(100), Window(self.config.window)))

    def patch_grid(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        check_leads(x, self.leads if leads is None else leads)
        if x.shape[-1] % self.patch or x.shape[-1] > self.patch * self.max_patches:
            raise BackboneError(f"{x.shape[-1]} samples", remedy="give whole patches")
        return x.unfold(2, self.patch, self.patch).transpose(1, 2).flatten(2).unsqueeze(1)

    def embed_grid(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        rows = lead_rows(self.leads if leads is None else leads)
        grid = self.patch_grid(x, leads=leads)
        return grid @ self.weight[:, rows].flatten(1).T + self.positions[: grid.shape[2]]

    def encode_grid(self, grid: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        x = grid[:, 0]
        for block, branch, drop in zip(self.blocks, self.branches, self.drops, strict=True):

            def mixed(kept: Tensor, block: nn.Module = block, drop: nn.Module = drop) -> Tensor:
                joint = torch.cat([kept, kept.mean(1, keepdim=True).expand_as(kept)], dim=-1)
                return drop(block(joint).tanh())

            x = branch(x, mixed)
        return self.post_norm(x).unsqueeze(1)

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        return self.encode_grid(self.embed_grid(x, leads=leads))[:, 0]

    def residual_branches(self) -> list[list[StochasticDepth]]:
        return [[branch] for branch in self.branches]  # type: ignore[list-item]

    def feedforward_dropouts(self) -> list[nn.Dropout]:
        return list(self.drops)  # type: ignore[arg-type]

    def layer_groups(self) -> list[list[str]]:
        blocks = [[f"blocks.{i}.weight", f"blocks.{i}.bias"] for i in range(self.config.depth)]
        return [["weight", "positions"], *blocks, ["post_norm.weight", "post_norm.bias"]]

    def no_weight_decay(self) -> set[str]:
        return {"positions"}

    def position_parameters(self) -> list[str]:
        return ["positions"]


def outside_mixer(**overrides: Any) -> Mixer:
    """The only preset."""
    return Mixer(override(MixerConfig(), overrides))


ENTRY = Entry(
    name="outside_mixer",
    build=outside_mixer,
    family="outside",
    summary="A mixer of patches from another package",
    paper="none",
    origin="another package",
    parameters=8_640,
    missing_leads="the missing ones count as zero",
    mae={"mask_ratio": 0.5, "decoder_width": 16, "decoder_depth": 1},
)
