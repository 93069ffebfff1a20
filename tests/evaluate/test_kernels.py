"""Both kernels against scikit-learn with the multiplicities as sample weights."""

from __future__ import annotations

import sys
from importlib.util import find_spec

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
from einthoven.evaluate.kernels import pick_engine, resampled_metrics
from einthoven.metrics.label_metrics import point_metrics
from einthoven.metrics.ranking import rank

ENGINES = [
    "tensor",
    pytest.param(
        "compiled", marks=pytest.mark.skipif(not find_spec("numba"), reason="needs numba")
    ),
]
Case = tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.uint8]]


def example(decimals: int) -> Case:
    rng = np.random.default_rng(5)
    share = np.array([0.01, 0.05, 0.3, 0.9])
    targets = (rng.random((200, share.size)) < share).astype(np.uint8)
    targets[:2] = [[1], [0]]
    scores = np.round(np.clip(rng.normal(0.3 + 0.2 * targets, 0.25), 0, 1), decimals)
    weights = rng.poisson(1.0, (9, 200)).astype(np.uint8)
    weights[:, :2] = 1
    return targets, scores, weights


def sklearn_trapezoid(
    target: NDArray[np.uint8], score: NDArray[np.float64], *, sample_weight: NDArray[np.uint8]
) -> float:
    precision, recall, _ = precision_recall_curve(target, score, sample_weight=sample_weight)
    return float(auc(recall, precision))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("decimals", [0, 1, 2, 16])
@pytest.mark.parametrize("auprc", ["average-precision", "trapezoid"])
def test_equals_scikit_learn_with_sample_weights(engine: str, decimals: int, auprc: str) -> None:
    targets, scores, weights = example(decimals)
    theirs = average_precision_score if auprc == "average-precision" else sklearn_trapezoid
    areas, precisions = resampled_metrics(
        rank(targets, scores), weights, auprc=auprc, engine=engine
    )
    for i, weight in enumerate(weights):
        for j, (target, score) in enumerate(zip(targets.T, scores.T, strict=True)):
            expected = roc_auc_score(target, score, sample_weight=weight)
            assert areas[i, j] == pytest.approx(expected, abs=1e-12)
            expected = theirs(target, score, sample_weight=weight)
            assert precisions[i, j] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("auprc", ["average-precision", "trapezoid"])
def test_every_record_once_is_the_point(engine: str, auprc: str) -> None:
    targets, scores, _ = example(1)
    ranking = rank(targets, scores)
    once = np.ones((1, len(targets)), np.uint8)
    resampled = resampled_metrics(ranking, once, auprc=auprc, engine=engine)
    for ours, point in zip(resampled, point_metrics(ranking, auprc=auprc), strict=True):
        np.testing.assert_allclose(ours[0], point, rtol=0, atol=1e-14)


@pytest.mark.parametrize("engine", ENGINES)
def test_is_undefined_without_a_positive_or_a_negative(engine: str) -> None:
    targets = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1]], np.uint8)
    ranking = rank(targets, np.linspace(0, 1, 9).reshape(3, 3))
    weights = np.array([[1, 1, 1], [0, 2, 1], [3, 0, 0]], np.uint8)
    for values in resampled_metrics(ranking, weights, engine=engine):
        assert np.isnan(values).tolist() == [[False, True, True], [True] * 3, [True] * 3]


@pytest.mark.parametrize("engine", ENGINES)
def test_large_multiplicities_are_exact(engine: str) -> None:
    targets, scores, weights = example(1)
    ranking = rank(targets, scores)
    large = weights.astype(np.int32) * 100_000  # sums beyond what float32 can hold
    for small, big in zip(
        resampled_metrics(ranking, weights, engine=engine),
        resampled_metrics(ranking, large, engine=engine),
        strict=True,
    ):
        np.testing.assert_allclose(small, big, rtol=0, atol=1e-12)


@pytest.mark.skipif(not find_spec("numba"), reason="needs numba")
@pytest.mark.parametrize("auprc", ["average-precision", "trapezoid"])
def test_paths_agree_across_blocks_and_threads(auprc: str) -> None:
    rng = np.random.default_rng(2)
    targets = (rng.random((700, 40)) < rng.random(40) ** 3).astype(np.uint8)
    targets[:, [0, 3, 4, 39]] = 0  # labels without a positive, between and around the others
    targets[:, [10, 11]] = 1
    ranking = rank(targets, np.round(rng.random((700, 40)), 2))
    weights = rng.poisson(1.0, (1500, 700)).astype(np.uint8)
    both = [
        resampled_metrics(ranking, weights, auprc=auprc, engine=engine)
        for engine in ("tensor", "compiled")
    ]
    for tensor, compiled in zip(*both, strict=True):
        np.testing.assert_allclose(tensor, compiled, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(
            np.isnan(compiled).all(axis=0), targets.sum(axis=0) % len(targets) == 0
        )


def test_the_engine_is_picked_by_work_and_device(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("numba"):
        assert pick_engine("auto", device="cpu", work=10**9) == "compiled"
    assert pick_engine("auto", device="cpu", work=10) == "tensor"
    assert pick_engine("auto", device="cuda", work=10**9) == "tensor"
    monkeypatch.setattr("einthoven.evaluate.kernels.find_spec", lambda name: None)
    assert pick_engine("auto", device="cpu", work=10**9) == "tensor"
    with pytest.raises(EvaluationError, match=r"not installed[\s\S]*einthoven\[fast\]"):
        pick_engine("compiled", device="cpu", work=10)


def test_refuses_unknown_engines_areas_and_devices() -> None:
    ranking = rank(*example(1)[:2])
    weights = np.ones((1, 200), np.uint8)
    with pytest.raises(EvaluationError, match="engine = 'fast' is unknown"):
        resampled_metrics(ranking, weights, engine="fast")
    with pytest.raises(EvaluationError, match="auprc = 'ap' is unknown"):
        resampled_metrics(ranking, weights, auprc="ap")
    for device in ("mps", "gpu", "cuda:99"):
        with pytest.raises(EvaluationError, match=f"device = '{device}' cannot be used"):
            resampled_metrics(ranking, weights, device=device)


def test_the_tensor_path_never_imports_numba() -> None:
    from subprocess import run

    code = (
        "import sys, numpy as np; from einthoven.evaluate import score;"
        "score(np.eye(9), np.eye(9), labels=list('abcdefghi'), resamples=20, absent='skip');"
        "assert 'numba' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    run([sys.executable, "-c", code], check=True)
