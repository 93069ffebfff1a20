"""What every self-supervised objective answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from einthoven.backbones.contract import Backbone

__all__ = ["Objective", "ObjectiveOutput"]


@dataclass(frozen=True, eq=False)
class ObjectiveOutput:
    """The loss of a batch and what is worth logging.

    Attributes
    ----------
    loss : Tensor, scalar
        To be minimised.
    metrics : mapping of str to Tensor
        Detached scalars, left on their device so that reading none of them costs no wait.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """An `nn.Module` that holds a backbone and returns its loss on a batch."""

    @property
    def backbone(self) -> Backbone:
        """The encoder that is being pretrained."""

    def __call__(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        """Loss of prepared signals (batch, leads, samples); all randomness from `generator`."""
