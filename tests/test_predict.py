"""From raw files and from a store to the same probabilities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.bundle import Bundle
from einthoven.cohorts import Cohort
from einthoven.errors import EvaluationError, PreparationError, RecordError
from einthoven.predict import predict_cohort, predict_files, predict_record
from einthoven.records import read_record
from einthoven.signals.prepare import prepare_record
from einthoven.signals.store import Store


def make(labels: tuple[str, ...], aggregate: str = "probability") -> Bundle:
    classifier = create_classifier(
        "mtecg_tiny_100hz", labels=labels, seed=5, depth=1, width=32, heads=1
    ).eval()
    with torch.no_grad():
        classifier.head.weight.mul_(20)  # probabilities that differ
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(3)
    about = {"backbone": "mtecg_tiny_100hz", "recipe": {"name": "none"}}
    return Bundle(classifier, labels, preparation, aggregate, about)


@pytest.fixture(scope="module")
def bundle(synthetic: Cohort) -> Bundle:
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
    bundle: Bundle, synthetic: Cohort, synthetic_store: Store
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
    bundle: Bundle, synthetic: Cohort, synthetic_store: Store
) -> None:
    steps: list[tuple[int, int]] = []
    one, all_of_them = (
        predict_cohort(
            bundle,
            synthetic,
            synthetic_store,
            "validation",
            batch_size=size,
            progress=lambda done, total: steps.append((done, total)),
        ).probabilities
        for size in (16, 64)
    )
    assert np.allclose(one, all_of_them, atol=1e-6)
    assert steps == [(16, 50), (32, 50), (48, 50), (50, 50), (50, 50)]


def test_columns_are_the_bundle_s_whatever_the_cohort_s_order(
    bundle: Bundle, synthetic: Cohort, synthetic_store: Store
) -> None:
    turned = synthetic.with_labels(synthetic.labels[::-1])
    table = predict_cohort(bundle, turned, synthetic_store, "test")
    straight = predict_cohort(bundle, synthetic, synthetic_store, "test")
    assert table.labels == straight.labels == bundle.labels
    assert table.targets is not None
    assert np.array_equal(table.targets, synthetic.targets("test"))
    assert np.array_equal(table.probabilities, straight.probabilities)


def test_other_labels_are_refused(
    bundle: Bundle, synthetic: Cohort, synthetic_store: Store
) -> None:
    fewer = synthetic.with_labels(synthetic.labels[2:])
    with pytest.raises(EvaluationError, match=r"the cohort lacks \['AFIB', 'IMI'\]"):
        predict_cohort(bundle, fewer, synthetic_store, "test")
    with pytest.raises(EvaluationError, match=r"the bundle lacks \['AFIB'\]"):
        predict_cohort(make(synthetic.labels[1:]), synthetic, synthetic_store, "test")


def test_an_empty_split_is_refused(
    bundle: Bundle, synthetic: Cohort, synthetic_store: Store
) -> None:
    rest = synthetic.select((synthetic.table["split"] != "test").to_numpy())
    with pytest.raises(EvaluationError, match="no records in test"):
        predict_cohort(bundle, rest, synthetic_store, "test")


def test_what_cannot_be_used_is_refused(bundle: Bundle, synthetic: Cohort, tmp_path: Path) -> None:
    record = read_record(synthetic.paths("test")[0])
    with pytest.raises((PreparationError, RecordError), match="V6"):
        predict_record(bundle, record.select(("I", "II")))
    with pytest.raises(RecordError):
        list(predict_files(bundle, [tmp_path / "absent.hea"]))


def test_a_longer_record_at_another_rate_is_used(bundle: Bundle, synthetic: Cohort) -> None:
    record = read_record(synthetic.paths("test")[0])
    twice = replace(record, signal=np.repeat(record.signal, 2, axis=1), rate=200.0)
    plain, slow = (predict_record(bundle, each).probabilities for each in (record, twice))
    assert list(slow.values()) == pytest.approx(list(plain.values()), abs=0.1)
