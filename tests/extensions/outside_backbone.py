"""Backbones as another package would add them: a mixer with branches to drop, a CNN without."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from einthoven.backbones.config import BackboneConfig, Count
from einthoven.backbones.contract import Backbone, PatchBackbone
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.leads import on_twelve_leads, weight_of_leads
from einthoven.backbones.registry import Entry
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Resample, Window


@dataclass(frozen=True, kw_only=True)
class MixerConfig(BackboneConfig):
    """Configuration of the mixer."""

    width: Count = 24
    depth: Count = 2
    window: Count = 1000


class Mixer(PatchBackbone):
    """Patches of 50 ms, each mixed with the mean of all by residual layers."""

    family = "outside"
    patch, max_patches, rate, special_tokens = 5, 200, 100.0, (0, 0)
    multiple, longest = 5, 1000
    final_parameters = ("post_norm.",)

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
        for parameter in (self.weight, self.positions):
            nn.init.normal_(parameter, std=0.2)

    @property
    def preparation(self) -> Preparation:
        return Preparation(leads=self.leads, steps=(Resample(100), Window(self.config.window)))

    def patch_grid(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        self.input_leads(x, leads)
        return x.unfold(2, self.patch, self.patch).transpose(1, 2).flatten(2).unsqueeze(1)

    def embed_grid(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        weight = weight_of_leads(self.weight, self.leads if leads is None else leads)
        grid = self.patch_grid(x, leads=leads)
        return grid @ weight.flatten(1).T + self.positions[: grid.shape[2]]

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

    def no_weight_decay(self) -> set[str]:
        return {"positions"}

    def position_parameters(self) -> list[str]:
        return ["positions"]


@dataclass(frozen=True, kw_only=True)
class PlainConfig(BackboneConfig):
    """Configuration of the plain CNN."""

    width: Count = 8
    depth: Count = 2


class PlainCNN(Backbone):
    """Convolutions in a row: no residual branches, no dropouts, and so no lists of them."""

    family = "outside_cnn"
    multiple = 10

    def __init__(self, config: PlainConfig) -> None:
        super().__init__(config, config.width)
        self.stem = nn.Conv1d(len(STANDARD_LEADS), config.width, 10, stride=10)
        self.blocks = nn.ModuleList(
            nn.Conv1d(config.width, config.width, 3, padding=1) for _ in range(config.depth)
        )

    @property
    def preparation(self) -> Preparation:
        return Preparation(leads=self.leads, steps=(Resample(100), Window(1000)))

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        x = self.stem(on_twelve_leads(x, self.input_leads(x, leads)))
        for block in self.blocks:
            x = block(x.relu())
        return x.transpose(1, 2)


ENTRIES = (
    Entry(
        network=Mixer,
        config=MixerConfig(name="outside_mixer"),
        summary="A mixer of patches from another package",
        paper="none",
        origin="another package",
        parameters=8_640,
        missing_leads="the missing ones count as zero",
        mae={"mask_ratio": 0.5, "decoder_width": 16, "decoder_depth": 1},
    ),
    Entry(
        network=PlainCNN,
        config=PlainConfig(name="outside_cnn"),
        summary="A CNN of another package",
        paper="none",
        origin="another package",
        parameters=1_368,
    ),
)
