"""Tensor names in ECG-CPC's public checkpoint, a Lightning file (figshare 30192604).

The checkpoint stores C multiplied by ``I - A_bar**L``, L being the number of tokens that its
kernels were built for (Gu et al., ICLR 2022, section 3). `encoder_state` removes the factor.
Eigenvalues, B and P are equal in all channels; they are read and not recomputed, because the signs
of eigenvectors differ between LAPACK builds and C depends on them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from einthoven.errors import WeightsError

__all__ = ["encoder_state"]

_STEM, _PREDICTOR = "ts_encoder.encoder.layers", "ts_encoder.predictor.predictor"
_IN_KERNEL = {"w": "eigenvalues", "B": "input_weights", "P": "correction"}


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder in the names of `einthoven.backbones.s4.S4`.

    Raises
    ------
    WeightsError
        If a tensor is missing.
    """
    ours: dict[str, Tensor] = {}
    for name in _numbered(state, _STEM):
        prefix = f"{_STEM}.{name}"
        ours[f"stem.{name}.weight"] = _tensor(state, f"{prefix}.0.weight")
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            ours[f"stem.{name}.norm.{part}"] = _tensor(state, f"{prefix}.1.{part}")
    for name in _numbered(state, f"{_PREDICTOR}.s4_layers"):
        layer, block = f"{_PREDICTOR}.s4_layers.{name}", f"blocks.{name}"
        ours[f"{block}.D"] = _tensor(state, f"{layer}.D").reshape(-1)
        for part in ("weight", "bias"):
            projection = _tensor(state, f"{layer}.output_linear.0.{part}")
            ours[f"{block}.output.{part}"] = projection.squeeze(-1)
            ours[f"{block}.norm.{part}"] = _tensor(state, f"{_PREDICTOR}.norms.{name}.{part}")
        kernel = _kernel(state, f"{layer}.kernel.kernel")
        ours |= {f"{block}.kernel.{part}": tensor for part, tensor in kernel.items()}
    return ours


def _kernel(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    tensors = {"log_step": _tensor(state, f"{prefix}.log_dt")}
    for theirs, name in _IN_KERNEL.items():
        values = _tensor(state, f"{prefix}.{theirs}")
        tensors[name] = values.reshape(-1, *values.shape[-2:])[0].clone()  # equal in all channels
    tokens = 2 * (len(_tensor(state, f"{prefix}.omega")) - 1)
    return tensors | {"C": _without_correction(_tensor(state, f"{prefix}.C"), tensors, tokens)}


def _without_correction(c: Tensor, kernel: Mapping[str, Tensor], tokens: int) -> Tensor:
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


def _numbered(state: Mapping[str, Tensor], prefix: str) -> list[str]:
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    numbers = {int(match[1]) for key in state if (match := pattern.match(key))}
    if not numbers:
        raise WeightsError(
            f"no tensors of ECG-CPC: {prefix}.* is missing", remedy="load the authors' checkpoint"
        )
    return [str(number) for number in sorted(numbers)]


def _tensor(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise WeightsError(f"{name} is missing", remedy="load the authors' complete checkpoint")
    return state[name]
