"""Metrics against scikit-learn, against their definitions, and by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import (
    auc,
    average_precision_score,
    precision_recall_curve,
    roc_auc_score,
)

from einthoven.errors import EvaluationError
from einthoven.evaluate import auroc, average_precision, f_max, trapezoid_auprc
from einthoven.evaluate.metrics import point_metrics, rank, resampled_metrics


def sklearn_trapezoid(
    target: NDArray[np.uint8],
    score: NDArray[np.float64],
    *,
    sample_weight: NDArray[np.uint8] | None = None,
) -> float:
    precision, recall, _ = precision_recall_curve(target, score, sample_weight=sample_weight)
    return float(auc(recall, precision))


def example(decimals: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    share = np.array([0.004, 0.01, 0.05, 0.3, 0.8, 0.99])
    targets = (rng.random((500, share.size)) < share).astype(np.uint8)
    targets[:1] = 1
    targets[1:2] = 0
    return targets, np.round(np.clip(rng.normal(0.3 + 0.3 * targets, 0.25), 0, 1), decimals)


@pytest.mark.parametrize("decimals", [0, 1, 2, 16])
def test_metrics_equal_scikit_learn_with_ties(decimals: int) -> None:
    targets, scores = example(decimals)
    pairs = [
        (auroc, roc_auc_score),
        (average_precision, average_precision_score),
        (trapezoid_auprc, sklearn_trapezoid),
    ]
    for ours, theirs in pairs:
        expected = [theirs(t, s) for t, s in zip(targets.T, scores.T, strict=True)]
        np.testing.assert_allclose(ours(targets, scores), expected, rtol=0, atol=1e-12)


def test_negative_zero_ties_with_zero() -> None:
    assert auroc([1, 0], [-0.0, 0.0]) == [0.5]


def test_values_by_hand() -> None:
    # Descending: + - (+ -) -, the middle two tied.
    target, score = [1, 0, 1, 0, 0], [0.9, 0.8, 0.5, 0.5, 0.1]
    assert auroc(target, score) == pytest.approx([(3 + 1.5) / 6])
    assert average_precision(target, score) == pytest.approx([0.5 * 1 + 0.5 * 2 / 4])
    assert trapezoid_auprc(target, score) == pytest.approx([0.5 * 1 + 0.5 * (1 / 2 + 2 / 4) / 2])


def test_a_label_with_one_class_is_undefined() -> None:
    targets = np.array([[0, 1, 1], [0, 1, 0]])
    scores = np.array([[0.9] * 3, [0.1] * 3])
    for metric in (auroc, average_precision, trapezoid_auprc):
        np.testing.assert_array_equal(metric(targets, scores), [np.nan, np.nan, 1])


def test_order_of_records_and_labels_does_not_matter() -> None:
    targets, scores = example(1)
    rng = np.random.default_rng(1)
    rows, columns = rng.permutation(len(targets)), rng.permutation(targets.shape[1])
    for metric in (auroc, average_precision, trapezoid_auprc):
        mixed = metric(targets[rows][:, columns], scores[rows][:, columns])
        np.testing.assert_array_equal(mixed, metric(targets, scores)[columns])


@pytest.mark.parametrize("decimals", [0, 1, 2, 16])
@pytest.mark.parametrize(
    ("auprc", "reference"),
    [("average-precision", average_precision_score), ("trapezoid", sklearn_trapezoid)],
)
def test_resamples_equal_scikit_learn_with_sample_weights(
    decimals: int, auprc: str, reference: Callable[..., float]
) -> None:
    targets, scores = example(decimals)
    weights = np.random.default_rng(5).poisson(1.0, (9, len(targets))).astype(np.uint8)
    weights[:, :2] = 1
    areas, precisions, _ = resampled_metrics(rank(targets, scores), weights, auprc=auprc)
    for i, weight in enumerate(weights):
        for j, (target, score) in enumerate(zip(targets.T, scores.T, strict=True)):
            expected = roc_auc_score(target, score, sample_weight=weight)
            assert areas[i, j] == pytest.approx(expected, abs=1e-12)
            expected = reference(target, score, sample_weight=weight)
            assert precisions[i, j] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("auprc", ["average-precision", "trapezoid"])
def test_the_block_size_does_not_change_resamples(
    auprc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets, scores = example(1)
    ranking = rank(targets, scores)
    weights = np.random.default_rng(2).poisson(1.0, (20, len(targets))).astype(np.uint8)
    whole = resampled_metrics(ranking, weights, auprc=auprc)
    monkeypatch.setattr("einthoven.evaluate.metrics.RESAMPLES_AT_A_TIME", 7)
    np.testing.assert_array_equal(resampled_metrics(ranking, weights, auprc=auprc), whole)


def test_resamples_without_a_positive_or_a_negative_are_undefined() -> None:
    targets = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1]], np.uint8)
    ranking = rank(targets, np.linspace(0, 1, 9).reshape(3, 3))
    weights = np.array([[1, 1, 1], [0, 2, 1], [3, 0, 0]], np.uint8)
    for values in resampled_metrics(ranking, weights):
        assert np.isnan(values).tolist() == [[False, True, True], [True] * 3, [True] * 3]


def test_large_multiplicities_are_exact() -> None:
    targets, scores = example(1)
    ranking = rank(targets, scores)
    large = np.full((1, len(targets)), 10_000_000, np.int32)
    for points, values in zip(
        point_metrics(ranking), resampled_metrics(ranking, large), strict=True
    ):
        np.testing.assert_allclose(values[0], points, rtol=0, atol=1e-12)


def slow_f_max(targets: NDArray[np.uint8], scores: NDArray[np.float64]) -> float:
    best = 0.0
    for threshold in np.linspace(0, 1, 101):
        precisions, recalls = [], []
        for true, score in zip(targets, scores, strict=True):
            predicted = score >= threshold
            hits = (predicted & (true == 1)).sum()
            recalls.append(hits / true.sum())
            if predicted.any():
                precisions.append(hits / predicted.sum())
        p, r = np.mean(precisions) if precisions else 0.0, np.mean(recalls)
        best = max(best, 2 * p * r / (p + r) if p + r else 0.0)
    return best


@pytest.mark.parametrize("decimals", [1, 2, 16])
def test_f_max_equals_its_definition(decimals: int) -> None:
    targets, scores = example(decimals)
    targets[targets.sum(axis=1) == 0, 3] = 1
    assert f_max(targets, scores) == pytest.approx(slow_f_max(targets, scores), abs=1e-12)


def test_f_max_of_perfect_and_of_useless_predictions() -> None:
    targets = np.eye(3, dtype=np.uint8)
    assert f_max(targets, targets) == 1.0
    assert f_max(targets, 1 - targets) == pytest.approx(0.5)  # everything predicted at threshold 0


def test_f_max_refuses_a_record_without_a_label() -> None:
    with pytest.raises(EvaluationError, match="1 of 2"):
        f_max([[0, 0], [1, 0]], [[0.1, 0.1], [0.1, 0.1]])


@pytest.mark.parametrize(
    ("targets", "scores", "message"),
    [
        ([[1], [0]], [[0.5]], r"\(2, 1\).*1 records"),
        ([1, 2], [0.5, 0.5], "label 0 .*record 1 .*2"),
        ([1, 0], [0.5, 2.5], r"2\.5"),
        ([1, 0], [0.5, np.nan], "nan"),
        ([], [], "shape"),
    ],
)
def test_invalid_input_is_refused(targets: object, scores: object, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        auroc(targets, scores)  # type: ignore[arg-type]


@pytest.mark.parametrize("tied", [False, True])
def test_leave_one_out_precision_equals_a_loop_over_positives(tied: bool) -> None:
    targets, scores = example(1)
    if not tied:
        scores = (scores + np.random.default_rng(1).random(scores.shape)) / 2
    ranking = rank(targets, scores)
    points = point_metrics(ranking)[2]
    weights = np.random.default_rng(5).poisson(1.0, (5, len(targets))).astype(np.uint8)
    weights[:, :2] = 1
    resampled = resampled_metrics(ranking, weights)[2]

    def loop(target: np.ndarray, score: np.ndarray, weight: np.ndarray) -> float:
        values = []
        for i in np.flatnonzero(target):
            above = (score >= score[i]) & (np.arange(score.size) != i)
            total = weight[above].sum()
            values.append((weight[above] * target[above]).sum() / total if total else 1.0)
        return float(np.average(values, weights=weight[target == 1]))

    for j, (target, score) in enumerate(zip(targets.T, scores.T, strict=True)):
        assert points[j] == pytest.approx(loop(target, score, np.ones(score.size)))
        if not tied:  # of tied positives the mean weight is left out
            expected = [loop(target, score, weight) for weight in weights]
            np.testing.assert_allclose(resampled[:, j], expected, atol=1e-12)
