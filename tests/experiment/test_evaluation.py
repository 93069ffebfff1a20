"""A bundle's evidence and its card: the same numbers, and nothing that decides a prediction."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import Cohort
from einthoven.errors import EvaluationError, ModelError
from einthoven.evaluate import calibration_report, score_subgroups
from einthoven.evaluate.scores import score_predictions
from einthoven.evaluate.subgroups import demographics
from einthoven.experiment.evaluation import (
    EvidenceWarning,
    evidence_of,
    fill_card,
    fitted_calibration,
    kept,
    read_evidence,
    write_evidence,
)
from einthoven.files import write_json
from einthoven.models import Model, load_model, read_config, save_model, update_config
from einthoven.predict import predict_cohort
from einthoven.predictions import Predictions
from einthoven.signals.store import Store

TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}


@pytest.fixture(scope="module")
def bundle(synthetic: Cohort) -> Model:
    classifier = create_classifier("mtecg_tiny_100hz", labels=synthetic.labels, seed=5, **TINY)
    with torch.no_grad():
        classifier.head.weight.mul_(20)
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(1)
    about = {"provenance": {"cohort": {"name": "synthetic"}}}
    return Model(classifier.eval(), preparation, config=about)


@pytest.fixture(scope="module")
def tables(bundle: Model, synthetic: Cohort, synthetic_store: Store) -> dict[str, Predictions]:
    return {
        split: predict_cohort(bundle, synthetic, synthetic_store, split)
        for split in ("validation", "test")
    }


@pytest.fixture
def saved(bundle: Model, tables: dict[str, Predictions], tmp_path: Path) -> Path:
    folder = save_model(bundle, tmp_path / "model")
    update_config(folder, **fitted_calibration(tables["validation"]))
    return folder


def test_every_part_is_what_its_own_function_says(
    saved: Path, tables: dict[str, Predictions], synthetic: Cohort
) -> None:
    table, bundle = tables["test"], load_model(saved)
    found = evidence_of(bundle, synthetic, table, resamples=20, seed=2, by="patient")
    options: Any = {"resamples": 20, "seed": 2}
    assert found["score"] == score_predictions(table, by="patient", **options).to_dict()
    own = calibration_report(
        table.targets, table.probabilities, table.labels, bundle.calibration,  # type: ignore[arg-type]
        groups=table.patients, **options,
    )  # fmt: skip
    assert found["calibration"] == own.to_dict()
    groups = demographics(synthetic.metadata("test"))
    assert found["subgroups"] == score_subgroups(table, groups, by="patient", **options).to_dict()
    assert (found["split"], found["cohort"]["task"]) == ("test", "all-71")
    assert found["validation"] is None


def test_it_says_what_public_weights_had_seen_of_the_cohort_measured(
    bundle: Model, tables: dict[str, Predictions], synthetic: Cohort
) -> None:
    """Trained elsewhere from weights that have seen PTB-XL, and measured on PTB-XL afterwards."""
    seen = {"pretraining_data": "a corpus with PTB-XL", "contains_ptbxl": True}
    made = replace(bundle, config={**bundle.config, "provenance": {"public_weights": seen}})
    ptbxl = replace(synthetic, name="ptb-xl")
    for cohort, warned in ((synthetic, False), (ptbxl, True)):
        found = evidence_of(made, cohort, tables["test"], resamples=0)["public_weights"]
        assert found.items() >= seen.items()
        assert ("warning" in found) is warned
    assert evidence_of(bundle, ptbxl, tables["test"], resamples=0)["public_weights"] is None


def test_groups_belong_to_records_whatever_the_order_of_the_table(
    saved: Path, tables: dict[str, Predictions], synthetic: Cohort
) -> None:
    table = tables["test"]
    order = np.random.default_rng(0).permutation(len(table))
    shuffled = Predictions(
        table.labels, table.records[order], table.patients[order],
        table.targets[order], table.probabilities[order], table.metadata,  # type: ignore[index]
    )  # fmt: skip
    bundle = load_model(saved)
    one, two = (
        evidence_of(bundle, synthetic, each, resamples=0)["subgroups"] for each in (table, shuffled)
    )
    assert set(one["attributes"]) == {"sex", "age"}
    for attribute, groups in one["attributes"].items():
        for mine, other in zip(groups, two["attributes"][attribute], strict=True):
            assert mine["records"] == other["records"]
            assert mine["auroc"]["value"] == pytest.approx(other["auroc"]["value"], abs=1e-12)


def test_a_cohort_without_sex_and_age_has_no_groups(
    saved: Path, tables: dict[str, Predictions], synthetic: Cohort
) -> None:
    bare = replace(synthetic, table=synthetic.table[["path", "patient", "split"]])
    assert evidence_of(load_model(saved), bare, tables["test"], resamples=0)["subgroups"] is None


def test_calibrated_tables_are_refused(
    saved: Path, tables: dict[str, Predictions], synthetic: Cohort
) -> None:
    done = replace(tables["test"], metadata=dict(tables["test"].metadata) | {"calibrated": "yes"})
    with pytest.raises(EvaluationError, match="calibrated already"):
        evidence_of(load_model(saved), synthetic, done)
    with pytest.raises(EvaluationError, match="calibrated already"):
        fitted_calibration(done)


def test_the_card_is_filled_and_predictions_stay(
    saved: Path, synthetic: Cohort, synthetic_store: Store, tables: dict[str, Predictions]
) -> None:
    before = {file.name: file.read_bytes() for file in saved.iterdir()}
    told: list[str] = []
    options: Any = {"resamples": 20, "progress": lambda what, done, total: told.append(what)}
    page = fill_card(saved, synthetic, synthetic_store, **options)
    text, found = page.read_text(), read_evidence(saved)
    assert found is not None
    for heading in ("## Calibration", "## Subgroup analysis", "## Fewer leads and noise"):
        assert heading in text
    conditions = found["robustness"]
    for each in (*conditions["leads"], *conditions["noise"], *conditions["offsets"]):
        assert f"{each['auroc']['value']:.3f} (" in text
        assert each["name"] in told
    assert (len(conditions["noise"]), len(conditions["offsets"])) == (9, 2)
    assert {name: (saved / name).read_bytes() for name in before} == before
    assert found["measured_on"] == {
        "weights": read_config(saved)["weights_sha256"],
        "digest": read_config(saved)["digest"],
    }
    picture = (saved / "reliability.svg").read_text()
    assert "](reliability.svg)\n" in text
    root = ElementTree.fromstring(picture)
    assert root.attrib["color"] == "#000000"
    assert (root[0].tag.rpartition("}")[2], root[0].attrib["fill"]) == ("rect", "#ffffff")
    assert load_model(saved).labels == synthetic.labels  # and the picture is none of its parts
    plain = score_predictions(tables["test"], resamples=20).to_dict()
    assert found["score"]["macro_auroc"] == plain["macro_auroc"]


def test_validation_numbers_are_kept_for_the_same_cohort_only(
    saved: Path, synthetic: Cohort, synthetic_store: Store
) -> None:
    options: Any = {"robustness": False, "resamples": 0}
    fill_card(saved, synthetic, synthetic_store, **options)
    found = read_evidence(saved) or {}
    validation = {"macro_auroc": 0.75, "macro_auprc": 0.25}
    write_json(saved / "evaluation.json", found | {"validation": validation})
    card = fill_card(saved, synthetic, synthetic_store, **options)
    assert "| validation | 0.750 | 0.250 |" in card.read_text()
    elsewhere = replace(synthetic, name="elsewhere")
    card = fill_card(saved, elsewhere, synthetic_store, **options)
    assert "| validation |" not in card.read_text()
    assert "split of elsewhere" in card.read_text()


def test_a_bundle_without_a_calibration_has_a_card_that_says_so(
    bundle: Model, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    folder = save_model(bundle, tmp_path)
    assert read_evidence(folder) is None
    card = fill_card(folder, synthetic, synthetic_store, robustness=False, resamples=0)
    assert "Threshold" not in card.read_text()


def test_evidence_of_other_weights_is_none_of_a_bundle_s(
    saved: Path, bundle: Model, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    fill_card(saved, synthetic, synthetic_store, robustness=False, resamples=0)
    found = read_evidence(saved)
    assert found is not None
    other = copy.deepcopy(bundle.classifier)
    with torch.no_grad():
        other.head.bias.add_(1)
    made = replace(load_model(saved), classifier=other)
    swapped = save_model(made, tmp_path / "other")
    with pytest.raises(EvaluationError, match=r"measured on other weights \(SHA-256 "):
        write_evidence(swapped, found)
    assert not (swapped / "evaluation.json").exists()
    write_json(swapped / "evaluation.json", found | {"validation": {"macro_auroc": 1.0}})
    with pytest.warns(EvidenceWarning, match=r"other weights .*; it is left out; .*einthoven card"):
        assert read_evidence(swapped) is None
    fill_card(swapped, synthetic, synthetic_store, robustness=False, resamples=0)
    again = read_evidence(swapped)
    assert again is not None
    assert again["validation"] is None  # of the other weights


def test_another_calibration_asks_for_another_measurement(
    saved: Path, synthetic: Cohort, synthetic_store: Store
) -> None:
    fill_card(saved, synthetic, synthetic_store, robustness=False, resamples=0)
    found = read_evidence(saved) or {}
    both = {"validation": {"macro_auroc": 0.5, "macro_auprc": 0.5}, "robustness": {"records": 1}}
    write_json(saved / "evaluation.json", found | both)
    calibration = read_config(saved)["calibration"]
    update_config(saved, calibration=calibration | {"temperatures": [2.0] * len(synthetic.labels)})
    with pytest.warns(EvidenceWarning, match="before the bundle's labels, preparation or calib"):
        assert read_evidence(saved) is None
    now = found | {"measured_on": {**found["measured_on"], "digest": read_config(saved)["digest"]}}
    assert kept(saved, now, "validation") == both["validation"]  # the network's own numbers
    assert kept(saved, now, "robustness") is None


def test_evidence_that_does_not_say_whose_it_is_is_the_bundle_s(
    saved: Path, synthetic: Cohort, synthetic_store: Store
) -> None:
    fill_card(saved, synthetic, synthetic_store, robustness=False, resamples=0)
    found = read_evidence(saved) or {}
    write_json(saved / "evaluation.json", {k: v for k, v in found.items() if k != "measured_on"})
    assert (read_evidence(saved) or {})["score"] == found["score"]


def test_evidence_goes_into_bundles_only(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no bundle"):
        write_evidence(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
