"""The verb as a user types it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from einthoven.files import read_json
from einthoven.signals.store import Store

EXPERIMENT = """
name = "short"
tasks = ["all-71"]
resamples = 20
min_records = 8
[pretraining]
recipe = "demo"
[arms.post-training]
recipe = "{recipe}"
[arms.fine-tuning]
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
[arms.own]
recipe = "{recipe}"
without = ["stage1"]
start = "random"
[[rows]]
name = "one"
backbone = "tiny"
arm = "own"
published = "xresnet1d101"
[[rows]]
name = "two"
backbone = "mtecg_tiny_100hz"
arm = "own"
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
    said = cli("reproduce", "table-2", *words, "--plan")
    assert said.status == 0, said.err
    keys = [
        "tiny--post-training--all-71--100pct--seed0",
        "tiny--fine-tuning--all-71--100pct--seed0",
    ]
    first, *lines = said.out.splitlines()
    assert first.split() == ["experiment", "short"]
    assert [line.split()[0] for line in lines[:2]] == ["missing"] * 2
    assert [line.split()[-1] for line in lines[:2]] == keys
    assert lines[2].startswith("2 cells: 2 missing")
    assert not (tmp_path / "out").exists()

    said = cli("reproduce", "table-2", *words, "--only", "arm=fine-tuning")
    assert said.status == 0, said.err
    assert f"{keys[1]}: done" in said.err
    assert "1 of 2 runs" in (tmp_path / "out" / "results.md").read_text()
    said = cli("reproduce", "table-2", *words, "--plan")
    assert [line.split()[0] for line in said.out.splitlines()[1:3]] == ["missing", "done"]

    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    page.write_text("# By hand\n")
    said = cli("reproduce", "table-2", *words, "--shard", "1/1", "--write", page)
    assert said.status == 0, said.err
    assert keys[1] not in said.err
    assert f"Page: {page}" in said.out
    assert f"Report: {tmp_path / 'out' / 'report.html'}" in said.out
    text = page.read_text()
    assert text.startswith("# By hand\n")
    run = read_json(tmp_path / "out" / "runs" / keys[0] / "metrics.json")
    assert f"{run['test']['macro_auroc']:.4f}" in text

    before = page.read_text()
    said = cli("reproduce", "table-2", *words, "--no-run", "--write", page)
    assert said.status == 0
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


def test_one_row_alone_against_a_run_of_ours(
    cli: Any, rows: list[Any], made: Any, tmp_path: Path
) -> None:
    said = cli("reproduce", "table-1", *rows, "--plan")
    keys = [f"{name}--own--all-71--100pct--seed0" for name in ("tiny", "mtecg_tiny_100hz")]
    assert [line.split()[-1] for line in said.out.splitlines()[1:3]] == keys
    one = ["--only", "row=one", "--only", "task=all-71", "--against", made.run]
    said = cli("reproduce", "table-1", *rows, *one)
    assert said.status == 0, said.err
    assert f"{keys[0]}: done" in said.err
    assert [folder.name for folder in (tmp_path / "out" / "runs").iterdir()] == keys[:1]
    text = (tmp_path / "out" / "results.md").read_text()
    own = read_json(tmp_path / "out" / "runs" / keys[0] / "metrics.json")["test"]["macro_auroc"]
    best = read_json(made.run / "metrics.json")["test"]["macro_auroc"]
    (line,) = [line for line in text.splitlines() if line.startswith("| **one**, `tiny` § | 0 |")]
    assert f"{own:.4f} (" in line
    assert f"| {best - own:+.4f} (" in line
    assert "--only row=two" in text
    assert "--only row=one" not in text
    commands = read_json(tmp_path / "out" / "report-rows.json")["commands"]
    assert f"--against {made.run}" in commands[0]
    assert str(made.run) not in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--backbone", "tiny"], "name their own backbones"),
        (["--weights", "encoder.pth"], "name their own backbones"),
        (["--only", "row=three"], "no cell has row three"),
        (["--against", "nowhere"], "--against nowhere: neither a run folder nor"),
    ],
)
def test_refusals_of_rows(cli: Any, rows: list[Any], more: list[str], message: str) -> None:
    said = cli("reproduce", "table-1", *rows, *more, "--no-run")
    assert said.status == 1
    assert message in said.err
    said = cli("reproduce", "figure-3", *rows)
    assert said.status == 1
    assert "makes table-1 alone" in said.err


def test_rows_are_kept_by_the_verb_for_rows(
    cli: Any, rows: list[Any], words: list[Any], tmp_path: Path
) -> None:
    said = cli("reproduce", "table-1", *rows, "--no-run", "--keep-rows")
    assert said.status == 0, said.err
    assert "not run yet" in (tmp_path / "out" / "results.md").read_text()
    said = cli("reproduce", "table-2", *words, "--no-run", "--keep-rows")
    assert said.status == 1
    assert "table-2 has no rows to keep" in said.err


