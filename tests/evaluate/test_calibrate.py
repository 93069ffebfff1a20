"""Fitting a calibration: optimality of temperatures, rules for thresholds, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import f1_score

from einthoven.errors import EvaluationError
from einthoven.evaluate import calibrate, fit_calibration
from einthoven.evaluate.calibrate import (
    BIAS_SPREAD,
    LIMIT,
    MIN_FOR_F1,
    NO_THRESHOLD,
    SPREAD,
    best_thresholds,
    has_enough,
    rarer_class,
)
from einthoven.predictions import Calibration, Predictions

Floats = NDArray[np.float64]
LABELS = ("a", "b", "c", "d")


def drawn(temperatures: Any, *, records: int, offset: Any = -1.0, seed: int = 0) -> Predictions:
    """Draw targets from sigmoid(z / T), with sigmoid(z) as uncalibrated probabilities."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(records, len(temperatures))) * 2 + np.asarray(offset)
    true = generator.random(z.shape) < expit(z / np.asarray(temperatures))
    return Predictions.from_arrays(true, expit(z), LABELS)


def penalised(z: Floats, y: NDArray[np.uint8], shared: float, spread: float, values: Any) -> float:
    """The penalised loss of one label, written independently."""
    slope, bias = values[0], values[1] if len(values) > 1 else 0.0
    score = slope * z + bias
    loss = float((np.logaddexp(0, score) - y * score).sum())
    prior = (slope / shared - 1) ** 2 / spread**2 / 2 + bias**2 / BIAS_SPREAD**2 / 2
    return loss + prior


