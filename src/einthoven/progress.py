"""Progress of long work: one callback for every verb, and bars that show it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # rich is imported when bars are shown
    from rich.console import Console
    from rich.progress import Progress as Display
    from rich.progress import Task

__all__ = ["Bars", "Progress", "decisions", "live_bars", "part_of", "progress_bars"]


def __dir__() -> list[str]:
    return sorted(__all__)


LOG_SECONDS = 30.0
_WIDE = 120  # columns from which the bar is long, and the time that has passed is shown
_SPEED_SECONDS = 300.0  # the speed is a mean over this time
_UNLOGGED_SPEED = 20_000  # samples a second: epochs of a cached probe would fill the log
_COLUMNS = {
    "macro_auroc": "val AUROC",
    "validation_loss": "val loss",
    "validation_accuracy": "val accuracy",
}


class Progress(Protocol):
    """Callback of a task that takes long: records read, steps trained, resamples drawn.

    The task calls it as `progress(task, completed, total, metrics)`. `task` names the work ("pack",
    "predict test", "stage 2"), `completed` of `total` items are finished, and `metrics` has numbers
    worth showing, or is None: `epoch`, `loss` and `lr` after a training step; `epoch`, `train_loss`
    and the validation metrics at the end of an epoch.
    """

    def __call__(
        self, task: str, completed: int, total: int, metrics: Mapping[str, float] | None = None, /
    ) -> None:
        """Show the progress of a task."""


def part_of(progress: Progress | None, part: str) -> Progress | None:
    """Progress with the part of the work before the name of each task."""
    if progress is None:
        return None
    return lambda task, *numbers: progress(f"{part}, {task}", *numbers)


@contextmanager
def progress_bars(console: Console | None = None, *, keep: bool = True) -> Iterator[Bars]:
    """Show the progress of all tasks in the block; `keep` the bars of finished tasks.

    The console is stderr by default. If it is neither a terminal nor a notebook, training writes
    lines instead of bars.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Display
    from rich.table import Column

    console = console or _stderr()
    is_wide = console.width >= _WIDE
    numbers = "{task.fields[step]} {task.fields[epoch]}"
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24 if is_wide else 8),
        MofNCompleteColumn(),
        *([TimeElapsedColumn()] if is_wide else []),
        TimeRemainingColumn(),
        TextColumn(numbers, markup=False, table_column=Column(no_wrap=False)),
    ]
    with Display(
        *columns,
        console=console,
        speed_estimate_period=_SPEED_SECONDS,
        disable=not _is_live(console),
        transient=not keep,
    ) as display:
        yield Bars(display, keep=keep)


@contextmanager
def live_bars() -> Iterator[Bars | None]:
    """Show decisions, and bars that vanish at the end.

    If stderr is neither a terminal nor a notebook, nothing is shown, and the bars are None.
    """
    console = _stderr()
    if not _is_live(console):
        yield None
        return
    with progress_bars(console, keep=False) as bars, decisions(console.print):
        yield bars


@contextmanager
def decisions(show: Callable[[str], object]) -> Iterator[None]:
    """Pass every decision that the library logs in the block to a function.

    Of the log records with the same `topic`, such as those of the folds of a run, or without one
    the same message, only the first is passed.
    """
    shown: set[str] = set()

    class Decisions(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            topic = str(getattr(record, "topic", record.getMessage()))
            if topic not in shown:
                shown.add(topic)
                message = record.getMessage()
                show(message[:1].upper() + message[1:])

    log, handler = logging.getLogger("einthoven"), Decisions()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


class Bars:
    """Progress as one bar a task, with loss and speed of the training steps.

    If the console is neither a terminal nor a notebook, training writes a line every epoch and,
    within long epochs, every half minute.
    """

    def __init__(self, display: Display, *, keep: bool = True) -> None:
        self._display, self._keep = display, keep
        self._is_log = not _is_live(display.console)
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


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True, markup=False, emoji=False, highlight=False)


def _is_live(console: Console) -> bool:
    """Whether bars can move: in a terminal or a notebook."""
    return console.is_terminal or console.is_jupyter
