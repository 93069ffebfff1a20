"""Robustness: conditions, comparison with the clean predictions, refusals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import Cohort
from einthoven.errors import BackboneError, EvaluationError, PreparationError
from einthoven.evaluate import compare
from einthoven.experiment.noise import add_noise
from einthoven.experiment.robustness import (
    LEAD_SETS,
    NoisyStore,
    OffsetStore,
    Robustness,
    measure_robustness,
)
from einthoven.models import Model
from einthoven.predict import predict_cohort
from einthoven.predictions import Calibration
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.store import Store

TINY = {"depth": 1, "width": 32, "heads": 1}
NONE: Any = {"noises": (), "offsets": ()}


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


@pytest.fixture(scope="module")
def model(synthetic: Cohort) -> Model:
    return make(synthetic.labels)


@pytest.fixture(scope="module")
def tasks() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def result(
    model: Model, synthetic: Cohort, synthetic_store: Store, tasks: list[tuple[str, int, int]]
) -> Robustness:
    return measure_robustness(
        model,
        synthetic,
        synthetic_store,
        noises=("white", "baseline-wander"),
        snrs=(20.0, -10.0),
        offsets=(0.0, 0.5),
        resamples=30,
        progress=lambda *step: tasks.append(step),
    )


def test_every_condition_is_measured_and_reported(
    result: Robustness, synthetic: Cohort, tasks: list[tuple[str, int, int]]
) -> None:
    assert [condition.name for condition in result.leads] == list(LEAD_SETS)
    noisy = ["white, 20 dB", "white, -10 dB", "baseline-wander, 20 dB", "baseline-wander, -10 dB"]
    assert [condition.name for condition in result.noise] == noisy
    offsets = ["offset of 0 mV", "offset of 0.5 mV"]
    assert [condition.name for condition in result.offsets] == offsets
    records = len(synthetic.ids("test"))
    done = [name for name, count, total in tasks if count == total == records]
    assert done == ["clean", *LEAD_SETS, *noisy, *offsets]


def test_a_condition_is_its_comparison_with_clean(
    result: Robustness, model: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    one = result.leads[-1]
    assert one.settings == {"leads": ["I"], "policy": "native"}
    alone = predict_cohort(model, synthetic, synthetic_store, "test", leads=("I",))
    assert alone.metadata["leads"] == "I"
    clean = predict_cohort(model, synthetic, synthetic_store, "test")
    paired = compare(alone, clean, resamples=30)
    assert one.comparison.auroc.macro == paired.auroc.macro
    assert one.comparison.auroc.macro_interval == paired.auroc.macro_interval
    loss = -np.where(alone.targets == 1, np.log(alone.probabilities),
                     np.log1p(-alone.probabilities)).mean()  # fmt: skip
    assert one.log_loss == pytest.approx(loss)


def test_all_leads_are_left_out_and_weak_noise_changes_little(
    result: Robustness, model: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    clean = result.clean.probabilities
    named = predict_cohort(model, synthetic, synthetic_store, "test", leads=STANDARD_LEADS[::-1])
    assert np.allclose(named.probabilities, clean, atol=1e-6)
    distance = {}
    for snr in (60.0, 10.0, -10.0):
        store = NoisyStore.over(synthetic_store, kind="white", snr=snr)
        noisy = predict_cohort(model, synthetic, store, "test").probabilities
        distance[snr] = float(np.abs(noisy - clean).mean())
    assert distance[60.0] < 1e-3 < distance[10.0] < distance[-10.0]


def test_the_batch_size_does_not_change_the_numbers(
    model: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    store = NoisyStore.over(synthetic_store, kind="muscle", snr=0.0, seed=3)
    one, two = (
        predict_cohort(model, synthetic, store, "test", batch_size=size).probabilities
        for size in (5, 64)
    )
    assert np.allclose(one, two, atol=1e-6)
    other = NoisyStore.over(synthetic_store, kind="muscle", snr=0.0, seed=4)
    again = predict_cohort(model, synthetic, other, "test").probabilities
    assert not np.allclose(one, again, atol=1e-3)


def test_a_noisy_store_adds_noise(synthetic_store: Store) -> None:
    rows = np.array([9, 4, 100])
    store = NoisyStore.over(synthetic_store, kind="powerline", snr=3.0, seed=7)
    (clean,), (noisy,) = synthetic_store.read(rows), store.read(rows)
    names = synthetic_store.index.index[rows].tolist()
    expected = add_noise(
        clean.signals, rate=clean.rate, kind="powerline", snr=3.0, names=names, seed=7
    )
    assert np.array_equal(noisy.signals, expected)
    assert np.array_equal(noisy.places, clean.places)
    assert len(store) == len(synthetic_store)


def test_an_offset_is_one_constant_in_every_lead(
    result: Robustness, synthetic_store: Store
) -> None:
    none, some = result.offsets
    assert none.comparison.auroc.macro == 0
    assert not np.allclose(some.comparison.a.auroc, some.comparison.b.auroc)
    rows = np.array([9, 4, 100])
    moved_store = OffsetStore.over(synthetic_store, offset=0.5)
    (clean,), (moved,) = synthetic_store.read(rows), moved_store.read(rows)
    assert np.array_equal(moved.signals, clean.signals + 500)
    (low,) = OffsetStore.over(synthetic_store, offset=-40).read(rows)
    assert (low.signals == -32768).all()


def test_the_result_is_json(result: Robustness) -> None:
    stored = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert stored["clean"]["auroc"]["value"] == result.leads[0].comparison.b.macro_auroc
    assert stored["leads"][0]["auroc"]["difference"] == result.leads[0].comparison.auroc.macro
    assert [condition["snr"] for condition in stored["noise"]] == [20.0, -10.0, 20.0, -10.0]
    assert (stored["resamples"], stored["seed"], stored["by"]) == (30, 0, "record")


def test_lead_sets_of_a_model_with_fewer_leads(synthetic: Cohort, synthetic_store: Store) -> None:
    limbs = make(synthetic.labels, LEAD_SETS["6 limb leads"])
    result = measure_robustness(limbs, synthetic, synthetic_store, **NONE, resamples=0)
    assert [condition.name for condition in result.leads] == ["lead I"]
    assert set(result.left_out) == {"8 leads", "6 limb leads"}
    assert "V1, V2, V3, V4, V5, V6" in result.left_out["8 leads"]
    options: Any = {**NONE, "lead_sets": {}, "clean": result.clean, "resamples": 0}
    nothing = measure_robustness(limbs, synthetic, synthetic_store, **options)
    assert nothing.to_dict()["clean"] == {}


def test_a_lead_set_that_the_network_refuses_is_left_out(
    synthetic: Cohort, synthetic_store: Store
) -> None:
    """HuBERT-ECG: four limb leads are derived from I and II, other leads are never imputed."""
    shape = {"depth": 1, "width": 32, "heads": 1, "conv_width": 16, "pos_kernel": 8}
    classifier = create_classifier(
        "hubert_ecg_small", labels=synthetic.labels, seed=5, pos_groups=4, **shape
    ).eval()
    model = Model(classifier, classifier.preparation.with_evaluation_crops(1))
    result = measure_robustness(model, synthetic, synthetic_store, **NONE, resamples=0)
    assert [(condition.name, condition.settings["policy"]) for condition in result.leads] == [
        ("8 leads", "derived")
    ]
    assert set(result.left_out) == {"6 limb leads", "lead I"}
    assert "V1, V2, V3, V4, V5, V6" in result.left_out["6 limb leads"]
    # Nothing is lost but what the recorded leads were rounded by.
    eight = predict_cohort(model, synthetic, synthetic_store, "test", leads=LEAD_SETS["8 leads"])
    assert eight.metadata["leads"] == "I,II,V1,V2,V3,V4,V5,V6"
    assert np.allclose(eight.probabilities, result.clean.probabilities, atol=0.01)
    with pytest.raises(BackboneError):
        predict_cohort(model, synthetic, synthetic_store, "test", leads=("I",))


def test_unknown_leads_and_noise_are_refused(
    model: Model, synthetic: Cohort, synthetic_store: Store, result: Robustness
) -> None:
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (EvaluationError, "odd", {"lead_sets": {"odd": ("I", "Vx")}}),
        (PreparationError, "hum", {"lead_sets": {}, "noises": ("hum",)}),
    ]
    for error, name, options in cases:
        options |= {"clean": result.clean, "resamples": 0}
        with pytest.raises(error, match=name):
            measure_robustness(model, synthetic, synthetic_store, **options)
