"""Pretraining: independent of labels, exact resume, snapshots, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven import load_backbone
from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort, open_cohort
from einthoven.cohorts.cohort import UNLABELLED
from einthoven.errors import (
    BackboneError,
    CohortError,
    EinthovenError,
    RecipeError,
    TrainingError,
)
from einthoven.files import read_metadata, read_tensors
from einthoven.models import read_config, weights_file
from einthoven.signals.store import Store
from einthoven.stages.leakage import LeakageWarning, check_initial_weights
from einthoven.stages.pretrain import Encoders, PretrainResult, pretrain, snapshot_epochs
from einthoven.stages.recipe import Pretraining
from einthoven.training.distributed import Processes

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

Pretrain = Callable[..., PretrainResult]


@pytest.fixture(scope="module")
def run(synthetic: Cohort, synthetic_store: Store) -> Pretrain:
    def start(out: Path, *, cohort: Cohort = synthetic, **changes: Any) -> PretrainResult:
        network = changes.pop("backbone", "mtecg_tiny_100hz")
        store = changes.pop("store", synthetic_store)
        given: dict[str, Any] = {"recipe": RECIPE, "options": OPTIONS}
        given |= {"processes": Processes("cpu")}
        return pretrain(cohort, store, network, out=out, **(given | changes))

    return start


@pytest.fixture(scope="module")
def whole(run: Pretrain, tmp_path_factory: pytest.TempPathFactory) -> PretrainResult:
    return run(tmp_path_factory.mktemp("pretrained") / "run")


def assert_same(a: Path, b: Path) -> None:
    """The same tensors and metadata (whose order in the file is not fixed)."""
    ours, theirs = read_tensors(weights_file(a)), read_tensors(weights_file(b))
    assert ours[1] == theirs[1]
    assert ours[0].keys() == theirs[0].keys()
    assert all(torch.equal(ours[0][name], theirs[0][name]) for name in ours[0])


def test_the_encoder_loads_strictly(whole: PretrainResult) -> None:
    backbone = load_backbone("mtecg_tiny_100hz", weights=whole.encoder, **OPTIONS)
    tensors, _ = read_tensors(weights_file(whole.encoder))
    state = backbone.state_dict()
    assert state.keys() == tensors.keys()
    assert all(torch.equal(state[name], tensors[name]) for name in state)
    config = read_config(whole.encoder)
    assert config["backbone"] == "mtecg_tiny_100hz"
    assert [entry["records"] for entry in config["provenance"]["pretraining"]] == [58]


@pytest.mark.parametrize("backbone", ["mtecg_tiny", "st_mem_tiny"])
def test_other_families_pretrain_too(tmp_path: Path, run: Pretrain, backbone: str) -> None:
    once = RECIPE.model_copy(update={"epochs": 1, "crop_seconds": 2.4, "options": {}})
    done = run(tmp_path, backbone=backbone, recipe=once)
    load_backbone(backbone, weights=done.encoder, **OPTIONS)
    assert np.isfinite(done.history[0]["train_loss"])


def test_labels_are_never_read(
    tmp_path: Path, run: Pretrain, whole: PretrainResult, synthetic: Cohort
) -> None:
    shuffled = np.random.default_rng(0).permutation(synthetic.matrix.ravel())
    other = replace(synthetic, matrix=shuffled.reshape(synthetic.matrix.shape))
    assert_same(run(tmp_path, cohort=other).encoder, whole.encoder)


def test_the_loss_falls_and_validation_is_logged(whole: PretrainResult) -> None:
    assert [line["epoch"] for line in whole.history] == [1, 2, 3]
    assert whole.history[-1]["validation_loss"] < whole.history[0]["validation_loss"]
    assert whole.history[-1]["train_loss"] < whole.history[0]["train_loss"]


def test_validation_masks_are_fixed(tmp_path: Path, run: Pretrain) -> None:
    """A network that learns nothing has the same loss every time."""
    still = RECIPE.model_copy(update={"base_lr": 1e-30, "weight_decay": 0.0, "epochs": 2})
    losses = [line["validation_loss"] for line in run(tmp_path, recipe=still).history]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("objective", "network", "options", "error"),
    [
        ("cpc", "mtecg_tiny_100hz", {}, BackboneError),
        ("mae", "s4_tiny", {}, BackboneError),
        ("jepa", "s4_tiny", {"least_ms": 2600.0}, RecipeError),
        ("cpc", "s4_tiny", {"offsets_ms": (40, 2600)}, RecipeError),
        ("data2vec", "s4_tiny", {"target_layers": 9}, BackboneError),
    ],
)
def test_what_does_not_suit_is_refused_before_anything_is_written(
    tmp_path: Path,
    run: Pretrain,
    objective: str,
    network: str,
    options: dict[str, Any],
    error: type[EinthovenError],
) -> None:
    recipe = RECIPE.model_copy(update={"objective": objective, "options": options})
    with pytest.raises(error):
        run(tmp_path / "run", backbone=network, recipe=recipe, options={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", [1, 3, 5, 9])
def test_killed_run_resumes_to_the_same_encoder(
    tmp_path: Path,
    step: int,
    run: Pretrain,
    whole: PretrainResult,
    recorder: Any,
    killed: type[Exception],
) -> None:
    with pytest.raises(killed):
        run(tmp_path, progress=recorder(kill=("pretrain", step)))
    assert not (tmp_path / "model").exists()
    assert_same(run(tmp_path).encoder, whole.encoder)


def test_finished_run_does_not_rewrite_its_encoder(tmp_path: Path, run: Pretrain) -> None:
    """Later runs know it by its checksum."""
    encoder = run(tmp_path).encoder
    before = encoder.stat().st_mtime_ns
    assert run(tmp_path).encoder.stat().st_mtime_ns == before


def test_another_request_in_the_same_folder_is_refused(
    run: Pretrain, whole: PretrainResult
) -> None:
    with pytest.raises(TrainingError, match="another recipe"):
        run(whole.run.path, recipe=RECIPE.model_copy(update={"options": {"mask_ratio": 0.6}}))


@pytest.fixture
def shares(synthetic: Cohort) -> dict[str, Cohort]:
    """A cohort, and the same with as many other records to train on."""
    tested = len(synthetic.ids("test"))
    few = synthetic.select(~np.isin(synthetic.ids(), synthetic.ids("train")[tested:]))
    names = {"train": "test", "test": "train"}
    table = few.table.assign(split=few.table["split"].replace(names))
    return {"first": few, "second": replace(few, table=table)}


def test_resume_with_other_training_records_is_refused(
    tmp_path: Path,
    run: Pretrain,
    shares: dict[str, Cohort],
    recorder: Any,
    killed: type[Exception],
) -> None:
    with pytest.raises(killed):
        run(tmp_path, cohort=shares["first"], progress=recorder(kill=("pretrain", 2)))
    before = (tmp_path / "leakage.json").read_bytes()
    with pytest.raises(TrainingError, match="another training_ids_digest"):
        run(tmp_path, cohort=shares["second"])
    assert (tmp_path / "leakage.json").read_bytes() == before


def test_an_unlabelled_folder_is_pretrained_on(
    tmp_path: Path, run: Pretrain, synthetic_path: Path, synthetic_store: Store
) -> None:
    folder = open_cohort(synthetic_path / "records100")
    table = folder.table.copy()
    table.index = synthetic_store.index.index
    done = run(tmp_path, cohort=replace(folder, table=table))
    assert "validation_loss" not in done.history[0]
    assert read_config(done.encoder)["provenance"]["pretraining"][0]["records"] == 160


def test_micro_batches_that_do_not_divide_are_refused(tmp_path: Path, run: Pretrain) -> None:
    with pytest.raises(RecipeError, match="batch_size 16"):
        run(tmp_path / "a", recipe=RECIPE.model_copy(update={"micro_batch": 5}))
    large = RECIPE.model_copy(update={"batch_size": 4096, "micro_batch": 16})
    with pytest.raises(RecipeError, match=r"batch_size 4096 .*58 "):
        run(tmp_path / "b", recipe=large)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- several cohorts


@pytest.fixture(scope="module")
def halves(synthetic: Cohort) -> list[Cohort]:
    """Two cohorts of one store: the training patients shared between them."""
    names = sorted(set(synthetic.patients("train")))
    first = np.isin(synthetic.patients(), names[: len(names) // 2])
    training = synthetic.table["split"].to_numpy() == "train"
    other = synthetic.select(training & ~first)
    return [synthetic.select(first | ~training), replace(other, name="more")]


def test_validation_loss_of_each_cohort_is_logged(
    tmp_path: Path, run: Pretrain, halves: list[Cohort], synthetic_store: Store
) -> None:
    stores = [synthetic_store, synthetic_store]
    with_own = [halves[0], replace(halves[0], name="again")]
    done = run(tmp_path, cohort=with_own, store=stores, shares=[1, 3])
    line = done.history[-1]
    losses = {key: value for key, value in line.items() if key.startswith("validation_loss")}
    name = halves[0].name
    assert losses.keys() == {
        "validation_loss", f"validation_loss:{name}", "validation_loss:again"
    }  # fmt: skip
    draws = [part["draws"] for part in done.run.request["cohorts"]]
    share = draws[0] / sum(draws)
    assert share == pytest.approx(0.25, abs=0.02)
    assert losses["validation_loss"] == pytest.approx(
        share * losses[f"validation_loss:{name}"] + (1 - share) * losses["validation_loss:again"]
    )
    cohorts = read_config(done.encoder)["provenance"]["pretraining"]
    assert [entry["cohort"] for entry in cohorts] == [name, "again"]
    assert [entry["share"] for entry in cohorts] == pytest.approx([share, 1 - share])


@pytest.mark.parametrize("step", [2, 4])
def test_killed_mixture_resumes_to_the_same_encoder(
    tmp_path: Path,
    step: int,
    run: Pretrain,
    halves: list[Cohort],
    synthetic_store: Store,
    recorder: Any,
    killed: type[Exception],
) -> None:
    options = {"cohort": halves, "store": [synthetic_store] * 2, "shares": [1, 2]}
    whole = run(tmp_path / "whole", **options)
    with pytest.raises(killed):
        run(tmp_path / "killed", progress=recorder(kill=("pretrain", step)), **options)
    assert_same(run(tmp_path / "killed", **options).encoder, whole.encoder)
    with pytest.raises(TrainingError, match="another cohorts"):
        run(tmp_path / "killed", **(options | {"shares": [2, 1]}))


# ---------------------------------------------------------------------- snapshots


def history(epochs: int) -> list[dict[str, Any]]:
    losses = [5.0, 3.0, 4.0, 3.0, 2.0, 2.5, 2.6]
    return [{"epoch": i + 1, "validation_loss": losses[i]} for i in range(epochs)]


@pytest.mark.parametrize(
    ("options", "lines", "expected"),
    [
        ({}, history(7), set()),
        ({"keep_every": 3}, history(7), {3, 6}),
        ({"keep_last": 2}, history(7), {6, 7}),
        ({"keep_last": 20}, history(7), set(range(1, 8))),
        ({"keep_best": True}, history(7), {5}),
        ({"keep_every": 3, "keep_last": 1, "keep_best": True}, history(7), {3, 5, 6, 7}),
        ({"keep_best": True}, history(4), {2}),  # the earliest of a tie
        ({"keep_best": True}, [{"epoch": 1}, {"epoch": 2}], set()),  # without validation
        ({"keep_best": True}, [{"epoch": 1, "validation_loss": np.nan}, *history(3)[1:]], {2}),
    ],
)
def test_epochs_of_snapshots(
    options: dict[str, Any], lines: list[dict[str, Any]], expected: set[int]
) -> None:
    assert snapshot_epochs(lines, RECIPE.model_copy(update=options)) == expected


def test_snapshot_folder_after_every_epoch(tmp_path: Path) -> None:
    network = create_backbone("mtecg_tiny_100hz", seed=0, **OPTIONS)
    recipe = RECIPE.model_copy(update={"keep_every": 3, "keep_last": 1, "keep_best": True})
    encoders = Encoders(tmp_path, network, recipe, {}, {})
    folder = tmp_path / "snapshots"
    for epoch in range(1, 8):
        with torch.no_grad():
            network.get_parameter("patch_embed.weight").fill_(epoch)
        encoders.update_snapshots(history(epoch))
        expected = snapshot_epochs(history(epoch), recipe)
        assert {file.name for file in folder.iterdir()} == {f"epoch-{i:04d}" for i in expected}
    best = folder / "epoch-0005"
    state = load_backbone("mtecg_tiny_100hz", weights=best, **OPTIONS).state_dict()
    assert state["patch_embed.weight"].unique().tolist() == [5.0]
    assert read_config(best)["epoch"] == 5


def test_snapshots_of_a_killed_run(
    tmp_path: Path, run: Pretrain, whole: PretrainResult, recorder: Any, killed: type[Exception]
) -> None:
    recipe = RECIPE.model_copy(update={"keep_every": 2, "keep_last": 1})
    with pytest.raises(killed):
        run(tmp_path, recipe=recipe, progress=recorder(kill=("pretrain", 8)))
    folder = tmp_path / "snapshots"
    assert [file.name for file in folder.iterdir()] == ["epoch-0002"]
    encoder = run(tmp_path, recipe=recipe).encoder
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["epoch-0002", "epoch-0003"]
    assert_same(encoder, whole.encoder)
    assert_same(folder / names[1], encoder)


# ---------------------------------------------------------------------- validation


def test_the_objective_s_metrics_are_logged_on_validation(tmp_path: Path, run: Pretrain) -> None:
    recipe = RECIPE.model_copy(
        update={"objective": "cpc", "options": {"offsets_ms": (40.0,)}, "epochs": 1}
    )
    shape = {"width": 16, "depth": 1}
    line = run(tmp_path, backbone="s4_tiny", recipe=recipe, options=shape).history[0]
    assert 0 <= line["validation_accuracy"] <= 1
    assert line["validation_contrastive_loss"] == line["validation_loss"]


# ---------------------------------------------------------------------- test folds


def test_protected_test_split_is_refused_or_recorded(
    tmp_path: Path, run: Pretrain, synthetic: Cohort, synthetic_store: Store
) -> None:
    everything = replace(
        synthetic, name="all", task=UNLABELLED, table=synthetic.table.assign(split="train")
    )
    options: dict[str, Any] = {"cohort": everything, "protect": [(synthetic, synthetic_store)]}
    once = RECIPE.model_copy(update={"epochs": 1})
    with pytest.raises(CohortError, match=rf"allow_leakage=\['{synthetic.name}'\]"):
        run(tmp_path / "refused", recipe=once, **options)
    assert not (tmp_path / "refused").exists()
    done = run(tmp_path / "noted", recipe=once, allow_leakage=[synthetic.name], **options)
    assert done.run.request["allow_leakage"] == [synthetic.name]
    metadata = read_metadata(weights_file(done.encoder))
    assert json.loads(metadata["allowed_leakage"])[0]["cohort"] == synthetic.name
    with pytest.warns(LeakageWarning, match=r"\(allowed"):
        check_initial_weights(done.encoder, (synthetic, synthetic_store))
