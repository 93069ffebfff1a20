"""Two-dimensional state-space layers against their recursion, cell by cell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from einthoven.backbones.layers.two_dimensional_ssm import GridKernel, GridSystem, grid_convolve

VARIATES, TOKENS, CHANNELS = 5, 9, 4


@pytest.fixture
def kernel() -> GridKernel:
    torch.manual_seed(0)
    return GridKernel(CHANNELS, 3).double()


@pytest.fixture
def x() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, VARIATES, TOKENS, CHANNELS, generator=generator, dtype=torch.double)


def _by_cells(system: GridSystem, x: Tensor) -> Tensor:
    """The definition: every cell from the one before it in time and the one in front of it."""
    zero = torch.zeros(len(x), *system.a1.shape, dtype=torch.complex128)
    h1: dict[tuple[int, int], Tensor] = {}
    h2: dict[tuple[int, int], Tensor] = {}
    out = torch.zeros_like(x)
    for v in range(x.shape[1]):
        for t in range(x.shape[2]):
            now, earlier, above = x[:, v, t, :, None], (v, t - 1), (v - 1, t)
            h1[v, t] = system.a1 * h1.get(earlier, zero) + system.a2 * h2.get(earlier, zero)
            h1[v, t] = h1[v, t] + system.b1 * now
            h2[v, t] = system.a3 * h1.get(above, zero) + system.a4 * h2.get(above, zero)
            h2[v, t] = h2[v, t] + system.b2 * now
            both = system.c1 * h1[v, t] + system.c2 * h2[v, t]
            out[:, v, t] = 2.0 * both.real.sum(-1)
    return out


def _both_ways(kernel: GridKernel, x: Tensor, skip: Tensor) -> Tensor:
    halves = [GridSystem(**{k: v[i] for k, v in vars(kernel.system()).items()}) for i in (0, 1)]
    down, up = _by_cells(halves[0], x), _by_cells(halves[1], x.flip(1)).flip(1)
    return down + up + skip * x


def test_convolution_is_the_recursion_with_its_gradients(kernel: GridKernel, x: Tensor) -> None:
    skip = torch.randn(CHANNELS, dtype=torch.double).requires_grad_()
    x.requires_grad_()
    found = grid_convolve(x, kernel(VARIATES, TOKENS), skip)
    expected = _both_ways(kernel, x, skip)
    assert torch.allclose(found, expected, atol=1e-8)
    direction = torch.randn_like(found)
    parts = [x, skip, *kernel.parameters()]
    slopes = torch.autograd.grad(found, parts, direction)
    wanted = torch.autograd.grad(expected, parts, direction)
    for slope, want in zip(slopes, wanted, strict=True):
        assert torch.allclose(slope, want, atol=1e-7)


def test_no_frequency_grows_from_row_to_row() -> None:
    """Whatever was learned: coupling at its bound, slow decay, any number of rows."""
    torch.manual_seed(2)
    kernel = GridKernel(2, 4)
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter.add_(torch.randn_like(parameter))
        kernel.to_time.fill_(9.0)
        kernel.to_variate.fill_(9.0)
    system = kernel.system()
    turn = torch.exp(-1j * torch.linspace(0.0, torch.pi, 101, dtype=torch.double))
    a1, a2, a3, a4 = (part.unsqueeze(-1) for part in (system.a1, system.a2, system.a3, system.a4))
    assert ((a4 + a3 * a2 * turn / (1.0 - a1 * turn)).abs() <= 1.0 + 1e-12).all()
    assert kernel(60, 200).isfinite().all()
