"""Evaluation of a model and its card: numbers, validity for a model, refusals."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import Cohort
from einthoven.errors import EvaluationError, ModelError
from einthoven.evaluate import calibrate, calibration_report, score_subgroups
from einthoven.evaluate.scores import score_predictions
from einthoven.evaluate.subgroups import demographics
from einthoven.experiment import evaluation as evaluation_module
from einthoven.experiment.evaluation import (
    evaluate_model,
    evaluation_of,
    fitted_entries,
    reusable_part,
)
from einthoven.files import Json, read_json, write_json
from einthoven.inference import predict_cohort
from einthoven.models import (
    Model,
    load_model,
    read_config,
    save_model,
    update_config,
    write_evaluation,
)
from einthoven.predictions import Predictions
from einthoven.progress import decisions
from einthoven.report.data import EvaluationWarning, read_evaluation
from einthoven.signals.store import Store

TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}


@pytest.fixture(scope="module")
def model(synthetic: Cohort) -> Model:
    classifier = create_classifier("mtecg_tiny_100hz", labels=synthetic.labels, seed=5, **TINY)
    with torch.no_grad():
        classifier.head.weight.mul_(20)
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(1)
    config = {"provenance": {"cohort": {"name": "synthetic"}}}
    return Model(classifier.eval(), preparation, config=config)


@pytest.fixture(scope="module")
def tables(model: Model, synthetic: Cohort, synthetic_store: Store) -> dict[str, Predictions]:
    return {
        split: predict_cohort(model, synthetic, synthetic_store, split)
        for split in ("validation", "test")
    }


@pytest.fixture
def saved(model: Model, tables: dict[str, Predictions], tmp_path: Path) -> Path:
    folder = save_model(model, tmp_path / "model")
    update_config(folder, **fitted_entries(tables["validation"]))
    return folder


@pytest.mark.parametrize("limit", [1, 100_000])
def test_every_calibration_is_a_decision_that_is_shown(
    tables: dict[str, Predictions], monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    for module in (evaluation_module, calibrate):
        monkeypatch.setattr(module, "MIN_FOR_TEMPERATURES", limit)
    shown: list[str] = []
    with decisions(shown.append):
        entries = fitted_entries(tables["validation"])
    assert entries["calibration_fit"]["temperatures"] == (limit == 1)
    (line,) = shown
    targets = tables["validation"].require_targets()
    assert re.findall(r"\d+", line) == [str(calibrate.rarer_class(targets)), str(limit)]


def test_parts_equal_the_results_of_their_functions(
    saved: Path, tables: dict[str, Predictions], synthetic: Cohort
) -> None:
    table, model = tables["test"], load_model(saved)
    evaluation = evaluation_of(model, synthetic, table, resamples=20, seed=2, by="patient")
    options: Any = {"resamples": 20, "seed": 2, "by": "patient"}
    assert evaluation["score"] == score_predictions(table, **options).to_dict()
    expected = calibration_report(table, model.calibration, **options)
    fit = evaluation["calibration"].pop("fit")
    assert evaluation["calibration"] == expected.to_dict()
    assert fit == model.config["calibration_fit"]
    assert fit["records"] == len(synthetic.ids("validation"))
    groups = demographics(synthetic.metadata("test"))
    assert evaluation["subgroups"] == score_subgroups(table, groups, **options).to_dict()
    assert (evaluation["split"], evaluation["cohort"]["task"]) == ("test", "all-71")
    assert evaluation["validation"] is None


def test_leakage_of_public_weights_is_that_of_the_evaluated_cohort(
    model: Model, tables: dict[str, Predictions], synthetic: Cohort
) -> None:
    """Public weights pretrained on PTB-XL, evaluated on another cohort and on PTB-XL."""
    seen = {"backbone": "st_mem", "pretraining_data": "PTB-XL", "contains_ptbxl": True}
    changed = replace(model, config={**model.config, "provenance": {"public_weights": seen}})
    ptbxl = replace(synthetic, name="ptb-xl")
    for cohort, warned in ((synthetic, False), (ptbxl, True)):
        evaluation = evaluation_of(changed, cohort, tables["test"], resamples=0)["public_weights"]
        assert evaluation.items() >= seen.items()
        assert ("cohort" in evaluation) is warned
    assert evaluation_of(model, ptbxl, tables["test"], resamples=0)["public_weights"] is None


def test_a_cohort_without_sex_and_age_has_no_subgroups(
    saved: Path, tables: dict[str, Predictions], synthetic: Cohort
) -> None:
    bare = replace(synthetic, table=synthetic.table[["path", "patient", "split"]])
    assert evaluation_of(load_model(saved), bare, tables["test"], resamples=0)["subgroups"] is None


def test_calibrated_tables_are_refused(
    saved: Path, tables: dict[str, Predictions], synthetic: Cohort
) -> None:
    table = tables["test"]
    calibrated = replace(table, metadata=dict(table.metadata) | {"calibrated": "yes"})
    with pytest.raises(EvaluationError, match="calibrated"):
        evaluation_of(load_model(saved), synthetic, calibrated)
    with pytest.raises(EvaluationError, match="calibrated"):
        fitted_entries(calibrated)


def test_evaluate_model_writes_the_card_and_keeps_the_model(
    saved: Path, synthetic: Cohort, synthetic_store: Store, tables: dict[str, Predictions]
) -> None:
    before, weights = read_config(saved), (saved / "model.safetensors").read_bytes()
    tasks: list[str] = []
    options: Any = {"resamples": 20, "progress": lambda task, done, total: tasks.append(task)}
    page = evaluate_model(saved, synthetic, synthetic_store, **options)
    text, evaluation = page.read_text(), read_evaluation(saved)
    assert evaluation is not None
    for heading in ("## Calibration", "## Subgroup analysis", "## Fewer leads and noise"):
        assert heading in text
    conditions = evaluation["robustness"]
    for condition in (*conditions["leads"], *conditions["noise"], *conditions["offsets"]):
        assert f"{condition['auroc']['value']:.3f} (" in text
        assert condition["name"] in tasks
    assert (len(conditions["noise"]), len(conditions["offsets"])) == (9, 2)
    after = read_config(saved)
    accuracy = after.pop("lead_accuracy")
    assert (after, (saved / "model.safetensors").read_bytes()) == (before, weights)
    assert (accuracy["digest"], accuracy["split"]) == (before["digest"], "validation")
    for entry in accuracy["sets"]:
        assert (
            f"| {entry['name']} ({', '.join(entry['leads'])}) | {entry['macro_auroc']:.3f}" in text
        )
    evaluate_model(saved, synthetic, synthetic_store, robustness=False, resamples=0)
    assert read_json(saved / "evaluation.json")["robustness"] == conditions
    assert evaluation["measured_on"] == {
        "weights": read_config(saved)["weights_sha256"],
        "digest": read_config(saved)["digest"],
    }
    picture = (saved / "reliability.svg").read_text()
    assert "](reliability.svg)\n" in text
    root = ElementTree.fromstring(picture)
    assert root.attrib["color"] == "#000000"
    curves = ElementTree.fromstring((saved / "curves.svg").read_text())
    assert all(label in curves.attrib["aria-label"] for label in evaluation["curves"]["per_label"])
    assert "](curves.svg)\n" in text
    assert (root[0].tag.rpartition("}")[2], root[0].attrib["fill"]) == ("rect", "#ffffff")
    assert load_model(saved).labels == synthetic.labels
    plain = score_predictions(tables["test"], resamples=20).to_dict()
    assert evaluation["score"]["macro_auroc"] == plain["macro_auroc"]


@pytest.fixture
def evaluate(synthetic: Cohort, synthetic_store: Store) -> Callable[..., tuple[str, Json]]:
    """Card and evaluation of a model folder, without resamples and robustness."""

    def run(
        folder: Path, cohort: Cohort = synthetic, split: str = "test", out: Path | None = None
    ) -> tuple[str, Json]:
        options: Any = {"out": out, "robustness": False, "resamples": 0}
        card = evaluate_model(folder, cohort, synthetic_store, split, **options)
        return card.read_text(), read_json(card.with_name("evaluation.json"))

    return run


def test_validation_numbers_are_reused_for_the_same_cohort_only(
    saved: Path, synthetic: Cohort, evaluate: Callable[..., tuple[str, Json]]
) -> None:
    _, evaluation = evaluate(saved)
    validation = {"macro_auroc": 0.75, "macro_auprc": 0.25}
    write_json(saved / "evaluation.json", evaluation | {"validation": validation})
    assert "| validation | – | 0.750 | 0.250 |" in evaluate(saved)[0]
    card, _ = evaluate(saved, replace(synthetic, name="elsewhere"), out=saved.parent / "beside")
    assert "| validation |" not in card
    assert "elsewhere" in card


@pytest.mark.parametrize("split", ["test", "validation"])
def test_an_evaluation_on_other_records_does_not_replace_the_first(
    saved: Path, synthetic: Cohort, evaluate: Callable[..., tuple[str, Json]], split: str
) -> None:
    """The same name, with one record less in the training split, and another split."""
    evaluate(saved)
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    keep = synthetic.table.index != synthetic.ids("train")[0]
    other = synthetic if split == "validation" else synthetic.select(keep)
    with pytest.raises(EvaluationError, match=split) as caught:
        evaluate(saved, other, split)
    assert "`out=...`" in caught.value.remedy
    card, evaluation = evaluate(saved, other, split, saved.parent / "beside")
    assert {file.name: file.read_bytes() for file in saved.iterdir()} == before
    assert (evaluation["cohort"]["digest"], evaluation["split"]) == (other.digest, split)
    assert "](reliability.svg)" in card
    assert (saved.parent / "beside" / "reliability.svg").is_file()


def test_a_model_without_calibration_has_a_card_without_thresholds(
    model: Model, tmp_path: Path, evaluate: Callable[..., tuple[str, Json]]
) -> None:
    folder = save_model(model, tmp_path)
    assert read_evaluation(folder) is None
    assert "Threshold" not in evaluate(folder)[0]


def test_an_evaluation_of_other_weights_is_refused(
    saved: Path, model: Model, tmp_path: Path, evaluate: Callable[..., tuple[str, Json]]
) -> None:
    _, evaluation = evaluate(saved)
    other = copy.deepcopy(model.classifier)
    with torch.no_grad():
        other.head.bias.add_(1)
    swapped = save_model(replace(load_model(saved), network=other), tmp_path / "other")
    first = evaluation["measured_on"]["weights"][:12]
    with pytest.raises(EvaluationError, match=first):
        write_evaluation(swapped, evaluation)
    assert not (swapped / "evaluation.json").exists()
    write_json(swapped / "evaluation.json", evaluation | {"validation": {"macro_auroc": 1.0}})
    with pytest.warns(EvaluationWarning, match=first):
        assert read_evaluation(swapped) is None
    assert evaluate(swapped)[1]["validation"] is None  # of the other weights


def test_a_model_that_is_saved_again_keeps_its_evaluation(
    saved: Path, tmp_path: Path, evaluate: Callable[..., tuple[str, Json]]
) -> None:
    evaluate(saved)
    again = save_model(load_model(saved), tmp_path / "again")
    assert {file.name for file in again.iterdir()} == {file.name for file in saved.iterdir()}
    for file in saved.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name
    other = save_model(replace(load_model(saved), calibration=None), tmp_path / "other")
    assert not (other / "evaluation.json").exists()


def test_an_evaluation_before_another_calibration_is_left_out(
    saved: Path, synthetic: Cohort, evaluate: Callable[..., tuple[str, Json]]
) -> None:
    _, evaluation = evaluate(saved)
    both = {"validation": {"macro_auroc": 0.5, "macro_auprc": 0.5}, "robustness": {"records": 1}}
    write_json(saved / "evaluation.json", evaluation | both)
    calibration = read_config(saved)["calibration"]
    update_config(saved, calibration=calibration | {"temperatures": [2.0] * len(synthetic.labels)})
    with pytest.warns(EvaluationWarning, match="calibration"):
        assert read_evaluation(saved) is None
    measured = {**evaluation["measured_on"], "digest": read_config(saved)["digest"]}
    current = evaluation | {"measured_on": measured}
    # Validation numbers depend on the weights only.
    assert reusable_part(saved, current, "validation") == both["validation"]
    assert reusable_part(saved, current, "robustness") is None


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model"):
        write_evaluation(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
