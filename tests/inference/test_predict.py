"""From raw files and from a store to the same probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import Cohort
from einthoven.errors import BackboneError, EvaluationError, ModelError, PreparationError
from einthoven.evaluate.metrics import auroc
from einthoven.inference import (
    Predictor,
    RecordPrediction,
    calibrate_table,
    predict_cohort,
    predict_record,
)
from einthoven.models import Model
from einthoven.predictions import Calibration, ClassSets, LabelSets, ValueIntervals
from einthoven.records import Record, read_record
from einthoven.signals.prepare import evaluation_seconds, prepare_record
from einthoven.signals.store import Store


def make(labels: tuple[str, ...], aggregate: str = "probability") -> Model:
    classifier = create_classifier(
        "mtecg_tiny_100hz", labels=labels, seed=5, depth=1, width=32, heads=1
    ).eval()
    with torch.no_grad():
        classifier.head.weight.mul_(20)  # probabilities that differ
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(3)
    return Model(classifier, preparation, aggregate)


@pytest.fixture(scope="module")
def model(synthetic: Cohort) -> Model:
    return make(synthetic.labels)


@pytest.fixture(scope="module")
def record(synthetic: Cohort) -> Record:
    return read_record(synthetic.paths("test")[0])


def values(model: Model, record: Record, leads: Sequence[str] | None = None) -> list[float]:
    return list(predict_record(model, record, leads=leads).probabilities.values())


@pytest.mark.parametrize("aggregate", ["probability", "logit", "max"])
def test_a_record_aggregates_its_crops(synthetic: Cohort, record: Record, aggregate: str) -> None:
    model = make(synthetic.labels, aggregate)
    with torch.no_grad():
        logits = model.classifier(prepare_record(model.preparation, record)).double()
    assert len(logits) == 3
    expected = {
        "probability": logits.sigmoid().mean(0),
        "logit": logits.mean(0).sigmoid(),
        "max": logits.sigmoid().amax(0),
    }[aggregate]
    prediction = predict_record(model, record)
    assert list(prediction.probabilities) == list(synthetic.labels)
    assert values(model, record) == pytest.approx(expected.tolist(), abs=1e-12)
    assert prediction.record is record


def test_predictions_of_store_and_files_agree(
    model: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    table = predict_cohort(model, synthetic, synthetic_store, "test", batch_size=7)
    assert table.records.tolist() == synthetic.ids("test").tolist()
    assert table.patients.tolist() == synthetic.patients("test").tolist()
    assert table.targets is not None
    assert np.array_equal(table.targets, synthetic.targets("test"))
    for row, path in enumerate(synthetic.paths("test")[:5]):
        assert table.probabilities[row] == pytest.approx(values(model, read_record(path)), abs=1e-6)
    assert table.metadata["split"] == "test"
    assert table.metadata["quarantined"] == "0"


def test_the_batch_size_changes_nothing(
    model: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    steps: list[tuple[str, int, int]] = []
    one, all_of_them = (
        predict_cohort(
            model,
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


def test_columns_are_in_the_order_of_the_model(
    model: Model, synthetic: Cohort, synthetic_store: Store
) -> None:
    turned = synthetic.with_labels(synthetic.labels[::-1])
    table = predict_cohort(model, turned, synthetic_store, "test")
    straight = predict_cohort(model, synthetic, synthetic_store, "test")
    assert table.labels == straight.labels == model.labels
    assert table.targets is not None
    assert np.array_equal(table.targets, synthetic.targets("test"))
    assert np.array_equal(table.probabilities, straight.probabilities)


def test_other_labels_are_refused(model: Model, synthetic: Cohort, synthetic_store: Store) -> None:
    fewer = synthetic.with_labels(synthetic.labels[2:])
    with pytest.raises(EvaluationError, match=r"cohort\W\w+\WAFIB\W+IMI"):
        predict_cohort(model, fewer, synthetic_store, "test")
    with pytest.raises(EvaluationError, match=r"model\W\w+\WAFIB"):
        predict_cohort(make(synthetic.labels[1:]), synthetic, synthetic_store, "test")


def test_an_empty_split_is_refused(model: Model, synthetic: Cohort, synthetic_store: Store) -> None:
    rest = synthetic.select((synthetic.table["split"] != "test").to_numpy())
    with pytest.raises(EvaluationError, match=f"{synthetic.name}.*test"):
        predict_cohort(model, rest, synthetic_store, "test")


def test_a_record_at_twice_the_rate_is_predicted_alike(model: Model, record: Record) -> None:
    twice = replace(record, signal=np.repeat(record.signal, 2, axis=1), rate=200.0)
    assert values(model, twice) == pytest.approx(values(model, record), abs=0.1)


@pytest.mark.parametrize(("times", "left_out"), [(1, 2.5), (3, 22.5)])
def test_seconds_in_no_crop_are_reported(
    model: Model, record: Record, times: int, left_out: float
) -> None:
    long = replace(record, signal=np.tile(record.signal, times))
    preparation = model.preparation
    assert (preparation.window, preparation.evaluation_crops) == (250, 3)
    assert predict_record(model, long).seconds_left_out == left_out
    inside = evaluation_seconds(preparation, long)
    assert (inside[0][0], inside[-1][1]) == (0.0, 10.0 * times)
    overlapping = replace(model, preparation=preparation.with_evaluation_crops(7))
    assert predict_record(overlapping, record).seconds_left_out == 0.0


@pytest.fixture(scope="module")
def calibration(model: Model) -> Calibration:
    count = len(model.labels)
    temperatures = tuple(np.linspace(0.5, 3.0, count).tolist())
    return Calibration(temperatures, (0.1,) * count, (0.45,) * count)


def test_a_calibration_is_applied_to_the_aggregate(
    model: Model, record: Record, calibration: Calibration
) -> None:
    calibrated = predict_record(replace(model, calibration=calibration), record)
    probabilities = calibrated.probabilities
    assert list(probabilities.values()) == calibration.apply(values(model, record)).tolist()
    assert calibrated.uncalibrated == predict_record(model, record).probabilities
    assert calibrated.thresholds == dict(zip(model.labels, calibration.thresholds, strict=True))
    bare = predict_record(model, record)
    assert (bare.above_threshold, bare.uncalibrated, bare.thresholds) == (None, None, None)
    above = [label for label, value in probabilities.items() if value >= 0.45]
    assert 0 < len(above) < len(model.labels)
    ordered = sorted(above, key=lambda label: -probabilities[label])
    assert calibrated.above_threshold == tuple(ordered)


def test_a_table_records_whether_it_is_calibrated(
    model: Model, synthetic: Cohort, synthetic_store: Store, calibration: Calibration
) -> None:
    split = synthetic, synthetic_store, "test"
    with_calibration = replace(model, calibration=calibration)
    raw = predict_cohort(with_calibration, *split, calibrated=False)
    table = predict_cohort(with_calibration, *split)
    uncalibrated = predict_cohort(model, *split)
    tables = (raw, table, uncalibrated)
    assert [each.metadata["calibrated"] for each in tables] == ["no", "yes", "no"]
    assert np.array_equal(raw.probabilities, uncalibrated.probabilities)
    assert np.array_equal(table.probabilities, calibration.apply(raw.probabilities))
    areas = [auroc(each.require_targets(), each.probabilities) for each in (raw, table)]
    assert np.array_equal(*areas)
    again = calibrate_table(with_calibration, raw)
    assert np.array_equal(again.probabilities, table.probabilities)
    with pytest.raises(EvaluationError, match="calibrated"):
        calibrate_table(with_calibration, table)


def test_selected_leads_equal_a_record_that_lacks_the_others(model: Model, record: Record) -> None:
    leads = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    selected = predict_record(model, record, leads=leads)
    lacking = predict_record(model, record.select(leads))
    assert selected.probabilities == lacking.probabilities
    assert selected.derived_leads == lacking.derived_leads == ("III", "aVR", "aVL", "aVF")
    assert selected.left_out_leads == lacking.left_out_leads == ()


def test_fewer_leads_need_no_others(model: Model, record: Record) -> None:
    leads = ("II", "V1", "V2", "V3", "V4", "V5", "V6")
    subset = values(model, record.select(leads), leads)
    assert subset == values(model, record, leads[::-1])
    zeroed = record.signal.copy()
    zeroed[[record.leads.index(lead) for lead in record.leads if lead not in leads]] = 0.0
    alike = values(model, replace(record, signal=zeroed))  # MTECG's policy
    assert subset == pytest.approx(alike, abs=1e-5)
    with pytest.raises(BackboneError, match="X"):
        predict_record(model, record, leads=("I", "X"))


def test_derived_leads_are_computed_and_listed(model: Model, record: Record) -> None:
    assert predict_record(model, record).derived_leads == ()
    eight = record.select(("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"))
    assert predict_record(model, eight).derived_leads == ("III", "aVR", "aVL", "aVF")
    # To the microvolts that the recorded leads were rounded to.
    assert values(model, eight) == pytest.approx(values(model, record), abs=0.02)


def test_a_record_is_predicted_with_the_leads_that_it_has(model: Model, record: Record) -> None:
    four = record.select(("I", "II", "V1", "V2"))
    found, named = predict_record(model, four), predict_record(model, record, leads=four.leads)
    assert found.probabilities == pytest.approx(named.probabilities, abs=1e-6)
    assert found.left_out_leads == named.left_out_leads == ("V3", "V4", "V5", "V6")
    assert found.without_call == model.labels
    with pytest.raises(PreparationError, match="V3"):
        predict_record(model, four, leads=("I", "V3"))
    with pytest.raises(PreparationError, match="X"):
        predict_record(model, replace(record.select(("I",)), leads=("X",)))


LIMBS = ("I", "II", "III", "aVR", "aVL", "aVF")


def with_accuracy(model: Model, kept: Sequence[str], digest: str | None = None) -> Model:
    """A model that was measured with the limb leads, with which it keeps some labels only."""
    best = {"auroc": 0.9, "sensitivity": 0.8, "precision": 0.7}
    labels = {x: best if x in kept else best | {"auroc": 0.6} for x in model.labels}
    accuracy = {
        "digest": digest,
        "all": {"labels": dict.fromkeys(model.labels, best)},
        "sets": [{"leads": list(LIMBS), "labels": labels}],
    }
    return replace(model, config={"lead_accuracy": accuracy})


def test_labels_below_the_floor_are_not_answered(
    model: Model, record: Record, calibration: Calibration
) -> None:
    calibrated = replace(model, calibration=calibration)
    whole = predict_record(calibrated, record, leads=("I", "II"))
    kept = max(whole.probabilities, key=lambda x: whole.probabilities[x])
    measured = with_accuracy(calibrated, [kept])
    for leads in (("I", "II"), ("II", "aVF"), (*LIMBS, "V3")):
        limited = predict_record(measured, record, leads=leads)
        answered = {x for x, value in limited.probabilities.items() if not np.isnan(value)}
        assert answered == {kept}
        assert set(limited.without_call) == set(model.labels) - {kept}
        assert set(limited.above_threshold or ()) <= {kept}
        assert any("posttrain COHORT --leads" in warning for warning in limited.warnings)
    assert predict_record(measured, record, leads=("I", "II")).above_threshold == (kept,)
    complete = predict_record(measured, record, leads=("I", "II", *record.leads[6:]))
    assert complete.without_call == complete.left_out_leads == ()
    assert not np.isnan(list(complete.probabilities.values())).any()


def test_predictions_without_an_accurate_label_are_refused(model: Model, record: Record) -> None:
    measured = with_accuracy(model, model.labels[:1])
    for refused, leads in ((measured, ("V3",)), (with_accuracy(model, []), ("I", "II"))):
        chosen = predict_record(refused, record, leads=leads)
        assert chosen.without_call == model.labels
        assert chosen.warnings
        with pytest.raises(BackboneError) as caught:
            predict_record(refused, record.select(leads))
        assert all(lead in caught.value.problem for lead in (*leads, "V1", "V6"))
        assert f"posttrain COHORT --leads {','.join(leads)}" in caught.value.remedy


@pytest.mark.parametrize("digest", [None, "of other thresholds"])
def test_without_a_valid_measurement_there_are_no_calls(
    model: Model, record: Record, calibration: Calibration, digest: str | None
) -> None:
    unmeasured = replace(model, calibration=calibration)
    if digest:
        unmeasured = with_accuracy(unmeasured, model.labels, digest)
    prediction = predict_record(unmeasured, record, leads=("I", "II"))
    assert prediction.without_call == model.labels
    assert prediction.above_threshold == ()
    assert not np.isnan(list(prediction.probabilities.values())).any()
    assert len(prediction.warnings) == 1 + len(predict_record(unmeasured, record).warnings)


def test_a_subset_of_leads_is_built_once_for_all_records(
    synthetic: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    from einthoven.inference import torch_runtime as module

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


def test_prediction_on_another_device_copies_the_model(synthetic: Cohort) -> None:
    from einthoven.inference.torch_runtime import on_device

    model = make(synthetic.labels)
    copy = on_device(model.classifier, "meta")
    assert next(copy.parameters()).device.type == "meta"
    assert next(model.classifier.parameters()).device.type == "cpu"
    assert on_device(model.classifier, "cpu") is model.classifier


def padded(record: Record, *leads: str) -> Record:
    """The record with a constant in place of some leads."""
    signal = record.signal.copy()
    signal[[record.leads.index(lead) for lead in leads]] = 0.1
    return replace(record, signal=signal)


def test_a_constant_lead_is_a_missing_one(
    model: Model, record: Record, calibration: Calibration
) -> None:
    chest = record.leads[6:]
    measured = with_accuracy(replace(model, calibration=calibration), model.labels[:1])
    expected = predict_record(measured, record, leads=LIMBS)
    flat = predict_record(measured, padded(record, *chest))
    assert flat.left_out_leads == chest
    assert flat.without_call == expected.without_call == model.labels[1:]
    assert list(flat.probabilities.values()) == pytest.approx(
        list(expected.probabilities.values()), nan_ok=True
    )
    assert set(expected.warnings) < set(flat.warnings)
    assert all(any(lead in text for text in flat.warnings) for lead in chest)
    limb = predict_record(measured, padded(record, "I", "aVF"))
    assert (limb.derived_leads, limb.left_out_leads, limb.without_call) == (("I", "aVF"), (), ())
    assert values(model, padded(record, "I", "aVF")) == values(
        model, record.select(("II", "III", "aVR", "aVL", *chest))
    )


def test_records_with_too_few_leads_that_vary_are_refused(model: Model, record: Record) -> None:
    measured = with_accuracy(model, model.labels[:1])
    with pytest.raises(BackboneError, match="V1"):
        predict_record(measured, padded(record, *record.leads[1:]))
    with pytest.raises(PreparationError, match="V3"):
        predict_record(model, padded(record, "V3"), leads=("V3",))


def test_records_of_a_batch_keep_their_own_leads(model: Model, record: Record) -> None:
    records = [record, padded(record, "V2"), padded(record, *record.leads), record]
    first, second, third, last = Predictor(model)([lambda item=item: item for item in records])
    assert isinstance(third, PreparationError)
    for one, other in ((first, record), (second, records[1]), (last, record)):
        assert isinstance(one, RecordPrediction)
        alone = predict_record(model, other)
        assert one.left_out_leads == alone.left_out_leads
        assert list(one.probabilities.values()) == pytest.approx(
            list(alone.probabilities.values()), abs=1e-6
        )


def test_answers_follow_from_bounds_and_calls(model: Model, record: Record) -> None:
    probabilities = predict_record(model, record).probabilities
    count = len(model.labels)
    calls = Calibration((1.0,) * count, (0.0,) * count, (0.0, *(1.0,) * (count - 1)))
    lowest, highest = [1.0] * count, [1.0] * count
    highest[0] = 0.0  # absence is ruled out, and the label is called
    lowest[1], highest[1] = 0.0, 1.0  # nothing is ruled out
    bounds = (*lowest[:-1], None), tuple(highest)
    prediction = predict_record(
        replace(model, calibration=calls, sets=LabelSets(0.9, *bounds)), record
    )
    assert list(prediction.probabilities) == list(probabilities)
    assert list(prediction.answers.values()) == [
        "present",
        "cannot tell",
        *["absent"] * (count - 3),
        "",
    ]


def test_without_all_leads_there_are_no_answers(model: Model, record: Record) -> None:
    count = len(model.labels)
    calls = Calibration((1.0,) * count, (0.0,) * count, (0.5,) * count)
    sets = LabelSets(0.9, (0.5,) * count, (0.5,) * count)
    fitted = replace(model, calibration=calls, sets=sets)
    assert predict_record(fitted, record).answers
    assert predict_record(fitted, record, leads=("I", "II")).answers == {}
    assert predict_record(replace(fitted, calibration=None), record).answers == {}


@pytest.mark.parametrize(
    "sets",
    [LabelSets(0.9, (0.5,), (0.5,)), ClassSets(0.9, (0.5, 0.5)), ValueIntervals(0.9, (1.0,))],
)
def test_sets_of_other_outputs_are_refused(
    model: Model, sets: LabelSets | ClassSets | ValueIntervals
) -> None:
    with pytest.raises(ModelError):
        replace(model, sets=sets)


def test_class_sets_and_intervals(record: Record) -> None:
    classes = replace(make(("A", "B", "C")), config={"task": {"kind": "multiclass"}})
    prediction = predict_record(replace(classes, sets=ClassSets(0.9, (0.0, 1.0, None))), record)
    assert set(prediction.class_set) == {"A", "C", str(prediction.predicted_class)}
    task = {"kind": "regression", "target": "age", "mean": [60.0], "scale": [10.0]}
    number = replace(make(("age",)), config={"task": task})
    prediction = predict_record(replace(number, sets=ValueIntervals(0.9, (2.5,))), record)
    low, high = prediction.intervals["age"]
    assert (low, high) == pytest.approx(
        (prediction.values["age"] - 2.5, prediction.values["age"] + 2.5)
    )
    unbounded = replace(number, sets=ValueIntervals(0.9, (None,)))
    assert predict_record(unbounded, record).to_json("")["intervals"] == {}
