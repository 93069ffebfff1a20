"""Worker processes that end with the command that started them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import TypeVar

from einthoven.errors import EinthovenError

MOST_THREADS = max(256, os.cpu_count() or 1)
"""Threads that may be requested; far more of them end the process."""

_MOST_PROCESSES = 64

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def mapped(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, chunk: int = 1
) -> Iterator[Iterator[Result]]:
    """Apply a function to items in fresh processes, or in this one if one worker is enough.

    Fresh processes import the calling script, which needs ``if __name__ == "__main__"``; forking a
    process that has threads, such as PyTorch's, can hang.

    Parameters
    ----------
    function : callable
        A function of a module, or a partial of one.
    items : sequence
    workers : int
        Number of processes; no more than there are items or, from 64 on, processors.
    chunk : int
        Number of items that a process receives at a time.

    Yields
    ------
    Iterator
        Results in the order of the items. If the block raises, as on Ctrl-C, the processes are
        ended and not waited for.

    Raises
    ------
    EinthovenError
        If a process is killed.
    """
    if workers == 1 or len(items) <= chunk:
        yield map(function, items)
        return
    before = set(active_children())
    count = min(workers, -(-len(items) // chunk), max(_MOST_PROCESSES, os.cpu_count() or 1))
    pool = ProcessPoolExecutor(count, mp_context=get_context("spawn"))
    try:
        with _ignored_interrupts():  # inherited: Ctrl-C reaches every process of a terminal
            # Not `pool.map`, which cancels; a broken pool then prints an InvalidStateError.
            futures = [
                pool.submit(_applied, function, items[start : start + chunk])
                for start in range(0, len(items), chunk)
            ]
        yield (result for future in futures for result in future.result())
        pool.shutdown()
    except BaseException as error:
        for process in set(active_children()) - before:
            process.terminate()
        pool.shutdown()
        if isinstance(error, BrokenProcessPool):
            raise EinthovenError(
                "a process ended without a result; there may not be enough memory",
                remedy="use fewer processes (`workers=...`)",
            ) from error
        raise


def _applied(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return list(map(function, items))


@contextmanager
def _ignored_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
