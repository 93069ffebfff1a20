"""The fitted temperatures are the optimum that the rule asks for; thresholds are F1's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.metrics import f1_score

from einthoven.errors import EvaluationError
from einthoven.evaluate import fit_calibration
from einthoven.evaluate.calibrate import (
    BIAS_SPREAD,
    FEWEST_POSITIVES_FOR_F1,
    LIMIT,
    NO_THRESHOLD,
    SPREAD,
    best_thresholds,
)
from einthoven.predictions import Calibration

Floats = NDArray[np.float64]
LABELS = ("a", "b", "c", "d")


def drawn(
    temperatures: Any, *, records: int, offset: Any = -1.0, seed: int = 0
) -> tuple[NDArray[np.uint8], Floats]:
    """Targets drawn from sigmoid(z / T), and what a network that says sigmoid(z) says."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(records, len(temperatures))) * 2 + np.asarray(offset)
    true = generator.random(z.shape) < expit(z / np.asarray(temperatures))
    return true.astype(np.uint8), expit(z)


def penalised(z: Floats, y: NDArray[np.uint8], shared: float, spread: float, values: Any) -> float:
    """The objective of the rule, written down once more."""
    slope, bias = values[0], values[1] if len(values) > 1 else 0.0
    score = slope * z + bias
    loss = float((np.logaddexp(0, score) - y * score).sum())
    prior = (slope / shared - 1) ** 2 / spread**2 / 2 + bias**2 / BIAS_SPREAD**2 / 2
    return loss + prior


def test_it_finds_the_temperatures_that_the_data_were_drawn_with() -> None:
    wanted = np.array([0.5, 1.0, 2.0, 4.0])
    found = fit_calibration(*drawn(wanted, records=40_000), LABELS, spread=10)
    assert np.array(found.temperatures) == pytest.approx(wanted, rel=0.06)
    assert found.biases == (0.0,) * 4


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("spread", [SPREAD, 0.5])
def test_every_label_is_at_the_minimum_of_its_objective(bias: bool, spread: float) -> None:
    targets, given = drawn([0.7, 1.3, 1.0, 2.0], records=600, offset=[-3.0, -1.0, 0.0, 1.0])
    found = fit_calibration(targets, given, LABELS, bias=bias, spread=spread)
    z = logit(given)
    pairs = z.reshape(-1), targets.reshape(-1)
    shared = minimize(
        lambda v: np.logaddexp(0, v[0] * pairs[0]).sum() - v[0] * pairs[0] @ pairs[1]
        + (v[0] - 1) ** 2 / 2, [1.0],
    ).x.item()  # fmt: skip
    for label in range(4):
        asked = [1 / found.temperatures[label], *([found.biases[label]] if bias else [])]
        best = minimize(
            lambda v, i=label: penalised(z[:, i], targets[:, i], shared, spread, v),
            [shared, 0.0][: len(asked)],
        )
        assert asked == pytest.approx(best.x, abs=2e-4)


def test_what_few_records_say_weighs_little_and_what_many_say_wins() -> None:
    """The fourth label alone was drawn at another temperature."""
    wanted = [1.0, 1.0, 1.0, 3.0]
    shared, own = {}, {}
    for records in (40, 400, 40_000):
        table = drawn(wanted, records=records, offset=0.0)
        tight = fit_calibration(*table, LABELS, spread=1e-6).temperatures
        assert np.ptp(tight) < 1e-3
        shared[records] = tight[0]
        own[records] = fit_calibration(*table, LABELS).temperatures[3]
    assert own[40] == pytest.approx(shared[40], rel=2 * SPREAD)
    assert own[40_000] == pytest.approx(3.0, rel=0.05)
    moved = {n: own[n] / shared[n] - 1 for n in own}
    assert moved[40] < moved[400] < moved[40_000]


def test_calibrated_probabilities_predict_better_where_they_were_wrong() -> None:
    targets, given = drawn([2.0, 2.0, 0.5, 1.0], records=3000)
    fresh, said = drawn([2.0, 2.0, 0.5, 1.0], records=3000, seed=1)
    calibrated = fit_calibration(targets, given, LABELS).apply(said)

    def loss(p: Floats) -> Floats:
        return -np.where(fresh == 1, np.log(p), np.log1p(-p)).mean(axis=0)

    assert (loss(calibrated)[:3] < loss(said)[:3] - 0.002).all()
    assert abs(loss(calibrated)[3] - loss(said)[3]) < 0.002


