"""Several processes on one machine: each takes cells until none is left."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

from einthoven.errors import EinthovenError, ReproduceError
from einthoven.reproduce.folders import Request
from einthoven.reproduce.grid import Cell
from einthoven.reproduce.plan import check
from einthoven.reproduce.run import Outcome, Runner, Tell


def run_in_jobs(request: Request, cells: Sequence[Cell], *, jobs: int) -> Outcome:
    """Run cells in `jobs` processes, which share the machine's processors.

    Each says on stderr, in whole lines, what it begins and what is done.

    Raises
    ------
    ReproduceError
        When a process stopped for another reason than a refused cell; what it was at goes on
        with the same command. Before that, when cells or the page after them could only fail.
    """
    check(request, cells)  # once, rather than in every process
    threads = request.threads or max(1, (os.cpu_count() or 1) // jobs)
    each = replace(request, threads=threads)
    context = multiprocessing.get_context("spawn")
    workers = []
    for job in range(1, jobs + 1):
        receiver, sender = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(each, list(cells), sender, job))
        worker.start()
        sender.close()  # so that the end of the worker is the end of its pipe
        workers.append((worker, receiver))
    found: list[Outcome] = []
    try:
        for worker, receiver in workers:
            with suppress(EOFError):
                found.append(receiver.recv())
            worker.join()
    finally:  # an interrupted command leaves nobody behind
        for worker, _ in workers:
            worker.terminate()
    if len(found) < jobs:
        raise ReproduceError(
            f"{jobs - len(found)} of {jobs} processes stopped before their end",
            remedy="look above for the reason; the same command goes on",
        )
    return _joined(found, cells)


def _joined(found: Sequence[Outcome], cells: Sequence[Cell]) -> Outcome:
    # What one process left to another is done, or failed, there.
    done = {key for each in found for key in each.done}
    failed = {key: why for each in found for key, why in each.failed.items() if key not in done}
    keys = [cell.key for cell in cells]
    return Outcome(
        done=[key for key in keys if key in done],
        failed=failed,
        elsewhere=[key for key in keys if key not in done and key not in failed],
    )


def _work(request: Request, cells: list[Cell], sender: Connection, job: int) -> None:
    def tell(line: str) -> None:
        print(f"[{job}] {line}", file=sys.stderr, flush=True)

    try:
        sender.send(Runner(request, Lines(tell), tell=tell).run(cells))
    except EinthovenError as error:
        tell(str(error))
        sys.exit(1)


@dataclass
class Lines:
    """Progress as one line for every epoch of fine-tuning or pretraining."""

    tell: Tell

    def __call__(
        self, task: str, done: int, total: int, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Write the numbers of an epoch; those of a probe come too fast to be read."""
        if metrics is None or "train_loss" not in metrics or task.startswith("stage 1"):
            return
        named = {"macro_auroc": "val AUROC", "validation_loss": "val loss"}
        values = "".join(f", {named[key]} {metrics[key]:.4f}" for key in named if key in metrics)
        self.tell(f"{task}: epoch {metrics['epoch']}, loss {metrics['train_loss']:.4f}{values}")
