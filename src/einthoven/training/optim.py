"""AdamW's parameter groups and the learning rate at every step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import AdamW

REFERENCE_BATCH = 256  # learning rates are quoted per 256 samples, as in the MAE family


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from zero, then half a cosine down to `min_lr`, step by step.

    Attributes
    ----------
    peak_lr : float
        Learning rate at the end of the warm-up.
    min_lr : float
        Learning rate at the end.
    warmup_steps, total_steps : int
        Optimiser steps.
    """

    peak_lr: float
    min_lr: float
    warmup_steps: int
    total_steps: int

    def lr(self, step: int) -> float:
        """The learning rate of optimiser step `step` (from 0)."""
        if step < self.warmup_steps:
            return self.peak_lr * step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self.min_lr + (self.peak_lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def scaled_lr(base_lr: float, effective_batch: int) -> float:
    """The learning rate for a batch, when `base_lr` is quoted for 256 samples."""
    return base_lr * effective_batch / REFERENCE_BATCH


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    layers: Sequence[Sequence[str]] = (),
    layer_decay: float = 1.0,
    exempt: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Groups of trainable parameters with their own `weight_decay` and `lr_scale`.

    Parameters
    ----------
    model : nn.Module
        What is trained; frozen parameters are left out.
    weight_decay : float
        Decay of every parameter not in `exempt`.
    layers : sequence of sequences of str
        Parameter names from the first layer to the last. Names in none of them belong to a layer
        of their own after the last, the head.
    layer_decay : float
        The rate of layer i of L is scaled by `layer_decay ** (L - i)`; the head's by 1 (the rule
        of the MAE family).
    exempt : iterable of str
        Names without weight decay.
    """
    depth_of = {name: depth for depth, names in enumerate(layers) for name in names}
    spared = set(exempt)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = layer_decay ** (len(layers) - depth_of.get(name, len(layers)))
            groups[scale, 0.0 if name in spared else weight_decay].append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def adamw(groups: list[dict[str, Any]], *, betas: tuple[float, float]) -> AdamW:
    """AdamW over parameter groups; the loop sets the rate of every step."""
    # The fused form updates all tensors in one pass over memory.
    return AdamW(groups, lr=0.0, betas=betas, eps=1e-8, fused=True)


def set_lr(optimizer: AdamW, lr: float) -> None:
    """Give every group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
