"""Windows, thresholds and curves, each against a slower way to say the same."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, f1_score, precision_recall_curve

from einthoven.evaluate import f_max
from einthoven.reproduce.pitfalls.choices import (
    best_thresholds,
    joined_windows,
    macro_f1,
    sample_f,
    thresholds,
    trapezoid,
    windows_as_rows,
)
from einthoven.reproduce.pitfalls.material import Material, answers
from einthoven.reproduce.pitfalls.scoring import Resamples

DRAWS = np.random.default_rng(1)
TARGETS = (DRAWS.random((50, 4)) < 0.4).astype(np.uint8)
TARGETS[:, 0] |= ~TARGETS.any(axis=1)
SCORES = np.round(DRAWS.random((50, 4)), 1)  # with ties


def test_the_highest_sample_f_is_f_max() -> None:
    assert sample_f(TARGETS, SCORES).max() == pytest.approx(f_max(TARGETS, SCORES))


def test_best_thresholds_are_the_best_of_all() -> None:
    found = best_thresholds(TARGETS, SCORES)
    for label in range(4):
        scores = [
            f1_score(TARGETS[:, label], SCORES[:, label] >= t) for t in np.unique(SCORES[:, label])
        ]
        called = SCORES[:, label] >= found[label]
        assert f1_score(TARGETS[:, label], called) == pytest.approx(max(scores))
    assert best_thresholds(np.zeros((3, 1), np.uint8), SCORES[:3, :1]).tolist() == [2.0]


def test_macro_f1_is_scikit_learns_and_weights_are_repetitions() -> None:
    limits = np.array([0.3, 0.5, 0.7, 0.2])
    known = f1_score(TARGETS, limits <= SCORES, average="macro")
    assert macro_f1(TARGETS, SCORES, limits) == pytest.approx(known)
    times = DRAWS.integers(0, 3, 50)
    repeated = np.repeat(np.arange(50), times)
    known = macro_f1(TARGETS[repeated], SCORES[repeated], limits)
    assert macro_f1(TARGETS, SCORES, limits, times.astype(float)) == pytest.approx(known)


def test_thresholds_of_the_test_fold_are_never_worse_on_it(material: Material) -> None:
    for effect in thresholds(material).effects:
        assert effect.difference >= 0


def test_trapezoid_is_the_area_under_the_interpolated_curve(material: Material) -> None:
    (effect,) = trapezoid(material).effects
    scored = material.test.scored()
    areas = []
    for label in range(scored.targets.shape[1]):
        if 0 < scored.targets[:, label].sum() < len(scored.targets):
            precision, recall, _ = precision_recall_curve(
                scored.targets[:, label], scored.probabilities[:, label]
            )
            areas.append(auc(recall, precision))
    assert effect.wrong == pytest.approx(np.mean(areas), abs=0.01)


def test_windows_joined_by_hand(material: Material) -> None:
    test = material.test
    each = test.logits.double().sigmoid().numpy()
    third = each[test.owner.numpy() == 2]
    np.testing.assert_allclose(test.joined("probability")[2], third.mean(axis=0))
    np.testing.assert_allclose(test.joined("max")[2], third.max(axis=0))
    rows = windows_as_rows(test)
    assert len(rows.targets) == 4 * len(test.rows)
    np.testing.assert_array_equal(rows.targets, test.targets[rows.records])
    found = joined_windows(material)
    whats = {effect.what for effect in found.effects}
    assert {"highest probability", "mean logit", "every window a row of its own"} <= whats


def test_the_same_answers_for_the_same_signals(material: Material) -> None:
    again = answers(material.model, material.cohort, material.store, "test")
    np.testing.assert_array_equal(again.logits.numpy(), material.test.logits.numpy())
    louder = answers(material.model, material.cohort, material.store, "test", change=(2.0, 0.0))
    effects = Resamples.of(
        material.patients[material.test.rows], count=5, seed=0
    ).effects("louder", material.test.scored(), louder.scored())  # fmt: skip
    assert effects[0].difference != 0
