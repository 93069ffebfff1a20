"""An objective with state beside its parameters: `after_step`, and exact resume."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from recorder import KilledError, Recorder
from torch import Tensor, nn

from einthoven.objectives.objective import ObjectiveOutput, SteppedObjective
from einthoven.signals.random import generator_for
from einthoven.training.distributed import Processes
from einthoven.training.loop import Loop
from einthoven.training.optim import Settings, parameter_groups


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 4)
        )


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Regression(nn.Module):
    """An objective with everything that has to survive: a teacher, a codebook and a note.

    The student predicts the teacher's output on clean input; the codebook follows the teacher.
    """

    codebook: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.backbone = network()
        self.teacher = deepcopy(self.backbone).requires_grad_(False)
        self.register_buffer("codebook", torch.zeros(2, 4))
        self.last = torch.zeros(4)
        self.note = {"steps": 0}

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        with torch.no_grad():
            target = self.teacher.eval()(x)
        if self.training:
            self.last = target.mean(0)
        noisy = x + 0.1 * torch.randn(x.shape, generator=generator)
        loss = (self.backbone(noisy) - target).square().mean() + self.codebook.sum() * 0
        return ObjectiveOutput(loss=loss + self.backbone(x).square().mean())

    def after_step(self, step: int) -> None:
        for average, student in zip(
            self.teacher.parameters(), self.backbone.parameters(), strict=True
        ):
            average.lerp_(student.detach(), 0.1)
        self.codebook[step % 2].lerp_(self.last, 0.1)
        assert self.note["steps"] == step - 1
        self.note = {"steps": step}

    def get_extra_state(self) -> dict[str, Any]:
        return self.note

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.note = state


class Numbers:
    per_epoch = 5

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Tensor]:
        for position in range(start, self.per_epoch):
            yield torch.randn(8, 4, generator=generator_for(epoch, position))


def train(folder: Path, *, kill: int | None = None, seconds: float = 0.0) -> Regression:
    model = Regression()
    assert isinstance(model, SteppedObjective)
    Loop(
        name="test",
        model=model,
        loss=lambda model, x, device, *, generator: model(x, generator=generator).loss,
        batches=Numbers(),
        groups=parameter_groups(model, weight_decay=0.0),
        settings=Settings(
            epochs=3, base_lr=1.0, batch_size=8, checkpoint_seconds=seconds, shared_draws=True
        ),
        folder=folder,
        processes=Processes("cpu"),
        progress=Recorder(("test", kill)) if kill else None,
        after_step=model.after_step,
    ).run()
    return model


@pytest.mark.parametrize("kill", [1, 5, 7])
@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_teacher_codebook_and_counter_resume_bit_for_bit(
    tmp_path: Path, kill: int, seconds: float
) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(KilledError):
        train(tmp_path / "killed", kill=kill, seconds=seconds)
    again = train(tmp_path / "killed", seconds=seconds)
    assert again.note == whole.note
    tensors = [
        {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        for model in (again, whole)
    ]
    assert same(*tensors)
    assert "teacher.0.weight" in tensors[0]
    assert "codebook" in tensors[0]
