"""Penalised logistic regression, and the choice of its penalty."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from einthoven.errors import RecipeError
from einthoven.stages.logistic import PENALTIES, fit_logistic, search_penalty

Arrays = tuple[np.ndarray, np.ndarray]


def drawn(rows: int, *, strength: float = 1.0, seed: int = 0) -> Arrays:
    """Features of unequal scale and offset, of which the first five decide three labels."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, 20))
    logits = strength * features[:, :5] @ random.normal(size=(5, 3)) - 1
    targets = (random.random((rows, 3)) < expit(logits)).astype(float)
    return features * random.uniform(0.1, 5, 20) + 3, targets


@pytest.mark.parametrize("penalty", [0.5, 7.0, 300.0])
def test_optimum_is_that_of_scikit_learn_on_standardised_features(penalty: float) -> None:
    features, targets = drawn(120)
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    logits = fit_logistic(features, targets, penalty).logits(features)
    for label in range(3):
        reference = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=10_000)
        reference.fit(standard, targets[:, label])
        assert logits[:, label] == pytest.approx(reference.decision_function(standard), abs=2e-3)


def test_more_features_than_rows() -> None:
    random = np.random.default_rng(1)
    features, targets = random.normal(size=(30, 200)), random.integers(0, 2, (30, 2)).astype(float)
    fitted = fit_logistic(features, targets, 10.0)
    residual = expit(fitted.logits(features)) - targets
    deviation = features.std(axis=0)
    gradient = ((features - features.mean(axis=0)) / deviation).T @ residual
    assert gradient + 10 * (fitted.weight * deviation).T == pytest.approx(0, abs=1e-3)
    assert residual.sum(axis=0) == pytest.approx(0, abs=1e-3)


def test_weights_of_rows_count_copies_of_a_record_once() -> None:
    features, targets = drawn(60)
    once = fit_logistic(features, targets, 3.0)
    twice = fit_logistic(
        np.tile(features, (2, 1)), np.tile(targets, (2, 1)), 3.0, row_weights=np.full(120, 0.5)
    )
    assert twice.logits(features) == pytest.approx(once.logits(features), abs=1e-9)


def test_label_without_positives_is_finite_and_constant_features_have_no_weight() -> None:
    features, targets = drawn(40)
    features[:, 7], targets[:, 1] = 2.0, 0.0
    fitted = fit_logistic(features, targets, 1.0)
    assert (fitted.weight[1] == 0).all()
    assert (fitted.weight[:, 7] == 0).all()
    assert expit(fitted.bias[1]) == pytest.approx(0.5 / 40)


def test_search_takes_the_lowest_loss_and_a_larger_penalty_for_noise() -> None:
    features, targets = drawn(300, strength=3.0)
    signal = search_penalty(features, targets, np.arange(300))
    noise = search_penalty(features, np.roll(targets, 77, axis=0), np.arange(300))
    for search in (signal, noise):
        assert search.losses[search.penalty] == min(search.losses.values())
        assert set(search.losses) <= set(PENALTIES)
    assert signal.penalty < noise.penalty


def test_logits_of_a_group_are_those_of_a_fit_without_it() -> None:
    features, targets = drawn(40)
    groups = np.repeat(["a", "b"], 20)
    search = search_penalty(features, targets, groups)
    for group in ("a", "b"):
        inside = groups == group
        fitted = fit_logistic(features[~inside], targets[~inside], search.penalty)
        assert search.logits[inside] == pytest.approx(fitted.logits(features[inside]), abs=1e-2)


def test_one_patient_is_refused() -> None:
    features, targets = drawn(10)
    with pytest.raises(RecipeError) as error:
        search_penalty(features, targets, ["a"] * 10)
    assert error.value.remedy
