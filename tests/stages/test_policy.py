"""Values of a recipe that depend on the size of the cohort."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.files import read_json, write_json
from einthoven.stages import policy
from einthoven.stages.policy import FEWEST_TUNED, MOST_REFITTED, resolve_auto
from einthoven.stages.posttrain import GAIN
from einthoven.stages.recipe import Recipe, Stage1, Stage2
from einthoven.training.checkpoint import load_weights
from einthoven.training.loop import BEST


def targets(records: int, positives: int, labels: int = 3) -> np.ndarray:
    values = np.zeros((records, labels), dtype=np.uint8)
    values[:positives] = 1
    return values


def settled(records: int, positives: int = 50, **stage2: Any) -> Recipe:
    recipe = Recipe(name="r", stage1=Stage1(), stage2=Stage2(select="auto", **stage2))
    return resolve_auto(recipe, targets(records, 20), targets(max(100, positives), positives))[0]


@pytest.mark.parametrize(
    ("records", "solver"), [(50, "logistic"), (5000, "logistic"), (5001, "adamw")]
)
def test_solver_by_training_records(records: int, solver: str) -> None:
    stage1 = settled(records).stage1
    assert stage1 is not None
    assert stage1.solver == solver


def test_query_attention_takes_steps() -> None:
    recipe = Recipe(name="r", head="query-attention", stage1=Stage1())
    resolved, decisions = resolve_auto(recipe, targets(50, 20), targets(100, 50))
    assert resolved.stage1 is not None
    assert resolved.stage1.solver == "adamw"
    assert [(each.key, each.value) for each in decisions] == [("stage1.solver", "adamw")]
    assert "query-attention" in decisions[0].reason


@pytest.mark.parametrize(
    ("positives", "select"),
    [(0, "lowest-loss"), (9, "lowest-loss"), (10, "best"), (95, "lowest-loss")],
)
def test_epoch_is_selected_by_loss_where_validation_has_few_of_a_class(
    positives: int, select: str
) -> None:
    stage2 = settled(300, positives).stage2
    assert stage2 is not None
    assert stage2.select == select


@pytest.mark.parametrize(
    ("records", "batch"),
    [(17_000, 64), (1400, 64), (1300, 32), (300, 8), (20, 8)],
)
def test_batch_shrinks_until_there_are_enough_steps(records: int, batch: int) -> None:
    stage2 = settled(records, epochs=24, batch_size=64, min_steps=500).stage2
    assert stage2 is not None
    assert stage2.batch_size == batch


@pytest.mark.parametrize(
    ("records", "keep", "tuned"),
    [
        (FEWEST_TUNED - 101, "auto", False),
        (FEWEST_TUNED - 100, "auto", True),
        (50, "always", True),
        (50, "better", True),
    ],
)
def test_fine_tuning_is_tried_from_a_number_of_records(
    records: int, keep: str, tuned: bool
) -> None:
    stage2 = settled(records, keep=keep).stage2
    assert (stage2 is not None) == tuned
    assert stage2 is None or stage2.keep == keep.replace("auto", "better")


@pytest.mark.parametrize(
    ("records", "validation", "refit"),
    [
        (MOST_REFITTED - 100, 100, "always"),
        (MOST_REFITTED - 99, 100, "never"),
        (100, 0, "never"),
    ],
)
def test_small_cohorts_are_trained_again_with_the_validation_records(
    records: int, validation: int, refit: str
) -> None:
    recipe = Recipe(name="r", refit="auto", stage1=Stage1())
    settings, _ = resolve_auto(recipe, targets(records, 20), targets(validation, validation // 2))
    assert settings.refit == refit


def test_explicit_values_and_settled_recipes_stay() -> None:
    fixed = Recipe(name="r", stage1=Stage1(solver="adamw"), stage2=Stage2(select="last"))
    assert resolve_auto(fixed, targets(20, 5), targets(20, 5)) == (fixed, [])
    once = settled(300, epochs=24, batch_size=64, min_steps=500)
    assert resolve_auto(once, targets(300, 20), targets(100, 50)) == (once, [])


def test_decisions_name_key_value_and_numbers() -> None:
    recipe = Recipe(name="r", stage1=Stage1())
    _, (decision,) = resolve_auto(recipe, targets(266, 20), targets(30, 3))
    assert (decision.key, decision.value) == ("stage1.solver", "logistic")
    assert "266" in str(decision)


@pytest.mark.parametrize(
    ("gain", "keep"), [(0.02, "auto"), (0.005, "auto"), (-0.02, "auto"), (-0.02, "better")]
)
def test_the_probe_is_kept_unless_fine_tuning_gains_more_than_an_error(
    tmp_path: Path,
    train: Any,
    gain: float,
    keep: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The measured gain is replaced in a finished run, which is then read again."""
    monkeypatch.setattr(policy, "FEWEST_TUNED", 0)
    train(tmp_path, stage2={"keep": keep})
    outcome = read_json(tmp_path / "stage2" / GAIN)
    assert set(outcome) == {"probe_loss", "gain", "standard_error", "records"}
    write_json(tmp_path / "stage2" / GAIN, outcome | {"gain": gain, "standard_error": 0.01})
    with caplog.at_level(logging.INFO, "einthoven"):
        run = train(tmp_path, stage2={"keep": keep})
    assert run.results["stage2"].is_kept == (gain > 0.01)
    head = run.classifier.head.weight.clone()
    load_weights(tmp_path / "stage2" / BEST, run.classifier)
    assert torch.equal(head, run.classifier.head.weight) == (gain > 0.01)
    assert f"{outcome['probe_loss'] - gain:.4f}" in caplog.text
