"""Calibration error, Brier score and log loss: values, invariants, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
)

from einthoven.errors import CalibrationError, EvaluationError
from einthoven.evaluate import calibration_report, fit_calibration
from einthoven.evaluate.estimate import TOO_FEW
from einthoven.evaluate.reliability import ProbabilityQuality, measure_quality, predictive_values
from einthoven.predictions import Calibration, Predictions

LABELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def table() -> Predictions:
    generator = np.random.default_rng(0)
    z = generator.normal(size=(700, 3)) * 2 + [0.0, -2.0, -4.0]
    targets = (generator.random(z.shape) < expit(z / 2)).astype(np.uint8)
    return Predictions.from_arrays(targets, expit(z), LABELS)


def quality(
    targets: np.ndarray, probabilities: np.ndarray, bins: int | None = None
) -> ProbabilityQuality:
    return measure_quality(Predictions.from_arrays(targets, probabilities), bins=bins)


def test_values_by_hand() -> None:
    """Two bins: 0.2 and 0.4 with one positive (mean 0.3, observed 0.5), 0.9 with one (0.9, 1.0)."""
    targets = np.array([[1], [0], [1]], dtype=np.uint8)
    probabilities = np.array([[0.2], [0.4], [0.9]])
    result = quality(targets, probabilities, bins=2)
    assert result.per_label["ece_width"].tolist() == pytest.approx([(2 * 0.2 + 0.1) / 3])
    assert result.width.records.tolist() == [[2, 1]]
    assert result.width.observed.tolist() == [[0.5, 1.0]]
    assert result.per_label["brier"].tolist() == pytest.approx([(0.64 + 0.16 + 0.01) / 3])
    assert result.per_label["log_loss"].tolist() == pytest.approx([-np.log([0.2, 0.6, 0.9]).mean()])
    assert result.micro["ece_width"] == pytest.approx(result.macro["ece_width"])


def test_losses_equal_scikit_learn(table: Predictions) -> None:
    targets, probabilities = table.require_targets(), table.probabilities
    result = measure_quality(table)
    for y, p, label in zip(targets.T, probabilities.T, LABELS, strict=True):
        row = result.per_label.loc[label]
        assert row["brier"] == pytest.approx(brier_score_loss(y, p), abs=1e-14)
        assert row["log_loss"] == pytest.approx(log_loss(y, p), abs=1e-12)
    assert result.micro["brier"] == pytest.approx(result.macro["brier"])
    flat = brier_score_loss(targets.ravel(), probabilities.ravel())
    assert result.micro["brier"] == pytest.approx(flat)


def test_bins_equal_scikit_learn(table: Predictions) -> None:
    targets, probabilities = table.require_targets(), table.probabilities
    result = measure_quality(table, bins=7)
    for label in range(3):
        y, p = targets[:, label], probabilities[:, label]
        observed, probability = calibration_curve(y, p, n_bins=7, strategy="uniform")
        some = result.width.records[label] > 0
        assert result.width.observed[label][some] == pytest.approx(observed)
        assert result.width.probability[label][some] == pytest.approx(probability)
        observed, probability = calibration_curve(y, p, n_bins=7, strategy="quantile")
        assert result.mass.observed[label] == pytest.approx(observed, abs=0.02)
        assert result.mass.records[label].tolist() == [100] * 7


def test_equal_probabilities_share_a_bin_and_order_changes_nothing() -> None:
    generator = np.random.default_rng(2)
    targets = (generator.random((90, 2)) < 0.3).astype(np.uint8)
    probabilities = generator.choice([0.1, 0.3, 0.35, 0.8], size=(90, 2))
    order = generator.permutation(90)
    one = quality(targets, probabilities, bins=6)
    two = quality(targets[order], probabilities[order], bins=6)
    assert one.macro["ece_mass"] == pytest.approx(two.macro["ece_mass"], abs=1e-15)
    for label in range(2):
        probability = one.mass.probability[label]
        assert set(probability[~np.isnan(probability)].round(12)) <= {0.1, 0.3, 0.35, 0.8}


def test_the_error_of_constant_probabilities_is_their_distance() -> None:
    targets = np.array([[1], [0], [0], [0]] * 25, dtype=np.uint8)
    for probability, error in ((0.25, 0.0), (0.65, 0.4)):
        result = quality(targets, np.full(targets.shape, probability)).macro
        assert result["ece_width"] == pytest.approx(error, abs=1e-12)
        assert result["ece_mass"] == pytest.approx(error, abs=1e-12)


def test_the_loss_of_certain_errors_is_finite() -> None:
    result = quality(np.array([[1], [0]]), np.array([[0.0], [0.0]]))
    assert result.macro["log_loss"] == pytest.approx(-np.log(1e-15) / 2)


def test_calibration_improves_log_loss_and_brier_score(
    table: Predictions,
) -> None:
    """The probabilities are sigmoid(z), the truth is sigmoid(z / 2)."""
    targets, probabilities = table.require_targets(), table.probabilities
    first, second = (
        Predictions.from_arrays(targets[half], probabilities[half], LABELS)
        for half in (slice(350), slice(350, None))
    )
    result = calibration_report(second, fit_calibration(first), resamples=300)
    assert result.after is not None
    assert result.change is not None
    assert result.records == 350
    assert list(result.positives.values()) == targets[350:].sum(axis=0).tolist()
    for name in ("log_loss", "brier", "ece_width", "ece_mass"):
        assert result.after.macro[name] < result.before.macro[name]
    for name, (change, interval) in result.change.items():
        assert change == pytest.approx(result.after.macro[name] - result.before.macro[name])
        assert interval is not None
        assert interval[0] < change < interval[1] < 0


def test_folds_are_calibrated_by_the_other_folds(table: Predictions) -> None:
    targets, probabilities = table.require_targets(), table.probabilities
    places = np.arange(700) % 3
    expected, called = np.empty_like(probabilities), np.empty(targets.shape, dtype=bool)
    for fold in range(3):
        rows = places == fold
        part = Predictions.from_arrays(targets[~rows], probabilities[~rows], LABELS)
        fitted = fit_calibration(part)
        expected[rows] = fitted.apply(probabilities[rows])
        called[rows] = fitted.decide(expected[rows])
    whole = fit_calibration(table)
    result = calibration_report(table, whole, folds=places, resamples=0)
    assert result.after is not None
    assert result.decisions is not None
    assert result.after.macro == pytest.approx(quality(targets, expected).macro)
    assert result.decisions["called"].tolist() == called.sum(axis=0).tolist()
    assert result.decisions["threshold"].tolist() == list(whole.thresholds)
    assert (
        result.after.macro["log_loss"]
        > quality(targets, whole.apply(probabilities)).macro["log_loss"]
    )


def test_thresholds_without_temperatures_leave_the_probabilities_as_they_are() -> None:
    """Ten positives are too few for temperatures."""
    rng = np.random.default_rng(4)
    targets, probabilities = np.zeros((200, 1), dtype=np.uint8), rng.random((200, 1))
    targets[:10] = 1
    few = Predictions.from_arrays(targets, probabilities, ["a"])
    for folds in (None, np.arange(200) % 4):
        result = calibration_report(few, fit_calibration(few), folds=folds, resamples=20)
        assert result.after is result.change is None
        assert result.probabilities == pytest.approx(probabilities)
        assert result.decisions is not None
        assert result.decisions.loc["a", "called"] > 0
        assert result.to_dict()["change"] == {}


def test_intervals_are_those_of_the_resampled_means(table: Predictions) -> None:
    """Compare with the standard error of a mean."""
    targets, probabilities = table.require_targets(), table.probabilities
    fitted = Calibration((2.0,) * 3, (0.0,) * 3, (0.5,) * 3)
    result = calibration_report(table, fitted, resamples=4000, seed=3)
    each = ((fitted.apply(probabilities) - targets) ** 2 - (probabilities - targets) ** 2).mean(
        axis=1
    )
    error = each.std() / np.sqrt(len(each))
    assert result.change is not None
    low, high = result.change["brier"][1] or (0.0, 0.0)
    assert low == pytest.approx(each.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(each.mean() + 1.96 * error, abs=0.15 * error)
    two = replace(table, patients=np.arange(700) // 350)
    whole = calibration_report(two, fitted, resamples=200, by="patient")
    wide = (whole.change or {})["brier"][1] or (0.0, 0.0)
    halves = sorted([each[:350].mean(), each[350:].mean()])
    assert wide == pytest.approx(halves)  # two patients: both, or one of them twice


def test_decisions_equal_scikit_learn(table: Predictions) -> None:
    fitted = fit_calibration(table)
    result = calibration_report(table, fitted, resamples=0).decisions
    assert result is not None
    called = fitted.decide(fitted.apply(table.probabilities))
    for label, y, c in zip(LABELS, table.require_targets().T, called.T, strict=True):
        row = result.loc[label]
        assert row["called"] == c.sum()
        assert row["sensitivity"] == pytest.approx(recall_score(y, c))
        assert row["specificity"] == pytest.approx(recall_score(1 - y, ~c))
        assert row["precision"] == pytest.approx(precision_score(y, c))
        assert row["npv"] == pytest.approx(precision_score(1 - y, ~c))
        names = ("true_negatives", "false_positives", "false_negatives", "true_positives")
        assert [row[name] for name in names] == confusion_matrix(y, c).ravel().tolist()
        assert row["f1"] == pytest.approx(f1_score(y, c))
        share, n, z = row["sensitivity"], y.sum(), 1.959964
        middle, half = share + z**2 / 2 / n, z * np.sqrt(share * (1 - share) / n + (z / 2 / n) ** 2)
        wilson = np.array([middle - half, middle + half]) / (1 + z**2 / n)
        np.testing.assert_allclose(row["sensitivity_interval"], wilson, rtol=1e-6)


def test_the_report_is_json(table: Predictions) -> None:
    targets = table.require_targets().copy()
    targets[:, 2] = 0
    fitted = Calibration((2.0,) * 3, (0.0,) * 3, (0.5, 0.5, 1.0))
    result = calibration_report(replace(table, targets=targets), fitted, resamples=20)
    stored = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert stored["decisions"]["c"]["sensitivity"] is None
    assert stored["decisions"]["c"]["sensitivity_interval"] is None
    assert stored["decisions"]["c"]["sensitivity_interval_reason"] == TOO_FEW
    assert stored["before"]["per_label"]["a"]["brier"] == result.before.per_label["brier"].iloc[0]
    assert sum(each["records"] for each in stored["after"]["bins_mass"]) == 3 * 700
    assert [row["threshold"] for row in stored["decisions"].values()] == [0.5, 0.5, 1.0]
    assert (stored["unit"], stored["resamples"]) == ("record", 20)
    bare = calibration_report(table, resamples=0)
    assert bare.to_dict()["after"] is None
    assert bare.to_dict()["change"] == {}


def test_invalid_input_is_refused(table: Predictions) -> None:
    with pytest.raises(EvaluationError, match="0 bins"):
        calibration_report(table, bins=0)
    with pytest.raises(CalibrationError, match="2 labels"):
        calibration_report(table, Calibration((1.0,) * 2, (0.0,) * 2, (0.5,) * 2))


def confusion(hits: int, missed: int, cleared: int, alarms: int) -> dict[str, int]:
    return {
        "true_positives": hits,
        "false_negatives": missed,
        "true_negatives": cleared,
        "false_positives": alarms,
    }


def test_predictive_values_at_the_prevalence_of_the_records_are_those_of_the_calls() -> None:
    values = predictive_values(confusion(40, 10, 180, 20), 50 / 250, 0.95)
    assert values["ppv"] == pytest.approx(40 / 60)
    assert values["npv"] == pytest.approx(180 / 190)


def test_predictive_values_at_another_prevalence_follow_from_bayes() -> None:
    """Of 10,000 people 200 are ill: 160 of them are called, and 980 of the others."""
    values = predictive_values(confusion(40, 10, 180, 20), 0.02, 0.95)
    assert values["ppv"] == pytest.approx(160 / (160 + 980))
    assert values["npv"] == pytest.approx(8820 / (8820 + 40))
    assert values["ppv_interval"][0] < values["ppv"] < values["ppv_interval"][1]


def test_perfect_calls_have_predictive_values_with_intervals() -> None:
    values = predictive_values(confusion(30, 0, 70, 0), 0.1, 0.95)
    assert (values["ppv"], values["npv"]) == (1, 1)
    assert values["ppv_interval"][0] < 1
    assert values["ppv_interval"][1] == values["npv_interval"][1] == 1
    few = predictive_values(confusion(4, 0, 70, 0), 0.1, 0.95)
    assert few["ppv_interval"] is few["npv_interval"] is None
    assert few["ppv_interval_reason"] == TOO_FEW
    never = predictive_values(confusion(0, 30, 70, 0), 0.1, 0.95)
    assert never["ppv"] is never["ppv_interval"] is None
    assert never["npv"] == pytest.approx(0.9)


@pytest.mark.parametrize("prevalence", [1e-4, 0.01, 0.5, 0.99])
def test_an_interval_contains_its_predictive_value(prevalence: float) -> None:
    for hits, alarms in product((0, 1, 10, 22, 23), (0, 1, 100, 396, 397)):
        table = confusion(hits, 23 - hits, 397 - alarms, alarms)
        values = predictive_values(table, prevalence, 0.95)
        for name in ("ppv", "npv"):
            if values[name] is None:
                assert values[f"{name}_interval"] is None
                continue
            low, high = values[f"{name}_interval"]
            assert 0 <= low <= values[name] <= high <= 1
            assert high - low < 1
