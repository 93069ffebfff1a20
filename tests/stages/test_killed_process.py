"""A process that is really killed, by a signal that no program can catch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven.signals.store import Store
from einthoven.stages.posttrain import PosttrainResult
from einthoven.stages.recipe import Recipe

# Trains what the fixture `train` trains, and says every step.
SCRIPT = """
import sys, torch
from einthoven.cohorts import open_cohort
from einthoven.signals.store import Store
from einthoven.stages.posttrain import posttrain
from einthoven.stages.recipe import Recipe
from einthoven.training.distributed import Processes

def write(task, done, total, metrics=None):
    if "train_loss" not in (metrics or {}):
        print(task, flush=True)

cohort, store, encoder, recipe, out = sys.argv[1:]
torch.set_num_threads(1)
posttrain(
    open_cohort(cohort, min_records=8), Store.open(store), "mtecg_tiny_100hz",
    recipe=Recipe.model_validate_json(recipe), out=out, weights=encoder,
    options={"depth": 2, "width": 32, "heads": 1}, processes=Processes("cpu"), progress=write,
)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_killed_process_resumes_to_the_same_weights(
    tmp_path: Path,
    train: Callable[..., PosttrainResult],
    finished: PosttrainResult,
    recipe: Recipe,
    encoder: Path,
    synthetic_path: Path,
    synthetic_store: Store,
) -> None:
    arguments = [synthetic_path, synthetic_store.root, encoder, recipe.model_dump_json(), tmp_path]
    command: list[Any] = [sys.executable, "-c", SCRIPT, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = (line.strip() for line in process.stdout)
        fine_tuning = (line for line in lines if line.startswith("stage 2"))
        for _ in range(5):  # into the second epoch
            next(fine_tuning)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    again = train(tmp_path).classifier.state_dict()
    whole = finished.classifier.state_dict()
    assert all(torch.equal(again[name], whole[name]) for name in whole)
