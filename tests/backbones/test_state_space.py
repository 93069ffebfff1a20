"""State-space layers against dense computations from the definition."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor

from einthoven.backbones.layers import long_convolution
from einthoven.backbones.layers.long_convolution import convolve
from einthoven.backbones.layers.state_space import (
    Dynamics,
    StateSpaceBlock,
    StateSpaceKernel,
)

LENGTH = 40


def _kernel(
    dynamics: Dynamics, *, causal: bool = True, channels: int = 3, state: int = 8
) -> StateSpaceKernel:
    torch.manual_seed(1)
    return StateSpaceKernel(channels, state, dynamics=dynamics, causal=causal)


def _weights(kernel: StateSpaceKernel, channel: int) -> NDArray[np.complex128]:
    pairs = kernel.C[0, channel].detach().double().contiguous()
    weights: NDArray[np.complex128] = torch.view_as_complex(pairs).numpy()
    return weights


def test_diagonal_kernel_is_the_matrix_exponential() -> None:
    kernel = _kernel("diagonal")
    found = kernel(LENGTH)[0].detach().numpy()
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
        assert np.allclose(found[channel], answers, atol=2e-6)


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


def test_both_ways_of_convolving_agree_and_are_both_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    block = StateSpaceBlock(8, _kernel("nplr", causal=False, channels=8)).eval()
    x = torch.randn(2, 50, 8)
    answers = []
    for faster in (True, False):
        monkeypatch.setattr(
            long_convolution, "_toeplitz_is_faster", lambda *_, answer=faster, **__: answer
        )
        answers.append(block(x))
    product, fourier = answers
    assert torch.allclose(product, fourier, atol=1e-5)
    assert not torch.equal(product, fourier)


def test_only_the_output_weights_of_a_kernel_learn() -> None:
    kernel = _kernel("nplr")
    assert [name for name, _ in kernel.named_parameters()] == ["C"]
    kernel(LENGTH).square().sum().backward()
    assert kernel.C.grad is not None
    assert kernel.C.grad.abs().min() > 0


def test_loading_other_dynamics_forgets_the_cached_kernels() -> None:
    first, second = _kernel("diagonal"), _kernel("diagonal")
    second.log_step += 0.5
    before = first(LENGTH)
    first.load_state_dict(second.state_dict())
    assert not torch.allclose(first(LENGTH), before)
    assert torch.equal(first(LENGTH), second(LENGTH))
