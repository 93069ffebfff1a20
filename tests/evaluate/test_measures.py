"""Metrics of classes and numbers, and of labels that are partly unknown."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from sklearn import metrics

from einthoven.errors import EvaluationError
from einthoven.evaluate import (
    ValueScore,
    auroc,
    average_precision,
    calibration_report,
    compare,
    fit_calibration,
    score,
)
from einthoven.evaluate.calibrate import fit_classes
from einthoven.evaluate.curves import curves
from einthoven.evaluate.estimate import CONSTANT
from einthoven.evaluate.reliability import class_report
from einthoven.predictions import Predictions


@pytest.fixture
def classes() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    true = draw.integers(0, 3, 400)
    logits = draw.normal(size=(400, 3)) + 1.5 * np.eye(3)[true]
    return np.eye(3)[true], softmax(logits, axis=1)


@pytest.fixture
def numbers() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    true = draw.normal([60, 400], [10, 30], size=(300, 2))
    true[:100, 1] = np.nan
    return true, np.where(np.isnan(true), 0, true) * 0.6 + draw.normal([25, 150], 8, size=(300, 2))


def test_classes_agree_with_scikit_learn(classes: Any) -> None:
    one_hot, shares = classes
    true, made = one_hot.argmax(axis=1), shares.argmax(axis=1)
    values = score(one_hot, shares, labels=list("abc"), kind="multiclass", resamples=50).to_dict()
    assert values["measures"] == values["measures"] | {
        "accuracy": pytest.approx(metrics.accuracy_score(true, made)),
        "balanced_accuracy": pytest.approx(metrics.balanced_accuracy_score(true, made)),
        "macro_f1": pytest.approx(metrics.f1_score(true, made, average="macro")),
        "kappa": pytest.approx(metrics.cohen_kappa_score(true, made)),
        "log_loss": pytest.approx(metrics.log_loss(true, shares)),
    }
    assert values["confusion"] == metrics.confusion_matrix(true, made).tolist()
    recalls = [entry["recall"] for entry in values["per_class"].values()]
    assert recalls == pytest.approx(metrics.recall_score(true, made, average=None))
    low, high = values["measures"]["kappa_interval"]
    assert low < values["measures"]["kappa"] < high


def test_numbers_agree_with_scikit_learn(numbers: Any) -> None:
    true, made = numbers
    scored = score(true, made, labels=["lvef", "qt"], kind="regression", resamples=50)
    assert isinstance(scored, ValueScore)
    for column, entry in enumerate(scored.to_dict()["per_label"].values()):
        known = ~np.isnan(true[:, column])
        pair = true[known, column], made[known, column]
        assert entry["records"] == known.sum()
        assert entry["mae"] == pytest.approx(metrics.mean_absolute_error(*pair))
        assert entry["rmse"] == pytest.approx(metrics.root_mean_squared_error(*pair))
        assert entry["r2"] == pytest.approx(metrics.r2_score(*pair))
        assert entry["pearson"] == pytest.approx(np.corrcoef(*pair)[0, 1])
        assert entry["bias"] == pytest.approx((pair[1] - pair[0]).mean())
        low, high = entry["mae_interval"]
        assert low < entry["mae"] < high


def test_a_better_model_has_a_smaller_error(numbers: Any) -> None:
    true, made = numbers
    tables = [
        Predictions.from_arrays(true, values, ["lvef", "qt"], kind="regression")
        for values in (np.where(np.isnan(true), made, (true + made) / 2), made)
    ]
    gap = compare(*tables, resamples=100).to_dict()["measures"]["per_label"]["lvef"]
    assert gap["mae_interval"][1] < 0
    assert gap["r2_interval"][0] > 0


def test_kinds_are_not_compared(numbers: Any, classes: Any) -> None:
    first = Predictions.from_arrays(*classes, kind="multiclass")
    second = Predictions.from_arrays(classes[0], classes[1], kind="regression")
    with pytest.raises(EvaluationError):
        compare(first, second)


def test_few_records_have_no_interval(numbers: Any) -> None:
    true, made = (x[200:206] for x in numbers)
    entry = score(true, made, labels=["lvef", "qt"], kind="regression").to_dict()["per_label"]["qt"]
    assert entry["mae_interval"] is None
    assert entry["mae_interval_reason"]


def test_a_metric_that_is_the_same_in_every_resample_has_no_interval() -> None:
    """15 records without an error do not show that there are none."""
    true = np.eye(3)[np.arange(15) % 3]
    values = score(true, 0.7 * true + 0.1, labels=list("abc"), kind="multiclass").to_dict()
    whole, first = values["measures"], values["per_class"]["a"]
    assert (whole["accuracy"], whole["kappa"], first["recall"]) == (1, 1, 1)
    for entry, names in ((whole, ("accuracy", "macro_f1", "kappa")), (first, ("recall", "f1"))):
        for name in names:
            assert entry[f"{name}_interval"] is None
            assert entry[f"{name}_interval_reason"] == CONSTANT


def test_one_temperature_of_classes_is_found(classes: Any) -> None:
    one_hot, shares = classes
    sharp = softmax(2.5 * np.log(shares), axis=1)
    table = Predictions.from_arrays(one_hot, sharp, kind="multiclass")
    fitted = fit_classes(table)
    plain = fit_classes(Predictions.from_arrays(one_hot, shares, kind="multiclass"))
    assert fitted.temperature == pytest.approx(2.5 * plain.temperature, rel=0.01)
    report = class_report(table, fitted)
    assert report["after"]["log_loss"] < report["before"]["log_loss"]


def test_weights_of_the_loss_are_divided_out() -> None:
    draw = np.random.default_rng(2)
    shares = expit(draw.normal(-1, 1.5, size=(4000, 1)))
    true = (draw.random(shares.shape) < shares).astype(int)
    weighted = expit(logit(shares) + np.log(5))
    table = Predictions.from_arrays(true, weighted)
    table = Predictions(
        table.labels, table.records, table.patients, true, weighted, {"pos_weight": "5"}
    )
    restored = fit_calibration(table).apply(weighted)
    assert restored == pytest.approx(shares, abs=0.03)
    few = table.select(np.arange(4000) < 60)
    assert fit_calibration(few).apply(weighted) == pytest.approx(shares, abs=1e-9)


def test_unknown_targets_are_left_out_of_their_label() -> None:
    draw = np.random.default_rng(3)
    true = (draw.random((300, 2)) < 0.3).astype(float)
    shares = np.clip(0.3 * true + 0.6 * draw.random((300, 2)), 0, 1)
    true[:120, 1] = np.nan
    known = slice(120, None)
    assert auroc(true, shares)[1] == auroc(true[known, 1], shares[known, 1])[0]
    assert (
        average_precision(true, shares)[1] == average_precision(true[known, 1], shares[known, 1])[0]
    )
    whole = score(true, shares, labels=["a", "b"], resamples=200).to_dict()["per_label"]
    alone = score(true[known, 1], shares[known, 1], labels=["b"], resamples=200).to_dict()
    assert whole["b"]["positives"] == alone["per_label"]["b"]["positives"]
    assert whole["b"]["auroc_interval"] == pytest.approx(
        alone["per_label"]["b"]["auroc_interval"], abs=0.02
    )
    table = Predictions.from_arrays(true, shares, ["a", "b"])
    report = calibration_report(table, fit_calibration(table), bins=5, resamples=0)
    part = Predictions.from_arrays(true[known, 1], shares[known, 1], ["b"])
    quality = calibration_report(part, bins=5, resamples=0).before.per_label.loc["b"]
    assert report.before.per_label.loc["b"].to_dict() == pytest.approx(quality.to_dict())
    assert report.decisions is not None
    row = report.decisions.loc["b"]
    assert (
        row[["true_positives", "false_positives", "false_negatives", "true_negatives"]].sum() == 180
    )
    drawn = curves(table, report, resamples=20)
    assert drawn is not None
    assert (drawn.labels["b"].positives + drawn.labels["b"].negatives) == 180
