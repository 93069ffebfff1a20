"""Progress bars, on stderr so that stdout stays clean for results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Among several processes (torchrun sets RANK) only the first one talks.
console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")


def bars() -> Progress:
    """A progress display in einthoven's form."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


@contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that reports (done, total)."""
    with bars() as display:
        task = display.add_task(description, total=None, note="")

        def update(done: int, total: int) -> None:
            display.update(task, completed=done, total=total)

        yield update


class TrainingBars:
    """A `Watcher` that draws a bar a stage, and a line an epoch where nobody watches."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._task: TaskID | None = None
        self._steps = 1
        self._note = ""

    def began(self, stage: str, epochs: int, steps: int) -> None:
        """Open the stage's bar."""
        self._steps, self._note = steps, ""
        self._task = self._display.add_task(stage, total=epochs * steps, note="")

    def stepped(self, epoch: int, step: int, loss: float, lr: float) -> None:
        """Move the bar."""
        if self._task is not None:
            note = f"loss {loss:.4f} {self._note}" if loss else ""
            self._display.update(self._task, completed=epoch * self._steps + step, note=note)

    def epoch_ended(self, entry: dict[str, Any]) -> None:
        """Show the epoch's numbers."""
        names = {"macro_auroc": "val AUROC", "validation_loss": "val loss"}
        self._note = " ".join(f"{names[k]} {entry[k]:.4f}" for k in names if k in entry)
        if not self._display.console.is_terminal and entry.get("samples_per_second", 0) < 20_000:
            self._display.console.print(
                f"epoch {entry['epoch']}: train loss {entry['train_loss']:.4f} {self._note} "
                f"({entry['samples_per_second']:.0f} samples/s)"
            )

    def ended(self, stage: str) -> None:
        """Fill the bar."""
        if self._task is not None:
            total = self._display.tasks[self._task].total
            self._display.update(self._task, completed=total or 0)


@contextmanager
def training() -> Iterator[tuple[TrainingBars, Callable[[str, int, int], None]]]:
    """A watcher for training and a `(what, done, total)` callback for what follows it."""
    with bars() as display:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = display.add_task(what, total=total, note="")
            display.update(tasks[what], completed=done, total=total)

        yield TrainingBars(display), progress
