"""Robustness: conditions, comparison with the clean predictions, refusals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import Cohort
from einthoven.errors import BackboneError, PreparationError
from einthoven.evaluate import auroc, compare
from einthoven.experiment.robustness import (
    LEAD_SETS,
    measure_lead_accuracy,
    measure_robustness,
    offset_store,
)
from einthoven.files import Json
from einthoven.inference import predict_cohort
from einthoven.models import Model
from einthoven.predictions import Calibration, Predictions
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.store import Store

TINY = {"depth": 1, "width": 32, "heads": 1}


def make(labels: tuple[str, ...], leads: tuple[str, ...] = STANDARD_LEADS) -> Model:
    classifier = create_classifier(
        "mtecg_tiny_100hz", labels=labels, seed=5, leads=leads, **TINY
    ).eval()
    with torch.no_grad():
        classifier.head.weight.mul_(20)  # probabilities that differ
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(2)
    count = len(labels)
    calibration = Calibration((2.0,) * count, (0.0,) * count, (0.5,) * count)
    return Model(classifier, preparation, calibration=calibration)


def measured(model: Model, cohort: Cohort, store: Store, **options: Any) -> Json:
    """Robustness to lead sets alone, without intervals."""
    clean = predict_cohort(model, cohort, store, "test")
    options = {"noises": (), "offsets": (), "resamples": 0} | options
    return measure_robustness(model, cohort, store, "test", clean, **options)


@pytest.fixture(scope="module")
def model(synthetic: Cohort) -> Model:
    return make(synthetic.labels)


@pytest.fixture(scope="module")
def clean(model: Model, synthetic: Cohort, synthetic_store: Store) -> Predictions:
    return predict_cohort(model, synthetic, synthetic_store, "test")


@pytest.fixture(scope="module")
def tasks() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def result(
    model: Model,
    synthetic: Cohort,
    synthetic_store: Store,
    clean: Predictions,
    tasks: list[tuple[str, int, int]],
) -> Json:
    return measure_robustness(
        model,
        synthetic,
        synthetic_store,
        "test",
        clean,
        noises=("white", "baseline-wander"),
        snrs=(20.0, -10.0),
        offsets=(0.0, 0.5),
        resamples=30,
        progress=lambda *step: tasks.append(step),
    )


def test_every_condition_is_measured_and_reported(
    result: Json, synthetic: Cohort, tasks: list[tuple[str, int, int]]
) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    noisy = ["white, 20 dB", "white, -10 dB", "baseline-wander, 20 dB", "baseline-wander, -10 dB"]
    offsets = ["offset of 0 mV", "offset of 0.5 mV"]
    for part, names in (("leads", [*LEAD_SETS]), ("noise", noisy), ("offsets", offsets)):
        assert [condition["name"] for condition in result[part]] == names
    assert [condition["snr"] for condition in result["noise"]] == [20.0, -10.0, 20.0, -10.0]
    weak, strong = (abs(result["noise"][i]["auroc"]["difference"]) for i in (0, 1))
    assert weak < strong
    assert (result["resamples"], result["seed"], result["unit"]) == (30, 0, "record")
    records = len(synthetic.ids("test"))
    done = [name for name, count, total in tasks if count == total == records]
    assert done == [*LEAD_SETS, *noisy, *offsets]


def test_a_condition_is_its_comparison_with_clean(
    result: Json, model: Model, synthetic: Cohort, synthetic_store: Store, clean: Predictions
) -> None:
    condition = result["leads"][-1]
    assert (condition["leads"], condition["policy"]) == (["I"], "native")
    alone = predict_cohort(model, synthetic, synthetic_store, "test", leads=("I",))
    assert alone.metadata["leads"] == "I"
    paired = compare(alone, clean, resamples=30)
    assert condition["auroc"] == {
        "value": paired.a.macro_auroc,
        "interval": list(paired.a.macro_auroc_interval or ()),
        "difference": paired.auroc.macro,
        "difference_interval": list(paired.auroc.macro_interval or ()),
        "worse": paired.auroc.significantly_worse,
    }
    assert result["clean"]["auprc"] == {
        "value": paired.b.macro_auprc,
        "interval": list(paired.b.macro_auprc_interval or ()),
    }
    loss = -np.where(alone.targets == 1, np.log(alone.probabilities),
                     np.log1p(-alone.probabilities)).mean()  # fmt: skip
    assert condition["log_loss"] == pytest.approx(loss)


def test_an_offset_is_one_constant_in_every_lead(result: Json, synthetic_store: Store) -> None:
    none, some = result["offsets"]
    assert none["auroc"]["difference"] == 0 != some["auroc"]["difference"]
    rows = np.array([9, 4, 100])
    moved_store = offset_store(synthetic_store, 0.5)
    (original,), (moved,) = synthetic_store.read(rows), moved_store.read(rows)
    assert np.array_equal(moved.signals, original.signals + 500)
    (low,) = offset_store(synthetic_store, -40).read(rows)
    assert (low.signals == -32768).all()


def test_accuracy_by_label_with_fewer_leads(
    model: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    measured = measure_lead_accuracy(model, synthetic, synthetic_store)
    assert json.loads(json.dumps(measured)) == measured
    sets = {entry["name"]: entry for entry in measured["sets"]}
    limbs, chest = list(STANDARD_LEADS[:6]), STANDARD_LEADS[6:]
    expected = {"4 leads": [*limbs, "V1", "V5"], "6 limb leads": limbs}
    expected |= {"lead II": ["II"], "lead I": ["I"]}
    expected |= {f"without {lead}": [*limbs, *(x for x in chest if x != lead)] for lead in chest}
    assert {name: entry["leads"] for name, entry in sets.items()} == expected
    table = predict_cohort(model, synthetic, synthetic_store, "validation", leads=("I",))
    targets = table.require_targets()
    areas = auroc(targets, table.probabilities)
    entry = sets["lead I"]
    assert entry["macro_auroc"] == pytest.approx(np.nanmean(areas), abs=1e-4)
    whole = measured["all"]["macro_auroc"]
    assert entry["macro_loss"] == pytest.approx(whole - entry["macro_auroc"], abs=1e-4)
    assert (measured["split"], measured["records"]) == ("validation", len(table))
    count = targets.sum(axis=0)
    enough = (count >= 5) & (len(targets) - count >= 5)
    assert list(entry["labels"]) == np.array(model.labels)[enough].tolist()
    assert 0 < enough.sum() < len(model.labels)
    for place in np.flatnonzero(enough):
        values, positives = entry["labels"][model.labels[place]], targets[:, place] == 1
        called = table.probabilities[:, place] >= 0.5
        assert values["auroc"] == pytest.approx(areas[place], abs=1e-4)
        assert values["sensitivity"] == pytest.approx(called[positives].mean(), abs=1e-4)
        precision = pytest.approx(positives[called].mean(), abs=1e-4) if called.any() else None
        assert values["precision"] == precision


def test_lead_sets_of_a_model_with_fewer_leads(synthetic: Cohort, synthetic_store: Store) -> None:
    limbs = make(synthetic.labels, LEAD_SETS["6 limb leads"])
    result = measured(limbs, synthetic, synthetic_store)
    assert [condition["name"] for condition in result["leads"]] == ["lead II", "lead I"]
    assert set(result["left_out"]) == {"8 leads", "4 leads", "6 limb leads"}
    assert "V1, V2, V3, V4, V5, V6" in result["left_out"]["8 leads"]
    nothing = measured(limbs, synthetic, synthetic_store, lead_sets={})
    assert nothing["leads"] == nothing["noise"] == nothing["offsets"] == []
    assert nothing["clean"] == result["clean"]


def test_a_lead_set_that_the_network_refuses_is_left_out(
    synthetic: Cohort, synthetic_store: Store
) -> None:
    """HuBERT-ECG: four limb leads are derived from I and II, other leads are never imputed."""
    shape = {"depth": 1, "width": 32, "heads": 1, "conv_width": 16, "pos_kernel": 8}
    classifier = create_classifier(
        "hubert_ecg_small", labels=synthetic.labels, seed=5, pos_groups=4, **shape
    ).eval()
    model = Model(classifier, classifier.preparation.with_evaluation_crops(1))
    result = measured(model, synthetic, synthetic_store)
    assert [(condition["name"], condition["policy"]) for condition in result["leads"]] == [
        ("8 leads", "derived")
    ]
    assert set(result["left_out"]) == {"4 leads", "6 limb leads", "lead II", "lead I"}
    assert "V1, V2, V3, V4, V5, V6" in result["left_out"]["6 limb leads"]
    # Nothing is lost but what the recorded leads were rounded by.
    whole, eight = (
        predict_cohort(model, synthetic, synthetic_store, "test", leads=leads)
        for leads in (None, LEAD_SETS["8 leads"])
    )
    assert eight.metadata["leads"] == "I,II,V1,V2,V3,V4,V5,V6"
    assert np.allclose(eight.probabilities, whole.probabilities, atol=0.01)
    with pytest.raises(BackboneError):
        predict_cohort(model, synthetic, synthetic_store, "test", leads=("I",))


def test_unknown_noise_is_refused(model: Model, synthetic: Cohort, synthetic_store: Store) -> None:
    with pytest.raises(PreparationError, match="hum"):
        measured(model, synthetic, synthetic_store, lead_sets={}, noises=("hum",))
