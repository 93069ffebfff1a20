"""Progress bars, on stderr so that stdout stays clean for results."""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
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

from einthoven import progress

# Among several processes (torchrun sets RANK) only the first one prints.
console = Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")
LINE_SECONDS = 30.0
_TOO_FAST = 20_000  # samples a second: epochs of a cached probe would fill the log
_NAMES = {
    "macro_auroc": "val AUROC",
    "validation_loss": "val loss",
    "validation_accuracy": "val accuracy",
}


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


@contextmanager
def progress_bar(description: str) -> Iterator[progress.Progress]:
    """Show a bar for one task."""
    with bars() as display:
        bar = display.add_task(description, total=None, note="")

        def update(
            task: str, done: int, total: int, metrics: Mapping[str, float] | None = None, /
        ) -> None:
            display.update(bar, completed=done, total=total)

        yield update


class Pace:
    """Steps a second over about the last half minute, and what that leaves to wait.

    A run that goes on where it was begins anew: steps done before are not counted as fast ones.
    """

    def __init__(self, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total, clock
        self._began = clock()
        self._seen: deque[tuple[float, int]] = deque()

    def reach(self, done: int) -> None:
        """So many steps of the total are done."""
        now = self._clock()
        if not self._seen:
            self._seen.append((self._began, done - 1))
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > LINE_SECONDS:
            self._seen.popleft()

    @property
    def per_second(self) -> float:
        """Steps a second; 0 while nothing is known."""
        if not self._seen:
            return 0.0
        (since, before), (now, done) = self._seen[0], self._seen[-1]
        return (done - before) / (now - since) if now > since else 0.0

    @property
    def left(self) -> str:
        """Time to the end, `0:12:05`; `?` while nothing is known."""
        if not self.per_second:
            return "?"
        seconds = (self._total - self._seen[-1][1]) / self.per_second
        return str(timedelta(seconds=round(seconds)))


class TrainingBars:
    """A `Watcher` that draws a bar a stage; where nobody watches, a line every epoch and, within
    long epochs, every half minute.

    `keep` says whether the bars of finished stages stay.
    """

    def __init__(
        self,
        display: Progress,
        *,
        keep: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._display = display
        self._keep = keep
        self._clock = clock
        self._task: TaskID | None = None
        self._stage, self._note = "", ""
        self._epochs = self._steps = 1
        self._samples = 0
        self._pace = Pace(1, clock=clock)
        self._said = clock()
        self._first = True

    def began(self, stage: str, epochs: int, steps: int) -> None:
        """Open the stage's bar."""
        self._stage, self._epochs, self._steps = stage, epochs, steps
        self._note, self._samples, self._first = "", 0, True
        self._pace, self._said = Pace(epochs * steps, clock=self._clock), self._clock()
        self._task = self._display.add_task(stage, total=epochs * steps, note="")

    def sized(self, samples: int) -> None:
        """Count samples instead of steps."""
        self._samples = samples

    def stepped(self, epoch: int, step: int, loss: float, lr: float) -> None:
        """Move the bar."""
        if self._task is None:
            return
        done = epoch * self._steps + step
        self._pace.reach(done)
        if self._first:  # a run that goes on has not just done all that was done before
            self._display.reset(self._task, completed=done - 1)
            self._first = False
        said = f"loss {loss:.4f} " if loss else ""
        note = f"{said}{self._speed()} {self._note}"
        self._display.update(self._task, completed=done, note=note)
        if self._is_log and self._clock() - self._said >= LINE_SECONDS:
            self._say(
                f"{self._stage}: epoch {epoch + 1} of {self._epochs}, step {step} of "
                f"{self._steps}: {said}({self._speed()}, {self._pace.left} left)"
            )

    def epoch_ended(self, entry: dict[str, Any]) -> None:
        """Show the epoch's numbers."""
        self._note = " ".join(f"{_NAMES[k]} {entry[k]:.4f}" for k in _NAMES if k in entry)
        if self._is_log and entry.get("samples_per_second", 0) < _TOO_FAST:
            speed = f"{entry['samples_per_second']:.0f} samples/s, {self._pace.left} left"
            self._say(
                f"{self._stage}: epoch {entry['epoch']}: train loss {entry['train_loss']:.4f} "
                f"{self._note} ({speed})"
            )

    def ended(self, stage: str) -> None:
        """Fill the bar."""
        if self._task is not None:
            total = self._display.tasks[self._task].total
            self._display.update(self._task, completed=total or 0, visible=self._keep)

    @property
    def _is_log(self) -> bool:
        return not self._display.console.is_terminal

    def _say(self, line: str) -> None:
        self._display.console.print(line, highlight=False, soft_wrap=True)
        self._said = self._clock()

    def _speed(self) -> str:
        rate, unit = self._pace.per_second, "steps/s"
        if self._samples:
            rate, unit = rate * self._samples, "samples/s"
        return f"{rate:.3g} {unit}" if rate < 10 else f"{rate:.0f} {unit}"


@contextmanager
def training(*, keep: bool = True) -> Iterator[tuple[TrainingBars, progress.Progress]]:
    """A watcher for training and a progress callback for the work that follows it."""
    with bars() as display:
        tasks: dict[str, TaskID] = {}

        def update(
            task: str, done: int, total: int, metrics: Mapping[str, float] | None = None, /
        ) -> None:
            if task not in tasks:
                tasks[task] = display.add_task(task, total=total, note="")
            display.update(tasks[task], completed=done, total=total)

        yield TrainingBars(display, keep=keep), update


@contextmanager
def shown_warnings() -> Iterator[None]:
    """Print warnings as lines of ours, without the place in the code that they come from."""

    def show(message: Warning | str, *details: Any, **more: Any) -> None:
        line = f"Warning: {message}"
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
