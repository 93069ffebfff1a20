"""Calibration errors by hand, against scikit-learn, and what they must not depend on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, f1_score, log_loss, precision_score, recall_score

from einthoven.errors import CalibrationError, EvaluationError
from einthoven.evaluate import calibration_report, fit_calibration
from einthoven.evaluate.reliability import measure_quality
from einthoven.predictions import Calibration

LABELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def table() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    z = generator.normal(size=(700, 3)) * 2 + [0.0, -2.0, -4.0]
    targets = (generator.random(z.shape) < expit(z / 2)).astype(np.uint8)
    return targets, expit(z)


def test_by_hand() -> None:
    """Two bins: 0.2 and 0.4 with one positive (0.3 said, 0.5 seen), 0.9 with one (0.9, 1.0)."""
    targets = np.array([[1], [0], [1]], dtype=np.uint8)
    given = np.array([[0.2], [0.4], [0.9]])
    found = measure_quality(targets, given, bins=2)
    assert found.ece_width.tolist() == pytest.approx([(2 * 0.2 + 0.1) / 3])
    assert found.width.records.tolist() == [[2, 1]]
    assert found.width.observed.tolist() == [[0.5, 1.0]]
    assert found.brier.tolist() == pytest.approx([(0.64 + 0.16 + 0.01) / 3])
    assert found.log_loss.tolist() == pytest.approx([-np.log([0.2, 0.6, 0.9]).mean()])
    assert found.micro["ece_width"] == pytest.approx(found.macro["ece_width"])


def test_losses_are_scikit_learn_s(table: tuple[np.ndarray, np.ndarray]) -> None:
    targets, given = table
    found = measure_quality(targets, given)
    for label in range(3):
        y, p = targets[:, label], given[:, label]
        assert found.brier[label] == pytest.approx(brier_score_loss(y, p), abs=1e-14)
        assert found.log_loss[label] == pytest.approx(log_loss(y, p), abs=1e-12)
    assert found.micro["brier"] == pytest.approx(found.macro["brier"])
    flat = brier_score_loss(targets.ravel(), given.ravel())
    assert found.micro["brier"] == pytest.approx(flat)


def test_bins_are_scikit_learn_s(table: tuple[np.ndarray, np.ndarray]) -> None:
    targets, given = table
    found = measure_quality(targets, given, bins=7)
    for label in range(3):
        y, p = targets[:, label], given[:, label]
        observed, said = calibration_curve(y, p, n_bins=7, strategy="uniform")
        some = found.width.records[label] > 0
        assert found.width.observed[label][some] == pytest.approx(observed)
        assert found.width.probability[label][some] == pytest.approx(said)
        observed, said = calibration_curve(y, p, n_bins=7, strategy="quantile")
        assert found.mass.observed[label] == pytest.approx(observed, abs=0.02)
        assert found.mass.records[label].tolist() == [100] * 7


def test_equal_probabilities_share_a_bin_and_order_changes_nothing() -> None:
    generator = np.random.default_rng(2)
    targets = (generator.random((90, 2)) < 0.3).astype(np.uint8)
    given = generator.choice([0.1, 0.3, 0.35, 0.8], size=(90, 2))
    order = generator.permutation(90)
    one, two = (
        measure_quality(targets, given, bins=6),
        measure_quality(targets[order], given[order], bins=6),
    )
    assert one.ece_mass == pytest.approx(two.ece_mass, abs=1e-15)
    for label in range(2):
        said = one.mass.probability[label]
        assert set(said[~np.isnan(said)].round(12)) <= {0.1, 0.3, 0.35, 0.8}


def test_right_probabilities_have_no_error_and_wrong_ones_their_own() -> None:
    targets = np.array([[1], [0], [0], [0]] * 25, dtype=np.uint8)
    for said, error in ((0.25, 0.0), (0.65, 0.4)):
        found = measure_quality(targets, np.full(targets.shape, said))
        assert found.ece_width == pytest.approx([error], abs=1e-12)
        assert found.ece_mass == pytest.approx([error], abs=1e-12)


def test_certain_errors_cost_much_but_not_everything() -> None:
    found = measure_quality(np.array([[1], [0]], dtype=np.uint8), np.array([[0.0], [0.0]]))
    assert found.log_loss[0] == pytest.approx(-np.log(1e-15) / 2)


def test_before_and_after(table: tuple[np.ndarray, np.ndarray]) -> None:
    """The network said sigmoid(z) where sigmoid(z / 2) was true."""
    targets, given = table
    half = np.arange(len(targets)) < 350
    fitted = fit_calibration(targets[half], given[half], LABELS)
    found = calibration_report(targets[~half], given[~half], LABELS, fitted, resamples=300)
    assert found.after is not None
    assert found.change is not None
    assert found.records == 350
    assert found.positives.tolist() == targets[~half].sum(axis=0).tolist()
    for name in ("log_loss", "brier", "ece_width", "ece_mass"):
        assert found.after.macro[name] < found.before.macro[name]
    for name, (change, interval) in found.change.items():
        assert change == pytest.approx(found.after.macro[name] - found.before.macro[name])
        assert interval is not None
        assert interval[0] < change < interval[1] < 0


def test_intervals_are_those_of_the_resampled_means(table: tuple[np.ndarray, np.ndarray]) -> None:
    """The standard error of a mean is known."""
    targets, given = table
    fitted = Calibration((2.0,) * 3, (0.0,) * 3, (0.5,) * 3)
    found = calibration_report(targets, given, LABELS, fitted, resamples=4000, seed=3)
    each = ((fitted.apply(given) - targets) ** 2 - (given - targets) ** 2).mean(axis=1)
    error = each.std() / np.sqrt(len(each))
    assert found.change is not None
    low, high = found.change["brier"][1] or (0.0, 0.0)
    assert low == pytest.approx(each.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(each.mean() + 1.96 * error, abs=0.15 * error)
    whole = calibration_report(
        targets, given, LABELS, fitted, resamples=200, groups=np.arange(700) // 350
    )
    assert whole.unit == "patient"
    wide = (whole.change or {})["brier"][1] or (0.0, 0.0)
    halves = sorted([each[:350].mean(), each[350:].mean()])
    assert wide == pytest.approx(halves)  # two patients: both, or one of them twice


def test_decisions_are_counted(table: tuple[np.ndarray, np.ndarray]) -> None:
    targets, given = table
    fitted = fit_calibration(targets, given, LABELS)
    found = calibration_report(targets, given, LABELS, fitted, resamples=0).decisions
    assert found is not None
    called = fitted.decide(fitted.apply(given))
    for label in range(3):
        y, c = targets[:, label], called[:, label]
        assert found.called[label] == c.sum()
        assert found.sensitivity[label] == pytest.approx(recall_score(y, c))
        assert found.specificity[label] == pytest.approx(recall_score(1 - y, ~c))
        assert found.precision[label] == pytest.approx(precision_score(y, c))
        assert found.f1[label] == pytest.approx(f1_score(y, c))


def test_it_is_json_and_a_table(table: tuple[np.ndarray, np.ndarray]) -> None:
    targets, given = table[0].copy(), table[1]
    targets[:, 2] = 0
    fitted = Calibration((1.0,) * 3, (0.0,) * 3, (0.5, 0.5, 1.0))
    found = calibration_report(targets, given, LABELS, fitted, resamples=20)
    said = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert said["decisions"]["c"]["sensitivity"] is None
    assert said["before"]["per_label"]["a"]["brier"] == found.before.brier[0]
    assert sum(each["records"] for each in said["after"]["bins_mass"]) == 3 * 700
    assert found.to_frame()["threshold"].tolist() == [0.5, 0.5, 1.0]
    bare = calibration_report(targets, given, LABELS, resamples=0)
    assert bare.to_dict()["after"] is None
    assert bare.to_dict()["change"] == {}
    assert "brier_after" not in bare.to_frame()


def test_what_cannot_be_measured_is_refused(table: tuple[np.ndarray, np.ndarray]) -> None:
    targets, given = table
    with pytest.raises(EvaluationError, match="same records"):
        calibration_report(targets[1:], given, LABELS)
    with pytest.raises(EvaluationError, match="at least one bin"):
        calibration_report(targets, given, LABELS, bins=0)
    with pytest.raises(CalibrationError, match="2 labels"):
        calibration_report(targets, given, LABELS, Calibration((1.0,) * 2, (0.0,) * 2, (0.5,) * 2))
