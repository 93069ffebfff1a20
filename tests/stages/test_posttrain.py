"""Post-training: exact resume, what it refuses, and its options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.errors import (
    CohortError,
    EinthovenError,
    FileError,
    PreparationError,
    RecipeError,
    TrainingError,
)
from einthoven.experiment.run import model_of
from einthoven.files import HISTORY_FILE, locked, read_lines, read_tensors
from einthoven.inference import predict_record
from einthoven.models import Model, save_model, weights_file
from einthoven.records import read_record
from einthoven.signals.store import Store
from einthoven.stages.data import Dataset
from einthoven.stages.posttrain import PosttrainResult, RecipeWarning, posttrain
from einthoven.stages.recipe import Recipe, Stage2, load_recipe
from einthoven.training.checkpoint import save_checkpoint
from einthoven.training.distributed import Processes
from einthoven.training.loop import BEST, Loop, Result
from einthoven.training.run import LOCK

BACKBONE = "mtecg_tiny_100hz"
Train = Callable[..., PosttrainResult]


def weights(run: PosttrainResult) -> dict[str, torch.Tensor]:
    return run.classifier.state_dict()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def numbers(run: PosttrainResult) -> list[dict[str, Any]]:
    """What training measured, without its clocks."""
    clocks = {"seconds", "validation_seconds", "samples_per_second"}
    lines = [entry for name in sorted(run.results) for entry in run.results[name].history]
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


def checkpoint_after_every_step(patch: pytest.MonkeyPatch) -> None:
    run = Loop.run

    def often(loop: Loop[Any]) -> Result:
        loop.settings = replace(loop.settings, checkpoint_seconds=0.0)
        return run(loop)

    patch.setattr(Loop, "run", often)


@pytest.mark.parametrize(
    ("stage", "step", "every_step"),
    [
        ("features", 1, False),  # while features are computed
        ("stage 1, linear probe, base lr 0.01", 4, False),
        ("stage 1, linear probe, base lr 1", 9, False),  # the last step of the second rate
        ("stage 2", 1, False),
        ("stage 2", 5, False),  # within the second epoch
        ("stage 2", 2, True),
        ("stage 2", 3, True),
        ("stage 2", 4, True),
        ("stage 2", 7, True),
    ],
)
def test_run_killed_in_any_stage_resumes_to_the_same_weights(
    tmp_path: Path,
    stage: str,
    step: int,
    every_step: bool,
    train: Train,
    finished: PosttrainResult,
    recorder: Any,
    killed: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a checkpoint after every step, only the interrupted step is repeated."""
    if every_step:
        checkpoint_after_every_step(monkeypatch)
    with pytest.raises(killed):
        train(tmp_path, progress=recorder(kill=(stage, step)))
    progress = recorder()
    again = train(tmp_path, progress=progress)
    assert_same(weights(again), weights(finished))
    assert numbers(again) == numbers(finished)
    if every_step:
        assert len(progress.losses["stage 2, fine-tuning"]) == 9 - (step - 1)


