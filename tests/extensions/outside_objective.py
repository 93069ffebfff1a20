"""A self-supervised objective as another package would add it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from einthoven.backbones.contract import Backbone, PatchBackbone
from einthoven.errors import BackboneError
from einthoven.objectives.objective import ObjectiveOutput


class SamplePrediction(nn.Module):
    """Predict the mean of each patch from its noisy tokens."""

    def __init__(self, backbone: PatchBackbone, noise: float) -> None:
        super().__init__()
        self.backbone, self.noise = backbone, noise
        self.head = nn.Linear(backbone.feature_dim, 1)

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        noise = torch.randn(x.shape, generator=generator) * self.noise
        means = x.unfold(2, self.backbone.patch, self.backbone.patch).mean((1, 3))
        loss = (self.head(self.backbone.tokens(x + noise))[..., 0] - means).square().mean()
        return ObjectiveOutput(loss, {"error": loss.detach().sqrt()})


def create(backbone: Backbone, *, noise: float = 0.1, **options: Any) -> SamplePrediction:
    """Refuses backbones without patches."""
    if not isinstance(backbone, PatchBackbone) or options:
        raise BackboneError(f"{backbone.name} has no patches", remedy="choose mtecg_tiny_100hz")
    return SamplePrediction(backbone, noise)
