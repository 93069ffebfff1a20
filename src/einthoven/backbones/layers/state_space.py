"""State-space layers: convolution with a long kernel that a small linear system generates.

Gu et al., "Efficiently Modeling Long Sequences with Structured State Spaces", ICLR 2022 (S4), and
Gu et al., "On the Parameterization and Initialization of Diagonal State Space Models", NeurIPS
2022 (S4D). A channel's kernel is ``k[l] = 2 Re(sum_n C[n] (A_bar**l B_bar)[n])`` over half of its
conjugate pairs. A, B and the step size stay as they were initialised (the pretraining study of
arXiv 2605.12241 and its encoder ECG-CPC never train them), so ``A_bar**l B_bar`` is computed once
for each length, in double precision, and a kernel is one small matrix product with C.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, glu

from einthoven.backbones.layers.long_convolution import convolve
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.errors import BackboneError

Dynamics = Literal["nplr", "diagonal"]


class TiedDropout(nn.Dropout):
    """Dropout with one mask for all time steps: a channel is dropped from a sample as a whole.

    As in the published S4 encoders; one random number a channel instead of one a value also makes
    it much cheaper than elementwise dropout.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop channels of x, shape (batch, tokens, width)."""
        if not self.training or self.p == 0.0:
            return x
        keep = 1.0 - self.p
        mask = x.new_empty(x.shape[0], 1, x.shape[2]).bernoulli_(keep)
        return x * (mask / keep if keep else mask)


def hippo_legs(state: int) -> tuple[Tensor, Tensor, Tensor]:
    """The HiPPO-LegS system, which remembers the past as Legendre coefficients.

    Returns A, (state, state), B and the rank-1 correction P, both (state,): ``A + P P^T`` is
    normal, a skew-symmetric matrix minus half the identity.
    """
    n = torch.arange(state, dtype=torch.float64)
    root = torch.sqrt(2 * n + 1)
    a = -torch.tril(root[:, None] * root[None, :], diagonal=-1) - torch.diag(n + 1)
    return a, root, torch.sqrt(n + 0.5)


def nplr_system(state: int) -> tuple[Tensor, Tensor, Tensor]:
    """HiPPO-LegS in a basis that diagonalises its normal part, ``A = diag(values) - P P*``.

    The basis is free up to a phase for each eigenvector, which B and P share (and C takes back).
    Returns values, B and P, each (state,) complex128, one of each conjugate pair in the first half.
    """
    a, b, p = hippo_legs(state)
    skew = a + torch.outer(p, p) + 0.5 * torch.eye(state, dtype=torch.float64)
    frequencies, vectors = torch.linalg.eigh(skew * -1j)
    adjoint = vectors.conj().T
    order = torch.argsort(frequencies, descending=True)  # the positive half of the pairs first
    values = torch.complex(torch.full_like(frequencies, -0.5), frequencies)[order]
    complex_b, complex_p = adjoint @ b.to(adjoint.dtype), adjoint @ p.to(adjoint.dtype)
    return values, complex_b[order], complex_p[order]


def _powers(a: Tensor, b: Tensor, length: int) -> Tensor:
    """``a**l b`` for l = 0 to length - 1, by doubling; (channels, N, N), (channels, N)."""
    out, power = b.unsqueeze(-1), a
    while out.shape[-1] < length:
        out = torch.cat([out, power @ out], dim=-1)
        power = power @ power
    return out[..., :length]


def nplr_basis(step: Tensor, eigenvalues: Tensor, b: Tensor, p: Tensor, length: int) -> Tensor:
    """States of the bilinearly discretised ``A = diag(eigenvalues) - P P*`` after an impulse.

    From step sizes, (channels,), and complex eigenvalues, B and P, (state,), all conjugate pairs
    whole, to (channels, state, length) complex128. ``A_bar = (2/step - A)^-1 (2/step + A)``, the
    first factor by the Woodbury identity from its diagonal: nothing is inverted but numbers.
    """
    rate = 2.0 / step.double()
    inverse = 1.0 / (rate[:, None] - eigenvalues)  # of the diagonal part, (channels, state)
    correction = (p.conj() * inverse * p).sum(-1) + 1.0
    left = inverse * p

    def solve(x: Tensor) -> Tensor:  # (rate - A)^-1 x; x is (channels, state, columns)
        y = inverse[..., None] * x
        overlap = (p.conj()[None, :, None] * y).sum(1, keepdim=True)
        return y - left[..., None] * overlap / correction[:, None, None]

    state = len(eigenvalues)
    a = torch.diag(eigenvalues) - torch.outer(p, p.conj())
    forward = rate[:, None, None] * torch.eye(state, dtype=a.dtype, device=a.device) + a
    return _powers(
        solve(forward), 2.0 * solve(b.expand(len(rate), state)[..., None])[..., 0], length
    )


def diagonal_basis(step: Tensor, eigenvalues: Tensor, length: int) -> Tensor:
    """States of a diagonal system, discretised by zero-order hold, after an impulse.

    From step sizes, (channels,), and eigenvalues, (state,), to (channels, state, length), the
    Vandermonde matrices, complex128, times the discretised input weights (B is 1).
    """
    scaled = step.double()[:, None] * eigenvalues
    b = (torch.exp(scaled) - 1.0) / eigenvalues
    times = torch.arange(length, dtype=torch.float64, device=step.device)
    return b[..., None] * torch.exp(scaled[..., None] * times)


class StateSpaceKernel(nn.Module):
    """Convolution kernels of all channels; only the output weights C learn.

    Parameters
    ----------
    channels : int
        One system each.
    state : int
        Size N of a state; half as many conjugate pairs are kept.
    dynamics : {"nplr", "diagonal"}
        HiPPO-LegS with its rank-1 part and the bilinear rule (S4), or S4D-Lin with zero-order
        hold.
    causal : bool
        One kernel over the past; otherwise a second one over the future.

    Raises
    ------
    BackboneError
        For an odd state or unknown dynamics.
    """

    log_step: Tensor
    eigenvalues: Tensor
    input_weights: Tensor
    correction: Tensor

    def __init__(
        self, channels: int, state: int, *, dynamics: Dynamics = "nplr", causal: bool = True
    ) -> None:
        super().__init__()
        if state < 2 or state % 2:
            raise BackboneError(
                f"state = {state} is not a positive even number",
                remedy="choose an even state size, such as 8: it holds conjugate pairs",
            )
        if dynamics not in ("nplr", "diagonal"):
            raise BackboneError(
                f"dynamics = {dynamics!r} is unknown", remedy="choose 'nplr' or 'diagonal'"
            )
        self.dynamics, self.causal, self.pairs = dynamics, causal, state // 2
        # Step sizes are log-uniform between 0.001 and 0.1.
        spread = torch.rand(channels) * (math.log(1e-1) - math.log(1e-3))
        self.register_buffer("log_step", spread + math.log(1e-3))
        for name, value in self._system(state).items():
            self.register_buffer(name, torch.view_as_real(value).float())
        directions = 1 if causal else 2
        # Complex normal numbers: each part has variance one half.
        self.C = nn.Parameter(torch.randn(directions, channels, self.pairs, 2) * 0.5**0.5)
        self._cached: dict[tuple[int, torch.device], Tensor] = {}

    def _system(self, state: int) -> dict[str, Tensor]:
        if self.dynamics == "nplr":
            values, b, p = nplr_system(state)
            half = slice(0, self.pairs)
            return {"eigenvalues": values[half], "input_weights": b[half], "correction": p[half]}
        n = torch.arange(self.pairs, dtype=torch.float64)
        return {"eigenvalues": torch.complex(torch.full_like(n, -0.5), math.pi * n)}

    def basis(self, length: int) -> Tensor:
        """Factor of C: (channels, 2 * pairs, length), real and imaginary parts in turn."""
        key = (length, self.log_step.device)
        if key not in self._cached:
            if len(self._cached) >= 4:  # a few window lengths at most
                self._cached.clear()
            # A tensor made in inference mode could never be trained through afterwards.
            with torch.inference_mode(False), torch.no_grad():
                self._cached[key] = self._basis(length)
        return self._cached[key]

    def _basis(self, length: int) -> Tensor:
        step = self.log_step.double().exp()
        values = _complex(self.eigenvalues)
        if self.dynamics == "diagonal":
            states = diagonal_basis(step, values, length)
        else:
            b, p = _complex(self.input_weights), _complex(self.correction)
            values, b, p = (torch.cat([part, part.conj()]) for part in (values, b, p))
            states = nplr_basis(step, values, b, p, length)[:, : self.pairs]
        # 2 Re(C x) = 2 Re(C) Re(x) - 2 Im(C) Im(x)
        parts = torch.stack([2 * states.real, -2 * states.imag], dim=2)
        return parts.flatten(1, 2).float()

    def forward(self, length: int) -> Tensor:
        """Kernels, fp32, (directions, channels, length): towards the past, then the future."""
        weights = self.C.flatten(2).transpose(0, 1).float()
        with torch.autocast(weights.device.type, enabled=False):
            kernels = torch.bmm(weights, self.basis(length))
        return kernels.transpose(0, 1)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._cached.clear()  # the dynamics may be others now
        super()._load_from_state_dict(*args, **kwargs)


def _complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.double().contiguous())


class StateSpaceBlock(nn.Module):
    """State-space convolution, GELU, gated projection; added to the input, then normalised.

    Parameters
    ----------
    width : int
        Channels.
    kernel : StateSpaceKernel
        Its convolution.
    dropout : float
        Rate of both tied dropouts.
    """

    def __init__(self, width: int, kernel: StateSpaceKernel, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.kernel = kernel
        self.D = nn.Parameter(torch.randn(width))
        self.drop1 = TiedDropout(dropout)
        self.output = nn.Linear(width, 2 * width)
        self.drop2 = TiedDropout(dropout)
        self.depth = StochasticDepth()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, tokens, width) to the same shape."""
        out: Tensor = self.norm(self.depth(x, self.branch))
        return out

    def branch(self, x: Tensor) -> Tensor:
        """Residual branch; (batch, tokens, width)."""
        filtered = gelu(convolve(x, self.kernel(x.shape[1]), self.D))
        gated: Tensor = self.drop2(glu(self.output(self.drop1(filtered)), dim=-1))
        return gated
