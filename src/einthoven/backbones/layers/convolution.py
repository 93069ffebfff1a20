"""Convolutions over time with batch norm, in the memory layout that processors like best.

Signals are images of height one, (batch, channels, 1, samples), whose channels lie next to each
other in memory. Convolution, norm and pooling all read that layout as it is, while of (batch,
channels, samples) every convolution makes a reordered copy of its input and of its output.

`convolve` is right in every precision. On processors with AMX, bf16 convolutions whose kernel is a
multiple of 8 and that have an even number of 4 to 14 channels in a group are wrong by their own
size (torch 2.13). Those are computed in float32, as are all of fewer than 16 channels, which cost
little.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv2d, pad

NARROW = 16  # channels


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
    if weight.shape[1] < NARROW and in_bf16_on_cpu(x):
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


def as_image(x: Tensor) -> Tensor:
    """Map (batch, channels, samples) to (batch, channels, 1, samples), channels last in memory."""
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


def as_tokens(x: Tensor) -> Tensor:
    """Map (batch, channels, 1, samples) to (batch, samples, channels), without a copy."""
    return x.squeeze(2).transpose(1, 2)


def convolution(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> nn.Conv2d:
    """A convolution over time without bias, padded by ``(kernel - 1) // 2`` zeros at both ends.

    An odd kernel keeps ``ceil(samples / stride)`` samples; an even one loses a sample.
    """
    return nn.Conv2d(
        inputs,
        outputs,
        (1, kernel),
        stride=(1, stride),
        padding=(0, (kernel - 1) // 2),
        bias=False,
    )


class ConvNorm(nn.Module):
    """A convolution over time, batch norm, and ReLU where there is one.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    kernel, stride : int
        See `convolution`.
    relu : bool
        Whether ReLU follows.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.conv = convolution(inputs, outputs, kernel, stride=stride)
        self.norm = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, 1, samples) to (batch, outputs, 1, samples)."""
        h: Tensor = self.norm(_convolved(self.conv, x))
        return h.relu_() if self.relu else h  # in place: the norm's gradient needs its input only


def _convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution, computed so that it is right in bf16 too.

    As in `convolve`, but faster for a single layer: a kernel that is one
    tap of zeros longer gives the same sums, and the right ones.
    """
    if conv.kernel_size[1] % 8 or conv.in_channels > 15 or not in_bf16_on_cpu(x):
        out: Tensor = conv(x)
        return out
    weight, x = pad(conv.weight, (0, 1)), pad(x, (0, 1))
    return conv2d(x, weight, None, stride=conv.stride, padding=(0, (conv.kernel_size[1] - 1) // 2))
