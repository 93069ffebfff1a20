"""Golden losses: every preset recipe, shrunk to seconds, loses what it always lost.

A change of losses.json is a change of training that users will see: write it again only on
purpose, with

    EINTHOVEN_WRITE_GOLDEN=1 python -m pytest tests/golden/test_golden_losses.py

and say in the commit why.
"""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorder import Recorder

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.files import write_json, write_tensors
from einthoven.signals.store import Store
from einthoven.stages.posttrain import posttrain
from einthoven.stages.pretrain import pretrain
from einthoven.stages.recipe import Pretraining, load_pretraining, load_recipe, recipe_names
from einthoven.training.distributed import Processes

GOLDEN = Path(__file__).with_name("losses.json")
# The recipes of st-mem are those with the general names.
RECIPES = [name for name in recipe_names() if not name.startswith("st-mem/")]
BACKBONE = "mtecg_tiny_100hz"
TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}
# One recipe with both stages over every other family, so that a change of a network shows as well.
OTHERS: dict[str, dict[str, Any]] = {
    "hubert_ecg_small": {"depth": 2, "width": 32, "heads": 2, "conv_width": 16, "pos_groups": 4},
    "ecgfounder_12lead": {"stem_width": 16, "widths": (16, 32), "depths": (1, 2)},
    "ecg_fm": {"depth": 2, "width": 32, "heads": 2, "conv_width": 16, "pos_groups": 4},
    "s4_small": {"depth": 2, "width": 16, "state": 4},
    "transformer_small": {"depth": 2, "width": 16, "heads": 2, "hidden": 32},
    "net1d_small": {"width": 32, "first_width": 16, "widths": (16, 32), "depths": (1, 1)},
}
# Recipes that need parts which the first network lacks.
OF_NETWORKS = {"ecg-fm": "ecg_fm", "hubert-ecg": "hubert_ecg_small"}
# The networks of objectives that the one above does not fit.
LEARNERS = {"ecg_fm": "ecg_fm"} | dict.fromkeys(
    ("cpc", "jepa", "data2vec", "dinosr", "sinkhorn_kmeans", "hubert"), "s4_small"
)
# Only sizes are changed: whatever else a recipe says is what is tested. The learning rates are
# those of the recipes for batches that are larger, so that a few steps go somewhere.
SHRUNK = {
    "precision": "fp32",
    "data.crop_seconds": 2.5,
    "stage1.solver": "adamw",
    "stage1.epochs": 2,
    "stage1.batch_size": 16,
    "stage1.warmup_epochs": 1,
    "stage2.epochs": 2,
    "stage2.min_steps": 0,
    "stage2.batch_size": 16,
    "stage2.warmup_epochs": 1,
}
SHRUNK_PRETRAINING = {
    "precision": "fp32",
    "crop_seconds": 2.5,
    "epochs": 2,
    "batch_size": 16,
    "micro_batch": 16,
    "warmup_epochs": 1,
}


def encoder(backbone: str, file: Path) -> Path:
    """Weights of a shrunk network."""
    options = OTHERS.get(backbone, TINY)
    network = create_backbone(backbone, seed=0, init="pretraining", **options)
    write_tensors(file, network.state_dict(), {})
    return file


def compare(name: str, result: dict[str, list[float]]) -> None:
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.is_file() else {}
    if os.environ.get("EINTHOVEN_WRITE_GOLDEN"):
        rounded = {stage: [round(loss, 6) for loss in losses] for stage, losses in result.items()}
        write_json(GOLDEN, dict(sorted((golden | {name: rounded}).items())))
        pytest.skip("written, not compared")
    assert result.keys() == golden[name].keys()
    for stage, losses in result.items():
        # Sums are added up in another order from processor to processor.
        np.testing.assert_allclose(losses, golden[name][stage], rtol=1e-6, atol=1e-4, err_msg=stage)


@pytest.mark.parametrize("name", RECIPES)
def test_post_training(
    name: str, tmp_path: Path, synthetic: Cohort, synthetic_store: Store
) -> None:
    backbone = OF_NETWORKS.get(name.partition("/")[0], BACKBONE)
    preset = load_recipe(name)
    stages = [stage for stage in ("stage1", "stage2") if getattr(preset, stage) is not None]
    changes = {k: v for k, v in SHRUNK.items() if k.split(".")[0] not in {"stage1", "stage2"}}
    changes |= {k: v for k, v in SHRUNK.items() if k.split(".")[0] in stages}
    if preset.stage2 and preset.stage2.schedule == "one-cycle":
        del changes["stage2.warmup_epochs"]  # its warm-up is a share of the steps
    recipe = load_recipe(name, [f"{key}={value}" for key, value in changes.items()])
    recorder = Recorder()
    posttrain(
        synthetic,
        synthetic_store,
        backbone,
        recipe=recipe,
        out=tmp_path / "run",
        weights=encoder(backbone, tmp_path / "model")
        if recipe.initialise == "pretrained"
        else None,
        options=OTHERS.get(backbone, TINY),
        processes=Processes("cpu"),
        progress=recorder,
    )
    compare(f"post-training/{name}", recorder.losses)


@pytest.mark.parametrize("backbone", OTHERS)
def test_other_backbones(
    backbone: str, tmp_path: Path, synthetic: Cohort, synthetic_store: Store
) -> None:
    recorder = Recorder()
    posttrain(
        synthetic,
        synthetic_store,
        backbone,
        recipe=load_recipe("post-training", [f"{key}={value}" for key, value in SHRUNK.items()]),
        out=tmp_path / "run",
        weights=encoder(backbone, tmp_path / "model"),
        options=OTHERS[backbone],
        processes=Processes("cpu"),
        progress=recorder,
    )
    compare(f"backbones/{backbone}", recorder.losses)


@pytest.mark.parametrize("name", recipe_names(Pretraining))
def test_pretraining(name: str, tmp_path: Path, synthetic: Cohort, synthetic_store: Store) -> None:
    recorder = Recorder()
    recipe = load_pretraining(name, [f"{k}={v}" for k, v in SHRUNK_PRETRAINING.items()])
    if recipe.objective == "hubert" and not version("scikit-learn").startswith("1.9."):
        pytest.skip("the clusters are those of scikit-learn 1.9")
    backbone = LEARNERS.get(recipe.objective, BACKBONE)
    pretrain(
        synthetic,
        synthetic_store,
        backbone,
        recipe=recipe,
        out=tmp_path,
        options=OTHERS.get(backbone, TINY),
        processes=Processes("cpu"),
        progress=recorder,
    )
    compare(f"pretraining/{name}", recorder.losses)


def test_every_golden_recipe_still_exists() -> None:
    covered = {f"post-training/{name}" for name in RECIPES}
    covered |= {f"pretraining/{name}" for name in recipe_names(Pretraining)}
    covered |= {f"backbones/{name}" for name in OTHERS}
    assert json.loads(GOLDEN.read_text()).keys() == covered
