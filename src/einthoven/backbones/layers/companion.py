"""Companion state-space layers: long filters that one linear recursion generates.

Zhang et al., "Effectively Modeling Time Series with Simple Discrete State Spaces" (SpaceTime), ICLR
2023. A state of size d is shifted by one place a step, and its last entry is fed back through a
column a: ``A = shift + a e_d^T``, a companion matrix. A kernel is ``f[t] = c^T A^t b``, with a, b
and c all learned; a is divided by the sum of its magnitudes, so that no power of A enlarges a
state's sum of magnitudes and f is bounded by ``max|c| sum|b|``.

The published code forms the powers by repeated squaring (`kernel_by_squaring`), d^3 log L and d^2 L
operations for a kernel of length L. A companion matrix needs no powers: its last entry w obeys an
autoregression with coefficients a, and what the others hold are shifted copies of b and of w, so
that f is the impulse response of an ARMA filter,

    f(z) = B(z) + z A(z) W(z),    W(z) = b'(z) / (1 - z a'(z)),

where a', b' are a and b in reverse order and A, B the correlations of c with a and b. Five
polynomials of degree below d are evaluated on a circle and one series is read back
(`companion_kernel`): L log L operations.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from einthoven.backbones.layers.power_series import Circle
from einthoven.errors import BackboneError

__all__ = ["CompanionKernel", "companion_kernel", "kernel_by_squaring", "unit_column"]


def unit_column(a: Tensor) -> Tensor:
    """Columns over the sum of their magnitudes, shape (..., state); a column of zeros stays."""
    # Smaller sums would give gradients that overflow.
    return a / a.abs().sum(-1, keepdim=True).clamp_min(torch.finfo(a.dtype).eps)


def companion_kernel(a: Tensor, b: Tensor, c: Tensor, length: int) -> Tensor:
    """``f[t] = c^T A^t b`` for t = 0 to length - 1, as the expansion of a rational function.

    Parameters
    ----------
    a, b, c : Tensor, shape (kernels, state)
        Last column of the companion matrix, its magnitudes of sum 1 or less; input and output
        weights.
    length : int
        Time steps.

    Returns
    -------
    Tensor, shape (kernels, length)
        In the precision of c; computed in double.

    Raises
    ------
    BackboneError
        For a length below 1.
    """
    state = a.shape[-1]
    circle = Circle(length, state, device=a.device)
    column, entry, output = (part.double() for part in (a, b, c))
    with torch.autocast(a.device.type, enabled=False):
        spectra = torch.fft.rfft(torch.stack([column, entry, output]), 2 * state)
        # Lags 0 to state - 1 of the correlations with c; the negative ones are not reached.
        lags = torch.fft.irfft(spectra[2] * spectra[:2].conj(), 2 * state)[..., :state]
        held, direct = circle.values(lags)
        feedback, last = circle.values(torch.stack([column, entry]).flip(-1))
        z = circle.points()
        response = circle.coefficients(direct + z * held * last / (1.0 - z * feedback))
    return response.to(c.dtype)


def kernel_by_squaring(a: Tensor, b: Tensor, c: Tensor, length: int) -> Tensor:
    """The same from the powers of the whole matrix: what tests and benchmarks compare with."""
    kernels, state = a.shape
    shift = torch.diag(a.new_ones(state - 1), -1).expand(kernels, state, state)
    power = torch.cat([shift[..., :-1], a[..., None]], dim=-1)
    states = b[..., None]
    while states.shape[-1] < length:
        states = torch.cat([states, power @ states], dim=-1)
        power = power @ power
    return (c[:, None] @ states[..., :length])[:, 0]


class CompanionKernel(nn.Module):
    """Kernels of all channels.

    Parameters
    ----------
    kernels : int
        Different kernels.
    state : int
        Size d of a state.
    heads : int
        Neighbouring channels that share a kernel.

    Raises
    ------
    BackboneError
        When a number is below 1.

    Notes
    -----
    a starts from a standard normal draw, whose scale the division takes away. b and c have a
    standard deviation of ``state ** -0.5`` (our choice): the sum of a kernel's squares is then near
    one half, where standard normal b and c make it thousands, layer after layer.
    """

    def __init__(self, kernels: int, state: int, *, heads: int = 1) -> None:
        super().__init__()
        if min(kernels, state, heads) < 1:
            raise BackboneError(
                f"kernels = {kernels}, state = {state}, heads = {heads}",
                remedy="give 1 or more of each.",
            )
        self.heads = heads
        self.a = nn.Parameter(torch.randn(kernels, state))
        self.b = nn.Parameter(torch.randn(kernels, state) * state**-0.5)
        self.c = nn.Parameter(torch.randn(kernels, state) * state**-0.5)

    def forward(self, length: int) -> Tensor:
        """Kernels, (channels, length)."""
        kernel = companion_kernel(unit_column(self.a), self.b, self.c, length)
        return kernel.repeat_interleave(self.heads, 0) if self.heads > 1 else kernel

    def extra_repr(self) -> str:
        """Show what the network's printout needs."""
        kernels, state = self.a.shape
        return f"kernels={kernels}, state={state}, heads={self.heads}"
