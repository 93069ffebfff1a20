"""Killed pretrainings of what ships go on bit for bit: norms, codebooks, half precision, dropout.

`test_pretrain.py` kills a masked autoencoder, `test_processes.py` two processes, and
`tests/objectives/test_stepped_objective.py` an objective with state beside its parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from einthoven.cohorts import Cohort
from einthoven.files import read_lines, read_tensors
from einthoven.signals.store import Store
from einthoven.stages import pretrain as stage
from einthoven.stages.recipe import Pretraining
from einthoven.training.distributed import Processes

COMMON: dict[str, Any] = {
    "crop_seconds": 2.5,
    "epochs": 2,
    "batch_size": 16,
    "base_lr": 1e-2,
    "warmup_epochs": 1,
    "clip": 1.0,
}
CASES: dict[str, dict[str, Any]] = {
    # Batch norm's running statistics, dropout, negatives and a pool, in half precision.
    "cpc": {
        "backbone": "s4_tiny",
        "options": {"width": 16, "depth": 1, "stem_norm": "batch", "dropout": 0.2},
        "recipe": COMMON
        | {"objective": "cpc", "precision": "bf16", "micro_batch": 8}
        | {"options": {"negatives": 8, "pool": 16, "offsets_ms": [40.0, 120.0]}},
    },
    # A codebook whose temperature falls with the steps, masked leads, hidden spans, noise.
    "ecg_fm": {
        "backbone": "ecg_fm",
        "options": {"width": 32, "depth": 1, "heads": 2, "conv_width": 16}
        | {"pos_kernel": 8, "pos_groups": 4},
        "recipe": COMMON
        | {"objective": "ecg_fm", "precision": "fp32"}
        | {
            "options": {"codes": 8, "target_width": 16, "negatives": 10}
            | {"code_temperature": [2.0, 0.5, 0.8]},
        },
    },
}
KEPT = {
    "cpc": ["backbone.stem.0.norm.running_var", "backbone.stem.1.norm.running_mean"],
    "ecg_fm": ["quantiser.codebook", "steps"],
}
STEPS = 6
Train = Callable[..., dict[str, Tensor]]


@pytest.fixture
def train(synthetic: Cohort, synthetic_store: Store, monkeypatch: pytest.MonkeyPatch) -> Train:
    """`train(name, folder)`: the tensors of the last checkpoint, one being written every step."""
    settings = stage.loop_settings

    def often(*given: Any, **options: Any) -> Any:
        return replace(settings(*given, **options), checkpoint_seconds=-1.0)

    monkeypatch.setattr(stage, "loop_settings", often)

    def run(name: str, out: Path, **options: Any) -> dict[str, Tensor]:
        case = CASES[name]
        done = stage.pretrain(
            synthetic,
            synthetic_store,
            case["backbone"],
            recipe=Pretraining.model_validate({"name": name} | case["recipe"]),
            out=out,
            options=case["options"],
            processes=Processes("cpu"),
            **options,
        )
        assert len(done.history) == 2
        return read_tensors(out / "pretrain" / "checkpoint.safetensors")[0]

    return run


@pytest.mark.parametrize("name", CASES)
def test_killed_pretraining_resumes_to_the_same_weights(
    name: str, tmp_path: Path, train: Train, recorder: Any, killed: type[Exception]
) -> None:
    whole = train(name, tmp_path / "whole")
    assert whole.keys() >= {f"model.{key}" for key in KEPT[name]}
    for step in (2, 4):  # within the first epoch, and within the second
        out = tmp_path / f"killed-{step}"
        with pytest.raises(killed):
            train(name, out, progress=recorder(kill=("pretrain", step)))
        assert not (out / "model").exists()
        again = recorder()
        resumed = train(name, out, progress=again)
        # The step that the process died in was not yet on disk: it is done again.
        assert len(again.losses["pretrain"]) == STEPS - step + 1
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
        losses = [
            [line["train_loss"] for line in read_lines(run / "pretrain" / "metrics.jsonl")]
            for run in (tmp_path / "whole", out)
        ]
        assert losses[0] == losses[1]
