"""Tokens of a batch that several processes share."""

from __future__ import annotations

import torch
from torch import Tensor

from einthoven.backbones.layers.shared_batch_norm import differentiable_sum
from einthoven.signals.random import share_of


def batch_places(records: int, generator: torch.Generator | None) -> Tensor:
    """Place in the whole batch of each of this process's records, (records,), on the CPU."""
    rank, world = share_of(generator)
    return rank + world * torch.arange(records)


def tokens_of_batch(z: Tensor, index: Tensor, generator: torch.Generator | None) -> Tensor:
    """Pick tokens from the records of all processes; gradients go back to their owners.

    Parameters
    ----------
    z : Tensor, shape (records, tokens, dim)
        Those of this process's records.
    index : Tensor, shape (count,)
        Numbers in the whole batch, ``record * tokens + token``; the same in every process.
    generator : torch.Generator or None
        What the index was drawn from; it holds the number of processes and the rank.

    Returns
    -------
    Tensor, shape (count, dim)
        The same in every process.
    """
    rank, world = share_of(generator)
    if world == 1:
        return z.flatten(0, 1)[index]
    tokens = z.shape[1]
    record = index // tokens
    is_local = (record % world == rank).unsqueeze(-1)
    local = z.flatten(0, 1)[record // world * tokens + index % tokens]
    # One process has the token and the others add zeros, so that the sum is exact.
    return differentiable_sum(torch.where(is_local, local.float(), 0.0)).to(z.dtype)


def mean_over_processes(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Mean of a tensor over the processes that share a batch, with gradients."""
    world = share_of(generator)[1]
    if world == 1:
        return x
    return differentiable_sum(x) / world


@torch.no_grad()
def sum_over_processes(x: Tensor) -> Tensor:
    """Sum of a tensor over all processes, without gradients; the tensor itself in a single one."""
    if not _is_distributed():
        return x
    return differentiable_sum(x)


@torch.no_grad()
def records_of_batch(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Rows of all processes, in the order of the batch; (records, ...), without gradients."""
    world = share_of(generator)[1]
    if world == 1 or not _is_distributed():
        return x
    parts = [torch.empty_like(x) for _ in range(world)]
    torch.distributed.all_gather(parts, x.contiguous())
    return torch.stack(parts, dim=1).flatten(0, 1)


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
