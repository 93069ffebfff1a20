"""Undefined labels and averages, beside what scikit-learn says."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import average_precision_score, roc_auc_score

from einthoven.reproduce.pitfalls.material import Material
from einthoven.reproduce.pitfalls.scoring import Scored
from einthoven.reproduce.pitfalls.undefined import (
    TENTHS,
    averages,
    macro_with,
    random_subsets,
    undefined,
)


def test_policies_differ_by_what_a_gap_counts_as() -> None:
    values = np.array([[0.9, np.nan], [0.8, 0.6]])
    assert macro_with(values, np.nan).tolist() == pytest.approx([0.9, 0.7])
    assert macro_with(values, 0.0).tolist() == pytest.approx([0.45, 0.7])
    assert macro_with(values, 0.5).tolist() == pytest.approx([0.7, 0.7])


def test_averages_are_scikit_learns() -> None:
    draws = np.random.default_rng(0)
    targets = (draws.random((80, 4)) < [0.1, 0.3, 0.5, 0.7]).astype(np.uint8)
    scored = Scored(targets, draws.random((80, 4)), np.arange(80))
    found = {(each.what, each.metric): each for each in averages(scored)}
    for metric, judge in (
        ("macro AUROC", roc_auc_score), ("macro AUPRC", average_precision_score)
    ):  # fmt: skip
        for what, name in (
            ("micro average", "micro"), ("average weighted by positives", "weighted")
        ):  # fmt: skip
            effect = found[what, metric]
            assert effect.wrong == pytest.approx(judge(targets, scored.probabilities, average=name))
            assert effect.right == pytest.approx(judge(targets, scored.probabilities))


def test_what_the_page_says_of_scikit_learn() -> None:
    """docs/protocol.md: NaN with a warning for AUROC, 0 with a warning for average precision."""
    targets = np.array([[0, 1], [0, 0], [0, 1]])
    scores = np.array([[0.1, 0.9], [0.2, 0.3], [0.3, 0.8]])
    with pytest.warns(UndefinedMetricWarning):
        assert np.isnan(roc_auc_score(targets, scores))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert average_precision_score(targets, scores) == pytest.approx(0.5)
    assert said


def test_tenths_hold_fewer_labels_and_zero_is_the_lowest(material: Material) -> None:
    found = undefined(material)
    by_policy = {(each.what, each.metric): each for each in found.effects}
    out, zero, half = (
        by_policy[TENTHS.format(name), "macro AUROC"] for name in ("left out", "as 0", "as 0.5")
    )
    assert zero.wrong < half.wrong
    assert zero.wrong < out.wrong
    assert zero.right == half.right == np.nanmean(material.test.scored().points()[0])
    assert zero.interval is not None
    assert zero.interval[0] <= zero.difference <= zero.interval[1]
    assert (TENTHS.format("as 0.5"), "macro AUPRC") not in by_policy
    # A tenth of so few patients cannot hold every label, but more of them than at random.
    at_random, ours = re.findall(r"of ([\d.]+) labels|of (\d+)\.$", found.notes[1])
    assert float(ours[1]) < float(at_random[0])


def test_subsets_are_of_one_size_and_follow_from_the_seed() -> None:
    found = random_subsets(95, 0.1, draws=7, seed=0)
    assert (found.sum(axis=1) == 10).all()
    np.testing.assert_array_equal(found, random_subsets(95, 0.1, draws=7, seed=0))
    assert (found != random_subsets(95, 0.1, draws=7, seed=1)).any()
