"""Recalibration: what changes, what stays, on which records it is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.cohorts import Cohort
from einthoven.errors import EvaluationError
from einthoven.evaluate.calibrate import refit_calibration
from einthoven.experiment import recalibration
from einthoven.experiment.evaluation import fitted_entries
from einthoven.experiment.recalibration import recalibrate_model
from einthoven.inference import predict_cohort
from einthoven.models import Model, load_model, read_config, save_model, update_config
from einthoven.predictions import Calibration, LabelSets, Predictions
from einthoven.signals.store import Store

TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}


@pytest.fixture(scope="module")
def saved(
    synthetic: Cohort, synthetic_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    classifier = create_classifier("mtecg_tiny_100hz", labels=synthetic.labels, seed=5, **TINY)
    with torch.no_grad():
        classifier.head.weight.mul_(20)
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(1)
    model = Model(classifier.eval(), preparation)
    folder = save_model(model, tmp_path_factory.mktemp("recalibration") / "model")
    table = predict_cohort(model, synthetic, synthetic_store, "validation")
    update_config(folder, **fitted_entries(table))
    return folder


def shifted(rng: np.random.Generator, records: int, bias: float) -> Predictions:
    """Two labels whose logits are wrong by a bias."""
    targets = (rng.random((records, 2)) < [0.3, 0.02]).astype(np.uint8)
    z = rng.normal(size=targets.shape) + 2.5 * targets - np.array([2.0, 5.0])
    return Predictions.from_arrays(targets, 1 / (1 + np.exp(-(z + bias))), ["A", "B"])


def test_refitting_corrects_a_bias_and_keeps_thresholds_of_rare_labels() -> None:
    table = shifted(np.random.default_rng(0), 100, 1.5)
    fitted = refit_calibration(table, (0.4, 0.3))
    later = shifted(np.random.default_rng(1), 2000, 1.5)
    after = fitted.apply(later.probabilities)
    targets = later.require_targets()
    before_gap, after_gap = (
        abs(values[:, 0].mean() - targets[:, 0].mean()) for values in (later.probabilities, after)
    )
    assert after_gap < before_gap / 2
    # The rare label has two positives: the same records are called as before.
    np.testing.assert_array_equal(fitted.decide(after)[:, 1], later.probabilities[:, 1] >= 0.3)


def test_one_calibration_does_what_two_do_in_turn() -> None:
    rng = np.random.default_rng(2)
    first = Calibration((0.7, 1.4), (0.2, -0.1), (0.5, 0.5))
    second = Calibration((1.3, 0.9), (-0.5, 0.3), (0.2, 0.6))
    values = rng.random((20, 2))
    both = second.after(first)
    np.testing.assert_allclose(both.apply(values), second.apply(first.apply(values)), rtol=1e-12)
    assert both.thresholds == second.thresholds


def test_parts_of_labels_are_replaced() -> None:
    whole = Calibration((1.0, 2.0, 3.0), (0.0, 0.1, 0.2), (0.3, 0.4, 0.5))
    put = whole.put([2, 0], Calibration((5.0, 6.0), (0.7, 0.8), (0.1, 0.2)))
    assert put == Calibration((6.0, 2.0, 5.0), (0.8, 0.1, 0.7), (0.2, 0.4, 0.1))
    sets = LabelSets(0.9, (0.1, None, 0.3), (0.2, 0.4, None))
    assert sets.put([1], LabelSets(0.9, (0.5,), (0.6,))) == LabelSets(
        0.9, (0.1, 0.5, 0.3), (0.2, 0.6, None)
    )
    assert sets.select([2, 0]) == LabelSets(0.9, (0.3, 0.1), (None, 0.2))


@pytest.mark.parametrize("records", [30, None])
def test_only_calibration_and_sets_change(
    records: int | None, saved: Path, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    result = recalibrate_model(
        saved, synthetic, synthetic_store, tmp_path / "new", records=records, resamples=50
    )
    before, after = read_config(saved), read_config(result.folder)
    changed = {key for key in before if before[key] != after.get(key)}
    assert changed == {"calibration", "sets", "digest"}
    assert after["provenance"]["recalibration"]["records"] == result.records
    assert set(after) - set(before) == {"provenance"}
    assert result.is_cross_fitted == (records is None)
    total = len(predict_cohort(load_model(saved), synthetic, synthetic_store, "all"))
    if records is None:
        assert result.records == result.measured == total
    else:
        assert 30 <= result.records < total
        assert result.records + result.measured == total
    assert result.labels == synthetic.labels
    assert result.interval is not None
    assert result.change == pytest.approx(result.after["log_loss"] - result.before["log_loss"])


def test_the_measured_records_are_of_other_patients(
    saved: Path, synthetic: Cohort, synthetic_store: Store
) -> None:
    table = predict_cohort(load_model(saved), synthetic, synthetic_store, "all")
    rows = recalibration._drawn(table, 30, 0)
    assert not set(table.patients[rows]) & set(table.patients[~rows])


def test_a_label_that_the_cohort_lacks_keeps_its_calibration(
    saved: Path, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    few = synthetic.with_labels(synthetic.labels[1:3])
    result = recalibrate_model(saved, few, synthetic_store, tmp_path / "new", resamples=0)
    before, after = load_model(saved), load_model(result.folder)
    assert isinstance(before.calibration, Calibration)
    assert isinstance(after.calibration, Calibration)
    same = [0, *range(3, len(synthetic.labels))]
    assert after.calibration.select(same) == before.calibration.select(same)
    assert after.calibration.temperatures[1] != before.calibration.temperatures[1]


def test_records_that_cannot_serve_are_refused(
    saved: Path, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    few = synthetic.select(np.arange(len(synthetic)) < 10)
    with pytest.raises(EvaluationError):
        recalibrate_model(saved, few, synthetic_store, tmp_path / "few")
    model = load_model(saved)
    bare = save_model(replace(model, calibration=None), tmp_path / "bare")
    with pytest.raises(EvaluationError):
        recalibrate_model(bare, synthetic, synthetic_store, tmp_path / "new")
    assert not (tmp_path / "new").exists()
