from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.errors import RecipeError


def _with_generator(rate: float, seed: int = 0) -> StochasticDepth:
    holder = StochasticDepth(rate)
    holder.generator = torch.Generator().manual_seed(seed)
    return holder


class _Branch(nn.Module):
    """Doubles its input and counts the rows it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return x * self.scale


def test_computes_only_the_kept_samples() -> None:
    holder, branch = _with_generator(0.5), _Branch()
    x = torch.ones(1000, 3)
    out = holder(x, branch)
    kept = out[:, 0] != 1.0
    assert branch.rows == [int(kept.sum())]
    assert 400 < branch.rows[0] < 600
    assert torch.equal(out[kept], torch.full_like(out[kept], 1 + 2 / 0.5))
    assert torch.equal(out[~kept], x[~kept])


def test_gradient_is_that_of_the_kept_samples() -> None:
    holder, branch = _with_generator(0.4), _Branch()
    x = torch.randn(50, 4, requires_grad=True)
    holder(x, branch).sum().backward()
    kept = (x.grad[:, 0] - 1.0).abs() > 1e-6  # type: ignore[index]
    assert torch.allclose(x.grad[kept], torch.tensor(1 + 2 / 0.6))  # type: ignore[index]
    assert float(branch.scale.grad) == pytest.approx(x[kept].sum().item() / 0.6, rel=1e-4)  # type: ignore[arg-type]


def test_with_no_sample_kept_parameters_get_a_zero_gradient() -> None:
    holder, branch = _with_generator(0.999), _Branch()
    x = torch.randn(2, 3, requires_grad=True)
    out = holder(x, branch)
    assert torch.equal(out, x)
    out.sum().backward()
    assert branch.scale.grad is not None
    assert float(branch.scale.grad) == 0.0
    assert torch.equal(x.grad, torch.ones_like(x))  # type: ignore[arg-type]


def test_a_shortcut_of_another_shape_is_what_the_branch_is_added_to() -> None:
    holder = _with_generator(0.5)
    x, shortcut = torch.ones(1000, 4), torch.full((1000, 2), 7.0)
    out = holder(x, lambda kept: kept[:, :2], shortcut=shortcut)
    kept = out[:, 0] != 7.0
    assert 400 < int(kept.sum()) < 600
    assert torch.equal(out[kept], torch.full_like(out[kept], 7 + 1 / 0.5))
    assert torch.equal(out[~kept], shortcut[~kept])
    assert torch.equal(holder.eval()(x, lambda kept: kept[:, :2], shortcut=shortcut), shortcut + 1)


def test_eval_and_rate_zero_add_the_plain_branch_without_a_draw() -> None:
    x = torch.randn(5, 3)
    state = torch.get_rng_state()
    assert torch.equal(StochasticDepth(0.9).eval()(x, torch.neg), torch.zeros_like(x))
    assert torch.equal(StochasticDepth(0.0)(x, torch.neg), torch.zeros_like(x))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_refuses_impossible_rates(rate: float) -> None:
    holder = StochasticDepth()
    with pytest.raises(RecipeError, match="drop path rate"):
        holder.rate = rate
    assert holder.rate == 0.0
