"""From raw files and from a store to the same probabilities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import Cohort
from einthoven.errors import BackboneError, EvaluationError, PreparationError, RecordError
from einthoven.evaluate.metrics import auroc
from einthoven.models import Model
from einthoven.predict import calibrate_table, predict_cohort, predict_files, predict_record
from einthoven.predictions import Calibration
from einthoven.records import read_record
from einthoven.signals.prepare import evaluation_seconds, prepare_record
from einthoven.signals.store import Store


def make(labels: tuple[str, ...], aggregate: str = "probability") -> Model:
    classifier = create_classifier(
        "mtecg_tiny_100hz", labels=labels, seed=5, depth=1, width=32, heads=1
    ).eval()
    with torch.no_grad():
        classifier.head.weight.mul_(20)  # probabilities that differ
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(3)
    about = {"provenance": {"recipe": {"name": "none"}}}
    return Model(classifier, preparation, aggregate, config=about)


@pytest.fixture(scope="module")
def bundle(synthetic: Cohort) -> Model:
    return make(synthetic.labels)


@pytest.mark.parametrize("aggregate", ["probability", "logit", "max"])
def test_a_record_is_the_join_of_its_crops(synthetic: Cohort, aggregate: str) -> None:
    bundle = make(synthetic.labels, aggregate)
    record = read_record(synthetic.paths("test")[0])
    with torch.no_grad():
        logits = bundle.classifier(prepare_record(bundle.preparation, record)).double()
    assert len(logits) == 3
    expected = {
        "probability": logits.sigmoid().mean(0),
        "logit": logits.mean(0).sigmoid(),
        "max": logits.sigmoid().amax(0),
    }[aggregate]
    found = predict_record(bundle, record)
    assert list(found.probabilities) == list(synthetic.labels)
    assert list(found.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-12)
    assert found.record is record


def test_a_cohort_from_its_store_is_what_its_files_are(
    bundle: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    table = predict_cohort(bundle, synthetic, synthetic_store, "test", batch_size=7)
    assert table.records.tolist() == synthetic.ids("test").tolist()
    assert table.patients.tolist() == synthetic.patients("test").tolist()
    assert table.targets is not None
    assert np.array_equal(table.targets, synthetic.targets("test"))
    for row, done in enumerate(predict_files(bundle, synthetic.paths("test")[:5])):
        values = list(done.probabilities.values())
        assert table.probabilities[row] == pytest.approx(values, abs=1e-6)
    assert table.metadata["split"] == "test"
    assert table.metadata["quarantined"] == "0"


def test_the_size_of_a_batch_changes_nothing(
    bundle: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    steps: list[tuple[str, int, int]] = []
    one, all_of_them = (
        predict_cohort(
            bundle,
            synthetic,
            synthetic_store,
            "validation",
            batch_size=size,
            progress=lambda task, done, total: steps.append((task, done, total)),
        ).probabilities
        for size in (16, 64)
    )
    assert np.allclose(one, all_of_them, atol=1e-6)
    expected = [16, 32, 48, 50, 50]
    assert steps == [("predict validation", done, 50) for done in expected]


def test_columns_are_the_bundle_s_whatever_the_cohort_s_order(
    bundle: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    turned = synthetic.with_labels(synthetic.labels[::-1])
    table = predict_cohort(bundle, turned, synthetic_store, "test")
    straight = predict_cohort(bundle, synthetic, synthetic_store, "test")
    assert table.labels == straight.labels == bundle.labels
    assert table.targets is not None
    assert np.array_equal(table.targets, synthetic.targets("test"))
    assert np.array_equal(table.probabilities, straight.probabilities)


def test_other_labels_are_refused(bundle: Model, synthetic: Cohort, synthetic_store: Store) -> None:
    fewer = synthetic.with_labels(synthetic.labels[2:])
    with pytest.raises(EvaluationError, match=r"the cohort lacks AFIB, IMI"):
        predict_cohort(bundle, fewer, synthetic_store, "test")
    with pytest.raises(EvaluationError, match=r"the model lacks AFIB"):
        predict_cohort(make(synthetic.labels[1:]), synthetic, synthetic_store, "test")


def test_an_empty_split_is_refused(
    bundle: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    rest = synthetic.select((synthetic.table["split"] != "test").to_numpy())
    with pytest.raises(EvaluationError, match="no records in test"):
        predict_cohort(bundle, rest, synthetic_store, "test")


def test_what_cannot_be_used_is_refused(bundle: Model, synthetic: Cohort, tmp_path: Path) -> None:
    record = read_record(synthetic.paths("test")[0])
    with pytest.raises((PreparationError, RecordError), match="V6"):
        predict_record(bundle, record.select(("I", "II")))
    with pytest.raises(RecordError):
        list(predict_files(bundle, [tmp_path / "absent.hea"]))


def test_a_longer_record_at_another_rate_is_used(bundle: Model, synthetic: Cohort) -> None:
    record = read_record(synthetic.paths("test")[0])
    twice = replace(record, signal=np.repeat(record.signal, 2, axis=1), rate=200.0)
    plain, slow = (predict_record(bundle, each).probabilities for each in (record, twice))
    assert list(slow.values()) == pytest.approx(list(plain.values()), abs=0.1)


@pytest.mark.parametrize(("times", "left_out"), [(1, 2.5), (3, 22.5)])
def test_what_no_crop_shows_is_told(
    bundle: Model, synthetic: Cohort, times: int, left_out: float
) -> None:
    record = read_record(synthetic.paths("test")[0])
    long = replace(record, signal=np.tile(record.signal, times))
    preparation = bundle.preparation
    assert (preparation.window, preparation.evaluation_crops) == (250, 3)
    assert predict_record(bundle, long).seconds_left_out == left_out
    inside = evaluation_seconds(preparation, long)
    assert (inside[0][0], inside[-1][1]) == (0.0, 10.0 * times)
    every = replace(bundle, preparation=preparation.with_evaluation_crops(7))
    assert predict_record(every, record).seconds_left_out == 0.0  # overlapping


def calibrated(bundle: Model) -> Model:
    count = len(bundle.labels)
    temperatures = tuple(np.linspace(0.5, 3.0, count))
    return replace(bundle, calibration=Calibration(temperatures, (0.1,) * count, (0.45,) * count))


def test_a_calibration_is_applied_to_the_join_of_crops(bundle: Model, synthetic: Cohort) -> None:
    record = read_record(synthetic.paths("test")[0])
    said, done = (predict_record(each, record) for each in (bundle, calibrated(bundle)))
    expected = calibrated(bundle).calibration.apply(list(said.probabilities.values()))  # type: ignore[union-attr]
    assert list(done.probabilities.values()) == expected.tolist()
    assert said.above_threshold is None
    above = [label for label, value in done.probabilities.items() if value >= 0.45]
    assert done.above_threshold is not None
    assert 0 < len(above) < len(synthetic.labels)
    assert set(done.above_threshold) == set(above)
    values = [done.probabilities[label] for label in done.above_threshold]
    assert values == sorted(values, reverse=True)


def test_a_table_says_whether_it_is_calibrated(
    bundle: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    able = calibrated(bundle)
    given = synthetic, synthetic_store, "test"
    raw, done = (predict_cohort(able, *given, calibrated=wanted) for wanted in (False, True))
    assert (raw.metadata["calibrated"], done.metadata["calibrated"]) == ("no", "yes")
    assert np.array_equal(raw.probabilities, predict_cohort(bundle, *given).probabilities)
    assert predict_cohort(bundle, *given).metadata["calibrated"] == "no"
    assert able.calibration is not None
    assert np.array_equal(done.probabilities, able.calibration.apply(raw.probabilities))
    assert np.array_equal(
        auroc(raw.targets, raw.probabilities), auroc(done.targets, done.probabilities)
    )  # type: ignore[arg-type]
    assert np.array_equal(calibrate_table(able, raw).probabilities, done.probabilities)
    with pytest.raises(EvaluationError, match="calibrated already"):
        calibrate_table(able, done)


def test_leads_that_are_named_are_a_record_s_that_lacks_the_others(
    bundle: Model, synthetic: Cohort
) -> None:
    leads = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    record = read_record(synthetic.paths("test")[0])
    named = predict_record(bundle, record, leads=leads)
    lacking = predict_record(bundle, record.select(leads))
    assert named.probabilities == lacking.probabilities
    assert named.derived_leads == lacking.derived_leads == ("III", "aVR", "aVL", "aVF")
    assert named.left_out_leads == lacking.left_out_leads == ()


def test_fewer_leads_need_no_others(bundle: Model, synthetic: Cohort) -> None:
    leads = ("II", "V1", "V2", "V3", "V4", "V5", "V6")
    record = read_record(synthetic.paths("test")[0])
    found = predict_record(bundle, record.select(leads), leads=leads).probabilities
    assert found == predict_record(bundle, record, leads=leads[::-1]).probabilities
    zeroed = record.signal.copy()
    zeroed[[record.leads.index(lead) for lead in record.leads if lead not in leads]] = 0.0
    alike = predict_record(bundle, replace(record, signal=zeroed)).probabilities  # MTECG's policy
    assert list(found.values()) == pytest.approx(list(alike.values()), abs=1e-5)
    with pytest.raises(BackboneError, match="X"):
        predict_record(bundle, record, leads=("I", "X"))


def test_leads_that_follow_are_computed_and_named(bundle: Model, synthetic: Cohort) -> None:
    record = read_record(synthetic.paths("test")[0])
    whole = predict_record(bundle, record)
    assert whole.derived_leads == ()
    eight = predict_record(bundle, record.select(("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")))
    assert eight.derived_leads == ("III", "aVR", "aVL", "aVF")
    # To the microvolts that the recorded ones were rounded to.
    found, expected = eight.probabilities, whole.probabilities
    assert list(found.values()) == pytest.approx(list(expected.values()), abs=0.02)
    with pytest.raises(PreparationError, match="leads V3, V4, V5, V6 are missing"):
        predict_record(bundle, record.select(("I", "II", "V1", "V2")))


def test_a_subset_of_leads_is_tried_once_and_not_for_every_record(
    synthetic: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    from einthoven.predict import records as module

    built = []
    original = module.LeadSubset

    def counted(*args: Any, **options: Any) -> Any:
        built.append(args)
        return original(*args, **options)

    monkeypatch.setattr(module, "LeadSubset", counted)
    model = make(synthetic.labels)
    for path in synthetic.paths("test")[:3]:
        predict_record(model, read_record(path), leads=("I", "II"))
    assert len(built) == 1


def test_prediction_elsewhere_leaves_the_model_where_it_is(synthetic: Cohort) -> None:
    from einthoven.predict.records import on_device

    model = make(synthetic.labels)
    copy = on_device(model.classifier, "meta")
    assert next(copy.parameters()).device.type == "meta"
    assert next(model.classifier.parameters()).device.type == "cpu"
    assert on_device(model.classifier, "cpu") is model.classifier
