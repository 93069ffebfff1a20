"""Progress: pace, time left, and lines where nobody watches."""

from __future__ import annotations

import io
import warnings
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress, TextColumn

from einthoven.cli import progress
from einthoven.cli.progress import Bars, Pace, shown_warnings


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_pace_is_that_of_the_last_half_minute() -> None:
    clock = Clock()
    pace = Pace(1000, clock=clock)
    assert (pace.per_second, pace.left) == (0.0, "?")
    for step in range(1, 101):
        clock.now += 1.0
        pace.reach(step)
    assert pace.per_second == pytest.approx(1.0)
    assert pace.left == "0:15:00"
    for step in range(101, 401):
        clock.now += 0.25
        pace.reach(step)
    assert pace.per_second == pytest.approx(4.0, rel=0.05)
    assert pace.left in ("0:02:30", "0:02:29", "0:02:31")


def test_steps_longer_than_half_a_minute_have_a_pace_too() -> None:
    clock = Clock()
    pace = Pace(10, clock=clock)
    for step in (1, 2, 3):
        clock.now += 60.0
        pace.reach(step)
    assert pace.per_second == pytest.approx(1 / 60)
    assert pace.left == "0:07:00"


def test_a_run_that_goes_on_counts_from_where_it_was() -> None:
    clock = Clock()
    pace = Pace(1000, clock=clock)
    clock.now += 2.0
    pace.reach(901)
    assert pace.per_second == 0.5
    assert pace.left == "0:03:18"


def bars(*, terminal: bool) -> tuple[Bars, io.StringIO, Clock, Progress]:
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=terminal, width=40)  # lines are never broken
    display = Progress(TextColumn("{task.fields[note]}"), console=console, auto_refresh=False)
    return Bars(display, clock=clock), out, clock, display


def train(show: Bars, clock: Clock, *, step_seconds: float, steps: int = 10) -> None:
    for epoch in (1, 2):
        for step in range(1, steps + 1):
            clock.now += step_seconds
            done = (epoch - 1) * steps + step
            show("pretrain", done, 2 * steps, {"epoch": epoch, "loss": 2.5, "lr": 1e-3})
        entry = {
            "epoch": epoch,
            "train_loss": 2.5,
            "validation_loss": 2.25,
            "validation_accuracy": 0.125,
            "samples_per_second": 64 / step_seconds,
        }
        show("pretrain", epoch * steps, 2 * steps, entry)


def test_a_log_has_a_line_an_epoch_and_one_every_half_minute() -> None:
    show, out, clock, _ = bars(terminal=False)
    train(show, clock, step_seconds=8.0)
    lines = out.getvalue().splitlines()
    assert lines[0] == (
        "pretrain: epoch 1, step 5 of 20: loss 2.5000 (0.125 steps/s, 0:02:00 left)"
    )
    assert lines[2] == (
        "pretrain: epoch 1: train loss 2.5000 val loss 2.2500 val accuracy 0.1250 "
        "(8 samples/s, 0:01:20 left)"
    )
    assert len(lines) == 6
    assert lines[-1].endswith("0:00:00 left)")


def test_short_epochs_have_their_line_only() -> None:
    show, out, clock, _ = bars(terminal=False)
    train(show, clock, step_seconds=0.1)
    named = [line.split(" train")[0] for line in out.getvalue().splitlines()]
    assert named == ["pretrain: epoch 1:", "pretrain: epoch 2:"]


def test_a_terminal_sees_speed_and_loss_beside_the_bar() -> None:
    show, out, clock, display = bars(terminal=True)
    train(show, clock, step_seconds=8.0)
    assert out.getvalue() == ""
    note = display.tasks[0].fields["note"]
    assert note == "loss 2.5000 0.125 steps/s val loss 2.2500 val accuracy 0.1250"
    assert display.tasks[0].completed == 20


def test_a_task_without_metrics_moves_its_bar() -> None:
    show, _, _, display = bars(terminal=False)
    show("features", 64, 100)
    show("features", 100, 100)
    show("features", 1, 50)  # the same task again
    assert [(task.completed, task.total) for task in display.tasks] == [(100, 100), (1, 50)]


def test_warnings_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=out, width=200))

    def careful(**_: Any) -> None:
        with shown_warnings():
            warnings.simplefilter("default")
            warnings.warn("look [here]", UserWarning, stacklevel=1)

    careful()
    assert out.getvalue() == "Warning: look [here]\n"
