"""Targets of every form from the command line: a table, options or a task file, and each verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import Cohort
from einthoven.predictions import Predictions

FAST = ("--resamples", 20, "--recipe", "linear-probe", "--set", "stage1.penalty=100")
FAST += ("--set", "data.evaluation_crops=1", "--set", "refit=never")


@pytest.fixture
def own(synthetic: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of a user with a number, a class and a column of yes and no, some cells empty."""
    monkeypatch.setenv("EINTHOVEN_CACHE", str(tmp_path / "cache"))
    frame = synthetic.table[["path", "patient", "split"]].copy()
    frame["path"] = [str(path) for path in synthetic.paths()]
    draw = np.random.default_rng(0)
    frame["lvef"] = draw.normal(55, 10, len(frame)).round(1)
    frame["rhythm"] = np.where(synthetic.matrix[:, 0] == 1, "AF", "SR")
    frame["urgent"] = np.where(frame["lvef"] < 55, "yes", "no")
    frame.loc[frame.index[::9], ["lvef", "rhythm", "urgent"]] = None
    frame.to_csv(tmp_path / "ecgs.csv", index=False)
    return tmp_path / "ecgs.csv"


def test_a_number(cli: Any, own: Path, tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_text('kind = "regression"\ntarget = "lvef"\nunit = "%"\n')
    run = tmp_path / "run"
    result = cli("posttrain", own, "--task", tmp_path / "task.toml", "--out", run, *FAST)
    said, empty = result.out, int(pd.read_csv(own)["lvef"].isna().sum())
    assert f"{empty} records" in result.err
    score = json.loads(cli("evaluate", run, "--json", "--resamples", 20).out)
    mae = score["per_label"]["lvef"]["mae"]
    assert f"{mae:.3f} %" in said
    assert f"{mae:.3f}" in cli("evaluate", run, "--resamples", 20).out
    assert f"{mae:.3f}" in cli("compare", run, run, "--resamples", 20).out
    assert "lvef" in cli("card", "--model", run / "model").out
    table = tmp_path / "values.csv"
    model = ("--model", run / "model")
    cli("predict", own, *model, "--out", table)
    file = pd.read_csv(own)["path"][0]
    (line,) = cli("predict", file, *model, "--json").out.splitlines()
    answer = json.loads(line)
    assert answer["units"] == {"lvef": "%"}
    assert answer["values"]["lvef"] == pytest.approx(pd.read_csv(table)["value:lvef"][0], rel=1e-4)
    assert "%" in cli("predict", file, *model).out
    saved = tmp_path / "again.parquet"
    cohort = ("--cohort", own, "--split", "test")
    cli("evaluate", *model, *cohort, "--save", saved)
    assert Predictions.load(saved).units == ("%",)
    chosen = cli("evaluate", *model, *cohort, "--target", "lvef", "--json", "--resamples", 0)
    assert json.loads(chosen.out)["per_label"]["lvef"]["mae"] == pytest.approx(mae, rel=1e-6)
    assert "lvef" in cli("evaluate", *model, *cohort, "--target", "qt", status=1).err
    assert cli("evaluate", run, "--target", "lvef", status=1).remedies == 1
    assert explained(cli, run, own, tmp_path) == {"overestimate", "underestimate", "close estimate"}


def explained(cli: Any, run: Path, cohort: Path, folder: Path) -> set[str]:
    """Kinds of the examples that a report explains."""
    pytest.importorskip("captum")
    cli("report", run, "--cohort", cohort, "--out", folder / "page.html", "--resamples", 20)
    examples = json.loads((folder / "page.json").read_text())["examples"]
    return {entry["kind"] for entry in examples if "explanation" in entry}


def test_classes(cli: Any, own: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    cli("posttrain", own, "--kind", "multiclass", "--target", "rhythm", "--out", run, *FAST)
    file, model = pd.read_csv(own)["path"][0], ("--model", run / "model")
    answer = json.loads(cli("predict", file, *model, "--json").out)
    assert answer["class"] == max(answer["probabilities"], key=answer["probabilities"].get)
    saved = tmp_path / "again.csv"
    renamed = tmp_path / "renamed.csv"
    pd.read_csv(own).rename(columns={"rhythm": "basic rhythm"}).to_csv(renamed, index=False)
    command = ("evaluate", *model, "--cohort", renamed, "--split", "test", "--save", saved)
    cli(*command, "--target", "basic rhythm")
    assert set(pd.read_csv(saved)["class"]) <= {"AF", "SR"}
    result = cli("evaluate", run, "--min-positives", 3, status=1)
    assert "--min-positives" in result.err
    assert "right class" in explained(cli, run, own, tmp_path)  # a wrong one need not be there


def test_labels(cli: Any, own: Path, tmp_path: Path) -> None:
    for name, arguments in {
        "limit": ("--target", "lvef <= 55"),
        "yes": ("--kind", "binary", "--target", "urgent"),
    }.items():
        cli("posttrain", own, *arguments, "--out", tmp_path / name, *FAST)
        model = ("--model", tmp_path / name / "model")
        cli("evaluate", *model, "--cohort", own, "--split", "test", "--resamples", 0)
    aurocs = [
        json.loads(cli("evaluate", tmp_path / name, "--json", "--resamples", 20).out)["macro_auroc"]
        for name in ("limit", "yes")
    ]
    assert 0 < min(aurocs) <= max(aurocs) < 1


def test_the_doctor_reads_the_same_targets(cli: Any, own: Path) -> None:
    frame = pd.read_csv(own)
    for cells in ("yes", "no"):
        out = cli("doctor", own, "--target", f"urgent = {cells}").out
        (line,) = [line for line in out.splitlines() if f"= {cells}:" in line]
        assert f" {(frame['urgent'] == cells).sum()} " in line
    out = cli("doctor", own, "--kind", "regression", "--target", "lvef", "--unit", "%").out
    assert f"{frame['lvef'].max():g} %" in out
    assert "--kind binary" in cli("doctor", own, "--target", "urgent", status=1).err
    assert cli("doctor", frame["path"][0], "--kind", "binary", "--target", "x", status=1).err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--target", "lvef"),
        ("--target", "lvef <= 40", "--unit", "%"),
        ("--kind", "regression", "--target", "rhythm"),
        ("--kind", "regression", "--target", "lvef", "--set", "pos_weight=[2]"),
        ("--kind", "regression", "--target", "lvef", "--set", "data.aggregate=max"),
        ("--kind", "regression", "--target", "lvef", "--set", "stage2.distillation=0.7"),
        ("--target", "lvef <= 40", "--set", "regression_loss=huber"),
        ("--kind", "ordinal", "--target", "lvef"),
        ("--kind", "regression", "--target", "lvef", "--task", "task.toml"),
        ("--task", "missing.toml"),
    ],
)
def test_what_makes_no_task_is_refused(
    cli: Any, own: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = cli("posttrain", own, *arguments, "--out", tmp_path / "run", status=1)
    assert "What to do" in result.err
    assert not (tmp_path / "run" / "run.json").exists()