def shared_temperature(table: Predictions) -> float:
    """The temperature of every label where none may differ."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "SPREAD", 1e-6)
        temperatures = fit_calibration(table).temperatures
    assert np.ptp(temperatures) < 1e-3
    return temperatures[0]


def test_true_temperatures_are_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "SPREAD", 10)
    expected = np.array([0.5, 1.0, 2.0, 4.0])
    result = fit_calibration(drawn(expected, records=40_000))
    assert np.array(result.temperatures) == pytest.approx(expected, rel=0.06)
    assert result.biases == (0.0,) * 4


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("spread", [SPREAD, 0.5])
def test_every_label_is_at_the_minimum_of_its_objective(
    bias: bool, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "SPREAD", spread)
    table = drawn([0.7, 1.3, 1.0, 2.0], records=600, offset=[-3.0, -1.0, 0.0, 1.0])
    result = fit_calibration(table, bias=bias)
    targets, z = table.require_targets(), logit(table.probabilities)
    pairs = z.reshape(-1), targets.reshape(-1)
    shared = minimize(
        lambda v: np.logaddexp(0, v[0] * pairs[0]).sum() - v[0] * pairs[0] @ pairs[1]
        + (v[0] - 1) ** 2 / 2, [1.0],
    ).x.item()  # fmt: skip
    for label in range(4):
        fitted = [1 / result.temperatures[label], *([result.biases[label]] if bias else [])]
        best = minimize(
            lambda v, i=label: penalised(z[:, i], targets[:, i], shared, spread, v),
            [shared, 0.0][: len(fitted)],
        )
        assert fitted == pytest.approx(best.x, abs=2e-4)


def test_more_records_move_a_label_further_from_the_shared_temperature() -> None:
    """Only the fourth label has another temperature."""
    expected = [1.0, 1.0, 1.0, 3.0]
    shared, separate = {}, {}
    for records in (40, 400, 40_000):
        table = drawn(expected, records=records, offset=0.0)
        shared[records] = shared_temperature(table)
        separate[records] = fit_calibration(table).temperatures[3]
    assert separate[40] == pytest.approx(shared[40], rel=2 * SPREAD)
    assert separate[40_000] == pytest.approx(3.0, rel=0.05)
    moved = {n: separate[n] / shared[n] - 1 for n in separate}
    assert moved[40] < moved[400] < moved[40_000]


def test_calibration_lowers_the_log_loss_of_miscalibrated_labels() -> None:
    fitted = fit_calibration(drawn([2.0, 2.0, 0.5, 1.0], records=3000))
    other = drawn([2.0, 2.0, 0.5, 1.0], records=3000, seed=1)
    fresh, raw = other.require_targets(), other.probabilities
    calibrated = fitted.apply(raw)

    def loss(p: Floats) -> Floats:
        return -np.where(fresh == 1, np.log(p), np.log1p(-p)).mean(axis=0)

    assert (loss(calibrated)[:3] < loss(raw)[:3] - 0.002).all()
    assert abs(loss(calibrated)[3] - loss(raw)[3]) < 0.002


def test_undefined_labels_have_the_shared_temperature_and_no_threshold() -> None:
    table = drawn([2.0, 2.0, 1.0, 1.0], records=500)
    targets = table.require_targets().copy()
    targets[:, 2], targets[:, 3] = 0, 1
    for bias in (False, True):
        result = fit_calibration(replace(table, targets=targets), bias=bias)
        assert result.temperatures[2] == result.temperatures[3]
        assert result.biases[2:] == (0.0, 0.0)
        assert result.thresholds[2:] == (NO_THRESHOLD, NO_THRESHOLD)


def test_the_temperature_of_a_label_ranked_backwards_is_limited() -> None:
    table = drawn([1.0, 1.0, 1.0, 1.0], records=4000)
    probabilities = table.probabilities.copy()
    probabilities[:, 1] = 1 - probabilities[:, 1]
    table = replace(table, probabilities=probabilities)
    for bias in (False, True):
        result = fit_calibration(table, bias=bias)
        assert result.temperatures[1] == pytest.approx(LIMIT * shared_temperature(table), rel=1e-3)


def test_certain_and_separable_predictions_give_finite_parameters() -> None:
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 0]] * 5, dtype=np.uint8)
    for probabilities in (targets.astype(float), 1.0 - targets, np.full(targets.shape, 0.5)):
        result = fit_calibration(Predictions.from_arrays(targets, probabilities), bias=True)
        assert all(1 / LIMIT**2 <= t <= LIMIT**2 for t in result.temperatures)


def test_the_threshold_has_the_highest_f1() -> None:
    generator = np.random.default_rng(3)
    targets = (generator.random((200, 4)) < [0.5, 0.2, 0.1, 0.05]).astype(np.uint8)
    probabilities = expit(generator.normal(size=(200, 4)) + targets).round(2)
    for label, limit in enumerate(best_thresholds(targets, probabilities)):
        result = f1_score(targets[:, label], probabilities[:, label] >= limit)
        cuts = np.unique(probabilities[:, label])
        every = [f1_score(targets[:, label], probabilities[:, label] >= cut) for cut in cuts]
        assert result == pytest.approx(max(every), abs=1e-12)
        best = cuts[np.flatnonzero(np.isclose(every, max(every), atol=1e-12, rtol=0))[-1]]
        assert limit <= best  # the highest of equal ones: half way to the next lower one
        assert limit == pytest.approx((best + cuts[cuts < best].max(initial=0.0)) / 2)


def test_the_highest_threshold_wins_among_equal_f1() -> None:
    """One hit out of one call, or two out of four: F1 is 2/3 both times."""
    targets = np.array([1, 0, 0, 1, 0, 0] + [0] * 4, dtype=np.uint8)
    probabilities = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.1] + [0.05] * 4)
    many = (
        np.tile(targets, MIN_FOR_F1)[:, None],
        np.tile(probabilities, MIN_FOR_F1)[:, None],
    )
    assert best_thresholds(*many) == (pytest.approx(0.85),)


def test_labels_with_few_positives_are_called_as_often_as_they_occur() -> None:
    targets = np.zeros((100, 2), dtype=np.uint8)
    targets[[50, 80], 0] = targets[: MIN_FOR_F1 + 1, 1] = 1
    probabilities = np.linspace(0.99, 0.01, 100)[:, None].repeat(2, axis=1)
    result = Calibration((1.0, 1.0), (0.0, 0.0), best_thresholds(targets, probabilities))
    assert result.decide(probabilities).sum(axis=0).tolist() == [2, MIN_FOR_F1 + 1]
    tied = np.round(probabilities, 1)
    limits = Calibration((1.0, 1.0), (0.0, 0.0), best_thresholds(targets, tied))
    assert limits.decide(tied).sum(axis=0)[0] == 5  # the five that share the highest probability


def test_the_order_of_records_changes_nothing() -> None:
    table = drawn([0.8, 1.0, 1.5, 2.0], records=300)
    order = np.random.default_rng(0).permutation(300)
    targets, probabilities = table.require_targets()[order], table.probabilities[order]
    one = fit_calibration(table)
    two = fit_calibration(Predictions.from_arrays(targets, probabilities, LABELS))
    for name, values in one.to_dict().items():
        assert values == pytest.approx(two.to_dict()[name], rel=1e-9)


def test_a_fit_that_does_not_converge_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 1)) < 0.5).astype(np.uint8)
    table = Predictions.from_arrays(targets, rng.random((200, 1)))
    fit_calibration(table)

    def stopped(*args: Any, **options: Any) -> Any:
        options["options"] = {"maxiter": 1}
        return minimize(*args, **options)

    monkeypatch.setattr(calibrate, "minimize", stopped)
    with pytest.raises(EvaluationError, match="converge"):
        fit_calibration(table)


def test_the_rarer_class_is_counted_by_label() -> None:
    targets = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.uint8)
    assert rarer_class(targets) == 2
    assert not has_enough(np.tile(targets, (19, 1)))
    assert has_enough(np.tile(targets, (20, 1)))
