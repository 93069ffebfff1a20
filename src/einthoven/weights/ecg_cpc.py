"""Tensor names in ECG-CPC's public checkpoint, a Lightning file (figshare 30192604).

The checkpoint stores C multiplied by ``I - A_bar**L``, L being the number of tokens that its
kernels were built for (Gu et al., ICLR 2022, section 3); the reader removes the factor.
Eigenvalues, B and P are equal in all channels; they are read and not recomputed, because the signs
of eigenvectors differ between LAPACK builds and C depends on them.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from einthoven.errors import WeightsError
from einthoven.weights.fit import Naming, State

_STEM, _PREDICTOR = "ts_encoder.encoder.layers", "ts_encoder.predictor.predictor"
_IN_KERNEL = {"w": "eigenvalues", "B": "input_weights", "P": "correction"}


def _tensors(state: State, _: object) -> dict[str, Tensor]:
    """The encoder in the names of `einthoven.backbones.s4.S4`."""
    try:
        return _stem(state) | _blocks(state)
    except KeyError as error:
        raise WeightsError(
            f"{error.args[0]} is missing", remedy="load the authors' complete checkpoint"
        ) from error


def _stem(state: State) -> dict[str, Tensor]:
    ours = {}
    for name in _numbers(state, _STEM):
        ours[f"stem.{name}.weight"] = state[f"{_STEM}.{name}.0.weight"]
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            ours[f"stem.{name}.norm.{part}"] = state[f"{_STEM}.{name}.1.{part}"]
    return ours


def _blocks(state: State) -> dict[str, Tensor]:
    ours = {}
    for name in _numbers(state, f"{_PREDICTOR}.s4_layers"):
        layer, block = f"{_PREDICTOR}.s4_layers.{name}", f"blocks.{name}"
        ours[f"{block}.D"] = state[f"{layer}.D"].reshape(-1)
        for part in ("weight", "bias"):
            ours[f"{block}.output.{part}"] = state[f"{layer}.output_linear.0.{part}"].squeeze(-1)
            ours[f"{block}.norm.{part}"] = state[f"{_PREDICTOR}.norms.{name}.{part}"]
        kernel = _kernel(state, f"{layer}.kernel.kernel")
        ours |= {f"{block}.kernel.{part}": tensor for part, tensor in kernel.items()}
    return ours


def _numbers(state: State, prefix: str) -> set[str]:
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return {match[1] for key in state if (match := pattern.match(key))}


def _kernel(state: State, prefix: str) -> dict[str, Tensor]:
    tensors = {"log_step": state[f"{prefix}.log_dt"]}
    for theirs, name in _IN_KERNEL.items():
        values = state[f"{prefix}.{theirs}"]
        tensors[name] = values.reshape(-1, *values.shape[-2:])[0].clone()  # equal in all channels
    tokens = 2 * (len(state[f"{prefix}.omega"]) - 1)
    return tensors | {"C": _without_correction(state[f"{prefix}.C"], tensors, tokens)}


def _without_correction(c: Tensor, kernel: State, tokens: int) -> Tensor:
    """C from ``C (I - A_bar**tokens)``, computed in double precision."""
    values, p = (
        torch.cat([half, half.conj()])
        for half in (_complex(kernel["eigenvalues"]), _complex(kernel["correction"]))
    )
    a = torch.diag(values) - torch.outer(p, p.conj())
    identity = torch.eye(len(values), dtype=a.dtype)
    rate = (2.0 / kernel["log_step"].double().exp())[:, None, None] * identity
    a_bar = torch.linalg.solve(rate - a, rate + a)  # the bilinear rule
    factor = identity - torch.linalg.matrix_power(a_bar, tokens)
    half = _complex(c)
    stored = torch.cat([half, half.conj()], dim=-1)  # (directions, channels, state)
    whole = torch.linalg.solve(factor.mT, stored.unsqueeze(-1)).squeeze(-1)
    return torch.view_as_real(whole[..., : half.shape[-1]]).float()


def _complex(tensor: Tensor) -> Tensor:
    return torch.view_as_complex(tensor.double().contiguous())


ENCODER = Naming(signature="s4_layers.0.kernel.kernel.C", tensors=_tensors)
