"""From a folder of files to a model, a report and predictions, by commands alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven.cli.demo import RECIPES
from einthoven.cohorts import Cohort
from einthoven.files import read_json
from einthoven.models import load_model, read_config
from einthoven.predictions import Predictions
from einthoven.signals.store import Store
from einthoven.stages import recipe as recipes
from einthoven.training.tracking import TRACKERS


def test_posttrain_writes_its_evaluation_and_is_repeated_without_training(
    made: Any, cli: Any, synthetic_path: Path, synthetic_store: Store, tiny_backbone: str
) -> None:
    names = {"run.json", "stage1", "stage2", "model", "predictions", "metrics.json"}
    names |= {"report.html", "report.json", "report.errors.csv", "leakage.json", "refit", ".lock"}
    assert {entry.name for entry in made.run.iterdir()} == names
    files = made.run / "report.html", made.model / "model.safetensors"
    page, weights = (file.stat().st_mtime_ns for file in files)
    result = cli(
        "posttrain", synthetic_path, "--backbone", tiny_backbone, "--weights", made.encoder,
        "--recipe", made.recipe, "--store", synthetic_store.root, "--out", made.run,
        "--min-records", 8, "--resamples", 20, "--device", "cpu", "--set", "seed=0",
    )  # fmt: skip
    numbers = read_json(made.run / "metrics.json")["test"]
    assert f" {numbers['macro_auroc']:.4f} (" in result.out
    assert f"{numbers['defined_labels']} of {len(numbers['per_label'])}" in result.out
    assert f"{abs(numbers['macro_auprc_bias']):.4f}" in result.out
    assert str(made.model) in result.out
    assert "epoch" not in result.err
    assert files[0].stat().st_mtime_ns > page
    assert files[1].stat().st_mtime_ns == weights  # nothing was trained again


def test_another_request_for_the_same_folder_is_refused(
    made: Any, cli: Any, synthetic_path: Path, synthetic_store: Store, tiny_backbone: str
) -> None:
    result = cli(
        "posttrain", synthetic_path, "--backbone", tiny_backbone, "--weights", made.encoder,
        "--recipe", made.recipe, "--store", synthetic_store.root, "--out", made.run,
        "--min-records", 8, "--set", "stage2.epochs=7",
        status=1,
    )  # fmt: skip
    assert "stage2.epochs: 2" in result.err


def test_a_tracker_is_sent_the_epochs_of_both_stages_and_the_test_metrics(
    made: Any, cli: Any, synthetic_path: Path, synthetic_store: Store, tiny_backbone: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sent: list[tuple[str, int]] = []
    given: dict[str, Any] = {}

    class Recording:
        identity, place, latest = "", "here", {}

        def __init__(self, folder: Path, parameters: dict[str, Any], identity: str) -> None:
            given.update(parameters)

        def write(self, values: dict[str, float], step: int) -> None:
            sent.extend((key, step) for key in values)

        def finish(self, *, is_complete: bool) -> None:
            given["is_complete"] = is_complete

    monkeypatch.setitem(TRACKERS, "json", Recording)  # a package that is always there
    command = (
        "posttrain", synthetic_path, "--backbone", tiny_backbone, "--weights", made.encoder,
        "--recipe", made.recipe, "--store", synthetic_store.root,
        "--min-records", 8, "--resamples", 20, "--device", "cpu", "--set", "seed=0",
    )  # fmt: skip
    cli(*command, "--out", made.run, "--track", "json")
    stages = {key.rpartition("/")[0] for key, _ in sent}
    assert {"stage2", "refit/stage2", "test"} < stages
    assert [step for key, step in sent if key == "stage2/validation_loss"] == [1, 2]
    assert ("test/macro_auroc", 0) in sent
    assert given["backbone"] == tiny_backbone
    assert given["stage2.epochs"] == 2
    assert given["is_complete"]

    refused = made.run.with_name("refused")
    monkeypatch.setattr("einthoven.training.tracking.find_spec", lambda name: None)
    result = cli(*command, "--out", refused, "--track", "mlflow", status=1)
    assert "pip install mlflow" in result.err
    assert not refused.exists()
    assert "tensorboard" in cli(*command, "--out", refused, "--track", "other", status=2).err


def test_labels_without_positive_training_records_are_reported(
    cli: Any, synthetic: Cohort, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    common = synthetic.counts()["train"].idxmax()
    table = synthetic.table[["path", "patient", "split"]].copy()
    table["path"] = [str(synthetic_path / path) for path in table["path"]]
    table["COMMON"] = synthetic.targets()[:, synthetic.labels.index(common)]
    table["ELSEWHERE"] = (table["split"] != "train").astype(int)
    table.to_csv(tmp_path / "own.csv")
    result = cli(
        "posttrain", tmp_path / "own.csv", "--backbone", "fcn_wang", "--resamples", 0,
        "--store", synthetic_store.root, "--out", tmp_path / "run", "--device", "cpu",
        "--set", "stage2.epochs=1", "--set", "stage2.batch_size=16",
    )  # fmt: skip
    assert "ELSEWHERE" in result.err
    assert "1 of 2" in " ".join(result.out.split())


def test_folds_are_recommended_for_few_records_and_give_a_run(
    made: Any, cli: Any, synthetic: Cohort, synthetic_path: Path, synthetic_store: Store,
    tiny_backbone: str, tmp_path: Path,
) -> None:  # fmt: skip
    options = (
        "posttrain", synthetic_path, "--backbone", tiny_backbone, "--weights", made.encoder,
        "--recipe", made.recipe, "--store", synthetic_store.root, "--resamples", 0,
        "--device", "cpu", "--min-records", 8, "--out", tmp_path / "run",
    )  # fmt: skip
    result = cli(*options, "--folds", 3)
    assert "--folds" not in result.err
    score = read_json(tmp_path / "run" / "metrics.json")
    assert f" {score['test']['macro_auroc']:.4f}" in result.out
    assert f" {score['folds']['macro_auroc']['sd']:.4f}" in result.out
    result = cli(*options, status=1)  # without folds: another run, in the same folder
    assert re.search(rf"\b{len(synthetic)} records.*--folds 5", result.err)
    fewest = synthetic.counts()[["test", "validation"]].min(axis=1)
    assert f"{fewest.idxmin()}: {fewest.min()} " in result.err


def test_a_task_specific_network_is_trained_by_its_recipe(
    cli: Any, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    cli(
        "posttrain", synthetic_path, "--backbone", "fcn_wang", "--store", synthetic_store.root,
        "--out", tmp_path / "run", "--min-records", 8, "--resamples", 0, "--device", "cpu",
        "--set", "stage2.epochs=1", "--set", "stage2.batch_size=16",
    )  # fmt: skip
    assert read_json(tmp_path / "run" / "run.json")["request"]["recipe"]["name"] == "strodthoff"


def test_the_included_model_is_trained_with_its_own_settings(
    cli: Any, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    """Plain fine-tuning has the same settings, without drop path and dropout."""
    result = cli(
        "posttrain", synthetic_path, "--store", synthetic_store.root, "--min-records", 8,
        "--out", tmp_path / "run", "--resamples", 0, "--device", "cpu", "--set", "precision=fp32",
        "--set", "refit=never", "--set", "stage1.epochs=2", "--set", "stage2.epochs=1",
    )  # fmt: skip
    assert "s4-100hz-cpu/post-training" in result.err
    ours = read_json(tmp_path / "run" / "run.json")["request"]["recipe"]["stage2"]
    name = recipes.recipe_for("s4_small", "fine-tuning")
    stage = recipes.load_recipe(name, ["stage2.epochs=1"], backbone="s4_small").stage2
    assert stage is not None
    plain = stage.model_dump(mode="json")
    differing = {key for key in ours if ours[key] != plain.get(key)}
    assert differing == {"drop_path", "dropout", "keep"}
    assert (ours["batch_size"], ours["base_lr"]) == (64, 8e-3)


def test_pretrain_packs_trains_and_posttrain_reads_it(
    cli: Any, tmp_path: Path, synthetic_path: Path, tiny_backbone: str, made: Any
) -> None:
    result = cli(
        "pretrain", synthetic_path, "--backbone", tiny_backbone, "--out", tmp_path / "mae",
        "--recipe", "demo", "--set", "epochs=1", "--set", "precision=fp32", "--leads", "I, v2",
        "--device", "cpu", "--option", "depth=2",
    )  # fmt: skip
    assert "160 records" in result.err
    encoder = tmp_path / "mae" / "model"
    assert result.out.split()[-1] == str(encoder)
    assert read_json(tmp_path / "mae" / "run.json")["request"]["backbone_options"] == {
        "leads": ["I", "V2"],
        "depth": 2,
    }
    result = cli(
        "posttrain", synthetic_path, "--backbone", tiny_backbone, "--weights", encoder,
        "--recipe", made.recipe, "--out", tmp_path / "run", "--leads", "I,V2", "--task",
        "superclass-5", "--resamples", 0, "--set", "stage2.epochs=1", "--device", "cpu",
        "--option", "depth=2",
    )  # fmt: skip
    assert "160 records" not in result.err  # the cache has it
    model = load_model(tmp_path / "run" / "model")
    assert model.labels == ("CD", "HYP", "MI", "NORM", "STTC")
    # The whole config of the backbone, with the options of the command line.
    options = read_config(tmp_path / "run" / "model")["backbone_options"]
    assert (options["leads"], options["depth"], options["width"]) == (["I", "V2"], 2, 32)
    file = next((synthetic_path / "records100").rglob("*.hea"))
    result = cli("predict", "--model", tmp_path / "run" / "model", file, "--json")
    assert list(json.loads(result.out)["probabilities"]) == list(model.labels)


def test_the_demo_ends_with_a_report_and_its_next_command_works(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = recipes.load_recipe

    def short(name: str, overrides: list[str]) -> Any:
        epochs = ["stage2.epochs=1"] * ("tuning" in name or "post" in name)
        epochs += ["stage1.epochs=2"] * ("probe" in name or "post" in name)
        return load(name, [*overrides, *epochs, "precision=fp32", "data.evaluation_crops=1"])

    monkeypatch.setattr(recipes, "load_recipe", short)
    result = cli("demo", tmp_path / "demo", "--records", 200)
    report, following = result.out.strip().splitlines()[-2:]
    page = Path(report.split()[-1])
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert len(numbers["comparisons"]) == 2
    for arm in RECIPES:  # prepared as the encoder that they start from was
        requests = read_json(tmp_path / "demo" / arm / "run.json")["request"]
        assert requests["recipe"]["data"]["centre"] is True
    command = following.split("einthoven ")[1].split()
    cli(*command)
    # Again: everything is there, nothing is trained.
    best = tmp_path / "demo" / "post-training" / "stage2" / "best.safetensors"
    written = best.stat().st_mtime_ns
    result = cli("demo", tmp_path / "demo", "--records", 200)
    assert "epoch" not in result.err
    assert best.stat().st_mtime_ns == written


@pytest.mark.slow
def test_the_whole_demo(cli: Any, tmp_path: Path) -> None:
    """As users run it, only with fewer ECGs."""
    cli("demo", tmp_path / "demo", "--records", 400)
    numbers = read_json(tmp_path / "demo" / "post-training" / "metrics.json")
    assert numbers["test"]["macro_auroc"] > 0.6


def test_an_ensemble_is_a_run_folder(made: Any, cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "ensemble"
    result = cli("ensemble", made.run, made.other, "--out", out, "--resamples", 20)
    numbers = read_json(out / "metrics.json")["test"]
    assert f" {numbers['macro_auroc']:.4f} (" in result.out
    assert str(out / "report.html") in result.out
    assert str(out / "model") not in result.out
    tables = [
        Predictions.load(folder / "predictions" / "test.parquet")
        for folder in (out, made.run, made.other)
    ]
    mean = (tables[1].probabilities + tables[2].probabilities) / 2
    np.testing.assert_allclose(tables[0].probabilities, mean, rtol=0, atol=1e-15)
    cli("compare", out, made.run, "--resamples", 20, "--json")
    cli("evaluate", out, "--resamples", 0)
    refused = cli("ensemble", made.run, made.encoder, "--out", tmp_path / "out", status=1)
    assert str(made.encoder) in refused.err
    assert not (tmp_path / "out").exists()


def test_search_writes_a_recipe_that_posttrain_takes(
    made: Any, cli: Any, synthetic_path: Path, synthetic_store: Store, tiny_backbone: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    pytest.importorskip("optuna")
    common = (
        synthetic_path, "--backbone", tiny_backbone, "--weights", made.encoder, "--store",
        synthetic_store.root, "--min-records", 8, "--device", "cpu",
    )  # fmt: skip
    out, space = tmp_path / "tuned", tmp_path / "space.toml"
    space.write_text('[stage2]\nbase_lr = "1e-3:1e-1:log"\n')
    result = cli(
        "search", *common, "--recipe", made.recipe, "--out", out, "--trials", 1,
        "--space", space, "--key", "stage2.drop_path=0:0.2", "--set", "stage2.epochs=1",
    )  # fmt: skip
    best = recipes.load_recipe(out / "best.toml", backbone=tiny_backbone)
    assert best.stage2 is not None
    assert f"{best.stage2.base_lr}" in result.out
    assert (best.stage2.epochs, best.data.crop_seconds) == (1, 2.5)
    run = tmp_path / "run"
    cli("posttrain", *common, "--recipe", out / "best.toml", "--out", run, "--resamples", 0)
    trained = read_config(run / "model")["provenance"]["recipe"]["stage2"]
    assert trained["drop_path"] == best.stage2.drop_path
    refused = cli("search", *common, "--out", tmp_path / "no", "--trials", 1, status=1)
    assert "--key" in refused.err
    assert not (tmp_path / "no").exists()
