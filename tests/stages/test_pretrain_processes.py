"""Two processes pretrain as one with the whole batch: the same crops, masks and negatives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven.cohorts import Cohort
from einthoven.files import read_lines, read_tensors
from einthoven.signals.store import Store
from einthoven.stages.pretrain import pretrain
from einthoven.stages.recipe import Pretraining
from einthoven.training.processes import Processes

COMMON: dict[str, Any] = {
    "crop_seconds": 2.5,
    "epochs": 3,
    "batch_size": 16,
    "base_lr": 1e-2,
    "warmup_epochs": 1,
    "precision": "fp32",
}
JOBS: dict[str, dict[str, Any]] = {
    # Negatives from the same record, and a pool of tokens from the records of both processes.
    "cpc": {
        "backbone": "s4_tiny",
        "options": {"width": 16, "depth": 1, "stem_norm": "none"},
        "recipe": COMMON
        | {"name": "cpc", "objective": "cpc", "clip": 1.0}
        | {"options": {"negatives": 8, "pool": 16, "offsets_ms": [40.0, 120.0]}},
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
from einthoven.signals.store import Store
from einthoven.stages.pretrain import pretrain
from einthoven.stages.recipe import Pretraining
from einthoven.training.processes import Processes

cohort, store, jobs, out = sys.argv[1:]
torch.set_num_threads(1)
for name, job in json.loads(jobs).items():
    pretrain(
        open_cohort(cohort, min_records=8), Store.open(store), job["backbone"],
        recipe=Pretraining.model_validate(job["recipe"]), out=f"{out}/{name}",
        options=job["options"], processes=Processes("cpu"),
    )
"""


@pytest.fixture(scope="module")
def together(
    tmp_path_factory: pytest.TempPathFactory, synthetic_path: Path, synthetic_store: Store
) -> Path:
    """Both jobs by two processes that torchrun starts; micro-batches are half as large."""
    out = tmp_path_factory.mktemp("together")
    script = out / "job.py"
    script.write_text(SCRIPT)
    jobs = {name: job | {"recipe": job["recipe"] | _halved(job)} for name, job in JOBS.items()}
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    command: list[Any] = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2",
        "--master_port", str(port), script, synthetic_path, synthetic_store.root,
        json.dumps(jobs), out,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
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
        read_tensors(file)[0] for file in (together / name / "encoder.safetensors", alone.encoder)
    )
    assert ours.keys() == theirs.keys()
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=WEIGHT_TOLERANCE, msg=key)
