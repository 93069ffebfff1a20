"""What compiled layers share. Needs numba (`pip install einthoven[fast]`)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import torch

__all__ = ["compiled", "in_threads"]


def compiled(*, reassociate: bool = False) -> Callable[[Callable[..., None]], Any]:
    """Compile a function when it is first called, and keep the result on disk where possible.

    Parameters
    ----------
    reassociate : bool
        Whether sums may be taken in another order, so that they fill the processor's registers,
        and products and sums be fused. Otherwise every operation is rounded as it is written.
    """
    fast = {"reassoc", "contract", "nsz"} if reassociate else False
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": fast}
    njit: Any = numba.njit

    def decorate(function: Callable[..., None]) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # numba found no folder that could hold its cache
            return njit(**options)(function)

    return decorate


def in_threads(work: Callable[[int, int], None], count: int) -> None:
    """Share `count` things out among as many threads as PyTorch uses: ``work(first, stop)``."""
    threads = max(1, min(torch.get_num_threads(), count))
    bounds = [count * i // threads for i in range(threads + 1)]
    if threads == 1:
        work(*bounds)
        return
    # Threads of our own, as numba's default pool aborts when two threads enter it.
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work, *bounds[i : i + 2]) for i in range(1, threads)]
        work(*bounds[:2])
        for other in others:
            other.result()
