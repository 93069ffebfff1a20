"""Batch norm over the batches of all processes, on CPUs and GPUs.

`torch.nn.SyncBatchNorm` refuses tensors on a CPU. Networks are written with PyTorch's batch norms;
`shared_batch_norms` turns them into shared ones while several processes train together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradient)


def differentiable_sum(x: Tensor) -> Tensor:
    """Sum over the processes of the default group; the gradient is the sum of theirs.

    (`torch.distributed.nn.functional.all_reduce`, which does the same, is deprecated.)
    """
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


class SharedBatchNorm(_BatchNorm):
    """Batch norm over (batch, channels, ...) of all processes of the default group.

    Batches may differ in size and be empty; outputs, gradients averaged over processes, and running
    statistics are those of one process with the joint batch. In eval mode, and without a process
    group, this is PyTorch's batch norm.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; the shape, precision and memory format of the input stay."""
        group = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not self.training or not group or torch.distributed.get_world_size() == 1:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        mean, variance, count = _joint_statistics(x)
        with torch.no_grad():
            self._update(mean, variance * count / (count - 1).clamp(min=1))
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        scale = (variance + self.eps).rsqrt().to(x.dtype)
        out = (x - mean.to(x.dtype).view(shape)) * scale.view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    def _update(self, mean: Tensor, unbiased: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:  # the mean over all batches
            momentum = 1.0 / float(self.num_batches_tracked or 1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (batch, channels, ...), got {input.dim()} dimensions")


def _joint_statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel, float64, and the count, over all processes."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    size = x.numel() // x.shape[1]
    # An empty batch has no mean; zeros that depend on it keep the collective calls in step.
    variance, mean = torch.var_mean(x, axes, correction=0) if size else (x.sum(axes), x.sum(axes))
    mean, variance, count = mean.double(), variance.double(), mean.new_tensor(size).double()
    total, sums = differentiable_sum(count), differentiable_sum(mean * count)
    joint = sums / total
    spread = differentiable_sum((variance + (mean - joint).square()) * count)
    return joint, spread / total, total


@contextmanager
def shared_batch_norms(model: nn.Module, *, processes: int) -> Iterator[None]:
    """Share every batch norm of a model between processes, within this context.

    Layers keep their identity and tensors; only their class changes, so optimisers and hooks stay
    valid. With one process nothing changes.
    """
    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    classes: list[tuple[nn.Module, Any]] = []
    if processes > 1:
        classes = [(part, type(part)) for part in model.modules() if type(part) in plain]
    try:
        for part, _ in classes:
            part.__class__ = SharedBatchNorm
        yield
    finally:
        for part, before in classes:
            part.__class__ = before
