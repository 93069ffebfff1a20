"""Random numbers as a function of a key, independent of the number of processes.

A record of a batch has the same draws as if one process had the whole batch: every process draws
for all records of the batch from the same key and keeps its own rows. Drawing the rows of other
processes costs little and needs no communication.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


class ShareGenerator(torch.Generator):
    """CPU generator that holds the share of this process in a batch.

    It is used like any generator. `uniform` and `integers` draw for the whole batch and return the
    rows of this process.

    Parameters
    ----------
    *key : int
        Key of the seed, as in `generator_for`.
    rank, world : int
        This process has the records rank, rank + world, ... of the batch.
    """

    rank: int
    world: int

    def __new__(cls, *key: int, rank: int = 0, world: int = 1) -> ShareGenerator:
        generator: Any = super().__new__(cls)
        generator.manual_seed(_seed_of(*key))
        generator.rank, generator.world = rank, world
        return generator  # type: ignore[no-any-return]

    def __init__(self, *key: int, rank: int = 0, world: int = 1) -> None:
        pass  # the C type takes its arguments in __new__


def generator_for(*key: int) -> torch.Generator:
    """Return a torch generator whose state depends on the key alone."""
    return torch.Generator().manual_seed(_seed_of(*key))


def share_of(generator: torch.Generator | None) -> tuple[int, int]:
    """Rank and number of processes of a generator; 0 and 1 for a plain one."""
    return getattr(generator, "rank", 0), getattr(generator, "world", 1)


def uniform(
    shape: tuple[int, ...],
    *,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Draw uniform numbers of [0, 1), one row a record; shape is (records of this process, ...).

    Without a generator they are drawn on the device.
    """
    rank, world = share_of(generator)
    source = device if generator is None else generator.device
    draws = torch.rand((shape[0] * world, *shape[1:]), generator=generator, device=source)
    return draws[rank::world].to(device or draws.device)


def integers(
    high: int, shape: tuple[int, ...], *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw integers of 0 ... high - 1 on the CPU, one row a record, as `uniform`."""
    rank, world = share_of(generator)
    return torch.randint(high, (shape[0] * world, *shape[1:]), generator=generator)[rank::world]


def _seed_of(*key: int) -> int:
    state = np.random.SeedSequence(key).generate_state(2, np.uint32)
    return int(state[0]) << 31 | int(state[1]) >> 1
