"""Companion kernels against the recursion that defines them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from einthoven.backbones.spacetime import (
    companion_kernel,
    kernel_by_squaring,
    unit_column,
)


def _drawn(kernels: int, state: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(state)
    a, b, c = (torch.randn(kernels, state, generator=generator) for _ in "abc")
    return [part.to(dtype).requires_grad_() for part in (unit_column(a), b, c)]


def _by_steps(a: Tensor, b: Tensor, c: Tensor, length: int) -> Tensor:
    """State after state: shifted by one place, the last entry fed back through a."""
    state, answers = b, []
    for _ in range(length):
        answers.append((c * state).sum(-1))
        last = state[:, -1:]
        state = torch.cat([torch.zeros_like(last), state[:, :-1]], dim=1) + a * last
    return torch.stack(answers, dim=-1)


@pytest.mark.parametrize(("state", "length"), [(1, 1), (1, 9), (5, 3), (5, 40), (64, 300)])
def test_series_squaring_and_steps_agree_with_their_gradients(state: int, length: int) -> None:
    parts = _drawn(3, state)
    expected = _by_steps(*parts, length)
    direction = torch.randn(3, length, generator=torch.Generator().manual_seed(0)).double()
    # A kernel of one step does not use a: its gradient is zero, not absent.
    wanted = torch.autograd.grad(expected, parts, direction, materialize_grads=True)
    for form in (companion_kernel, kernel_by_squaring):
        found = form(*parts, length)
        assert found.shape == (3, length)
        assert torch.allclose(found, expected, atol=1e-8), form
        slopes = torch.autograd.grad(found, parts, direction, materialize_grads=True)
        for slope, want in zip(slopes, wanted, strict=True):
            assert torch.allclose(slope, want, atol=1e-7), form


@pytest.mark.parametrize("column", ["constant", "first", "last", "alternating", "zero"])
def test_states_that_never_fade_stay_exact_in_float32(column: str) -> None:
    """Columns on the bound: a pole on the unit circle, or 64 of them, or none at all."""
    columns = {"zero": torch.zeros(64), "constant": torch.ones(64) / 64}
    columns |= {"first": torch.eye(64)[0], "last": -torch.eye(64)[-1]}
    columns["alternating"] = columns["constant"] * (-1.0) ** torch.arange(64)
    _, b, c = (part.detach() for part in _drawn(1, 64, torch.float32))
    a = columns[column][None]
    found = companion_kernel(a, b, c, 1000)
    expected = _by_steps(a.double(), b.double(), c.double(), 1000)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 2e-7 * expected.abs().max()