def test_a_failed_cell_makes_the_command_fail(cli: Any, words: list[Any], tmp_path: Path) -> None:
    folder = tmp_path / "out" / "runs" / "tiny--fine-tuning--all-71--100pct--seed0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"request": {"backbone": "another"}}')
    said = cli("reproduce", "table-2", *words, "--only", "arm=fine-tuning")
    assert said.status == 1
    assert "1 cells failed" in said.err
    assert "holds a run with another" in said.err
    assert (tmp_path / "out" / "results.md").is_file()  # what there is, is written


def test_planning_packs_nothing(cli: Any, words: list[Any], tmp_path: Path) -> None:
    without_store = words[:2] + words[4:]
    assert cli("reproduce", "grid", *without_store, "--plan").status == 0
    said = cli("reproduce", "grid", *without_store, "--only", "arm=x")
    assert "no cell has arm x" in said.err
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("backbone", "experiment", "recipe"),
    [
        ("s4_tiny", "s4-100hz-cpu, which is made for s4_tiny", "s4-ptbxl-100hz-cpu"),
        ("s4_small", "s4-100hz-cpu, which is made for s4_small", "s4-ptbxl-100hz-cpu"),
        ("tiny", "ptbxl-100hz-cpu, the general one: none is made for tiny", "ptbxl-100hz-cpu"),
    ],
)
def test_the_experiment_is_chosen_by_the_backbone(
    cli: Any, tmp_path: Path, synthetic_path: Path, backbone: str, experiment: str, recipe: str
) -> None:
    out = tmp_path / "out"
    words = ["--cohort", synthetic_path, "--backbone", backbone, "--out", out, "--plan"]
    said = cli("reproduce", "table-2", *words)
    assert said.status == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].split(maxsplit=1) == ["experiment", experiment]
    assert f"pretraining--{backbone}--seed0: recipe {recipe}," in lines[1]


def test_a_pretraining_that_does_not_suit_is_refused_before_packing(
    cli: Any, tmp_path: Path, synthetic_path: Path, made: Any
) -> None:
    words = ["--cohort", synthetic_path, "--out", tmp_path / "out", "--only", "task=all-71"]
    general = ["--experiment", "ptbxl-100hz-cpu"]
    for plan in ([], ["--plan"]):
        said = cli("reproduce", "table-2", *words, "--backbone", "s4_tiny", *general, *plan)
        assert said.status == 1
        assert "experiment ptbxl-100hz-cpu cannot pretrain s4_tiny" in said.err
        assert "no patches that could be hidden" in said.err
        assert "choose --experiment s4-100hz-cpu" in said.err
        assert "or name --weights" in said.err
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "out").exists()
    said = cli("reproduce", "table-2", *words, "--backbone", "hubert_ecg_small")
    assert "give an experiment of your own a [pretraining]" in said.err
    # What needs no pretraining is not refused: random weights, and weights that are given.
    for more in (["--only", "arm=scratch"], ["--weights", made.encoder]):
        said = cli(
            "reproduce", "table-2", *words, "--backbone", "s4_tiny", *general, *more, "--plan"
        )
        assert said.status == 0, said.err


def test_the_list(cli: Any) -> None:
    said = cli("reproduce", "list")
    assert said.status == 0
    for name in ("table-1", "figure-5", "grid", "ptbxl-100hz-cpu", "published"):
        assert name in said.out
    assert "s4-100hz-cpu: A small S4" in said.out
    assert "taken for s4_tiny, s4_small\n" in said.out
    lines = {line.split()[0]: line for line in said.out.splitlines() if line}
    assert "216 in peers" in lines["table-1"]
    assert "peers" not in lines["table-2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--cohort": None}, "no --cohort is named"),
        ({"--backbone": None}, "no --backbone is named"),
        ({"--backbone": "s5"}, "unknown backbone"),
        ({"--experiment": "tomorrow"}, "no experiment 'tomorrow'"),
        ({"--weights": "nowhere.pth"}, "nowhere.pth is missing"),
        ({"--cohort": "nowhere.csv"}, "is no folder"),
        ({"--only": "arm=x"}, "no cell has arm x"),
        ({"--shard": "3/2"}, "is no part"),
    ],
)
def test_refusals(cli: Any, words: list[Any], changes: dict[str, str | None], message: str) -> None:
    given = dict(zip(words[::2], words[1::2], strict=True)) | changes
    kept = [word for pair in given.items() if pair[1] is not None for word in pair]
    said = cli("reproduce", "table-2", *kept)
    assert said.status == 1
    assert message in said.err
    assert "What to do" in said.err
