"""A bundle's backbone at one level: from prepared crops to one array a record."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from einthoven.backbones.contract import Backbone
from einthoven.backbones.subset import FewerLeads
from einthoven.errors import EvaluationError
from einthoven.models import Model

Level = Literal["pooled", "token", "lead"]
LEVELS: tuple[str, ...] = get_args(Level)
Floats = NDArray[np.float32]


class Embedder:
    """A bundle's backbone at one level.

    Attributes
    ----------
    level : str
    preparations : list of Preparation
        What has to be cut from a record: one, or one a lead.
    leads : tuple of str
        Those of the bundle.
    """

    def __init__(
        self, bundle: Model, level: str, *, precision: str, device: torch.device | str
    ) -> None:
        if level not in LEVELS:
            raise EvaluationError(
                f"level = {level!r} is unknown", remedy=f"use one of {', '.join(LEVELS)}"
            )
        self.level, self.precision = level, precision
        self.device = torch.device(device)
        self.leads = bundle.preparation.leads
        self.backbone: Backbone = bundle.backbone.to(self.device).eval()
        self.preparations = [bundle.preparation]
        self.networks: list[nn.Module] = [self.backbone]
        if level == "lead":
            given: dict[str, Any] = {"every": self.leads, "samples": bundle.preparation.window}
            alone = [FewerLeads(self.backbone, [lead], **given) for lead in self.leads]
            self.networks = [*alone]
            self.preparations = [bundle.preparation.with_leads(each.rows) for each in alone]
        self.about = self._about(bundle)

    def __call__(self, crops: Iterable[tuple[Tensor, Tensor]], count: int) -> list[Floats]:
        """The arrays of `count` records, from (signals, owner) of each preparation."""
        with torch.no_grad(), self._autocast():
            if self.level == "token":
                ((signals, owner),) = crops
                tokens = self.backbone.tokens(signals.to(self.device)).float().cpu()
                return [tokens[owner == place].flatten(0, 1).numpy() for place in range(count)]
            means = [
                crop_means(network(signals.to(self.device)).float().cpu(), owner, count)
                for network, (signals, owner) in zip(self.networks, crops, strict=True)
            ]
        vectors = torch.stack(means, dim=1) if self.level == "lead" else means[0]
        return list(vectors.numpy())

    def _autocast(self) -> torch.autocast:
        kind = self.device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def _about(self, bundle: Model) -> dict[str, Any]:
        policies = {n.leads[0]: n.policy for n in self.networks if isinstance(n, FewerLeads)}
        return {
            "level": self.level,
            "backbone": bundle.backbone.name,
            "weights_sha256": bundle.config.get("weights_sha256", ""),
            "preparation": bundle.preparation.to_dict(),
            "leads": list(self.leads),
            "missing_leads": policies or None,
            "crops": "one after another" if self.level == "token" else "mean",
            "precision": self.precision,
        }


def crop_means(features: Tensor, owner: Tensor, count: int) -> Tensor:
    """Each record's mean over its crops, (count, dim); `owner` is the record of each crop."""
    total = torch.zeros(count, features.shape[1]).index_add_(0, owner, features)
    return total / torch.bincount(owner, minlength=count)[:, None]
