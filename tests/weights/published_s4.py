"""A published S4 checkpoint, made by dense linear algebra from the definition of the model.

Nothing here uses einthoven: the HiPPO-LegS matrix is written out, diagonalised by the general
eigenvalue routine, and discretised by dense inverses. Kernels are evaluated as the definition says,
from the corrected C by the generating function at the roots of unity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Complex = NDArray[np.complex128]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Names:
    """How a file may call things; the default is one guess, the others are as good."""

    conv: str = "model.encoder.{i}.0"
    batch_norm: str = "model.encoder.{i}.1"
    layer: str = "model.predictor.s4_layers.{i}"
    kernel: str = "kernel.kernel"
    output: str = "output_linear.0"
    norm: str = "model.predictor.norms.{i}"
    step: str = "log_dt"
    eigenvalues: str = "w"


@dataclass(frozen=True)
class Published:
    """Shape of the file and the freedoms that it has."""

    width: int = 6
    depth: int = 2
    state: int = 8
    tokens: int = 40
    causal: bool = True
    stem: int = 4
    names: Names = Names()
    length: str = "roots"  # or "number", or "none"
    complex_tensors: bool = False
    flat: bool = False
    seed: int = 0

    def build(self) -> tuple[State, list[NDArray[np.float64]]]:
        """The state dict, and each layer's kernels from the definition, (directions, width, L)."""
        rng = np.random.default_rng(self.seed)
        state = self._stem(rng)
        kernels = []
        for i in range(self.depth):
            layer, kernel = self._layer(i, rng)
            state |= layer
            kernels.append(kernel)
        return {key: torch.as_tensor(value) for key, value in state.items()}, kernels

    def _stem(self, rng: np.random.Generator) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for i in range(self.stem):
            conv, norm = (name.format(i=i) for name in (self.names.conv, self.names.batch_norm))
            inputs, size = (self.width, 1) if i else (12, 3)
            state[f"{conv}.weight"] = _normal(rng, self.width, inputs, size)
            state[f"{norm}.weight"] = 1 + _normal(rng, self.width) / 4
            state[f"{norm}.bias"] = _normal(rng, self.width) / 4
            state[f"{norm}.running_mean"] = _normal(rng, self.width) / 4
            state[f"{norm}.running_var"] = np.float32(0.5) + _normal(rng, self.width) ** 2
            state[f"{norm}.num_batches_tracked"] = np.array(17)
        return state

    def _layer(
        self, i: int, rng: np.random.Generator
    ) -> tuple[dict[str, Any], NDArray[np.float64]]:
        names, width = self.names, self.width
        layer, norm = names.layer.format(i=i), names.norm.format(i=i)
        values, vectors, b, p = _diagonalised(self.state, rng)
        steps = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), width)).astype(np.float32)
        a_bar, b_bar = _bilinear(self.state, steps)
        inverse = np.linalg.inv(vectors)
        a_bar, b_bar = inverse @ a_bar @ vectors, (inverse @ b_bar[..., None])[..., 0]
        half = self.state // 2
        c = rng.normal(size=(1 if self.causal else 2, width, half, 2)) @ np.array([1, 1j])
        c = np.concatenate([c, c.conj()], -1)
        power = np.linalg.matrix_power(a_bar, self.tokens)
        stored = c - np.einsum("dhm,hmn->dhn", c, power)
        stored = np.concatenate([stored[..., :half], stored[..., :half].conj()], -1)
        kernel = f"{layer}.{names.kernel}"
        state = {
            f"{layer}.D": _normal(rng, *(() if self.flat else (1,)), width),
            f"{kernel}.C": self._pairs(stored[..., :half]),
            f"{kernel}.{names.step}": np.log(steps),
            f"{kernel}.B": self._pairs(self._channels(b[:half])),
            f"{kernel}.P": self._pairs(self._channels(p[:half])),
            f"{kernel}.{names.eigenvalues}": self._pairs(self._channels(values[:half])),
            **self._said(kernel),
            f"{layer}.{names.output}.weight": _normal(
                rng, 2 * width, width, *(() if self.flat else (1,))
            ),
            f"{layer}.{names.output}.bias": _normal(rng, 2 * width, *([1] if self.flat else [])),
            f"{norm}.weight": 1 + _normal(rng, width) / 4,
            f"{norm}.bias": _normal(rng, width) / 4,
        }
        return state, generated(stored, a_bar, b_bar, self.tokens)

    def _said(self, kernel: str) -> dict[str, Any]:
        roots = np.exp(-2j * np.pi / self.tokens * np.arange(self.tokens // 2 + 1))
        if self.length == "roots":
            nodes = 2 * (1 - roots) / (1 + roots + 1e-12)  # the last is a large number, as in fp32
            return {f"{kernel}.omega": self._pairs(roots), f"{kernel}.z": self._pairs(nodes)}
        return {f"{kernel}.L": np.array(self.tokens)} if self.length == "number" else {}

    def _channels(self, value: Complex) -> Complex:
        return value[None] if self.flat else np.tile(value, (self.width, 1))

    def _pairs(self, value: Complex) -> NDArray[Any]:
        if self.complex_tensors:
            return value.astype(np.complex64)
        return np.stack([value.real, value.imag], -1).astype(np.float32)


def generated(stored: Complex, a_bar: Complex, b_bar: Complex, tokens: int) -> NDArray[np.float64]:
    """Kernels by their generating function, ``C~ (I - A_bar w)^-1 B_bar`` at the roots w."""
    omega = np.exp(-2j * np.pi * np.arange(tokens // 2 + 1) / tokens)
    identity = np.eye(a_bar.shape[-1])
    out = np.empty((*stored.shape[:2], len(omega)), complex)
    for k, root in enumerate(omega):
        resolvent = np.linalg.solve(identity - root * a_bar, b_bar[..., None])[..., 0]
        out[..., k] = np.einsum("dhn,hn->dh", stored, resolvent)
    kernels: NDArray[np.float64] = np.fft.irfft(out, n=tokens)
    return kernels


def legs(state: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A, B and P of HiPPO-LegS, entry by entry."""
    a = np.zeros((state, state))
    for n in range(state):
        for k in range(state):
            if n > k:
                a[n, k] = -np.sqrt((2 * n + 1) * (2 * k + 1))
            elif n == k:
                a[n, k] = -(n + 1)
    return a, np.sqrt(2 * np.arange(state) + 1), np.sqrt(np.arange(state) + 0.5)


def _diagonalised(
    state: int, rng: np.random.Generator
) -> tuple[Complex, Complex, Complex, Complex]:
    """Eigenvalues, eigenvectors, B and P: pairs in any order, either of each, in any phase."""
    a, b, p = legs(state)
    values, vectors = np.linalg.eig(a + np.outer(p, p))
    positive = rng.permutation(np.flatnonzero(values.imag > 0))
    phases = np.exp(2j * np.pi * rng.random(len(positive)))
    half, lower = vectors[:, positive] * phases, rng.random(len(positive)) < 0.5
    kept = np.where(lower, values[positive].conj(), values[positive])
    half = np.where(lower, half.conj(), half)
    whole = np.concatenate([half, half.conj()], 1)
    return np.concatenate([kept, kept.conj()]), whole, whole.conj().T @ b, whole.conj().T @ p


def _bilinear(state: int, steps: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    a, b, _ = legs(state)
    scaled = steps.astype(np.float64)[:, None, None] / 2 * a
    left = np.eye(state) - scaled
    a_bar = np.linalg.solve(left, np.eye(state) + scaled)
    column = np.broadcast_to(b[:, None], (len(steps), state, 1))
    return a_bar, np.linalg.solve(left, column)[..., 0] * steps.astype(np.float64)[:, None]


def _normal(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.normal(size=shape).astype(np.float32)


def forward(
    state: State, kernels: list[NDArray[np.float64]], x: Tensor, names: Names, stem: int = 4
) -> Tensor:
    """The published network, written out; (batch, 12, 2 tokens) to (batch, tokens, width)."""
    z = x
    for i in range(stem):
        conv, norm = (name.format(i=i) for name in (names.conv, names.batch_norm))
        z = functional.conv1d(
            z, state[f"{conv}.weight"], stride=1 if i else 2, padding=0 if i else 1
        )
        parts = [state[f"{norm}.{p}"] for p in ("running_mean", "running_var", "weight", "bias")]
        z = torch.relu(functional.batch_norm(z, *parts))
    for i, kernel in enumerate(kernels):
        layer, norm = names.layer.format(i=i), names.norm.format(i=i)
        y = _filtered(z, kernel) + state[f"{layer}.D"].reshape(1, -1, 1) * z
        weight = state[f"{layer}.{names.output}.weight"].flatten(1)
        bias = state[f"{layer}.{names.output}.bias"].flatten()
        y = functional.linear(functional.gelu(y).transpose(1, 2), weight, bias)
        y = functional.glu(y, -1) + z.transpose(1, 2)
        parts = [state[f"{norm}.{p}"] for p in ("weight", "bias")]
        z = functional.layer_norm(y, y.shape[-1:], *parts).transpose(1, 2)
    return z.transpose(1, 2)


def _filtered(z: Tensor, kernel: NDArray[np.float64]) -> Tensor:
    """Sums over lags, one by one: the past, and for a second kernel the future."""
    tokens = z.shape[-1]
    out = torch.zeros_like(z, dtype=torch.float64)
    for lag in range(tokens):
        past = torch.from_numpy(kernel[0, :, lag, None])
        out[..., lag:] += past * z[..., : tokens - lag]
        if len(kernel) == 2 and lag:
            future = torch.from_numpy(kernel[1, :, lag - 1, None])
            out[..., : tokens - lag] += future * z[..., lag:]
    return out.float()