def test_run_killed_in_validation_resumes(
    tmp_path: Path, train: Train, finished: PosttrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of an epoch's last step: no step is left, only its end."""

    def dies(*arguments: Any) -> dict[str, float]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        checkpoint_after_every_step(patch)
        patch.setattr("einthoven.stages.finetune.validation_metrics", dies)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    assert numbers(train(tmp_path)) == numbers(finished)


def test_epoch_without_checkpoint_is_repeated(
    tmp_path: Path,
    train: Train,
    finished: PosttrainResult,
    killed: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its line is in metrics.jsonl already; the epoch is done again."""

    def dies(file: Path, *parts: Any) -> None:
        if file.parent.name == "stage2":
            raise killed
        save_checkpoint(file, *parts)

    with monkeypatch.context() as patch:
        patch.setattr("einthoven.training.loop.save_checkpoint", dies)
        with pytest.raises(killed):
            train(tmp_path)
    assert len(read_lines(tmp_path / "stage2" / HISTORY_FILE)) == 1
    again = train(tmp_path)
    assert_same(weights(again), weights(finished))
    assert numbers(again) == numbers(finished)


def test_a_finished_run_is_not_trained_again(
    tmp_path: Path, train: Train, finished: PosttrainResult, recorder: Any
) -> None:
    progress = recorder()
    again = train(finished.run.path, progress=progress)
    assert not [losses for losses in progress.losses.values() if losses]
    assert_same(weights(again), weights(finished))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stage2": {"drop_path": 0.3}}, "recipe"),
        ({"data": {"fraction": 0.5}}, "cohort_digest, recipe"),
        ({"options": {"depth": 2, "width": 32, "heads": 2}}, "backbone_options"),
    ],
)
def test_another_request_in_the_same_folder_is_refused(
    finished: PosttrainResult, train: Train, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(TrainingError, match=f"another {named}") as caught:
        train(finished.run.path, **changes)
    assert caught.value.remedy
    if named == "recipe":  # of a long table the entry that differs
        assert all(p in caught.value.problem for p in ("stage2.drop_path", "0.2", "0.3"))


def test_stage_2_starts_from_the_probe_s_head_and_the_pretrained_backbone(
    tmp_path: Path, train: Train, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    initial: dict[str, torch.Tensor] = {}

    def instead(classifier: nn.Module, *rest: Any, **more: Any) -> Result:
        initial.update({k: v.clone() for k, v in classifier.state_dict().items()})
        return Result([], 1)

    monkeypatch.setattr("einthoven.stages.posttrain.finetune", instead)
    train(tmp_path, stage1={"base_lr_sweep": (1e-2,)})
    head, _ = read_tensors(tmp_path / "stage1" / "lr-0.01" / BEST)
    backbone, _ = read_tensors(weights_file(encoder))
    expected = {f"head.{k}": v for k, v in head.items()}
    expected |= {f"backbone.{k}": v for k, v in backbone.items()}
    assert_same(initial, expected)


def test_the_run_ends_with_the_weights_of_the_selected_epoch(finished: PosttrainResult) -> None:
    best, _ = read_tensors(finished.run.path / "stage2" / BEST)
    assert_same(weights(finished), best)
    assert not finished.classifier.training
    history = finished.results["stage2"].history
    assert finished.results["stage2"].best == max(line["macro_auroc"] for line in history)


def test_random_initialisation_refuses_weights(
    tmp_path: Path, train: Train, recipe: Recipe
) -> None:
    with pytest.raises(RecipeError, match=r"leave `weights=\.\.\.`"):
        train(tmp_path, recipe=recipe.model_copy(update={"initialise": "random"}))
    assert not list(tmp_path.iterdir())


Scratch = Callable[..., PosttrainResult]


@pytest.fixture
def scratch(tmp_path: Path, synthetic: Cohort, synthetic_store: Store) -> Scratch:
    """`scratch(backbone, recipe, **stage2)` trains for one epoch from random weights."""

    def run(
        backbone: str, recipe: str, *, name: str | None = None, **stage2: Any
    ) -> PosttrainResult:
        settings = load_recipe(recipe, ["stage2.epochs=1", "stage2.batch_size=16"])
        assert settings.stage2 is not None
        changes = {"name": name or recipe, "stage2": settings.stage2.model_copy(update=stage2)}
        return posttrain(
            synthetic,
            synthetic_store,
            backbone,
            recipe=settings.model_copy(update=changes),
            out=tmp_path / f"{backbone}-{changes['name']}-{'-'.join(stage2)}",
            options={"width": 8},
            processes=Processes("cpu"),
        )

    return run


def test_recipe_of_another_network_warns(scratch: Scratch) -> None:
    with pytest.warns(RecipeWarning, match="strodthoff-rnn .*lstm"):
        scratch("lstm", "strodthoff")
    scratch("lstm", "strodthoff-rnn")  # a warning would be an error here
    scratch("lstm", "strodthoff", name="copy")


def test_settings_without_effect_warn(scratch: Scratch) -> None:
    for key, value in (("drop_path", 0.3), ("dropout", 0.2), ("freeze_positions", True)):
        with pytest.warns(RecipeWarning, match=f"stage2.{key} = {value} .*lstm"):
            scratch("lstm", "strodthoff-rnn", **{key: value})


def test_head_bias_starts_at_the_prior(tmp_path: Path, train: Train) -> None:
    losses = {}
    for bias in ("stock", "prior"):
        stage2 = Stage2(epochs=1, batch_size=16, head_bias=bias)
        recipe = Recipe(name="scratch", initialise="random", precision="fp32", stage2=stage2)
        run = train(tmp_path / bias, recipe=recipe, weights=None, data={"crop_seconds": 2.5})
        losses[bias] = run.results["stage2"].history[0]["train_loss"]
        assert list(run.results) == ["stage2"]
        assert run.run.request["weights"] is None
    assert losses["prior"] < 0.9 * losses["stock"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage2": {"batch_size": 18, "micro_batch": 4}}, "batch_size 18"),  # does not divide
        ({"stage2": {"batch_size": 640, "micro_batch": 8}}, "batch_size 640"),  # too few records
        ({"data": {"crop_seconds": 20.0}}, "10 s|1000 samples"),
        ({"data": {"crop_seconds": 2.52}}, "252 samples"),
        ({"stage2": {"freeze_extractor": True}}, "mtecg_tiny_100hz"),
        ({"weights": None}, "weights="),
        ({"weights": Path("absent.safetensors")}, "absent.safetensors"),
    ],
)
def test_impossible_settings_are_refused_before_writing(
    tmp_path: Path, train: Train, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(EinthovenError, match=message):
        train(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_short_record_is_named_before_writing(
    tmp_path: Path, train: Train, synthetic: Cohort, synthetic_store: Store
) -> None:
    """Whatever split it is in: the others are read only when an epoch has ended."""
    for split in ("validation", "test"):
        name = synthetic.ids(split)[0]
        index = synthetic_store.index.copy()
        index.loc[name, "samples"] = 150
        short = replace(synthetic_store, index=index, _maps={})
        with pytest.raises(PreparationError, match=f"1.5 s .*'{name}'"):
            train(tmp_path / "run", store=short)
        assert not (tmp_path / "run").exists()


def test_locked_run_folder_is_refused(
    tmp_path: Path, train: Train, recorder: Any, killed: type[Exception]
) -> None:
    with pytest.raises(killed):
        train(tmp_path / "run", progress=recorder(kill=("stage 2", 1)))
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*.jsonl")}
    with (
        locked(tmp_path / "run" / LOCK),
        pytest.raises(TrainingError, match=str(tmp_path / "run")),
    ):
        train(tmp_path / "run")
    assert before == {file: file.read_bytes() for file in (tmp_path / "run").rglob("*.jsonl")}
    train(tmp_path / "run")


def test_file_as_run_folder_is_refused(encoder: Path, train: Train) -> None:
    with pytest.raises(FileError, match=weights_file(encoder).name):
        train(weights_file(encoder))


def test_bf16_trains_and_keeps_weights_in_fp32(
    tmp_path: Path, train: Train, recipe: Recipe
) -> None:
    run = train(tmp_path, recipe=recipe.model_copy(update={"precision": "bf16"}))
    assert {value.dtype for value in weights(run).values()} == {torch.float32}
    assert all(torch.isfinite(value).all() for value in weights(run).values())
    losses = [line["train_loss"] for line in run.results["stage2"].history]
    assert losses[-1] < losses[0]


def test_reduced_leads_train_and_predict_twelve_lead_records(
    tmp_path: Path,
    train: Train,
    encoder: Path,
    synthetic: Cohort,
    synthetic_store: Store,
    recipe: Recipe,
) -> None:
    leads = ("I", "II", "V2")
    options = {"depth": 2, "width": 32, "heads": 1, "leads": leads}
    run = train(tmp_path, options=options, stage2={"epochs": 1})
    assert run.data.preparation.leads == leads
    model: Model = model_of(run, synthetic, recipe)
    record = read_record(synthetic.paths("test")[0])
    whole = predict_record(model, record).probabilities
    assert whole == predict_record(model, record.select(leads)).probabilities
    assert whole == predict_record(model, record.select(leads[::-1])).probabilities
    assert set(whole) == set(synthetic.labels)


def test_query_attention_is_probed_fine_tuned_and_resumed(
    tmp_path: Path,
    train: Train,
    recipe: Recipe,
    recorder: Any,
    killed: type[Exception],
) -> None:
    """On the tokens of two leads; a kill between the rates, when the tokens are still cached."""
    attending = recipe.model_copy(update={"head": "query-attention"})
    options = {"depth": 2, "width": 30, "heads": 1, "leads": ("II", "V5")}
    changes: dict[str, Any] = {"recipe": attending, "options": options, "weights": None}
    encoder = create_backbone(BACKBONE, seed=7, **options)
    changes["weights"] = save_model(Model(encoder, encoder.preparation), tmp_path / "encoder")
    whole = train(tmp_path / "whole", **changes)
    assert whole.classifier.head_kind == "query-attention"
    probe = read_tensors(whole.run.path / "stage1/lr-1/best.safetensors")[0]
    assert {name: value.shape for name, value in probe.items()} == {
        name: value.shape for name, value in whole.classifier.head.state_dict().items()
    }
    with pytest.raises(killed):
        train(tmp_path / "run", progress=recorder(kill=("stage 1, query", 9)), **changes)
    assert list((tmp_path / "run/stage1/features").glob("*.npy"))
    again = train(tmp_path / "run", **changes)
    assert_same(weights(again), weights(whole))
    assert not list((tmp_path / "run").rglob("*.npy"))


def test_quarantined_records_are_left_out(
    tmp_path: Path, train: Train, synthetic: Cohort, synthetic_store: Store
) -> None:
    lost = synthetic.ids("train")[:3]
    reduced = Store(
        synthetic_store.root,
        synthetic_store.leads,
        synthetic_store.index.drop(lost),
        synthetic_store.quarantine.reindex(range(3)).assign(record=lost, reason="flat"),
        synthetic_store.manifest,
        synthetic_store._filesystem,
    )
    usable = synthetic.select(reduced.without_quarantined(synthetic.ids()))
    assert len(usable) == len(synthetic) - 3
    data = Dataset(synthetic, reduced, train(tmp_path, stage1=None).data.preparation)
    source = data.source("train")
    assert len(source) == len(synthetic.ids("train")) - 3
    assert np.array_equal(source.targets, usable.targets("train"))


def test_empty_split_is_refused(tmp_path: Path, train: Train, synthetic: Cohort) -> None:
    without = synthetic.select((synthetic.table["split"] != "validation").to_numpy())
    with pytest.raises(CohortError, match="validation"):
        train(tmp_path / "run", cohort=without)
    assert not (tmp_path / "run").exists()
