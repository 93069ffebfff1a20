"""A teacher that follows its student: the exponential moving average of its weights.

Tarvainen and Valpola, "Mean teachers are better role models", 2017; for self-supervision as in
BYOL, data2vec and I-JEPA. Published code of this kind has been seen to compare names that never
match (a wrapper's prefix, a slice too many), so that the teacher is a random network that never
moves. Here every tensor of the teacher has to find its student, or there is an error.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from einthoven.errors import RecipeError, TrainingError

__all__ = ["Momentum", "Teacher"]


@dataclass(frozen=True)
class Momentum:
    """How much of the teacher stays at each step: from `start` to `end`, along a straight line.

    Attributes
    ----------
    start, end : float
        Of [0, 1]; equal for a constant momentum.
    steps : int
        Steps from one to the other; `end` from then on.
    """

    start: float = 0.996
    end: float = 0.9999
    steps: int = 1000

    def __post_init__(self) -> None:
        if not 0.0 <= self.start <= 1.0 or not 0.0 <= self.end <= 1.0 or self.steps < 1:
            raise RecipeError(
                f"momentum from {self.start!r} to {self.end!r} in {self.steps} steps",
                remedy="choose values of 0 to 1, such as 0.996 and 0.9999, and at least one step",
            )

    def at(self, step: int) -> float:
        """The momentum of optimiser step `step`, counted from 1."""
        done = min(1.0, (step - 1) / self.steps)
        return self.start + (self.end - self.start) * done


class Teacher(nn.Module):
    """A copy of a network that moves towards it and is never trained.

    It starts equal to the student. Parameters are averaged, buffers copied. Its tensors are in the
    state dict of the objective that holds it, and its momentum is a function of the step alone:
    a resumed run goes on with the same teacher, bit for bit.

    Parameters
    ----------
    student : nn.Module
        What it follows; it is copied, not held.
    momentum : Momentum
        How much of it stays.
    stays_in_eval : bool
        Whether it is in eval mode whatever the objective's mode is: without dropout, and with
        running statistics. Some published teachers are in training mode instead.
    """

    def __init__(
        self,
        student: nn.Module,
        *,
        momentum: Momentum | None = None,
        stays_in_eval: bool = True,
    ) -> None:
        super().__init__()
        self.network = deepcopy(student).requires_grad_(False)
        self.momentum = momentum or Momentum()
        self.stays_in_eval = stays_in_eval
        self.train(student.training)

    def train(self, mode: bool = True) -> Teacher:
        """Take the mode, unless the teacher stays in eval mode."""
        super().train(mode and not self.stays_in_eval)
        return self

    @torch.no_grad()
    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the teacher says; no gradient flows into it."""
        return self.network(*inputs, **options)

    @torch.no_grad()
    def follow(self, student: nn.Module, *, step: int) -> None:
        """Move towards the student; to be called from `after_step`, once a step.

        Parameters
        ----------
        student : nn.Module
            The network that the teacher began as, without any wrapper.
        step : int
            Optimiser steps done, from 1.

        Raises
        ------
        TrainingError
            When a tensor of the teacher has no student of its name and shape.
        """
        stays = self.momentum.at(step)
        for mine, theirs in _pairs(self.network, student, kind="parameters"):
            mine.lerp_(theirs.to(mine.dtype), 1.0 - stays)
        for mine, theirs in _pairs(self.network, student, kind="buffers"):
            mine.copy_(theirs)


def _pairs(teacher: nn.Module, student: nn.Module, *, kind: str) -> list[tuple[Tensor, Tensor]]:
    mine = dict(getattr(teacher, f"named_{kind}")())
    theirs = dict(getattr(student, f"named_{kind}")())
    alone = [k for k in mine if k not in theirs or mine[k].shape != theirs[k].shape]
    if alone or (kind == "parameters" and not mine):
        raise TrainingError(
            f"{len(alone)} of the teacher's {len(mine)} {kind} have no student of their name and "
            f"shape, such as {(alone or ['any'])[0]!r}; the student has {list(theirs)[:3]}",
            remedy="follow the network that the teacher was made from, not one that wraps it",
        )
    return [(mine[name], theirs[name]) for name in mine]
