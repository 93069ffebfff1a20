"""A backbone and an objective of another package, through everything that uses the catalogue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.registry import entry
from einthoven.cohorts import Cohort
from einthoven.doctor import inspect, text_of
from einthoven.errors import BackboneError, RecipeError
from einthoven.objectives import objective_names, register_objective
from einthoven.objectives import registry as objectives
from einthoven.records import read_record
from einthoven.signals.store import Store
from einthoven.stages.finetune import regularise
from einthoven.stages.posttrain import posttrain
from einthoven.stages.pretrain import check_pretraining, pretrain, suitable_recipes
from einthoven.stages.recipe import (
    Data,
    Pretraining,
    Recipe,
    Stage1,
    Stage2,
)
from einthoven.training.distributed import Processes
from einthoven.weights import load_backbone

CPU = Processes("cpu")
PRETRAINING = Pretraining(
    name="short", precision="fp32", crop_seconds=2.5, epochs=1, batch_size=32, base_lr=1e-3
)
POSTTRAINING = Recipe(
    name="short",
    precision="fp32",
    data=Data(crop_seconds=2.5, evaluation_crops=2, augmentation="none"),
    stage1=Stage1(epochs=1, batch_size=32, crops=1, base_lr_sweep=(1e-2,)),
    stage2=Stage2(epochs=1, batch_size=32, base_lr=1e-3, drop_path=0.1),
)


@pytest.fixture
def sample_prediction(outside: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an objective that another package has registered, for one test."""
    monkeypatch.setattr(objectives, "OBJECTIVES", dict(objectives.OBJECTIVES))
    register_objective("sample-prediction", outside("outside_objective").create)
    return "sample-prediction"


def test_doctor_shows_what_it_does_with_missing_leads(
    outside_backbone: str, synthetic_path: Path
) -> None:
    header = next((synthetic_path / "records100").rglob("*.hea"))
    record = read_record(header)
    whole = map(text_of, inspect(record, outside_backbone))
    assert any("1000 samples" in line for line in whole)
    few = map(text_of, inspect(record.select(("I", "V2")), outside_backbone))
    assert any(entry(outside_backbone).missing_leads in line for line in few)


def test_only_positions_are_frozen(outside_backbone: str) -> None:
    """A name that begins with "pos", such as `post_norm`, decides nothing."""
    classifier = create_classifier(outside_backbone, labels=3)
    regularise(classifier, Stage2(freeze_positions=True))
    frozen = [name for name, p in classifier.named_parameters() if not p.requires_grad]
    assert frozen == ["backbone.positions"]


def test_it_is_pretrained_then_post_trained(
    outside_backbone: str, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    assert "release" in suitable_recipes(outside_backbone)
    members: Any = (synthetic, synthetic_store)
    pretrained = pretrain(
        *members, outside_backbone, recipe=PRETRAINING, out=tmp_path / "pretrain", processes=CPU
    )
    loaded = load_backbone(outside_backbone, weights=pretrained.encoder)
    x = torch.randn(2, 12, 250)
    assert loaded(x).shape == (2, 24)
    done = posttrain(
        *members,
        outside_backbone,
        recipe=POSTTRAINING,
        out=tmp_path / "posttrain",
        weights=pretrained.encoder,
        processes=CPU,
    )
    assert done.results.keys() == {"stage1", "stage2"}
    assert torch.isfinite(done.classifier(x)).all()


def test_an_objective_pretrains_a_backbone(
    sample_prediction: str,
    outside_backbone: str,
    synthetic: Cohort,
    synthetic_store: Store,
    tmp_path: Path,
) -> None:
    assert sample_prediction in objective_names()
    recipe = PRETRAINING.model_copy(
        update={"objective": sample_prediction, "options": {"noise": 0.2}}
    )
    done = pretrain(
        synthetic,
        synthetic_store,
        outside_backbone,
        recipe=recipe,
        out=tmp_path / "run",
        processes=CPU,
    )
    assert done.history[-1]["train_loss"] > 0
    with pytest.raises(BackboneError):
        check_pretraining(recipe, "s4_tiny")


def test_a_name_belongs_to_one_objective(sample_prediction: str) -> None:
    with pytest.raises(RecipeError, match=sample_prediction) as refused:
        register_objective(sample_prediction, lambda backbone: backbone)
    assert refused.value.remedy is not None
