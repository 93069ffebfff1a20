"""Long kernels, and convolution with them, against the recursions that define them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv1d, pad

from einthoven.backbones.layers import long_convolution
from einthoven.backbones.layers.long_convolution import convolve
from einthoven.backbones.layers.state_space import (
    Dynamics,
    StateSpaceKernel,
)
from einthoven.backbones.layers.two_dimensional_ssm import GridKernel, GridSystem, grid_convolve
from einthoven.backbones.multiresnet import MultiresLayer, multires
from einthoven.backbones.spacetime import companion_kernel, unit_column

LENGTH = 40


def _state_space(
    dynamics: Dynamics, *, causal: bool = True, channels: int = 3, state: int = 8
) -> StateSpaceKernel:
    torch.manual_seed(1)
    return StateSpaceKernel(channels, state, dynamics=dynamics, causal=causal)


def _weights(kernel: StateSpaceKernel, channel: int) -> NDArray[np.complex128]:
    pairs = kernel.C[0, channel].detach().double().contiguous()
    weights: NDArray[np.complex128] = torch.view_as_complex(pairs).numpy()
    return weights


def test_diagonal_kernel_is_the_matrix_exponential() -> None:
    kernel = _state_space("diagonal")
    result = kernel(LENGTH)[0].detach().numpy()
    for channel in range(3):
        step = math.exp(kernel.log_step[channel].item())
        half = -0.5 + 1j * math.pi * np.arange(4)
        a = np.diag(half)
        # Zero-order hold by one exponential of the block matrix [[A, B], [0, 0]].
        block = np.zeros((5, 5), complex)
        block[:4, :4], block[:4, 4] = a, 1.0
        hold = scipy.linalg.expm(step * block)
        state, answers = hold[:4, 4], []
        for _ in range(LENGTH):
            answers.append(2 * (_weights(kernel, channel) @ state).real)
            state = hold[:4, :4] @ state
        assert np.allclose(result[channel], answers, atol=2e-6)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("tokens", [1, 2, 17])
def test_toeplitz_and_fft_are_the_sum_from_the_definition(causal: bool, tokens: int) -> None:
    torch.manual_seed(2)
    x = torch.randn(2, tokens, 3, dtype=torch.double)
    kernels = torch.randn(1 if causal else 2, 3, tokens, dtype=torch.double)
    skip = torch.randn(3)
    expected = torch.zeros_like(x)
    for t in range(tokens):
        for s in range(tokens):
            if s <= t:
                weight = kernels[0, :, t - s]
            elif not causal:
                weight = kernels[1, :, s - t - 1]
            else:
                continue
            expected[:, t] += weight * x[:, s]
        expected[:, t] += skip * x[:, t]
    assert torch.allclose(convolve(x, kernels, skip), expected)
    taps = long_convolution._taps(kernels, skip)
    assert torch.allclose(long_convolution._fft_convolve(x, taps), expected)


@pytest.mark.parametrize("way", [long_convolution._Toeplitz.apply, long_convolution._fft_convolve])
def test_gradients_of_both_ways_of_convolving(way: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(3)
    x = torch.randn(2, 9, 3, dtype=torch.double, requires_grad=True)
    taps = torch.randn(3, 17, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(way, (x, taps))


def test_loading_other_dynamics_forgets_the_cached_kernels() -> None:
    first, second = _state_space("diagonal"), _state_space("diagonal")
    second.log_step += 0.5
    before = first(LENGTH)
    first.load_state_dict(second.state_dict())
    assert not torch.allclose(first(LENGTH), before)
    assert torch.equal(first(LENGTH), second(LENGTH))


# The published length and number of scales; shifts beyond a short input; a single sample.
SHAPES = [(1000, 10), (37, 10), (64, 3), (1, 2)]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6}


def cascade(x: Tensor, low: Tensor, high: Tensor, weights: Tensor) -> Tensor:
    """The layer as its definition reads: two grouped convolutions a scale."""
    channels, scales = len(weights), weights.shape[1] - 2
    signal, factors = x.transpose(1, 2).contiguous(), weights[..., None]
    total = factors[:, scales + 1] * signal
    for scale in range(scales):
        dilation = 2**scale
        padded = pad(signal, (dilation, 0))
        detail = conv1d(padded, high[:, None], dilation=dilation, groups=channels)
        signal = conv1d(padded, low[:, None], dilation=dilation, groups=channels)
        total = total + factors[:, scales - scale] * detail
    return (total + factors[:, 0] * signal).transpose(1, 2)


def _multires(scales: int, dtype: torch.dtype = torch.float64, channels: int = 32) -> MultiresLayer:
    torch.manual_seed(scales)
    return MultiresLayer(channels, scales).to(dtype)


def _answers(
    call: Callable[..., Tensor], layer: MultiresLayer, x: Tensor, above: Tensor
) -> list[Tensor]:
    """The sum, and the gradients of the input and of the parameters."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = call(x, layer.low, layer.high, layer.weights)
    y.backward(above)
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("tokens", "scales"), SHAPES)
def test_values_and_gradients_are_the_cascades(
    tokens: int, scales: int, dtype: torch.dtype
) -> None:
    layer = _multires(scales, dtype)
    x, above = torch.randn(2, 3, tokens, 32, dtype=dtype)
    expected = _answers(cascade, layer, x, above)
    for ours, theirs in zip(_answers(multires, layer, x, above), expected, strict=True):
        assert ours.dtype == dtype
        assert (ours - theirs).abs().max() <= TOLERANCE[dtype] * theirs.abs().max()


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
def test_a_companion_kernel_is_its_recursion_with_its_gradients(state: int, length: int) -> None:
    parts = _drawn(3, state)
    expected = _by_steps(*parts, length)
    direction = torch.randn(3, length, generator=torch.Generator().manual_seed(0)).double()
    # A kernel of one step does not use a: its gradient is zero, not absent.
    wanted = torch.autograd.grad(expected, parts, direction, materialize_grads=True)
    kernel = companion_kernel(*parts, length)
    assert torch.allclose(kernel, expected, atol=1e-8)
    slopes = torch.autograd.grad(kernel, parts, direction, materialize_grads=True)
    for slope, want in zip(slopes, wanted, strict=True):
        assert torch.allclose(slope, want, atol=1e-7)


@pytest.mark.parametrize("column", ["constant", "first", "last", "alternating", "zero"])
def test_states_that_never_fade_stay_exact_in_float32(column: str) -> None:
    """Columns on the bound: a pole on the unit circle, or 64 of them, or none at all."""
    columns = {"zero": torch.zeros(64), "constant": torch.ones(64) / 64}
    columns |= {"first": torch.eye(64)[0], "last": -torch.eye(64)[-1]}
    columns["alternating"] = columns["constant"] * (-1.0) ** torch.arange(64)
    _, b, c = (part.detach() for part in _drawn(1, 64, torch.float32))
    a = columns[column][None]
    result = companion_kernel(a, b, c, 1000)
    expected = _by_steps(a.double(), b.double(), c.double(), 1000)
    assert result.dtype == torch.float32
    assert (result - expected).abs().max() < 2e-7 * expected.abs().max()


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
    result = grid_convolve(x, kernel(VARIATES, TOKENS), skip)
    expected = _both_ways(kernel, x, skip)
    assert torch.allclose(result, expected, atol=1e-8)
    direction = torch.randn_like(result)
    parts = [x, skip, *kernel.parameters()]
    slopes = torch.autograd.grad(result, parts, direction)
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
