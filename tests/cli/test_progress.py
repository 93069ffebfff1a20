"""Progress: speed, time left, and lines where stderr is not a terminal."""

from __future__ import annotations

import io
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table

from einthoven.cli.progress import Console, as_options, echo, shown_warnings
from einthoven.cohorts import Cohort, open_cohort
from einthoven.cohorts.synthetic import sample_record
from einthoven.errors import CohortError
from einthoven.progress import Bars, progress_bars
from einthoven.records.wfdb import write_wfdb


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def bars(*, terminal: bool) -> tuple[Bars, io.StringIO, Clock, Progress]:
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, force_terminal=terminal, width=40)
    display = Progress(
        TextColumn("{task.fields[step]}"),
        console=console,
        auto_refresh=False,
        get_time=clock,
        speed_estimate_period=300.0,
    )
    return Bars(display), out, clock, display


def train(
    show: Bars, clock: Clock, *, step_seconds: float, steps: int = 10, first: int = 1
) -> None:
    for epoch in (1, 2):
        for step in range(first if epoch == 1 else 1, steps + 1):
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


def numbers(line: str) -> list[str]:
    return re.findall(r"\d+(?:[.:]\d+)*", line)


def test_a_log_has_a_line_an_epoch_and_one_every_half_minute() -> None:
    show, out, clock, _ = bars(terminal=False)
    train(show, clock, step_seconds=8.0)
    lines = out.getvalue().splitlines()
    assert numbers(lines[0]) == ["1", "5", "20", "2.5000", "0.125", "0:02:00"]
    assert numbers(lines[2]) == ["1", "2.5000", "2.2500", "0.1250", "8", "0:01:20"]
    assert len(lines) == 6
    assert numbers(lines[-1])[-1] == "0:00:00"


def test_a_resumed_run_counts_from_where_it_was() -> None:
    show, out, clock, _ = bars(terminal=False)
    train(show, clock, step_seconds=40.0, first=8)
    lines = out.getvalue().splitlines()
    assert numbers(lines[0])[1:] == ["9", "20", "2.5000", "0.025", "0:07:20"]


def test_short_epochs_have_only_their_line() -> None:
    show, out, clock, _ = bars(terminal=False)
    train(show, clock, step_seconds=0.1)
    assert [numbers(line)[0] for line in out.getvalue().splitlines()] == ["1", "2"]


def test_a_terminal_shows_speed_and_loss_beside_the_bar() -> None:
    show, out, clock, display = bars(terminal=True)
    train(show, clock, step_seconds=8.0)
    assert out.getvalue() == ""
    (task,) = display.tasks
    assert numbers(task.fields["step"]) == ["2.5000", "0.125"]
    assert numbers(task.fields["epoch"]) == ["2.2500", "0.1250"]
    assert task.completed == 20


@pytest.mark.parametrize("width", [80, 140])
def test_bars_are_never_truncated(width: int) -> None:
    out, task = io.StringIO(), "fold 1 of 5, stage 2, fine-tuning"
    with progress_bars(Console(file=out, force_terminal=True, width=width)) as show:
        show(task, 10000, 12000, {"epoch": 1, "loss": 0.5, "lr": 0.1})
        entry = {"epoch": 1, "train_loss": 0.5, "macro_auroc": 0.875, "validation_loss": 0.25}
        show(task, 12000, 12000, entry | {"samples_per_second": 12})
    text = out.getvalue()
    assert "…" not in text
    assert all(part in text for part in (task, "12000/12000", "0.8750", "0.2500"))


def test_a_task_without_metrics_moves_its_bar() -> None:
    show, _, _, display = bars(terminal=False)
    show("features", 64, 100)
    show("features", 100, 100)
    show("features", 1, 50)  # the same task again
    assert [(task.completed, task.total) for task in display.tasks] == [(100, 100), (1, 50)]


def test_warnings_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_warnings():
        warnings.simplefilter("default")
        warnings.warn("look [here]", UserWarning, stacklevel=1)
    assert "look [here]\n" in capsys.readouterr().err


