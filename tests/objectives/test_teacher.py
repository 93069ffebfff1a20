"""The teacher: begins as its student, follows it, and refuses to follow nobody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from einthoven.errors import RecipeError, TrainingError
from einthoven.objectives.objective import ObjectiveOutput, SteppedObjective
from einthoven.objectives.teacher import Momentum, Teacher
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


def moved(student: nn.Module) -> None:
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    student(torch.randn(16, 4, generator=generator_for(0)))  # moves the running statistics


def test_it_starts_equal_and_is_a_copy() -> None:
    student = network()
    teacher = Teacher(student)
    assert same(state(teacher.network), state(student))
    moved(student)
    assert not same(state(teacher.network), state(student))


def test_it_moves_by_one_minus_the_momentum_and_copies_buffers() -> None:
    student = network()
    teacher = Teacher(student, momentum=Momentum(0.9, 0.9))
    before = state(teacher.network)
    moved(student)
    teacher.follow(student, step=1)
    after = state(teacher.network)
    for name, parameter in student.named_parameters():
        expected = 0.9 * before[name] + 0.1 * parameter.detach()
        torch.testing.assert_close(after[name], expected)
        assert not torch.equal(after[name], before[name])
    for name, buffer in student.named_buffers():
        assert torch.equal(after[name], buffer)
    assert int(after["1.num_batches_tracked"]) == 1


def test_the_momentum_rises_along_a_line_and_stays() -> None:
    ramp = Momentum(0.5, 0.9, steps=4)
    assert [ramp.at(step) for step in range(1, 7)] == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 0.9])
    with pytest.raises(RecipeError, match=r"momentum from 0\.9 to 1\.1"):
        Momentum(0.9, 1.1)
    with pytest.raises(RecipeError, match="in 0 steps"):
        Momentum(steps=0)


def test_it_is_never_trained_and_stays_in_eval_mode() -> None:
    student = network()
    objective = nn.ModuleDict({"student": student, "teacher": Teacher(student)})
    objective.train()
    assert not any(module.training for module in objective["teacher"].modules())
    assert not any(p.requires_grad for p in objective["teacher"].parameters())
    x = torch.randn(3, 4, requires_grad=True)
    out = objective["teacher"](x)
    assert not out.requires_grad
    assert torch.equal(out, objective["teacher"](x))  # no dropout
    with_dropout = Teacher(student, stays_in_eval=False)
    assert with_dropout.network.training
    assert not with_dropout.eval().network.training


class Wrapped(nn.Module):
    """As torch.compile or a parallel wrapper hold a network."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_a_student_with_other_names_is_refused() -> None:
    """The defect of published code: nothing matches, and nothing is said."""
    student = network()
    teacher = Teacher(student)
    with pytest.raises(TrainingError, match=r"6 of the teacher's 6 parameters .*'0.weight'"):
        teacher.follow(Wrapped(student), step=1)
    with pytest.raises(TrainingError, match="no student"):
        teacher.follow(nn.Sequential(*list(student)[:1]), step=1)  # type: ignore[call-overload]
    with pytest.raises(TrainingError, match="no student"):
        teacher.follow(nn.Sequential(nn.Linear(5, 8), *list(student)[1:]), step=1)  # type: ignore[call-overload]
    with pytest.raises(TrainingError, match="0 of the teacher's 0 parameters"):
        Teacher(nn.GELU()).follow(nn.GELU(), step=1)


class Regression(nn.Module):
    """An objective with everything that has to survive: a teacher, a codebook, a counter, a note.

    The student predicts what the teacher says of clean input; the codebook follows the teacher.
    """

    codebook: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.backbone = network()
        self.teacher = Teacher(self.backbone, momentum=Momentum(0.9, 0.99, steps=10))
        self.register_buffer("codebook", torch.zeros(2, 4))
        self.last = torch.zeros(4)
        self.note = {"steps": 0}

    def forward(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        target = self.teacher(x)
        if self.training:
            self.last = target.mean(0)
        noisy = x + 0.1 * torch.randn(x.shape, generator=generator)
        loss = (self.backbone(noisy) - target).square().mean() + self.codebook.sum() * 0
        return ObjectiveOutput(loss=loss + self.backbone(x).square().mean())

    def after_step(self, step: int) -> None:
        self.teacher.follow(self.backbone, step=step)
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


class KilledError(Exception):
    """Stands in for the signal that ends a process."""


class Killer:
    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(
        self, task: str, done: int, total: int, metrics: Mapping[str, float] | None = None
    ) -> None:
        self.left -= "loss" in (metrics or {})
        if not self.left:
            raise KilledError


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
        progress=Killer(kill) if kill else None,
        after_step=model.after_step,
    ).run()
    return model


def test_the_loop_calls_it_after_every_step(tmp_path: Path) -> None:
    model = train(tmp_path)
    assert model.note == {"steps": 15}
    assert not same(state(model.teacher.network), state(network()))
    assert model.codebook.abs().sum() > 0


@pytest.mark.parametrize("kill", [1, 4, 5, 7, 14])
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
    assert "teacher.network.0.weight" in tensors[0]
    assert "codebook" in tensors[0]
