"""Two processes pretrain as one with the whole batch: the same draws, the same statistics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven.cohorts import Cohort
from einthoven.files import read_lines, read_tensors
from einthoven.models import weights_file
from einthoven.signals.store import Store
from einthoven.stages.pretrain import pretrain
from einthoven.stages.recipe import Pretraining
from einthoven.training.distributed import Processes

COMMON: dict[str, Any] = {
    "crop_seconds": 2.5,
    "epochs": 3,
    "batch_size": 16,
    "base_lr": 1e-2,
    "warmup_epochs": 1,
    "precision": "fp32",
}
JOBS: dict[str, dict[str, Any]] = {
    # Negatives from the same record, and a pool of tokens from the records of both processes; the
    # stem of `s4`, two layers with batch norm over the records of both.
    "cpc": {
        "backbone": "s4_tiny",
        "options": {"width": 16, "depth": 1, "stem_norm": "batch"},
        "recipe": COMMON
        | {"name": "cpc", "objective": "cpc", "clip": 1.0}
        | {"options": {"negatives": 8, "pool": 16, "offsets_ms": [40.0, 120.0]}},
    },
    # A codebook that cools with every optimiser step, and not with the micro-batches.
    "wav2vec2": {
        "backbone": "ecg_fm",
        "options": {"width": 32, "depth": 1, "heads": 2, "conv_width": 16}
        | {"pos_kernel": 8, "pos_groups": 4},
        "recipe": COMMON
        | {"name": "wav2vec2", "objective": "wav2vec2", "micro_batch": 8, "base_lr": 1e-3}
        | {
            "options": {"codes": 8, "target_width": 16, "negatives": 10, "dropout": 0.0}
            # How evenly codes are used is measured among a process's own records.
            | {"diversity_weight": 0.0, "code_temperature": [2.0, 0.5, 0.9]},
        },
    },
    "mae": {
        "backbone": "mtecg_tiny_100hz",
        "options": {"depth": 1, "width": 32, "heads": 1},
        "recipe": COMMON | {"name": "mae", "micro_batch": 4, "options": {"mask_ratio": 0.5}},
    },
}
# What sums in another order come to after nine steps of AdamW: measured, 1e-7 and 3e-7 (of a bias
# without influence). Draws that depended on the process would differ by 3e-4 and 2e-3.
LOSS_TOLERANCE, WEIGHT_TOLERANCE = 2e-6, 5e-6

SCRIPT = """
import json, sys, torch
from einthoven.cohorts import open_cohort
from einthoven.models import weights_file
from einthoven.signals.store import Store
from einthoven.stages.pretrain import pretrain
from einthoven.stages.recipe import Pretraining
from einthoven.training.distributed import Processes

class Killer:
    left = 5  # of nine, in the second epoch
    def __call__(self, task, done, total, metrics):
        self.left -= "loss" in metrics
        if not self.left: raise KeyboardInterrupt

cohort, store, jobs, out = sys.argv[1:]
torch.set_num_threads(1)

def train(job, name, progress=None):
    pretrain(
        open_cohort(cohort, min_records=8), Store.open(store), job["backbone"],
        recipe=Pretraining.model_validate(job["recipe"]), out=f"{out}/{name}",
        options=job["options"], processes=Processes("cpu"), progress=progress,
    )

for name, job in json.loads(jobs).items():
    train(job, name)
    if name != "mae":
        try:
            train(job, f"{name}-killed", Killer())
        except KeyboardInterrupt:
            train(job, f"{name}-killed")
        else:
            sys.exit("nothing was killed")
"""


@pytest.fixture(scope="module")
def together(
    tmp_path_factory: pytest.TempPathFactory,
    synthetic_path: Path,
    synthetic_store: Store,
    torchrun: Callable[..., Any],
) -> Path:
    """Both jobs by two processes that torchrun starts; micro-batches are half as large."""
    out = tmp_path_factory.mktemp("together")
    script = out / "job.py"
    script.write_text(SCRIPT)
    jobs = {name: job | {"recipe": job["recipe"] | _halved(job)} for name, job in JOBS.items()}
    torchrun(script, synthetic_path, synthetic_store.root, json.dumps(jobs), out)
    return out


def _halved(job: dict[str, Any]) -> dict[str, Any]:
    micro = job["recipe"].get("micro_batch")
    return {"micro_batch": micro // 2} if micro else {}


@pytest.mark.parametrize("name", JOBS)
def test_two_processes_equal_one(
    name: str, together: Path, tmp_path: Path, synthetic: Cohort, synthetic_store: Store
) -> None:
    job = JOBS[name]
    alone = pretrain(
        synthetic,
        synthetic_store,
        job["backbone"],
        recipe=Pretraining.model_validate(job["recipe"]),
        out=tmp_path,
        options=job["options"],
        processes=Processes("cpu"),
    )
    lines = read_lines(together / name / "pretrain" / "metrics.jsonl")
    assert len(lines) == len(alone.history) == 3
    for ours, theirs in zip(lines, alone.history, strict=True):
        for key in ("train_loss", "validation_loss"):
            assert ours[key] == pytest.approx(theirs[key], rel=LOSS_TOLERANCE), key
    ours, theirs = (
        read_tensors(weights_file(file))[0] for file in (together / name / "model", alone.encoder)
    )
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=WEIGHT_TOLERANCE, msg=key)


@pytest.mark.parametrize("name", ["cpc", "wav2vec2"])
def test_two_killed_processes_resume_to_the_same_encoder(name: str, together: Path) -> None:
    whole, again = (
        read_tensors(weights_file(together / folder / "model"))[0]
        for folder in (name, f"{name}-killed")
    )
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
