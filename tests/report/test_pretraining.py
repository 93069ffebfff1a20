"""The page of pretraining runs."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest

from einthoven.errors import EvaluationError
from einthoven.files import read_json, write_json
from einthoven.report import PretrainingRun, pretraining_page
from einthoven.report.pretraining import lowest
from einthoven.run_report import write_run_report

HOSTILE = '<script>alert("$x$")</script>'


def text_of(page: str) -> str:
    """What a reader sees."""
    body = page.split("</style>")[1]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def history(shift: float, *, validation: bool = True) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for epoch in range(1, 4):
        line: dict[str, Any] = {"epoch": epoch, "train_loss": 3.0 / epoch + shift, "seconds": 60.0}
        if validation:
            line |= {"validation_loss": 3.0 / epoch + shift + (epoch == 3)}
            line |= {"validation_contrastive_loss": line["validation_loss"]}
            line |= {"validation_masked": 0.75, "validation_accuracy": epoch / 8}
            line |= {"validation_seconds": 1.0}
        lines.append(line)
    return lines


def about(**asked: Any) -> dict[str, Any]:
    whole = {
        "stage": "pretrain",
        "backbone": "s4_tiny",
        "recipe": {"name": "cpc", "epochs": 5},
        "cohort": "ptb-xl",
        "version": "1.0.3",
        "records": 17418,
    }
    return {"request": whole | asked, "command": ["einthoven", "pretrain"], "environment": {}}


def test_it_shows_losses_and_says_what_they_were_measured_on() -> None:
    run = PretrainingRun(HOSTILE, about(), history(0.0))
    page = pretraining_page([run], title=HOSTILE)
    text = text_of(page)
    assert "<script" not in page
    assert page.count("<svg") == page.count("</svg>") == 1
    assert "ptb-xl 1.0.3 (17,418 records)" in text
    assert "3 of 5" in text
    assert "Validation accuracy" in text
    # The loss under another name, a constant and a time are no curves.
    figure = text.split("Figure 1")[0]
    assert "contrastive" not in figure
    assert "masked" not in figure
    assert '<data value="1.5">1.5</data>' in page  # the lowest validation loss
    assert '<data value="183.0">3 min 3 s</data>' in page  # validation's time too


def test_mixtures_and_runs_without_validation() -> None:
    cohorts = [
        {"cohort": "ptb-xl", "version": "1.0.3", "records": 100, "draws": 75},
        {"cohort": "own", "version": "unversioned", "records": 25, "draws": 50},
    ]
    runs = [
        PretrainingRun("mixed", about(cohorts=cohorts), history(0.5, validation=False)),
        PretrainingRun("plain", about(), history(0.0)),
    ]
    text = text_of(pretraining_page(runs, title="Two"))
    assert "own unversioned (25 records, 40.0% of the draws)" in text
    assert "mixed" in text
    assert "plain" in text
    alone = text_of(pretraining_page(runs[:1], title="One"))
    assert "Validation loss" not in alone.split("Figure 1")[0]


def test_the_lowest_loss_is_the_earliest_of_equals() -> None:
    lines = [{"epoch": 1, "validation_loss": 2.0}, {"epoch": 2, "validation_loss": 2.0}]
    assert lowest(lines) == lines[0]
    assert lowest([{"epoch": 1}]) is None


def test_a_folder_of_a_pretraining_is_known_as_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_json(tmp_path / name / "run.json", about(recipe={"name": name, "epochs": 5}))
        (tmp_path / name / "pretrain").mkdir()
    lines = '{"epoch": 1, "train_loss": 2.0, "seconds": 3.0}\n{"epoch": 2, "tra'
    (tmp_path / "a" / "pretrain" / "metrics.jsonl").write_text(lines)
    page = write_run_report([tmp_path / "a"], tmp_path / "page.html")
    numbers = read_json(page.with_suffix(".json"))
    assert numbers["runs"][0]["name"] == "a"
    assert [line["epoch"] for line in numbers["runs"][0]["history"]] == [1]
    assert f"einthoven report {tmp_path / 'a'}" in text_of(page.read_text())
    with pytest.raises(EvaluationError, match="b has not finished an epoch"):
        write_run_report([tmp_path / "a", tmp_path / "b"], tmp_path / "page.html")