@pytest.mark.filterwarnings("default::einthoven.cohorts.cohort.CohortWarning")
@pytest.mark.parametrize("verb", ["predict", "convert-ecg", "doctor", "pack"])
def test_commands_print_warnings_as_lines(verb: str, cli: Any, made: Any, tmp_path: Path) -> None:
    (tmp_path / "ecgs").mkdir()
    record = sample_record()
    write_wfdb(tmp_path / "ecgs" / "a", record.signal, rate=record.rate, leads=record.leads)
    (tmp_path / "ecgs" / "gone.hea").symlink_to(tmp_path / "nowhere.hea")
    more = {
        "predict": ("--model", made.model, "--out", tmp_path / "p.csv"),
        "convert-ecg": (tmp_path / "o",),
        "pack": (tmp_path / "o", "--workers", 1),
    }
    err = cli(verb, tmp_path / "ecgs", *more.get(verb, ())).err
    (line,) = [line for line in err.splitlines() if "gone.hea" in line]
    assert line.startswith("Warning: ")
    assert ".py" not in err


@pytest.mark.parametrize(
    ("argument", "option"),
    [
        ("`records=1`", "--records 1"),
        ("`folds=5`", "--folds 5"),
        ("`allow_leakage=True`", "--allow-leakage"),
        ("`allow_leakage=['a', 'b c']`", "--allow-leakage a --allow-leakage 'b c'"),
        ("`weights=...`", "--weights"),
        ("`leads=('I', 'II')`", "--leads I,II"),
        ("`target='lvef <= 40'`", "--target 'lvef <= 40'"),
        ("`task=Task(kind='binary', target=COLUMN)`", "--kind binary --target COLUMN"),
        ("`a=b c`", "`a=b c`"),
        ("`overrides=['epochs=1']`", "--set epochs=1"),
        ("recipe `scratch`", "recipe `scratch`"),
    ],
)
def test_arguments_of_python_are_options_of_the_command_line(argument: str, option: str) -> None:
    assert as_options(f"say ({argument}), or") == f"say ({option}), or"


def test_a_remedy_has_arguments_in_python_and_options_on_the_command_line(
    cli: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    table = synthetic.table[["path", "patient"]].assign(sick="yes")
    table.to_csv(file := tmp_path / "own.csv", index=False)
    with pytest.raises(CohortError) as error:
        open_cohort(file)
    assert "`task=Task(target=COLUMN)`" in str(error.value)
    assert "--" not in str(error.value)
    assert "--target COLUMN" in cli("doctor", file, status=1).err


def test_a_topic_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The folds of a run decide the same with other numbers of records."""
    log = logging.getLogger("einthoven.test")
    with shown_warnings():
        for records in (336, 335):
            log.info("solver (%d records)", records, extra={"topic": "solver"})
            log.info("loss of %d records", records)
        log.info("solver (%d records)", 9, extra={"topic": "another solver"})
    printed = [int(number) for number in re.findall(r"\d+", capsys.readouterr().err)]
    assert printed == [336, 336, 335, 9]


@pytest.mark.parametrize("control", ["\x1b", "\x07", "\r", "\x9b", "\u202e", "\u2066", "\udcff"])
def test_control_characters_do_not_reach_the_terminal(
    control: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"lead{control}[2J \N{LATIN SMALL LETTER O WITH DIAERESIS}\t[bold]"
    table = Table("label")
    table.add_row(text)
    out = io.StringIO()
    Console(file=out, markup=False, width=80).print(text, table)
    echo(text)
    for printed in (out.getvalue(), capsys.readouterr().out):
        assert control not in printed
        assert f"\\u{ord(control):04x}" in printed
        assert "\N{LATIN SMALL LETTER O WITH DIAERESIS}" in printed


def test_control_characters_of_a_path_are_escaped_in_a_message(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\u202eb.dcm"
    path.write_bytes(b"x" * 300)
    for verb in ("predict", "doctor"):
        result = cli(verb, path, status=1)
        assert not {"\x1b", "\u202e"} & set(result.out + result.err)
