"""The ladder of the small model: fold 10 stays out, and teachers do not see what they predict."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from einthoven.cohorts import Cohort
from einthoven.signals.store import Store
from einthoven.stages.recipe import load_recipe
from einthoven.training.checkpoint import save_checkpoint
from einthoven.training.loop import CHECKPOINT

sys.path.insert(0, str(Path(__file__).parents[2] / "studies" / "small-model"))
for _name in ("arms", "train"):  # another study has modules of these names
    sys.modules.pop(_name, None)

import train as study  # noqa: E402
from arms import ARMS, TEACHER_FLAGS  # noqa: E402


@pytest.fixture
def ladder(synthetic_path: Path, synthetic_store: Store, tmp_path: Path) -> study.Ladder:
    return study.Ladder(
        argparse.Namespace(
            cohort=synthetic_path, store=synthetic_store.root, weights=None, out=tmp_path
        )
    )


def test_every_arm_is_a_recipe_and_teachers_choose_nothing_by_fold_9() -> None:
    for arm in ARMS.values():
        load_recipe(arm.recipe, arm.flags, backbone=arm.backbone)
        assert set(arm.teachers) <= set(TEACHER_FLAGS)
    for name, flags in TEACHER_FLAGS.items():
        arm = ARMS[name]
        recipe = load_recipe(arm.recipe, (*arm.flags, *flags), backbone=arm.backbone)
        assert not recipe.uses_validation


def test_out_of_fold_predictions(ladder: study.Ladder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each record is predicted once, by a network that has seen none of its patient's records."""
    held_out: list[str] = []

    def train(self: object, arm: str, cohort: Cohort, flags: Sequence[str], folder: Path) -> object:
        seen, ids = set(cohort.patients().tolist()), set(cohort.ids().tolist())
        assert set(cohort.table["fold"]) < set(range(1, 9))

        def predict(others: Cohort, store: Store) -> study.Floats:
            assert seen.isdisjoint(others.patients().tolist())
            assert len(ids) + len(others) == len(ladder.cohort.ids("train"))
            held_out.extend(others.ids().tolist())
            return np.full(others.matrix.shape, 0.25)

        return SimpleNamespace(predict=predict)

    monkeypatch.setattr(study.Ladder, "train", train)
    assert set(ladder.cohort.table["fold"]) == set(range(1, 10))
    soft = ladder.with_soft_targets(("base",), 0)
    assert sorted(held_out) == sorted(ladder.cohort.ids("train").tolist())
    expected = ladder.cohort.targets("train") / 2 + 0.125
    np.testing.assert_allclose(soft.targets("train"), expected)
    assert np.array_equal(soft.targets("validation"), ladder.cohort.targets("validation"))


def test_weights_of_the_last_epochs_are_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "SOUP", 2)
    epochs, model = study.Epochs(tmp_path), nn.Linear(2, 1)
    optimiser = torch.optim.SGD(model.parameters())
    (tmp_path / "stage2").mkdir()
    for epoch in range(1, study.SOUP + 3):
        assert not epochs.mean() or epoch > study.SOUP
        nn.init.constant_(model.weight, epoch)
        save_checkpoint(tmp_path / "stage2" / CHECKPOINT, model, optimiser, {})
        epochs("stage 2, fine-tuning", 1, 1, {"epoch": epoch, "loss": 0.1})
        epochs("stage 2, fine-tuning", 1, 1, {"epoch": epoch, "train_loss": 0.1})
    assert epochs.mean()["weight"].unique().item() == np.mean(range(3, study.SOUP + 3))


def test_every_arm_and_every_result_has_a_row() -> None:
    result = {"training_minutes": 5.0, "macro_auroc": 0.91234, "macro_auroc_interval": [0.9, 0.93]}
    result |= {"macro_auprc": 0.4, "crops_13": [0.92, 0.41], "epochs": 8}
    lines = [
        {"arm": "mix", "seed": seed, "auroc_minus_base": [0.01, -0.01, 0.02]} for seed in (1, 0)
    ]
    header, _, *rows = study.listing([line | result for line in lines]).split("\n")
    assert len(rows) == len(ARMS) + 1
    assert {row.count("|") for row in rows} == {header.count("|")}
    mine = [row for row in rows if "0.9123 (0.9000 to 0.9300)" in row]
    assert [row.split("|")[4].strip() for row in mine] == ["8, 0", "8, 1"]
