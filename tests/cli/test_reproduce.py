"""`einthoven reproduce` as a user types it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from einthoven.files import read_json
from einthoven.report.format import number
from einthoven.reproduce.experiment import load_experiment
from einthoven.signals.store import Store

EXPERIMENT = """
name = "short"
tasks = ["all-71"]
resamples = 20
min_records = 8
[pretraining]
recipe = "demo"
[variants.post-training]
recipe = "{recipe}"
[variants.fine-tuning]
recipe = "{recipe}"
without = ["stage1"]
set = ["stage2.drop_path=0.0"]
"""


ROWS = """
name = "rows"
table_1_only = true
tasks = ["all-71"]
resamples = 20
min_records = 8
[variants.own]
recipe = "{recipe}"
without = ["stage1"]
start = "random"
[[rows]]
name = "one"
backbone = "tiny"
variant = "own"
published = "xresnet1d101"
[[rows]]
name = "two"
backbone = "mtecg_tiny_100hz"
variant = "own"
"""


@pytest.fixture
def words(
    made: Any, tmp_path: Path, synthetic_path: Path, synthetic_store: Store, tiny_backbone: str
) -> list[Any]:
    experiment = tmp_path / "short.toml"
    experiment.write_text(EXPERIMENT.format(recipe=made.recipe))
    return [
        "--cohort", synthetic_path, "--store", synthetic_store.root, "--backbone", tiny_backbone,
        "--experiment", experiment, "--out", tmp_path / "out", "--weights", made.encoder,
        "--device", "cpu", "--threads", 1,
    ]  # fmt: skip


def test_plan_then_part_then_all_then_the_page(cli: Any, words: list[Any], tmp_path: Path) -> None:
    result = cli("reproduce", "table-2", *words, "--list")
    keys = [
        "tiny--post-training--all-71--100pct--seed0",
        "tiny--fine-tuning--all-71--100pct--seed0",
    ]
    first, *lines = result.out.splitlines()
    assert first.split() == ["experiment", "short"]
    assert [line.split()[0] for line in lines[:2]] == ["missing"] * 2
    assert [line.split()[-1] for line in lines[:2]] == keys
    assert re.findall(r"\d+ \w+", lines[2])[:2] == ["2 runs", "2 missing"]
    assert not (tmp_path / "out").exists()

    result = cli("reproduce", "table-2", *words, "--only", "variant=fine-tuning")
    assert f"{keys[1]}: done" in result.err
    assert "1 of 2" in (tmp_path / "out" / "results.md").read_text()
    result = cli("reproduce", "table-2", *words, "--list")
    assert [line.split()[0] for line in result.out.splitlines()[1:3]] == ["missing", "done"]

    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    page.write_text("# By hand\n")
    result = cli("reproduce", "table-2", *words, "--shard", "1/1", "--write", page)
    assert keys[1] not in result.err
    assert str(page) in result.out
    text = page.read_text()
    assert text.startswith("# By hand\n")
    run = read_json(tmp_path / "out" / "runs" / keys[0] / "metrics.json")
    assert f"{run['test']['macro_auroc']:.4f}" in text

    before = page.read_text()
    result = cli("reproduce", "table-2", *words, "--no-run", "--write", page)
    assert page.read_text() == before


@pytest.fixture
def rows(made: Any, tmp_path: Path, synthetic_path: Path, synthetic_store: Store) -> list[Any]:
    """Table 1 of networks that the experiment names, of which one is small enough to run."""
    experiment = tmp_path / "rows.toml"
    experiment.write_text(ROWS.format(recipe=made.recipe))
    return [
        "--cohort", synthetic_path, "--store", synthetic_store.root, "--experiment", experiment,
        "--out", tmp_path / "out", "--device", "cpu", "--threads", 1,
    ]  # fmt: skip


def test_one_row_alone_beside_a_post_trained_run(
    cli: Any, rows: list[Any], made: Any, tmp_path: Path
) -> None:
    result = cli("reproduce", "table-1", *rows, "--list")
    keys = [f"{name}--own--all-71--100pct--seed0" for name in ("tiny", "mtecg_tiny_100hz")]
    assert [line.split()[-1] for line in result.out.splitlines()[1:3]] == keys
    one = ["--only", "row=one", "--only", "task=all-71"]
    shutil.copytree(made.run, tmp_path / "out" / "runs" / "post-trained")
    result = cli("reproduce", "table-1", *rows, *one)
    assert f"{keys[0]}: done" in result.err
    folders = {folder.name for folder in (tmp_path / "out" / "runs").iterdir()}
    assert folders == {keys[0], "post-trained"}
    text = (tmp_path / "out" / "results.md").read_text()
    own = read_json(tmp_path / "out" / "runs" / keys[0] / "metrics.json")["test"]["macro_auroc"]
    best = read_json(made.run / "metrics.json")["test"]["macro_auroc"]
    *_, line = [line for line in text.splitlines() if line.startswith("| **one**, `tiny`")]
    assert f"{own:.4f} (" in line
    assert number(best - own, signed=True, places=4) in line
    assert str(made.run) not in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--backbone", "tiny"], "experiment rows"),
        (["--weights", "encoder.pth"], "experiment rows"),
        (["--only", "row=three"], "row three"),
    ],
)
def test_refusals_of_rows(cli: Any, rows: list[Any], more: list[str], message: str) -> None:
    result = cli("reproduce", "table-1", *rows, *more, "--no-run", status=1)
    assert message in result.err
    result = cli("reproduce", "figure-3", *rows, status=1)
    assert "figure-3" in result.err


def test_a_failed_run_makes_the_command_fail(cli: Any, words: list[Any], tmp_path: Path) -> None:
    folder = tmp_path / "out" / "runs" / "tiny--fine-tuning--all-71--100pct--seed0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"request": {"backbone": "another"}}')
    result = cli("reproduce", "table-2", *words, "--only", "variant=fine-tuning", status=1)
    assert "1 run " in result.err
    assert (tmp_path / "out" / "results.md").is_file()  # what there is, is written


def test_planning_packs_nothing(cli: Any, words: list[Any], tmp_path: Path) -> None:
    without_store = words[:2] + words[4:]
    cli("reproduce", "grid", *without_store, "--list")
    result = cli("reproduce", "grid", *without_store, "--only", "variant=x", status=1)
    assert "variant x" in result.err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("backbone", "experiment"), [("s4_small", "s4-100hz-cpu"), ("tiny", "ptbxl-100hz-cpu")]
)
def test_the_backbone_selects_the_experiment(
    cli: Any, tmp_path: Path, synthetic_path: Path, backbone: str, experiment: str
) -> None:
    words = ["--cohort", synthetic_path, "--backbone", backbone, "--out", tmp_path, "--list"]
    result = cli("reproduce", "table-2", *words)
    assert result.out.splitlines()[0].split() == ["experiment", experiment]


def test_a_pretraining_that_does_not_suit_is_refused_before_packing(
    cli: Any, tmp_path: Path, synthetic_path: Path, made: Any
) -> None:
    words = ["--cohort", synthetic_path, "--out", tmp_path / "out", "--only", "task=all-71"]
    general = ["--experiment", "ptbxl-100hz-cpu"]
    for option in ([], ["--list"]):
        result = cli(
            "reproduce", "table-2", *words, "--backbone", "s4_tiny", *general, *option, status=1
        )
        assert re.search("ptbxl-100hz-cpu .* s4_tiny", result.err)
        assert "--weights" in result.err
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "out").exists()
    result = cli("reproduce", "table-2", *words, "--backbone", "hubert_ecg_small", status=1)
    # What needs no pretraining is not refused: random weights, and weights that are given.
    for more in (["--only", "variant=scratch"], ["--weights", made.encoder]):
        result = cli(
            "reproduce", "table-2", *words, "--backbone", "s4_tiny", *general, *more, "--list"
        )


def test_the_list(cli: Any) -> None:
    result = cli("reproduce", "list")
    for name in ("table-1", "figure-5", "grid", "ptbxl-100hz-cpu", "published"):
        assert name in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    words = " ".join(result.out.split())
    own = load_experiment("s4-100hz-cpu")
    assert f"{own.name} {own.description[:20]}" in words
    assert f" {', '.join(own.made_for)}" in words
    first, second = words.split("table-1")[1].split("table-2")[:2]
    assert re.search(r"216 \w+ peers", first)
    assert "peers" not in second.split("figure-2")[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--cohort": None}, "--cohort"),
        ({"--backbone": None}, "--backbone"),
        ({"--backbone": "s5"}, "'s5'"),
        ({"--experiment": "tomorrow"}, "'tomorrow'"),
        ({"--weights": "nowhere.pth"}, "nowhere.pth"),
        ({"--cohort": "nowhere.csv"}, "nowhere.csv"),
        ({"--only": "variant=x"}, "variant x"),
        ({"--shard": "3/2"}, "--shard"),
    ],
)
def test_refusals(cli: Any, words: list[Any], changes: dict[str, str | None], message: str) -> None:
    options = dict(zip(words[::2], words[1::2], strict=True)) | changes
    arguments = [word for pair in options.items() if pair[1] is not None for word in pair]
    result = cli("reproduce", "table-2", *arguments, status=1)
    assert message in result.err.partition("\n  ")[0]
    assert result.remedies == 1


def test_a_cohort_in_another_layout_is_refused(cli: Any, words: list[Any], tmp_path: Path) -> None:
    (tmp_path / "hospital").mkdir()
    (tmp_path / "hospital" / "records.csv").write_text("record,label\n1,0\n")
    words[1] = tmp_path / "hospital"
    result = cli("reproduce", "table-2", *words, "--list", status=1)
    assert f"{words[1]} " in result.err
