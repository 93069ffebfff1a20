"""The sample cohort of `init`: its files, and the commands and cells that it brings, as written."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

import einthoven
from einthoven.cli.app import app
from einthoven.cli.init import FILES, init
from einthoven.cohorts import open_cohort
from einthoven.cohorts.synthetic import sample_record
from einthoven.inference import predict_record
from einthoven.models import load_model
from einthoven.predictions import Predictions
from einthoven.records import read_record

PAGE = Path(__file__).resolve().parents[2] / "docs" / "first-cohort.md"
QUICK = ["stage2.epochs=1", "stage2.min_steps=0"]


def test_commands_of_a_folder_with_spaces_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a; b"
    init(folder)
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()[-6:]]
    assert ["cd", str(folder)] in lines
    assert ["bash", str(folder / "commands.sh")] in [line[-2:] for line in lines]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "first-cohort"
    init(folder)
    return folder


@pytest.fixture
def here(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sample as working directory."""
    monkeypatch.chdir(shutil.copytree(sample, tmp_path / "first-cohort"))
    return Path.cwd()


def test_the_sample_is_a_cohort_that_says_it_is_simulated(sample: Path) -> None:
    names = {"labels.csv", "commands.sh", "notebook.ipynb", "simulated-ecgs", "ground_truth.csv"}
    assert {path.name for path in sample.iterdir()} == names
    cohort = open_cohort(sample / "labels.csv")
    assert (len(cohort), cohort.labels, cohort.is_synthetic) == (40, ("AFIB",), True)
    assert cohort.targets().sum() == 10
    assert len(set(cohort.patients())) == 32
    assert set(cohort.metadata()) == {"age", "sex"}
    for path in cohort.paths():
        record = read_record(path)
        assert (record.signal.shape, record.rate) == ((12, 5000), 500)
        assert "SIMULATED" in path.read_text()
    for name in ("commands.sh", "notebook.ipynb"):
        assert "SIMULATED" in (sample / name).read_text()


def test_nothing_is_overwritten(
    cli: Any, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in sample.rglob("*")}
    cli("init", sample, status=1)
    cli("init", sample / "labels.csv", status=1)
    assert {path: path.stat().st_mtime_ns for path in sample.rglob("*")} == before
    monkeypatch.chdir(tmp_path)
    result = cli("init", ".")
    assert "SIMULATED" in result.out
    assert (tmp_path / "labels.csv").read_bytes() == (sample / "labels.csv").read_bytes()


def commands(text: str, prefix: str = "") -> Iterator[list[str]]:
    """Words of every command of the script or the page, without `einthoven`."""
    text = re.sub(r"\\\n\s*", " ", text)
    variables = dict(re.findall(r"^(\w+)=(\S+)", text, re.MULTILINE))
    for name, value in variables.items():
        text = text.replace(f"${name}", value)
    for line in re.findall(rf"^{prefix}einthoven (.*)$", text, re.MULTILINE):
        yield shlex.split(line, comments=True)


SOURCES = [
    pytest.param((FILES / "commands.sh", ""), id="commands.sh"),
    pytest.param((PAGE, "    "), id="first-cohort.md"),
]


@pytest.mark.parametrize("source", SOURCES)
def test_the_commands_are_complete(source: tuple[Path, str], cli: Any, here: Path) -> None:
    """Every command is accepted as it stands, and those that need no run are run."""
    file, prefix = source
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    verbs = []
    for verb, *words in commands(file.read_text(), prefix):
        verbs.append(verb)
        known[verb].make_context(verb, list(words))
        if verb == "doctor":
            assert cli(verb, *words).out
    assert {"doctor", "posttrain", "compare", "report", "predict"} <= set(verbs)


@pytest.mark.slow  # 20 s: two arms of five folds
@pytest.mark.parametrize("source", SOURCES)
def test_the_commands_run(source: tuple[Path, str], cli: Any, here: Path) -> None:
    file, prefix = source
    for verb, *words in commands(file.read_text(), prefix):
        if verb == "init":
            continue
        more = ["--resamples", 20] if verb in ("posttrain", "report") else []
        if verb == "posttrain":
            more += [word for text in QUICK for word in ("--set", text)]
        cli(verb, *words, *more)
    assert len(Predictions.load("runs/first/predictions/test.parquet").records) == 40
    assert len(pd.read_csv("predictions.csv")) == 40
    assert "SIMULATED" in (here / "runs/first/model/README.md").read_text().upper()
    assert (here / "report.html").is_file()


@pytest.mark.slow  # 30 s: processes
def test_the_script_runs_as_a_user_runs_it(here: Path, tmp_path: Path) -> None:
    """From another folder; a shortcut for training stands for the command."""
    command = tmp_path / "bin" / "einthoven"
    command.parent.mkdir()
    options = " ".join(f"--set {text}" for text in QUICK)
    command.write_text(
        f'#!/bin/sh\ncase "$*" in posttrain*) set -- "$@" {options} ;; esac\n'
        f'exec {sys.executable} -m einthoven "$@"\n'
    )
    command.chmod(0o755)
    found = os.environ | {"PATH": f"{command.parent}:{os.environ['PATH']}"}
    script = here / "commands.sh"
    done = subprocess.run(
        ["bash", script], cwd=tmp_path, env=found, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert (here / "predictions.csv").is_file()
    assert (here / "runs" / "first" / "model").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "first-cohort"}


def cells(folder: Path) -> list[str]:
    """The code cells of the notebook."""
    notebook = json.loads((folder / "notebook.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


def test_the_cells_that_train_nothing_run(here: Path) -> None:
    first, *others, last = cells(here)
    names: dict[str, Any] = {}
    for code in (first, last):
        exec(compile(code, "notebook", "exec"), names)
    for code in others:
        compile(code, "notebook", "exec")
    assert names["cohort"].targets().sum() == 10
    assert names["probabilities"].iloc[0].idxmax() == "probability:AFIB"


@pytest.mark.slow  # 20 s: two arms of five folds
def test_the_cells_run_in_order(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(*arguments: Any, **options: Any) -> Any:
        overrides = [*options.pop("overrides", ()), *QUICK]
        return posttrain(*arguments, overrides=overrides, resamples=20, **options)

    posttrain = einthoven.posttrain
    monkeypatch.setattr(einthoven, "posttrain", quick, raising=False)
    names: dict[str, Any] = {}
    for code in cells(here):
        exec(compile(code, "notebook", "exec"), names)
    assert len(names["predictions"]) == 40
    assert (here / "notebook-report.html").is_file()
    assert (here / "runs/notebook/report.html").is_file()


def test_predict_without_a_file_predicts_a_simulated_ecg(cli: Any) -> None:
    result = cli("predict", "--json", "--device", "cpu")
    found = json.loads(result.out)
    assert "SIMULATED" in found["record"]
    assert "SIMULATED" in result.err
    assert "einthoven predict FILE" in result.err
    expected = predict_record(load_model(), sample_record())
    assert found["probabilities"] == pytest.approx(dict(expected.probabilities), abs=1e-6)
    assert "AFIB" in found["above_threshold"]
    assert "SIMULATED" in cli("predict").out
    assert "--out" in cli("predict", "--out", "p.csv", status=1).err
