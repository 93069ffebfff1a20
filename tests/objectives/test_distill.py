from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.errors import RecipeError
from einthoven.objectives.distill import distillation_loss


def test_weight_zero_is_plain_training() -> None:
    student, teacher = torch.randn(4, 9), torch.randn(4, 9)
    target = torch.randint(2, (4, 9))
    expected = binary_cross_entropy_with_logits(student, target.float())
    assert torch.allclose(distillation_loss(student, teacher, target, weight=0.0), expected)


def test_saturated_logits_stay_finite_and_the_teacher_gets_no_gradient() -> None:
    student = torch.tensor([[500.0, -500.0]], requires_grad=True)
    teacher = torch.tensor([[-500.0, 500.0]], requires_grad=True)
    distillation_loss(student, teacher, torch.tensor([[0, 1]])).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert teacher.grad is None


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"weight": 1.5}, {"weight": -0.1}])
def test_refuses_values_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        distillation_loss(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2), **options)
