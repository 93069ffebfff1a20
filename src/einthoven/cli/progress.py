"""Output on the terminal: results on stdout; notes, warnings and progress bars on stderr."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Labels and file names are printed as they are: square brackets in them are not markup. Among
# several processes (torchrun sets RANK) only the first one writes to stderr.
output = Console(markup=False, emoji=False, highlight=False)
console = Console(
    stderr=True,
    markup=False,
    emoji=False,
    highlight=False,
    quiet=os.environ.get("RANK", "0") != "0",
)
LOG_SECONDS = 30.0
_SPEED_SECONDS = 300.0  # the speed is a mean over this time
_UNLOGGED_SPEED = 20_000  # samples a second: epochs of a cached probe would fill the log
_COLUMNS = {
    "macro_auroc": "val AUROC",
    "validation_loss": "val loss",
    "validation_accuracy": "val accuracy",
}


def note(text: str, *, style: str | None = None) -> None:
    """Print a line to stderr."""
    console.print(text, style=style, soft_wrap=True)


@contextmanager
def progress_bars(*, keep: bool = True) -> Iterator[Bars]:
    """Show the progress of all tasks in the block; `keep` the bars of finished tasks."""
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[step]} {task.fields[epoch]}", markup=False),
    ]
    with Progress(*columns, console=console, speed_estimate_period=_SPEED_SECONDS) as display:
        yield Bars(display, keep=keep)


class Bars:
    """Progress as one bar a task, with loss and speed of the training steps.

    If stderr is not a terminal, training writes a line every epoch and, within long epochs, every
    half minute.
    """

    def __init__(self, display: Progress, *, keep: bool = True) -> None:
        self._display, self._keep = display, keep
        self._is_log = not display.console.is_terminal
        self._written = 0.0

    def __call__(
        self, task: str, completed: int, total: int, metrics: Mapping[str, float] | None = None, /
    ) -> None:
        """Move the bar of a task; show its metrics."""
        bar = self._bar(task, completed, total)
        self._display.update(
            bar.id, completed=completed, visible=self._keep or completed < total, refresh=False
        )
        if metrics and "train_loss" in metrics:
            self._end_epoch(bar, metrics)
        elif metrics and "loss" in metrics:
            self._step(bar, metrics)

    def _bar(self, task: str, completed: int, total: int) -> Task:
        bars = self._display.tasks
        if not bars or task != bars[-1].description or completed < bars[-1].completed:
            # A resumed task begins at its last step, which does not count for its speed.
            self._display.add_task(
                task, total=total, completed=max(completed - 1, 0), step="", epoch=""
            )
            self._written = self._display.get_time()
        return self._display.tasks[-1]

    def _step(self, bar: Task, metrics: Mapping[str, float]) -> None:
        loss = f"loss {metrics['loss']:.4f}"
        speed = f"{bar.speed:.3g} steps/s" if bar.speed else "? steps/s"
        self._display.update(bar.id, step=f"{loss} {speed}")
        if self._is_log and self._display.get_time() - self._written >= LOG_SECONDS:
            self._write(
                f"{bar.description}: epoch {metrics['epoch']}, step {bar.completed:.0f} of "
                f"{bar.total:.0f}: {loss} ({speed}, {_time_left(bar)} left)"
            )

    def _end_epoch(self, bar: Task, metrics: Mapping[str, float]) -> None:
        values = " ".join(f"{_COLUMNS[k]} {metrics[k]:.4f}" for k in _COLUMNS if k in metrics)
        self._display.update(bar.id, epoch=values)
        speed = metrics["samples_per_second"]
        if self._is_log and speed < _UNLOGGED_SPEED:
            self._write(
                f"{bar.description}: epoch {metrics['epoch']}: train loss "
                f"{metrics['train_loss']:.4f} {values} ({speed:.0f} samples/s, "
                f"{_time_left(bar)} left)"
            )

    def _write(self, line: str) -> None:
        self._display.console.print(line, soft_wrap=True)
        self._written = self._display.get_time()


def _time_left(bar: Task) -> str:
    """Time left at the present speed, such as `0:12:05`; `?` as long as that is unknown."""
    return "?" if bar.time_remaining is None else str(timedelta(seconds=bar.time_remaining))


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Print warnings, and the library's log of decisions, as one line each."""

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(record.getMessage().capitalize())

    def show(message: Warning | str, *details: Any, **more: Any) -> None:
        note(f"Warning: {message}", style="yellow")

    log, notes = logging.getLogger("einthoven"), Notes()
    log.addHandler(notes)
    log.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        log.removeHandler(notes)
