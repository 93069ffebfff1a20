"""Help, versions, refusals and interrupts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from einthoven import __version__
from einthoven.cli.app import COMMANDS, app

NAMES = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_and_option_has_help(name: str, cli: Any) -> None:
    cli(name, "--help")
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert command.help
    parameters = [each for each in command.params if each.name != "help"]
    assert all(getattr(each, "help", None) for each in parameters)


def test_help_groups_the_commands(cli: Any) -> None:
    result = cli("--help")
    assert all(f" {panel} " in result.out for panel in COMMANDS)


def test_version(cli: Any) -> None:
    assert cli("--version").out.strip() == __version__
    command = [sys.executable, "-m", "einthoven", "--version"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, __version__, "")


@pytest.mark.parametrize(
    ("name", "environment", "expected"),
    [
        ("THP_MEM_ALLOC_ENABLE", {}, "1"),
        ("THP_MEM_ALLOC_ENABLE", {"THP_MEM_ALLOC_ENABLE": "0"}, "0"),
        ("GOMP_SPINCOUNT", {}, "3000"),
        ("GOMP_SPINCOUNT", {"GOMP_SPINCOUNT": "10"}, "10"),
        ("GOMP_SPINCOUNT", {"OMP_WAIT_POLICY": "active"}, "None"),
    ],
)
def test_environment_of_pytorch_is_set_before_it_is_loaded(
    name: str, environment: dict[str, str], expected: str
) -> None:
    code = "import os, sys; from einthoven.cli import main; before = 'torch' in sys.modules"
    code += f"\ntry: main(['--version'])\nfinally: print(before, os.environ.get('{name}'))"
    prefixes = ("THP", "GOMP", "OMP")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"False {expected}"


@pytest.mark.parametrize(
    ("command", "values"),
    [
        ("predict file --modle x", ["--modle"]),
        ("embed file --out x.npy --level foo", ["--level", "'foo'", "pooled", "token", "lead"]),
        ("compare a b --by hospital", ["--by", "'hospital'", "record", "patient"]),
    ],
)
def test_wrong_options_exit_with_status_2(command: str, values: list[str], cli: Any) -> None:
    result = cli(*command.split(), status=2)
    assert all(value in result.err for value in values)


@pytest.mark.parametrize(
    ("command", "value"),
    [
        ("embed nowhere.hea --out a.npy", "nowhere.hea"),
        ("embed a.hea b.csv --out a.npy", "b.csv"),
        ("predict a.hea --model nowhere", "nowhere"),
        ("evaluate", "--model"),
        ("evaluate --model einthoven-small", "--cohort"),
        ("evaluate nowhere", "nowhere"),
        ("evaluate nowhere.parquet", "nowhere.parquet"),
        ("compare nowhere nowhere", "nowhere"),
        ("report nowhere", "nowhere"),
        ("doctor nowhere.hea", "nowhere.hea"),
        ("doctor --backbone ecg_fm", "--backbone"),
        ("pack nowhere store", "nowhere"),
        ("posttrain nowhere --backbone tiny --out run --recipe scratch", "nowhere"),
        ("posttrain nowhere --backbone tiny --out run", "weights"),
        ("posttrain nowhere --backbone lstm --recipe fine-tuning --out run", "strodthoff-rnn"),
        ("posttrain nowhere --backbone tiny --out run --recipe postraining", "post-training"),
        ("posttrain nowhere --backbone tiny --out run --set stage2.x=1", "stage2.x"),
        ("posttrain nowhere --backbone tiny --out run --recipe scratch --option detph=2", "depth"),
        (
            "posttrain x --backbone tiny --out run --recipe scratch --option leads=['I'] --leads I",
            "--leads",
        ),
        ("pretrain nowhere --backbone tiny --out run --recipe mea", "mae"),
        ("pretrain nowhere --backbone tiny --out run --recipe demo --option detph=2", "depth"),
        ("download mimic there", "mimic"),
        ("embed x.hea --out x.npy --device cuda:99", "cuda:99"),
        ("evaluate nowhere --resamples 5", "5 resamples"),
        (
            "posttrain x --backbone tiny --out run --recipe scratch --leads I,II,V9",
            "V9\n",
        ),
        ("posttrain x --backbone tiny --out run --recipe scratch --leads=", "--leads ''"),
        ("pack x store --leads=", "--leads ''"),
    ],
)
def test_refusals_go_to_stderr_with_a_remedy(
    command: str, value: str, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cli(*command.split(), status=1)
    assert result.out == ""
    message = result.err[result.err.index("einthoven: ") :]
    assert value in message
    assert result.remedies
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "function", "resumable"),
    [
        ("synthesize cohort", "einthoven.cohorts.synthetic.synthesize", False),
        ("download ptb-xl data", "einthoven.cohorts.download.download", True),
    ],
)
def test_an_interrupt_names_the_remedy_of_commands_that_resume(
    cli: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    function: str,
    resumable: bool,
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(function, interrupted)
    result = cli(*command.split(), status=130)
    assert ("resume" in result.err) == resumable


def test_a_defect_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("einthoven.cohorts.synthetic.synthesize", broken)
    with pytest.raises(ZeroDivisionError):
        cli("synthesize", tmp_path / "cohort")


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path, cli: Any) -> None:
    (tmp_path / "file").touch()
    result = cli("synthesize", tmp_path / "file" / "cohort", "--records", 5, status=1)
    assert result.remedies == 1
