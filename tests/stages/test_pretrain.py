"""Pretraining: blind to labels, exact in resuming, and readable by `load_backbone`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven import load_backbone
from einthoven.cohorts import Cohort, open_cohort
from einthoven.errors import RecipeError, TrainingError
from einthoven.files import read_tensors
from einthoven.signals.store import Store
from einthoven.stages.pretrain import Pretrained, pretrain
from einthoven.stages.recipe import Pretraining
from einthoven.training.processes import Processes

RECIPE = Pretraining(
    name="tiny",
    options={"mask_ratio": 0.5},
    crop_seconds=2.5,
    epochs=3,
    batch_size=16,
    base_lr=1e-2,
    warmup_epochs=1,
    precision="fp32",
)
OPTIONS = {"depth": 1, "width": 32, "heads": 1}

Pretrain = Callable[..., Pretrained]


@pytest.fixture(scope="module")
def run(synthetic: Cohort, synthetic_store: Store) -> Pretrain:
    def start(out: Path, *, cohort: Cohort = synthetic, **changes: Any) -> Pretrained:
        network = changes.pop("backbone", "mtecg_tiny_100hz")
        given: dict[str, Any] = {"recipe": RECIPE, "options": OPTIONS}
        given |= {"processes": Processes("cpu")}
        return pretrain(cohort, synthetic_store, network, out=out, **(given | changes))

    return start


@pytest.fixture(scope="module")
def whole(run: Pretrain, tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    return run(tmp_path_factory.mktemp("pretrained") / "run")


def assert_same(a: Pretrained, b: Pretrained) -> None:
    """The same tensors and metadata (whose order in the file is not fixed)."""
    ours, theirs = read_tensors(a.encoder), read_tensors(b.encoder)
    assert ours[1] == theirs[1]
    assert ours[0].keys() == theirs[0].keys()
    assert all(torch.equal(ours[0][name], theirs[0][name]) for name in ours[0])


def test_the_encoder_loads_strictly(whole: Pretrained) -> None:
    backbone = load_backbone("mtecg_tiny_100hz", weights=whole.encoder, **OPTIONS)
    tensors, metadata = read_tensors(whole.encoder)
    state = backbone.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensors[name]) for name in state)
    assert metadata["backbone"] == "mtecg_tiny_100hz"
    assert "training split, 58 records" in metadata["pretraining_data"]


@pytest.mark.parametrize("backbone", ["mtecg_tiny", "st_mem_tiny"])
def test_other_families_pretrain_too(tmp_path: Path, run: Pretrain, backbone: str) -> None:
    once = RECIPE.model_copy(update={"epochs": 1, "crop_seconds": 2.4, "options": {}})
    done = run(tmp_path, backbone=backbone, recipe=once)
    load_backbone(backbone, weights=done.encoder, **OPTIONS)
    assert np.isfinite(done.history[0]["train_loss"])


def test_labels_are_never_read(
    tmp_path: Path, run: Pretrain, whole: Pretrained, synthetic: Cohort
) -> None:
    shuffled = np.random.default_rng(0).permutation(synthetic.matrix.ravel())
    other = replace(synthetic, matrix=shuffled.reshape(synthetic.matrix.shape))
    assert_same(run(tmp_path, cohort=other), whole)


def test_the_loss_falls_and_validation_is_logged(whole: Pretrained) -> None:
    assert [line["epoch"] for line in whole.history] == [1, 2, 3]
    assert whole.history[-1]["validation_loss"] < whole.history[0]["validation_loss"]
    assert whole.history[-1]["train_loss"] < whole.history[0]["train_loss"]


def test_validation_is_measured_under_the_same_masks_in_every_epoch(
    tmp_path: Path, run: Pretrain
) -> None:
    """A network that learns nothing has the same loss every time."""
    still = RECIPE.model_copy(update={"base_lr": 1e-30, "weight_decay": 0.0, "epochs": 2})
    losses = [line["validation_loss"] for line in run(tmp_path, recipe=still).history]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("step", [1, 3, 5, 9])
def test_a_killed_run_goes_on_to_the_same_encoder(
    tmp_path: Path,
    step: int,
    run: Pretrain,
    whole: Pretrained,
    recorder: Any,
    killed: type[Exception],
) -> None:
    with pytest.raises(killed):
        run(tmp_path, watcher=recorder(kill=("pretrain", step)))
    assert not (tmp_path / "encoder.safetensors").exists()
    assert_same(run(tmp_path), whole)


def test_a_finished_run_keeps_its_encoder_s_bytes(tmp_path: Path, run: Pretrain) -> None:
    """Later runs know it by its checksum."""
    encoder = run(tmp_path).encoder
    before = encoder.stat().st_mtime_ns
    assert run(tmp_path).encoder.stat().st_mtime_ns == before


def test_another_request_in_the_same_folder_is_refused(run: Pretrain, whole: Pretrained) -> None:
    with pytest.raises(TrainingError, match="another recipe"):
        run(whole.run.path, recipe=RECIPE.model_copy(update={"options": {"mask_ratio": 0.6}}))


def test_an_unlabelled_folder_is_pretrained_on(
    tmp_path: Path, run: Pretrain, synthetic_path: Path, synthetic_store: Store
) -> None:
    folder = open_cohort(synthetic_path / "records100")
    table = folder.table.copy()
    table.index = synthetic_store.index.index
    done = run(tmp_path, cohort=replace(folder, table=table))
    assert "validation_loss" not in done.history[0]
    assert read_tensors(done.encoder)[1]["pretraining_data"].endswith("160 records")


def test_micro_batches_that_do_not_divide_are_refused(tmp_path: Path, run: Pretrain) -> None:
    with pytest.raises(RecipeError, match="batch_size 16 does not divide"):
        run(tmp_path / "a", recipe=RECIPE.model_copy(update={"micro_batch": 5}))
    large = RECIPE.model_copy(update={"batch_size": 4096, "micro_batch": 16})
    with pytest.raises(RecipeError, match="batch_size 4096 is more than the 58 training records"):
        run(tmp_path / "b", recipe=large)
    assert not list(tmp_path.iterdir())