def test_undefined_labels_get_the_shared_temperature_and_no_threshold() -> None:
    targets, given = drawn([2.0, 2.0, 1.0, 1.0], records=500)
    targets[:, 2], targets[:, 3] = 0, 1
    for bias in (False, True):
        found = fit_calibration(targets, given, LABELS, bias=bias)
        assert found.temperatures[2] == found.temperatures[3]
        assert found.biases[2:] == (0.0, 0.0)
        assert found.thresholds[2:] == (NO_THRESHOLD, NO_THRESHOLD)


def test_a_label_that_is_ranked_backwards_keeps_a_temperature() -> None:
    targets, given = drawn([1.0, 1.0, 1.0, 1.0], records=4000)
    given[:, 1] = 1 - given[:, 1]
    for bias in (False, True):
        found = fit_calibration(targets, given, LABELS, bias=bias)
        shared = fit_calibration(targets, given, LABELS, spread=1e-6).temperatures[0]
        assert found.temperatures[1] == pytest.approx(LIMIT * shared, rel=1e-3)


def test_certain_and_separable_predictions_end_in_finite_numbers() -> None:
    targets = np.array([[1, 0], [0, 1], [1, 0], [0, 0]] * 5, dtype=np.uint8)
    for given in (targets.astype(float), 1.0 - targets, np.full(targets.shape, 0.5)):
        found = fit_calibration(targets, given, ("a", "b"), bias=True)
        assert all(1 / LIMIT**2 <= t <= LIMIT**2 for t in found.temperatures)


def test_the_threshold_is_the_best_there_is() -> None:
    generator = np.random.default_rng(3)
    targets = (generator.random((200, 4)) < [0.5, 0.2, 0.1, 0.05]).astype(np.uint8)
    given = expit(generator.normal(size=(200, 4)) + targets).round(2)
    for label, limit in enumerate(best_thresholds(targets, given)):
        found = f1_score(targets[:, label], given[:, label] >= limit)
        cuts = np.unique(given[:, label])
        every = [f1_score(targets[:, label], given[:, label] >= cut) for cut in cuts]
        assert found == pytest.approx(max(every), abs=1e-12)
        best = cuts[np.flatnonzero(np.isclose(every, max(every), atol=1e-12, rtol=0))[-1]]
        assert limit <= best  # the highest of equal ones: half way to the next lower one
        assert limit == pytest.approx((best + cuts[cuts < best].max(initial=0.0)) / 2)


def test_of_equal_f1_the_highest_threshold_wins() -> None:
    """Calling one of two right, or both of them and two more: F1 is 2/3 either way."""
    targets = np.array([1, 0, 0, 1, 0, 0] + [0] * 4, dtype=np.uint8)
    given = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.1] + [0.05] * 4)
    many = (
        np.tile(targets, FEWEST_POSITIVES_FOR_F1)[:, None],
        np.tile(given, FEWEST_POSITIVES_FOR_F1)[:, None],
    )
    assert best_thresholds(*many) == (pytest.approx(0.85),)


def test_labels_with_few_positives_are_called_as_often_as_they_have_them() -> None:
    targets = np.zeros((100, 2), dtype=np.uint8)
    targets[[50, 80], 0] = targets[: FEWEST_POSITIVES_FOR_F1 + 1, 1] = 1
    given = np.linspace(0.99, 0.01, 100)[:, None].repeat(2, axis=1)
    found = Calibration((1.0, 1.0), (0.0, 0.0), best_thresholds(targets, given))
    assert found.decide(given).sum(axis=0).tolist() == [2, FEWEST_POSITIVES_FOR_F1 + 1]
    tied = np.round(given, 1)
    limits = Calibration((1.0, 1.0), (0.0, 0.0), best_thresholds(targets, tied))
    assert limits.decide(tied).sum(axis=0)[0] == 5  # the five that share the highest probability


def test_the_order_of_records_changes_nothing() -> None:
    targets, given = drawn([0.8, 1.0, 1.5, 2.0], records=300)
    order = np.random.default_rng(0).permutation(300)
    one = fit_calibration(targets, given, LABELS)
    two = fit_calibration(targets[order], given[order], LABELS)
    for name, values in one.to_dict().items():
        assert values == pytest.approx(two.to_dict()[name], rel=1e-9)


def test_what_cannot_be_fitted_is_refused() -> None:
    targets, given = drawn([1.0] * 4, records=20)
    with pytest.raises(EvaluationError, match="spread = 0"):
        fit_calibration(targets, given, LABELS, spread=0)
    with pytest.raises(EvaluationError, match="same records"):
        fit_calibration(targets[:-1], given, LABELS)
    with pytest.raises(EvaluationError):
        fit_calibration(targets, given * 3, LABELS)
