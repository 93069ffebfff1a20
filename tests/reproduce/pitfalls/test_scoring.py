"""Right and wrong on the same resamples: equal things differ by nothing."""

from __future__ import annotations

import numpy as np
import pytest

from einthoven.evaluate import score
from einthoven.reproduce.pitfalls.scoring import (
    METRICS,
    Resamples,
    Scored,
    macros_of_subsets,
    mean,
)

DRAWS = np.random.default_rng(3)
TARGETS = (DRAWS.random((60, 3)) < 0.4).astype(np.uint8)
PROBABILITIES = DRAWS.random((60, 3))
PATIENTS = np.array([f"p{i // 2}" for i in range(60)])
EVERY = np.arange(60)


def test_points_are_those_of_score_and_nothing_differs_from_itself() -> None:
    scored = Scored(TARGETS, PROBABILITIES, EVERY)
    found = Resamples.of(PATIENTS, count=50, seed=0).effects("the same", scored, scored)
    known = score(TARGETS, PROBABILITIES, labels=["a", "b", "c"], resamples=0)
    assert [effect.metric for effect in found] == list(METRICS)
    assert found[0].right == pytest.approx(known.macro_auroc)
    assert found[1].wrong == pytest.approx(known.macro_auprc)
    assert all(effect.difference == 0 and effect.interval == (0, 0) for effect in found)


def test_a_row_that_occurs_twice_changes_what_its_record_weighs_in_every_resample() -> None:
    once = Scored(TARGETS, PROBABILITIES, EVERY)
    twice = Scored(
        np.repeat(TARGETS, 2, axis=0), np.repeat(PROBABILITIES, 2, axis=0), np.repeat(EVERY, 2)
    )
    auroc, auprc = Resamples.of(PATIENTS, count=50, seed=0).effects("twice", once, twice)
    # Every record twice is every record once, in each resample as in the whole.
    for effect in (auroc, auprc):
        assert effect.difference == pytest.approx(0, abs=1e-12)
        assert effect.interval == pytest.approx((0, 0), abs=1e-12)


def test_a_worse_score_is_below_with_its_whole_interval() -> None:
    right = Scored(TARGETS, np.clip(TARGETS * 0.5 + 0.5 * PROBABILITIES, 0, 1), EVERY)
    wrong = Scored(TARGETS, PROBABILITIES, EVERY)
    auroc, _ = Resamples.of(PATIENTS, count=200, seed=0).effects("noise", right, wrong)
    assert auroc.interval is not None
    assert auroc.interval[0] <= auroc.difference <= auroc.interval[1] < 0


def test_subsets_are_scored_as_if_they_were_all_there_is() -> None:
    scored = Scored(TARGETS, PROBABILITIES, EVERY)
    subsets = DRAWS.random((5, 60)) < 0.5
    areas, precisions = macros_of_subsets(scored, subsets)
    for place, kept in enumerate(subsets):
        alone = Scored(TARGETS[kept], PROBABILITIES[kept], np.arange(kept.sum())).points()
        np.testing.assert_allclose(areas[place], alone[0])
        np.testing.assert_allclose(precisions[place], alone[1])


def test_a_mean_leaves_undefined_labels_out() -> None:
    assert mean(np.array([0.9, np.nan, 0.7])) == pytest.approx(0.8)
    assert np.isnan(mean(np.array([np.nan])))
