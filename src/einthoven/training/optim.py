"""Settings of a stage: its optimiser, parameter groups and learning rate schedule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.optim import Adamax, AdamW, Optimizer

from einthoven.backbones.config import Share
from einthoven.backbones.inference import Precision

REFERENCE_BATCH = 256  # learning rates are quoted per 256 samples, as in the MAE family
OptimiserName = Literal["adamw", "adamax"]
Divisor = Annotated[float, Field(ge=1)]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from zero to `peak_lr`, then half a cosine down to `min_lr`."""

    peak_lr: float
    min_lr: float
    warmup_steps: int
    total_steps: int

    def lr(self, step: int) -> float:
        """Learning rate of an optimiser step, from 0."""
        if step < self.warmup_steps:
            return self.peak_lr * step / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return _cosine(self.peak_lr, self.min_lr, progress)

    def momentum(self, step: int) -> None:
        """First beta: unchanged."""


class Toml(BaseModel):
    """Table of a TOML file (recipe or experiment): no unknown keys, no changes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for run.json."""
        return self.model_dump(mode="json")


class Cycle(Toml):
    """Shape of a one-cycle schedule (Smith 2018): one cosine up to the peak and one down."""

    warmup_share: Share = 0.3
    """Share of the steps in which the learning rate rises."""
    start_divisor: Divisor = 25.0
    """Peak learning rate divided by the initial one."""
    end_divisor: Divisor = 250_000.0
    """Peak learning rate divided by the final one."""
    momentum: tuple[Share, Share, Share] = (0.95, 0.85, 0.95)
    """First beta at the start, at the peak and at the end, with cosines in between."""


@dataclass(frozen=True)
class OneCycle:
    """Half a cosine up to `peak_lr` and half a cosine down, the first beta the other way."""

    peak_lr: float
    total_steps: int
    cycle: Cycle

    def lr(self, step: int) -> float:
        """Learning rate of an optimiser step, from 0."""
        peak, shape = self.peak_lr, self.cycle
        return self._at(step, peak / shape.start_divisor, peak, peak / shape.end_divisor)

    def momentum(self, step: int) -> float:
        """First beta of an optimiser step."""
        return self._at(step, *self.cycle.momentum)

    def _at(self, step: int, first: float, middle: float, last: float) -> float:
        rise = round(self.cycle.warmup_share * self.total_steps)
        if step < rise:
            return _cosine(first, middle, step / rise)
        return _cosine(middle, last, (step - rise) / max(1, self.total_steps - rise))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


def scaled_lr(base_lr: float, effective_batch: int) -> float:
    """Learning rate for a batch, if `base_lr` is quoted for 256 samples."""
    return base_lr * effective_batch / REFERENCE_BATCH


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of a training loop.

    Attributes
    ----------
    epochs : int
        Passes over the data.
    base_lr : float
        Learning rate per 256 samples.
    batch_size : int
        Samples in an optimiser step, over all processes and micro-batches.
    accumulation : int
        Micro-batches in a step.
    warmup_epochs, min_lr : float
        Linear warm-up, and learning rate at the end of the cosine.
    cycle : Cycle, optional
        One-cycle schedule instead of warm-up and cosine; it sets the first beta at every step.
    clip : float or None
        Largest gradient norm.
    select, lowest : str or None, bool
        Validation metric of the best epoch (the earliest, on a tie), and whether its lowest value
        is the best; None selects the last epoch.
    ema : float
        Decay of the moving average of weights and buffers that is validated and kept; 0 is off.
    checkpoint_seconds : float
        Time between two checkpoints within an epoch; one is written after every epoch anyway.
    seed : int
        Seed of dropout, drop path and masks.
    shared_draws : bool
        Whether `loss` takes `generator`, a `ShareGenerator`, so that the random numbers of a
        record do not depend on the number of processes. Dropout and drop path are drawn by each
        process separately.
    """

    epochs: int
    base_lr: float
    batch_size: int
    accumulation: int = 1
    warmup_epochs: float = 0.0
    min_lr: float = 0.0
    cycle: Cycle | None = None
    optimiser: OptimiserName = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip: float | None = None
    precision: Precision = "fp32"
    select: str | None = None
    lowest: bool = False
    ema: float = 0.0
    checkpoint_seconds: float = 120.0
    seed: int = 0
    shared_draws: bool = False

    def schedule(self, steps_per_epoch: int) -> Schedule | OneCycle:
        """Learning rate schedule over all steps."""
        peak, total = scaled_lr(self.base_lr, self.batch_size), self.epochs * steps_per_epoch
        if self.cycle is not None:
            return OneCycle(peak, total, self.cycle)
        return Schedule(peak, self.min_lr, round(self.warmup_epochs * steps_per_epoch), total)


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
        Network; frozen parameters are left out.
    weight_decay : float
        Decay of every parameter whose name is not in `exempt`.
    layers : sequence of sequences of str
        Parameter names from the first layer to the last. All others belong to the head.
    layer_decay : float
        The rate of layer i of L is scaled by `layer_decay ** (L - i)`; the head's by 1 (the rule
        of the MAE family).
    """
    depth_of = {name: depth for depth, names in enumerate(layers) for name in names}
    undecayed = set(exempt)
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = layer_decay ** (len(layers) - depth_of.get(name, len(layers)))
            groups[scale, 0.0 if name in undecayed else weight_decay].append(parameter)
    return [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
    ]


def adamw(groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float = 1e-8) -> AdamW:
    """AdamW over parameter groups; the loop sets the rate of every step."""
    # The fused form updates all tensors in one pass over memory.
    return AdamW(groups, lr=0.0, betas=betas, eps=eps, fused=True)


def adamax(
    groups: list[dict[str, Any]], *, betas: tuple[float, float], eps: float = 1e-8
) -> Adamax:
    """Adamax over parameter groups; the loop sets the rate of every step.

    PyTorch's adds weight decay to the gradient; the groups' should be 0.
    """
    return Adamax(groups, lr=0.0, betas=betas, eps=eps)


OPTIMISERS: dict[OptimiserName, Callable[..., Optimizer]] = {"adamw": adamw, "adamax": adamax}


def set_learning_rate(optimiser: Optimizer, schedule: Schedule | OneCycle, step: int) -> float:
    """Set every group's learning rate, and the first beta if the schedule has one.

    Returns the learning rate of a group with `lr_scale` 1.
    """
    lr, momentum = schedule.lr(step), schedule.momentum(step)
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]
        if momentum is not None:
            group["betas"] = (momentum, group["betas"][1])
    return lr


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move an average of weights and buffers towards a model, in place.

    Of n steps, the decay is at most (1 + n) / (10 + n), so that the first weights are forgotten.
    Integers, such as counters, are copied.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    averages, values = ([*each.parameters(), *each.buffers()] for each in (average, model))
    for mean, value in zip(averages, values, strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, weight)
        else:
            mean.copy_(value)
