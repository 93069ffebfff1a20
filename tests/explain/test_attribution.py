"""Attributions in the time of the record, their shares and their faithfulness."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts.synthetic import sample_record
from einthoven.errors import EinthovenError, EvaluationError
from einthoven.explain import (
    Attribution,
    agreement,
    attribute,
    curves,
    faithfulness,
    reinitialisation,
    shares_of,
)
from einthoven.explain.beats import segments
from einthoven.explain.crops import Crops, crops_of
from einthoven.explain.shares import listed_leads
from einthoven.models import Model
from einthoven.records.record import STANDARD_LEADS, Record

pytest.importorskip("captum")

RECORD = sample_record()


@pytest.fixture(scope="module")
def model() -> Model:
    network = create_classifier("resnet1d_wang", labels=("A", "B", "C"), seed=0, width=8)
    return Model(network.eval(), network.preparation)


def attribution(values: np.ndarray, **changes: object) -> Attribution:
    made = Attribution(
        values.astype(np.float32),
        STANDARD_LEADS,
        RECORD.rate,
        "A",
        "integrated-gradients",
        "lead-mean",
        1.0,
        0.0,
        0.0,
        ("lead", "beat", "wave"),
        True,
    )
    return replace(made, **changes)


def test_crops_keep_their_sum_in_the_time_of_the_record(model: Model) -> None:
    crops = crops_of(model, RECORD)
    values = np.random.default_rng(0).standard_normal(tuple(crops.signals.shape))
    there = crops.in_record_time(values)
    assert there.shape == RECORD.signal.shape
    assert there.sum(axis=1) == pytest.approx(values.mean(0).sum(-1), rel=1e-4, abs=1e-4)


def test_a_sample_stands_at_its_time() -> None:
    signals = torch.zeros(2, 12, 250)
    crops = Crops(RECORD, STANDARD_LEADS, signals, np.array([0.0, 5.0]), 0.01)
    values = np.zeros(signals.shape)
    values[1, 3, 100] = 2.0  # 6.00 to 6.01 s: five samples at 500 Hz
    there = crops.in_record_time(values)
    assert np.flatnonzero(there[3] > 1e-6).tolist() == list(range(3000, 3005))
    assert there[3, 3000] == pytest.approx(0.2)


def test_the_unit_of_a_record_does_not_matter(model: Model) -> None:
    microvolts = Record.from_array(
        1000 * RECORD.signal, rate=RECORD.rate, leads=RECORD.leads, unit="uV"
    )
    one, other = (attribute(model, record, "B").values for record in (RECORD, microvolts))
    assert np.abs(one - other).max() < 1e-3 * np.abs(one).max()


def test_limb_leads_that_are_missing_are_computed(model: Model) -> None:
    eight = RECORD.select(["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"])
    one, other = (attribute(model, record, "B") for record in (RECORD, eight))
    assert other.leads == STANDARD_LEADS
    assert np.abs(one.values - other.values).max() < 0.05 * np.abs(one.values).max()


def test_refusals_name_the_alternatives(model: Model) -> None:
    with pytest.raises(EvaluationError, match="'X'") as error:
        attribute(model, RECORD, "X")
    assert "A" in error.value.remedy
    with pytest.raises(EvaluationError, match="magic") as error:
        attribute(model, RECORD, "A", "magic")
    assert "grad-cam" in error.value.remedy
    with pytest.raises(EinthovenError, match="V6"):
        attribute(model, RECORD.select(["I", "II"]), "A")


def test_a_missing_extra_is_one_error(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "captum.attr", None)
    with pytest.raises(EvaluationError, match="captum") as error:
        attribute(model, RECORD, "A")
    assert error.value.remedy == "pip install 'einthoven[explain]'"


def test_shares_name_wave_and_leads() -> None:
    values = np.zeros(RECORD.signal.shape)
    for part in segments(RECORD):
        if part.wave == "QRS":
            begin, end = (round(time * RECORD.rate) for time in part[2:])
            values[6:9, begin:end] = 1.0
            values[11, begin:end] = 0.6
    shares = shares_of(attribution(values), RECORD)
    assert shares.by_wave["QRS"] > 0.95
    assert shares.by_lead["V1"] == pytest.approx(3 / 3.6 / 3, abs=0.01)
    assert shares.against == 0
    words = shares.in_words()
    assert "QRS" in words
    assert "V1 to V3" in words
    assert shares_of(attribution(-values), RECORD).against == 1
    by_lead = shares_of(attribution(values, resolves=("lead",)), RECORD)
    assert "QRS" not in by_lead.in_words()


def test_lists_of_leads() -> None:
    assert listed_leads(["V3", "V1", "V2"]) == "V1 to V3"
    assert listed_leads(["V5", "II", "V1"]) == "II, V1 and V5"
    assert listed_leads(["aVF"]) == "aVF"


def test_an_attribution_is_more_faithful_than_its_reverse(model: Model) -> None:
    made = attribute(model, RECORD, "B")
    forward = curves(model, RECORD, made)
    reverse = curves(model, RECORD, replace(made, values=-made.values))
    assert forward.gain > 0 > reverse.gain
    assert forward.deletion[0] == pytest.approx(forward.insertion[-1])
    assert forward.deletion[-1] == pytest.approx(forward.insertion[0])
    areas = forward.areas
    assert areas["deletion"] < areas["random_deletion"]
    assert areas["insertion"] > areas["random_insertion"]


def test_drawing_layers_anew_changes_the_attribution_and_not_the_model(model: Model) -> None:
    made, before = attribute(model, RECORD, "B"), model.classifier.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    correlations = reinitialisation(model, RECORD, made, seed=1)  # the model has seed 0
    assert next(iter(correlations)) == "head"
    assert len(correlations) == 1 + len([g for g in model.backbone.layer_groups() if g])
    assert all(value < 0.9 for value in correlations.values())
    after = model.classifier.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_agreement_is_a_rank_correlation(model: Model) -> None:
    made = attribute(model, RECORD, "B")
    assert agreement(made, replace(made, values=2 * made.values)) == pytest.approx(1)
    measured = faithfulness(model, RECORD, made, others=("grad-cam",))
    assert -1 <= measured.agreement["grad-cam"] <= 1
