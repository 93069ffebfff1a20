"""A convolution over time that is right in every precision.

On processors with AMX, bf16 convolutions whose kernel is a multiple of 8 and that have an even
number of 4 to 14 channels in a group are wrong by their own size (torch 2.13). Those are computed
in float32, as are all of fewer than 16 channels, which cost little.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv1d

__all__ = ["convolve", "in_bf16_on_cpu"]

FEW = 16


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv1d`, without the defect; autocast or not."""
    if weight.shape[1] < FEW and in_bf16_on_cpu(x):
        with torch.autocast("cpu", enabled=False):
            wide = None if bias is None else bias.float()
            out = conv1d(x.float(), weight.float(), wide, stride, padding, groups=groups)
            return out.to(x.dtype)
    return conv1d(x, weight, bias, stride, padding, groups=groups)


def in_bf16_on_cpu(x: Tensor) -> bool:
    """Whether a convolution of this input would be computed in bf16 on a CPU."""
    return x.device.type == "cpu" and (
        x.dtype is torch.bfloat16 or torch.is_autocast_enabled("cpu")
    )
