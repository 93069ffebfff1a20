"""Net1D: the pre-activation residual blocks of ECGFounder.

A branch is a pointwise, a grouped and a pointwise convolution with squeeze-and-excitation behind
them; the shortcut has no parameters. Nothing stands behind the addition. Convolutions are "same":
their output has ``ceil(samples / stride)`` samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import max_pool1d, pad, silu

from einthoven.backbones.layers.convolve import convolve
from einthoven.backbones.layers.stochastic_depth import StochasticDepth

__all__ = ["Bottleneck", "PreActivation", "SqueezeExcitation", "Stem", "halve", "same_conv"]


def same_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, groups: int
) -> Tensor:
    """Convolve (batch, channels, samples) to ``ceil(samples / stride)`` samples.

    Zeros are added at both ends, one more at the right where their number is odd. The convolution
    adds equal numbers by itself; the odd one costs a column that is dropped (stride 1, nearly every
    block) or, rarely, a padded copy.
    """
    samples, kernel = x.shape[-1], weight.shape[-1]
    total = max(0, (math.ceil(samples / stride) - 1) * stride + kernel - samples)
    left, right = total // 2, total - total // 2
    if left == right:
        return convolve(x, weight, bias, stride=stride, padding=left, groups=groups)
    if stride == 1:
        return convolve(x, weight, bias, padding=right, groups=groups)[..., 1:]
    return convolve(pad(x, (0, 1)), weight, bias, stride=stride, padding=left, groups=groups)


def halve(x: Tensor) -> Tensor:
    """Max-pool pairs of samples; a single last one is compared with zero, as in the release."""
    return max_pool1d(pad(x, (0, 1)) if x.shape[-1] % 2 else x, 2)


class Stem(nn.Module):
    """The strided first convolution, restricted to the rows that an input has."""

    def __init__(self, channels: int, width: int, kernel: int, *, use_bn: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, width, kernel, stride=2)
        self.norm = nn.BatchNorm1d(width) if use_bn else nn.Identity()

    def forward(self, x: Tensor, rows: Sequence[int]) -> Tensor:
        """(batch, len(rows), samples) to (batch, width, half the samples)."""
        weight = self.conv.weight
        if list(rows) != list(range(weight.shape[1])):
            weight = weight[:, list(rows)]
        h = same_conv(x, weight, self.conv.bias, stride=2, groups=1)
        # The stream that the blocks add to has the parameters' precision, whatever the autocast:
        # there is no norm to take up the rounding of twenty sums.
        return silu(self.norm(h.to(self.conv.weight.dtype)))


class PreActivation(nn.Module):
    """Batch norm where there is one, Swish, dropout: what stands in front of a convolution."""

    def __init__(self, width: int, *, use_bn: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width) if use_bn else nn.Identity()
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, samples) in and out."""
        out: Tensor = self.dropout(silu(self.norm(x)))
        return out


class SqueezeExcitation(nn.Module):
    """Scale every channel by a gate between 0 and 1 that all channels' means over time decide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, width // 2)
        self.fc2 = nn.Linear(width // 2, width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, samples) in and out."""
        gate: Tensor = self.fc2(silu(self.fc1(x.mean(-1)))).sigmoid()
        return x * gate.unsqueeze(-1)


class Bottleneck(nn.Module):
    """One residual block; the branch is as wide inside as outside.

    Parameters
    ----------
    inputs, width : int
        Channels that come in and go out.
    groups, kernel : int
        Of the grouped convolution.
    stride : int
        1, or 2 to halve the length.
    activated : bool
        Whether the input is already activated, as it is behind the stem.
    use_bn : bool
        Whether there is batch norm.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        groups: int,
        kernel: int,
        stride: int,
        activated: bool,
        use_bn: bool,
    ) -> None:
        super().__init__()
        self.added = width - inputs
        self.stride = stride
        self.act1 = nn.Identity() if activated else PreActivation(inputs, use_bn=use_bn)
        self.conv1 = nn.Conv1d(inputs, width, 1)
        self.act2 = PreActivation(width, use_bn=use_bn)
        self.conv2 = nn.Conv1d(width, width, kernel, stride=stride, groups=groups)
        self.act3 = PreActivation(width, use_bn=use_bn)
        self.conv3 = nn.Conv1d(width, width, 1)
        self.se = SqueezeExcitation(width)
        self.drop_path = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, samples) to (batch, width, samples / stride)."""
        out: Tensor = self.drop_path(x, self._branch, shortcut=self._shortcut(x))
        return out

    def _branch(self, x: Tensor) -> Tensor:
        conv = self.conv2
        h = self.act2(self.conv1(self.act1(x)))
        h = same_conv(h, conv.weight, conv.bias, stride=self.stride, groups=conv.groups)
        out: Tensor = self.se(self.conv3(self.act3(h)))
        return out

    def _shortcut(self, x: Tensor) -> Tensor:
        x = halve(x) if self.stride == 2 else x
        # New channels are zero, half of them in front of the old ones.
        before = self.added // 2
        return pad(x, (0, 0, before, self.added - before)) if self.added else x
