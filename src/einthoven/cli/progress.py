"""Output on the terminal: results on stdout; notes, warnings and progress bars on stderr."""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

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

from einthoven import progress

if TYPE_CHECKING:
    from rich.table import Table

# Among several processes (torchrun sets RANK) only the first one prints.
console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")
LOG_SECONDS = 30.0
_UNLOGGED_SPEED = 20_000  # samples a second: epochs of a cached probe would fill the log
_METRICS = {
    "macro_auroc": "val AUROC",
    "validation_loss": "val loss",
    "validation_accuracy": "val accuracy",
}


def note(text: str, *, style: str | None = None) -> None:
    """Print a line to stderr. Square brackets in it are printed, not read as markup."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Print a table to stdout."""
    Console().print(table)


def new_table(title: str, columns: Sequence[tuple[str, Any]], *, caption: str = "") -> Table:
    """Make a table whose title and caption are plain text.

    Parameters
    ----------
    title : str
    columns : sequence of (name, justification)
        Names of the columns, justified `left` or `right`.
    caption : str
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title),
        title_justify="left",
        caption=Text(caption) if caption else None,
        caption_justify="left",
    )
    for name, justify in columns:
        table.add_column(name, justify=justify)
    return table


def add_row(table: Table, cells: Sequence[str], **options: Any) -> None:
    """Add a row of plain text: labels and file names may contain square brackets."""
    from rich.text import Text

    table.add_row(*map(Text, cells), **options)


def bars() -> Progress:
    """A display of progress bars."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )


@contextmanager
def progress_bar(description: str) -> Iterator[progress.Progress]:
    """A bar for one task."""
    with bars() as display:
        bar = display.add_task(description, total=None, note="")

        def update(
            task: str, done: int, total: int, metrics: Mapping[str, float] | None = None, /
        ) -> None:
            display.update(bar, completed=done, total=total)

        yield update


class Pace:
    """Steps a second over the last half minute, and the time left at this pace.

    A resumed run starts counting anew: steps of earlier runs are not part of its pace.
    """

    def __init__(self, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total, clock
        self._start = clock()
        self._history: deque[tuple[float, int]] = deque()

    def reach(self, done: int) -> None:
        """Record that `done` steps of the total are finished."""
        now = self._clock()
        if not self._history:
            self._history.append((self._start, done - 1))
        self._history.append((now, done))
        while len(self._history) > 2 and now - self._history[1][0] > LOG_SECONDS:
            self._history.popleft()

    @property
    def per_second(self) -> float:
        """Steps a second; 0 before the first step."""
        if not self._history:
            return 0.0
        (since, before), (now, done) = self._history[0], self._history[-1]
        return (done - before) / (now - since) if now > since else 0.0

    @property
    def left(self) -> str:
        """Time left, such as `0:12:05`; `?` before the first step."""
        if not self.per_second:
            return "?"
        seconds = (self._total - self._history[-1][1]) / self.per_second
        return str(timedelta(seconds=round(seconds)))


class Bars:
    """Progress as one bar a task.

    If stderr is not a terminal, training writes a line every epoch and, within long epochs, every
    half minute.

    Parameters
    ----------
    display : rich.progress.Progress
    keep : bool
        Whether the bars of finished tasks stay.
    """

    def __init__(
        self,
        display: Progress,
        *,
        keep: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._display, self._keep, self._clock = display, keep, clock
        self._task, self._bar, self._done = "", TaskID(0), 0
        self._note = ""
        self._pace = Pace(1, clock=clock)
        self._written = clock()

    def __call__(
        self, task: str, done: int, total: int, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Move the bar of a task; show its metrics."""
        if task != self._task or done < self._done:
            self._begin(task, done, total)
        self._done = done
        if metrics and "train_loss" in metrics:
            self._end_epoch(task, metrics)
        elif metrics and "loss" in metrics:
            self._step(task, done, total, metrics)
        self._display.update(
            self._bar, completed=done, visible=self._keep or done < total, refresh=False
        )

    def _begin(self, task: str, done: int, total: int) -> None:
        self._task, self._note = task, ""
        self._pace, self._written = Pace(total, clock=self._clock), self._clock()
        self._bar = self._display.add_task(task, total=total, completed=done - 1, note="")

    def _step(self, task: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        self._pace.reach(done)
        loss = f"loss {metrics['loss']:.4f}"
        self._display.update(self._bar, note=f"{loss} {self._speed} {self._note}".rstrip())
        if self._is_log and self._clock() - self._written >= LOG_SECONDS:
            self._write(
                f"{task}: epoch {metrics['epoch']}, step {done} of {total}: {loss} "
                f"({self._speed}, {self._pace.left} left)"
            )

    def _end_epoch(self, task: str, metrics: Mapping[str, float]) -> None:
        self._note = " ".join(f"{_METRICS[k]} {metrics[k]:.4f}" for k in _METRICS if k in metrics)
        if self._is_log and metrics["samples_per_second"] < _UNLOGGED_SPEED:
            speed = f"{metrics['samples_per_second']:.0f} samples/s, {self._pace.left} left"
            self._write(
                f"{task}: epoch {metrics['epoch']}: train loss {metrics['train_loss']:.4f} "
                f"{self._note} ({speed})"
            )

    @property
    def _is_log(self) -> bool:
        return not self._display.console.is_terminal

    def _write(self, line: str) -> None:
        self._display.console.print(line, highlight=False, markup=False, soft_wrap=True)
        self._written = self._clock()

    @property
    def _speed(self) -> str:
        return f"{self._pace.per_second:.3g} steps/s"


@contextmanager
def training(*, keep: bool = True) -> Iterator[Bars]:
    """Progress of training and of what follows it."""
    with bars() as display:
        yield Bars(display, keep=keep)


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Print warnings as one line each, without their place in the code."""

    def show(message: Warning | str, *details: Any, **more: Any) -> None:
        note(f"Warning: {message}", style="yellow")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
