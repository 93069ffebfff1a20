"""Every verb explains itself; a refusal is short, and says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from einthoven import __version__
from einthoven.cli import progress
from einthoven.cli.app import app

VERBS = [
    "demo", "synthesize", "download", "pack", "convert", "pretrain", "posttrain",
    "ensemble", "evaluate", "compare", "report", "card", "reproduce", "predict", "embed",
    "backbones", "doctor",
]  # fmt: skip


def test_the_verbs() -> None:
    assert list(typer.main.get_command(app).commands) == VERBS  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_and_every_option_has_help(verb: str, cli: Any) -> None:
    said = cli(verb, "--help")
    assert said.status == 0
    assert verb in said.out
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    assert command.help
    silent = [
        parameter.name
        for parameter in command.params
        if not getattr(parameter, "help", None) and parameter.name != "help"
    ]
    assert not silent


def test_the_version(cli: Any) -> None:
    assert cli("--version").out.strip() == __version__


def test_nothing_typed_shows_the_help(cli: Any) -> None:
    said = cli()
    assert "Start here" in said.out + said.err


def test_python_m_einthoven_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "einthoven", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, __version__, "")


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("THP_MEM_ALLOC_ENABLE", {}, "1"),
        ("THP_MEM_ALLOC_ENABLE", {"THP_MEM_ALLOC_ENABLE": "0"}, "0"),
        ("GOMP_SPINCOUNT", {}, "3000"),
        ("GOMP_SPINCOUNT", {"GOMP_SPINCOUNT": "10"}, "10"),
        ("GOMP_SPINCOUNT", {"OMP_WAIT_POLICY": "active"}, "None"),
    ],
)
def test_pytorch_is_told_before_it_is_loaded_unless_the_user_decided(
    name: str, given: dict[str, str], expected: str
) -> None:
    code = "import os, sys; from einthoven.cli import main; before = 'torch' in sys.modules"
    code += f"\ntry: main(['--version'])\nfinally: print(before, os.environ.get('{name}'))"
    ours = ("THP", "GOMP", "OMP")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=clean | given, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == f"False {expected}"


def test_an_unknown_option_is_a_mistake_in_typing(cli: Any) -> None:
    said = cli("predict", "file", "--bundel", "x")
    assert said.status == 2
    assert "--bundel" in said.err


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("embed einthoven-small --out a.npy", "nothing to embed is named"),
        ("predict a.hea --model nowhere", "is no bundle"),
        ("evaluate", "nothing to evaluate"),
        ("evaluate nowhere", "nowhere is missing"),
        ("evaluate nowhere.parquet", "nowhere.parquet is missing"),
        ("compare nowhere nowhere", "is missing"),
        ("report nowhere", "is missing"),
        ("doctor nowhere.hea", "cannot be read"),
        ("pack nowhere store", "neither a folder"),
        ("posttrain nowhere --backbone tiny --out run --recipe scratch", "neither a folder"),
        ("posttrain nowhere --backbone tiny --out run", "no weights are given"),
        (
            "posttrain nowhere --backbone lstm --recipe fine-tuning --out run",
            "take the recipe `strodthoff-rnn`",
        ),
        ("posttrain nowhere --backbone tiny --out run --recipe postraining", "no recipe"),
        ("posttrain nowhere --backbone tiny --out run --set stage2.x=1", "unknown key stage2.x"),
        ("pretrain nowhere --backbone tiny --out run --recipe mea", "no recipe 'mea'"),
        ("download mimic there", "mimic"),
    ],
)
def test_refusals_go_to_stderr_with_a_remedy(
    command: str, expected: str, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli(*command.split())
    assert said.status == 1
    assert said.out == ""
    message = said.err[said.err.index("einthoven: ") :]
    assert expected in message
    assert "What to do:" in said.err
    assert not (tmp_path / "run").exists()


def test_ctrl_c_says_that_nothing_is_lost(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("einthoven.cohorts.synthetic.synthesize", interrupted)
    said = cli("synthesize", tmp_path / "cohort")
    assert said.status == 130
    assert "the same command goes on" in said.err


def test_a_defect_is_not_dressed_up_as_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("einthoven.cohorts.synthetic.synthesize", broken)
    with pytest.raises(ZeroDivisionError):
        cli("synthesize", tmp_path / "cohort")


def test_training_bars_tell_every_epoch_where_nobody_watches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress.training() as show:
        show("stage 2", 5, 10, {"epoch": 1, "loss": 0.25, "lr": 1e-3})
        show(
            "stage 2",
            5,
            10,
            {"epoch": 1, "train_loss": 0.25, "macro_auroc": 0.75, "samples_per_second": 10},
        )
        show("predict test", 3, 6)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 1: train loss 0.2500 val AUROC 0.7500 (10 samples/s, " in captured.err
    assert "5/10" in captured.err
    assert "3/6" in captured.err
