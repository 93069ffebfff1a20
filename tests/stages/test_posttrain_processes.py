"""Two processes fine-tune a network with batch norm as one with the whole batch does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven.cohorts import Cohort
from einthoven.files import read_lines, read_tensors
from einthoven.signals.store import Store
from einthoven.stages.posttrain import posttrain
from einthoven.stages.recipe import Data, Recipe, Stage2
from einthoven.training.distributed import Processes

# Eleven batch norms: of images in channels-last layout, and of the 16 vectors behind the pooling.
# The last batch of an epoch is smaller: 58 records are three batches of 16 and one of 10.
BACKBONE, OPTIONS = "resnet1d_wang", {"width": 8, "hidden": 12, "hidden_dropouts": (0.0, 0.0)}
RECIPE = Recipe(
    name="tiny",
    initialise="random",
    precision="fp32",
    data=Data(crop_seconds=2.5, evaluation_crops=1, augmentation="none"),
    stage1=None,
    stage2=Stage2(epochs=2, batch_size=16, base_lr=1e-2, warmup_epochs=1, drop_last=False),
)
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 2e-6, 5e-6

SCRIPT = """
import json, sys, torch
from einthoven.cohorts import open_cohort
from einthoven.signals.store import Store
from einthoven.stages.posttrain import posttrain
from einthoven.stages.recipe import Recipe
from einthoven.training.distributed import Processes

cohort, store, backbone, options, recipe, out = sys.argv[1:]
torch.set_num_threads(1)
posttrain(
    open_cohort(cohort, min_records=8), Store.open(store), backbone, out=out,
    recipe=Recipe.model_validate_json(recipe), options=json.loads(options),
    processes=Processes("cpu"),
)
"""


@pytest.fixture(scope="module")
def together(
    tmp_path_factory: pytest.TempPathFactory,
    synthetic_path: Path,
    synthetic_store: Store,
    torchrun: Callable[..., Any],
) -> Path:
    """The run folder of two processes that torchrun started."""
    out = tmp_path_factory.mktemp("together")
    script = out / "job.py"
    script.write_text(SCRIPT)
    given = BACKBONE, json.dumps(OPTIONS), RECIPE.model_dump_json()
    torchrun(script, synthetic_path, synthetic_store.root, *given, out / "run")
    return out / "run"


def test_two_processes_equal_one(
    together: Path, tmp_path: Path, synthetic: Cohort, synthetic_store: Store
) -> None:
    posttrain(
        synthetic,
        synthetic_store,
        BACKBONE,
        recipe=RECIPE,
        out=tmp_path,
        options=OPTIONS,
        processes=Processes("cpu"),
    )
    ours, theirs = (read_lines(run / "stage2" / "metrics.jsonl") for run in (together, tmp_path))
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        for key in ("train_loss", "validation_loss"):
            assert mine[key] == pytest.approx(other[key], rel=LOSS_TOLERANCE), key
    mine, other = (
        read_tensors(run / "stage2" / "checkpoint.safetensors")[0] for run in (together, tmp_path)
    )
    assert mine.keys() == other.keys()
    weights = [key for key in mine if key.startswith("model.")]
    assert sum(key.endswith("running_var") for key in weights) == 11
    for key in weights:
        torch.testing.assert_close(
            mine[key], other[key], rtol=WEIGHT_TOLERANCE, atol=WEIGHT_TOLERANCE, msg=key
        )
