"""An experiment from a recipe to its evaluation."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.errors import CohortError, EvaluationError
from einthoven.evaluate import fit_calibration
from einthoven.experiment.run import RunResult, run_experiment
from einthoven.files import Json, read_json, read_lines, write_json, write_tensors
from einthoven.inference import predict_record
from einthoven.models import Model, load_model
from einthoven.predictions import Predictions
from einthoven.records import read_record
from einthoven.report.data import read_evaluation
from einthoven.report.format import number
from einthoven.report.page import write_report
from einthoven.signals.store import Store
from einthoven.stages.leakage import LeakageWarning
from einthoven.stages.recipe import Data, Recipe, Stage1, Stage2
from einthoven.training.distributed import Processes

TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}
RECIPE = Recipe(
    name="tiny",
    precision="fp32",
    data=Data(crop_seconds=2.5, evaluation_crops=2, augmentation="none"),
    stage1=Stage1(
        solver="adamw", epochs=3, batch_size=16, base_lr_sweep=(1e-3, 1e-1), warmup_epochs=1
    ),
    stage2=Stage2(epochs=3, batch_size=16, base_lr=1e-2, warmup_epochs=1, drop_path=0.1),
)
Experiment = Callable[..., RunResult]


@pytest.fixture(scope="module")
def experiment(
    synthetic: Cohort, synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Experiment:
    encoder = tmp_path_factory.mktemp("encoder") / "model"
    network = create_backbone("mtecg_tiny_100hz", seed=0, init="pretraining", **TINY)
    write_tensors(encoder, network.state_dict(), {})

    def run(
        out: Path, recipe: Recipe = RECIPE, cohort: Cohort = synthetic, **changes: Any
    ) -> RunResult:
        settings: dict[str, Any] = {"weights": encoder, "options": TINY, "resamples": 20}
        settings |= {"processes": Processes("cpu"), "store": synthetic_store} | changes
        result = run_experiment(
            cohort, backbone="mtecg_tiny_100hz", recipe=recipe, out=out, **settings
        )
        assert result is not None
        return result

    return run


@pytest.fixture(scope="module")
def finished(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return experiment(tmp_path_factory.mktemp("experiment") / "run")


@pytest.fixture
def folder(finished: RunResult) -> Path:
    return finished.run.path


@pytest.fixture
def numbers(folder: Path) -> Json:
    return read_json(folder / "metrics.json")


@pytest.fixture
def model(folder: Path) -> Model:
    return load_model(folder / "model")


@pytest.fixture
def tables(folder: Path) -> dict[str, Predictions]:
    return {
        split: Predictions.load(folder / "predictions" / f"{split}.parquet")
        for split in ("validation", "test")
    }


def test_run_folder_is_complete(
    finished: RunResult, folder: Path, numbers: Json, model: Model, tables: dict[str, Predictions]
) -> None:
    for split, table in tables.items():
        areas = roc_auc_score(table.require_targets(), table.probabilities, average=None)
        assert numbers[split]["macro_auroc"] == pytest.approx(np.mean(areas), abs=1e-12)
        assert numbers[split]["records"] == len(table)
    assert numbers["test"]["macro_auroc"] == finished.test.macro_auroc
    assert numbers["seconds"] > 0
    assert numbers["parameters"] == sum(p.numel() for p in model.classifier.parameters())
    assert numbers["device"].startswith("CPU, ")
    assert not list(folder.rglob("*.tmp"))


def test_validation_of_the_selected_epoch_equals_that_of_its_predictions(
    folder: Path, numbers: Json, model: Model
) -> None:
    lines = read_lines(folder / "stage2" / "metrics.jsonl")
    epoch = model.config["provenance"]["selected_epoch"]["stage2"]
    for metric in ("macro_auroc", "macro_auprc"):
        assert numbers["validation"][metric] == pytest.approx(lines[epoch - 1][metric], abs=1e-6)


def test_the_model_records_its_provenance(
    finished: RunResult, model: Model, synthetic: Cohort
) -> None:
    provenance = model.config["provenance"]
    assert model.labels == synthetic.labels
    assert model.licence.commercial_use is None  # the encoder states no licence
    assert provenance["recipe"]["stage2"]["drop_path"] == 0.1
    assert provenance["cohort"]["training_records"] == len(synthetic.ids("train"))
    assert provenance["cohort"]["digest"] == synthetic.digest
    assert provenance["initial_weights"]["sha256"]
    assert provenance["environment"]["torch"]
    assert set(provenance["selected_epoch"]) == {"stage1", "stage2"}
    assert model.config["metrics"]["macro_auroc"] == finished.test.macro_auroc
    assert model.fingerprints
    assert model.descriptions["AFIB"] == "atrial fibrillation"


def test_the_model_predicts_the_calibrated_probabilities_of_the_table(
    model: Model, tables: dict[str, Predictions], synthetic: Cohort
) -> None:
    assert tables["test"].metadata["calibrated"] == "no"
    assert model.calibration is not None
    expected = model.calibration.apply(tables["test"].probabilities)
    for row in (0, 17):
        done = predict_record(model, read_record(synthetic.paths("test")[row]))
        values = list(done.probabilities.values())
        assert values == pytest.approx(expected[row].tolist(), abs=1e-5)


def test_the_calibration_is_fitted_on_validation_only(
    model: Model, tables: dict[str, Predictions]
) -> None:
    table = tables["validation"]
    assert model.calibration == fit_calibration(table)
    fit = model.config["calibration_fit"]
    assert (fit["split"], fit["records"]) == ("validation", len(table))
    positives = table.require_targets()[:, table.labels.index("AFIB")].sum()
    assert fit["positives"]["AFIB"] == int(positives)


def test_the_evaluation_is_of_the_test_table(
    folder: Path, numbers: Json, synthetic: Cohort
) -> None:
    evaluation = read_evaluation(folder / "model") or {}
    assert evaluation["score"] == numbers["test"]
    assert evaluation["validation"] == numbers["validation"]
    assert evaluation["calibration"]["records"] == len(synthetic.ids("test"))
    ages = evaluation["subgroups"]["attributes"]["age"]
    assert sum(group["records"] for group in ages) == len(synthetic.ids("test"))
    assert evaluation["robustness"] is None
    card = (folder / "model" / "README.md").read_text()
    (row,) = re.findall(r"^\| test \|.*", card, re.MULTILINE)
    assert f"| {number(numbers['test']['macro_auroc'])} (" in row
    assert "## Calibration" in card
    values = [group["auroc"]["value"] for group in ages]
    assert all(number(value) in card for value in values if value is not None)


def test_robustness_is_kept_when_the_command_is_repeated(
    tmp_path: Path, folder: Path, experiment: Experiment
) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    evaluation = read_evaluation(copy / "model") or {}
    measured = {"clean": {}, "leads": [], "noise": [], "left_out": {}, "records": 1}
    measured |= {"resamples": 0, "seed": 0, "by": "record"}
    write_json(copy / "model" / "evaluation.json", evaluation | {"robustness": measured})
    experiment(copy)
    assert (read_evaluation(copy / "model") or {})["robustness"] == measured


def test_the_test_split_is_predicted_once(
    finished: RunResult, folder: Path, numbers: Json, experiment: Experiment
) -> None:
    """A repeated command gives the same numbers, and the time of training stays."""
    files = [*(folder / "predictions").iterdir(), folder / "model" / "model.safetensors"]
    before = {file: file.stat().st_mtime_ns for file in files}
    tasks: list[str] = []
    again = experiment(folder, progress=lambda task, *numbers: tasks.append(task))
    assert not tasks
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert again.test.to_dict() == finished.test.to_dict()
    assert read_json(folder / "metrics.json")["seconds"] == numbers["seconds"]


def test_run_stopped_before_test_predictions_resumes(
    tmp_path: Path, finished: RunResult, experiment: Experiment
) -> None:
    def stop(task: str, done: int, total: int, metrics: Any = None) -> None:
        if task == "predict test":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment(tmp_path, progress=stop)
    assert not (tmp_path / "metrics.json").exists()
    assert not (tmp_path / "predictions" / "test.parquet").exists()
    assert experiment(tmp_path).test.macro_auroc == finished.test.macro_auroc


def test_a_report_of_an_unfinished_run_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(folder / "run.json", tmp_path / "run")
    with pytest.raises(EvaluationError, match=r"metrics\.json"):
        write_report([tmp_path / "run"], tmp_path / "page.html")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_that_cannot_be_scored_is_refused_before_training(
    experiment: Experiment, synthetic: Cohort, tmp_path: Path, split: str
) -> None:
    inside = (synthetic.table["split"] == split).to_numpy()
    with pytest.raises(CohortError, match=rf"^{synthetic.name}\D*{split}"):
        experiment(tmp_path / "run", cohort=synthetic.select(~inside))
    matrix = synthetic.matrix.copy()
    matrix[inside] = 1
    with pytest.raises(CohortError, match=f"{inside.sum()} {split}"):
        experiment(tmp_path / "run", cohort=replace(synthetic, matrix=matrix))
    assert not (tmp_path / "run").exists()


def test_records_in_quarantine_are_counted_where_a_split_cannot_be_scored(
    experiment: Experiment, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    inside = np.flatnonzero(synthetic.table["split"] == "test")[1:]
    quarantine = synthetic.table.iloc[inside].reset_index().assign(reason="no file")
    store = replace(synthetic_store, quarantine=quarantine[["record", "path", "reason"]])
    with pytest.raises(CohortError, match=rf"among the 1 test records; {len(inside)} others"):
        experiment(tmp_path / "run", store=store)


def test_too_few_resamples_are_refused_before_training(
    experiment: Experiment, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match="5 resamples"):
        experiment(tmp_path / "run", resamples=5)
    assert not (tmp_path / "run").exists()


def test_a_recording_in_two_splits_is_refused(
    experiment: Experiment, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    """One record has the signal of another one, under its own name, patient and file."""
    one, other = synthetic.ids("train")[0], synthetic.ids("test")[0]
    index = synthetic_store.index.copy()
    index.loc[one, ["shard", "offset"]] = index.loc[other, ["shard", "offset"]]
    store = replace(synthetic_store, index=index, _maps={})
    with pytest.raises(CohortError, match="1 recordings") as caught:
        experiment(tmp_path / "run", store=store)
    assert f"{str(one)!r} (train)" in str(caught.value)
    assert f"{str(other)!r} (test)" in str(caught.value)
    assert not (tmp_path / "run").exists()
    with pytest.warns(LeakageWarning, match=str(one)):
        experiment(tmp_path / "run", store=store, allow_leakage=True)
