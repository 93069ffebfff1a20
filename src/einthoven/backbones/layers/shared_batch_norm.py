"""Batch norm whose batch is that of all processes.

`torch.nn.SyncBatchNorm` does this on a GPU and refuses tensors on a CPU; this one does not ask
where they are. Networks are written with PyTorch's own batch norms, and training in several
processes turns these into shared ones for as long as it lasts (`shared_batch_norms`): one process
costs nothing, and a network that is saved, copied or used afterwards has ordinary layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["SharedBatchNorm", "shared_batch_norms"]

_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class SharedBatchNorm(_BatchNorm):
    """Batch norm over (batch, channels, ...) of all processes of the default group.

    Parameters, buffers and their names are those of `nn.BatchNorm1d`. In training every process
    has to call it as often as every other one. Their batches may differ in size and even be
    empty, and come out as one process would have normalised all of them together; so do the
    gradients, once they are averaged over processes, and the running statistics, which are equal
    in all of them. In eval mode, and where no group of processes is there, it is PyTorch's own.

    Notes
    -----
    A process sends one message in the forward pass, its count and each channel's mean and sum of
    squared differences from that mean, which are combined as in Chan, Golub and LeVeque,
    "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979: a difference
    of large sums would lose what matters. And one in the backward pass, two sums a channel.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; the shape, precision and memory format of the input stay."""
        if not self.training or _processes() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        with torch.no_grad():
            mean, variance, count = _statistics(input)
            self._track(mean, variance, count)
        given = (input, self.weight, self.bias, mean, variance, count, self.eps)
        out: Tensor = _Normalise.apply(*given)  # type: ignore[no-untyped-call]
        return out

    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics as PyTorch does: the variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None:
            return
        share = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if share is None:  # the mean over all batches
                share = 1.0 / float(self.num_batches_tracked)
        share = 0.0 if share is None else share
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (batch, channels, ...), got {input.dim()} dimensions")


@contextmanager
def shared_batch_norms(model: nn.Module, *, processes: int) -> Iterator[None]:
    """Let every batch norm of a model be a shared one, within this context.

    Parameters
    ----------
    model : nn.Module
        Its layers stay the same objects with the same tensors: only their class changes, so that
        optimisers, hooks and whoever else holds a layer need not be told.
    processes : int
        With one nothing is changed.
    """
    classes: list[tuple[nn.Module, Any]] = []
    if processes > 1:
        classes = [(part, type(part)) for part in model.modules() if type(part) in _PLAIN]
    try:
        for part, _ in classes:
            part.__class__ = SharedBatchNorm
        yield
    finally:
        for part, before in classes:
            part.__class__ = before


def _processes() -> int:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if there else 1


def _axes(x: Tensor) -> list[int]:
    """All but the channels'."""
    return [axis for axis in range(x.dim()) if axis != 1]


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What a half-precision batch is computed in."""
    return torch.promote_types(dtype, torch.float32)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel over all processes, float64, and their count."""
    channels = x.shape[1]
    mine = x.new_zeros(2 * channels + 1, dtype=torch.float64)
    count = x.numel() // max(channels, 1)
    if count:  # an empty batch has no mean, and counts for nothing
        variance, mean = torch.var_mean(x.to(_wide(x.dtype)), _axes(x), correction=0)
        mine[:channels], mine[channels:-1], mine[-1] = mean, variance.double() * count, count
    rows = [torch.empty_like(mine) for _ in range(_processes())]
    torch.distributed.all_gather(rows, mine)
    everyone = torch.stack(rows)
    means, squares, counts = everyone[:, :channels], everyone[:, channels:-1], everyone[:, -1:]
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    variance = (squares + counts * (means - mean).square()).sum(0) / total
    return mean, variance, total


class _Normalise(torch.autograd.Function):
    """What batch norm makes of x; the gradient knows that x is part of the statistics."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        count: Tensor,
        eps: float,
    ) -> Tensor:
        wide = _wide(x.dtype)
        scale = None if weight is None else weight.to(wide)
        shift = None if bias is None else bias.to(wide)
        inverse = (variance + eps).rsqrt().to(wide)
        ctx.save_for_backward(x, weight, mean.to(wide), inverse, count.to(wide))
        # PyTorch's own normalisation with known statistics: one pass, in the input's layout.
        return batch_norm(x, mean.to(wide), variance.to(wide), scale, shift, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        mean, inverse = mean.view(shape), inverse.view(shape)
        slope = gradient.to(inverse.dtype)
        unit = (x.to(inverse.dtype) - mean) * inverse
        along = (slope * unit).sum(_axes(x))  # the weight's gradient: of this process's batch,
        across = slope.sum(_axes(x))  # as the bias's; whoever trains averages over processes
        inner = None
        if wanted[0]:
            sums = torch.stack([across, along])
            torch.distributed.all_reduce(sums)
            across_all, along_all = (sums / count).view(2, *shape)
            inner = (slope - across_all - unit * along_all) * inverse
            inner = (inner if weight is None else inner * weight.view(shape)).to(x.dtype)
        return (
            inner,
            along.to(weight.dtype) if wanted[1] else None,
            across.to(weight.dtype) if wanted[2] else None,
            *(None,) * 4,
        )
