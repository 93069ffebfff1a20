"""Cross-validation: out-of-fold predictions, the model of all records, resume, refusals."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.errors import CohortError, EvaluationError, TrainingError
from einthoven.evaluate import fit_calibration
from einthoven.experiment import folds as folds_module
from einthoven.experiment.ensembles import ensemble
from einthoven.experiment.evaluation import evaluate_model
from einthoven.experiment.folds import run_folds
from einthoven.experiment.run import RunResult
from einthoven.files import Json, file_sha256, read_json, write_tensors
from einthoven.inference import predict_cohort
from einthoven.models import load_model, read_config
from einthoven.predictions import Predictions
from einthoven.report.data import read_evaluation
from einthoven.report.format import number
from einthoven.report.page import write_report
from einthoven.signals.store import Store
from einthoven.stages import policy
from einthoven.stages.leakage import LeakageWarning, find_leakage, read_fingerprints
from einthoven.stages.recipe import Data, Recipe, Stage1, Stage2
from einthoven.training.distributed import Processes

TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}
RECIPE = Recipe(
    name="tiny",
    precision="fp32",
    data=Data(crop_seconds=2.5, evaluation_crops=1, augmentation="none"),
    stage1=Stage1(
        solver="adamw", epochs=3, batch_size=16, base_lr_sweep=(1e-3, 1e-1), warmup_epochs=1
    ),
    stage2=Stage2(epochs=3, batch_size=16, base_lr=1e-2, warmup_epochs=1),
)
FOLDS = 3
CrossValidation = Callable[..., RunResult]


@pytest.fixture(scope="module")
def cross_validation(
    synthetic: Cohort, synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> CrossValidation:
    encoder = tmp_path_factory.mktemp("encoder") / "model"
    network = create_backbone("mtecg_tiny_100hz", seed=0, init="pretraining", **TINY)
    write_tensors(encoder, network.state_dict(), {})

    def run(out: Path, recipe: Recipe = RECIPE, **changes: Any) -> RunResult:
        settings: dict[str, Any] = {"weights": encoder, "options": TINY, "resamples": 20}
        settings |= {"processes": Processes("cpu"), "folds": FOLDS} | changes
        result = run_folds(
            synthetic, synthetic_store, "mtecg_tiny_100hz", recipe=recipe, out=out, **settings
        )
        assert result is not None
        return result

    return run


@pytest.fixture(scope="module")
def folder(cross_validation: CrossValidation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_validation(tmp_path_factory.mktemp("folds") / "run").run.path


@pytest.fixture
def table(folder: Path) -> Predictions:
    return Predictions.load(folder / "predictions" / "test.parquet")


@pytest.fixture
def numbers(folder: Path) -> Json:
    return read_json(folder / "metrics.json")


def fold(folder: Path, number: int) -> Path:
    return folder / "folds" / str(number)


def test_a_record_is_predicted_by_a_model_that_has_not_seen_its_patient(
    folder: Path, table: Predictions, synthetic: Cohort, synthetic_store: Store
) -> None:
    assert table.records.tolist() == synthetic.ids().tolist()
    assert np.array_equal(table.require_targets(), synthetic.targets())
    assert (table.metadata["folds"], table.metadata["calibrated"]) == ("3", "no")
    for k, part in enumerate(synthetic.folds(FOLDS), 1):
        model = load_model(fold(folder, k) / "model")
        rows = np.isin(table.records, part.ids("test"))
        expected = predict_cohort(model, part, synthetic_store, "test", calibrated=False)
        assert table.probabilities[rows] == pytest.approx(expected.probabilities, abs=1e-6)
        seen = read_fingerprints(fold(folder, k) / "model")
        assert find_leakage(seen, (part, synthetic_store)) is None
        assert find_leakage(seen, (part, synthetic_store), "train") is not None


def test_scores_are_pooled_and_by_fold_with_intervals_by_patient(
    folder: Path, table: Predictions, numbers: Json
) -> None:
    areas = roc_auc_score(table.require_targets(), table.probabilities, average=None)
    assert numbers["test"]["macro_auroc"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert numbers["test"]["unit"] == "patient"
    tests = [read_json(fold(folder, k) / "metrics.json")["test"] for k in range(1, FOLDS + 1)]
    values = [test["macro_auroc"] for test in tests]
    assert [score["macro_auroc"] for score in numbers["folds"]["scores"]] == values
    assert {test["unit"] for test in tests} == {"patient"}
    spread = numbers["folds"]["macro_auroc"]
    assert (spread["mean"], spread["sd"]) == pytest.approx(
        (np.mean(values), np.std(values, ddof=1))
    )


def test_the_final_model_is_trained_on_all_records_with_what_the_folds_chose(
    folder: Path, table: Predictions, synthetic: Cohort, synthetic_store: Store
) -> None:
    model = load_model(folder / "model")
    provenance = model.config["provenance"]
    folds = [read_config(fold(folder, k) / "model")["provenance"] for k in range(1, FOLDS + 1)]
    epoch = int(np.median([each["selected_epoch"]["stage2"] for each in folds]))
    assert provenance["selected_epoch"] == {"stage1": 3, "stage2": epoch}
    assert provenance["recipe"]["stage1"]["base_lr"] in (1e-3, 1e-1)
    assert provenance["cohort"]["training_records"] == len(synthetic)
    everyone = synthetic.with_splits("test"), synthetic_store
    seen = find_leakage(read_fingerprints(folder / "model"), everyone)
    assert seen is not None
    assert len(seen.ids) == len(synthetic)
    assert model.calibration == fit_calibration(table)
    assert model.config["calibration_fit"]["split"] == "out of fold"


def test_card_and_page_have_the_out_of_fold_results_and_keep_them(
    folder: Path, numbers: Json, tmp_path: Path, synthetic: Cohort, synthetic_store: Store
) -> None:
    seen = f"{folder / 'model'}.*{len(synthetic.ids('test'))}"
    with pytest.warns(LeakageWarning), pytest.raises(EvaluationError, match=seen):
        evaluate_model(folder / "model", synthetic, synthetic_store, resamples=0)
    evaluation = read_evaluation(folder / "model") or {}
    assert evaluation["score"] == numbers["test"]
    assert evaluation["folds"] == numbers["folds"]
    assert evaluation["calibration"]["cross_fitted"]
    card = (folder / "model" / "README.md").read_text()
    page = write_report([folder], tmp_path / "page.html", resamples=20)
    for text in (card, page.read_text()):
        for value in (*numbers["folds"]["macro_auroc"].values(), numbers["test"]["macro_auroc"]):
            assert number(value) in text


def test_runs_of_the_same_folds_are_averaged_and_compared(
    folder: Path, tmp_path: Path, cross_validation: CrossValidation, table: Predictions
) -> None:
    probe = RECIPE.model_copy(update={"stage2": None})
    other = cross_validation(tmp_path / "other", probe).run.path
    ensemble([folder, other], tmp_path / "both", resamples=20)
    second = Predictions.load(other / "predictions" / "test.parquet")
    both = Predictions.load(tmp_path / "both" / "predictions" / "test.parquet")
    expected = (table.probabilities + second.probabilities) / 2
    assert both.probabilities == pytest.approx(expected)
    page = write_report([tmp_path / "both", folder], tmp_path / "page.html", resamples=20)
    (pair,) = read_json(page.with_suffix(".json"))["comparisons"]
    assert pair["a"]["unit"] == "patient"
    assert read_json(tmp_path / "both" / "metrics.json")["test"]["unit"] == "patient"


@pytest.mark.parametrize("moment", ["fold 2 of 3, predict test", "all records, stage 2"])
def test_a_killed_run_resumes_to_the_same_weights(
    folder: Path, tmp_path: Path, cross_validation: CrossValidation, moment: str
) -> None:
    def stop(task: str, *numbers: Any) -> None:
        if task.startswith(moment):
            raise KeyboardInterrupt

    copy = shutil.copytree(folder, tmp_path / "run")
    for name in ("metrics.json", "model", "predictions", "refit", "folds/2/metrics.json"):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (copy / "folds" / "2" / "predictions" / "test.parquet").unlink()
    with pytest.raises(KeyboardInterrupt):
        cross_validation(copy, progress=stop)
    assert not (copy / "metrics.json").exists()
    cross_validation(copy)
    for file in ("model/model.safetensors", "predictions/test.parquet"):
        assert file_sha256(copy / file) == file_sha256(folder / file)


def test_other_folds_and_weights_that_have_seen_a_record_are_refused_before_training(
    folder: Path, tmp_path: Path, cross_validation: CrossValidation, synthetic: Cohort
) -> None:
    """The model of fold 1 has not seen that fold, and has seen the others."""
    with pytest.raises(TrainingError, match=r"folds\D+3\D+4\D"):
        cross_validation(folder, folds=4)
    with pytest.raises(CohortError, match=f"{fold(folder, 1)}.*test"):
        cross_validation(tmp_path / "run", weights=fold(folder, 1) / "model")
    with pytest.raises(CohortError) as refused:
        cross_validation(tmp_path / "run", folds=10_000)
    patients = len(np.unique(synthetic.patients()))
    assert str(patients) in refused.value.remedy
    assert not (tmp_path / "run").exists()


def test_too_many_folds_are_refused_with_a_number_that_works(
    synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    """Four patients with the label: with five folds, one has none."""
    targets = np.zeros((len(synthetic), 1), dtype=np.uint8)
    carriers = np.unique(synthetic.patients())[:4]
    targets[np.isin(synthetic.patients(), carriers)] = 1
    rare = replace(synthetic, labels=("rare",), matrix=targets)
    options: Any = {"recipe": RECIPE, "out": tmp_path / "run", "weights": tmp_path}
    with pytest.raises(CohortError) as refused:
        run_folds(rare, synthetic_store, "mtecg_tiny_100hz", folds=6, **options)
    assert re.findall(r"\d+", refused.value.remedy) == ["4"]
    few = replace(rare, matrix=targets * (synthetic.patients() == carriers[0])[:, None])
    with pytest.raises(CohortError) as refused:
        run_folds(few, synthetic_store, "mtecg_tiny_100hz", folds=5, **options)
    assert not re.findall(r"\d+", refused.value.remedy)


def test_folds_on_both_sides_of_a_limit_are_trained_alike(
    cross_validation: CrossValidation,
    synthetic: Cohort,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = [len(part.ids("train")) for part in synthetic.folds(FOLDS)]
    assert min(sizes) < max(sizes)
    monkeypatch.setattr(policy, "MOST_SOLVED", min(sizes))
    recipe = RECIPE.model_copy(
        update={"stage1": Stage1(base_lr_sweep=(1e-3, 1e-1)), "stage2": None, "refit": "auto"}
    )
    path = cross_validation(tmp_path / "run", recipe, resamples=0).run.path
    decided = {"stage1.solver": "logistic", "refit": "always"}
    assert read_json(path / "run.json")["request"]["policy"] == decided
    models = [fold(path, number) / "model" for number in range(1, FOLDS + 1)]
    recipes = [read_config(folder)["provenance"]["recipe"] for folder in [*models, path / "model"]]
    assert {recipe["stage1"]["solver"] for recipe in recipes} == {"logistic"}
    assert {recipe["refit"] for recipe in recipes} == {"always"}  # of the run, with its model
    made = read_config(path / "model")["provenance"]["policy"]
    assert {entry["key"]: entry["value"] for entry in made} == decided


def _without(store: Store, record: str) -> Store:
    """The store with a record in quarantine."""
    row = {"record": [record], "path": ["absent"], "reason": ["unreadable"]}
    return replace(store, index=store.index.drop(record), quarantine=pd.DataFrame(row))


def test_folds_are_drawn_among_the_records_that_are_not_in_quarantine(
    synthetic: Cohort, synthetic_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six patients with the label in five folds: one may be lost, of whichever fold."""
    _, first = np.unique(synthetic.patients(), return_index=True)
    targets = np.zeros((len(synthetic), 1), dtype=np.uint8)
    targets[first[:6]] = 1
    rare = replace(synthetic, labels=("rare",), matrix=targets)
    drawn: list[Cohort] = []

    def stop(part: Cohort, *_: Any, **__: Any) -> None:
        drawn.append(part)
        raise KeyboardInterrupt

    monkeypatch.setattr(folds_module, "check_cohort", stop)
    for lost in synthetic.ids()[first[:6]]:
        store = _without(synthetic_store, lost)
        options: Any = {"recipe": RECIPE, "out": tmp_path / "run", "weights": tmp_path, "folds": 5}
        with pytest.raises(KeyboardInterrupt):
            run_folds(rare, store, "mtecg_tiny_100hz", **options)
        usable = rare.select(rare.ids() != lost)
        assert drawn[-1].digest == usable.folds(5)[0].digest
        assert sum(drawn[-1].left_out.values()) == sum(rare.left_out.values()) + 1
    stated = np.arange(len(rare)) % 4 + 1
    stated[first[0]] = 5
    table = rare.table.assign(fold=stated, patient=rare.ids())
    store = _without(synthetic_store, rare.ids()[first[0]])
    with pytest.raises(CohortError, match="quarantine"):
        run_folds(replace(rare, table=table), store, "mtecg_tiny_100hz", **options)
