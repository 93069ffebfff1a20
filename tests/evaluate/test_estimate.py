"""Confidence intervals against scipy, undefined replicates, policies for undefined labels."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap

from einthoven.errors import EvaluationError
from einthoven.evaluate.estimate import Bootstrap, BootstrapSettings, Estimate, macro
from einthoven.predictions import Predictions

INTERVALS = ("percentile", "basic", "bca")
VALUES = np.array([[0.5, 1.0, 0.75], [0.5, np.nan, 1.0], [np.nan] * 3])
TARGETS = np.array([[1, 0, 1], [0, 0, 1]], np.uint8)


def intervals(
    method: Any,
    point: np.ndarray,
    replicates: np.ndarray,
    *,
    level: float = 0.95,
    jackknife: np.ndarray | None = None,
) -> np.ndarray:
    settings = BootstrapSettings(interval=method, level=level)
    limits = Estimate(point, replicates, jackknife, settings).limits()
    assert limits is not None
    return limits


def bootstrap_of(targets: np.ndarray, policy: Any, resamples: int = 0) -> Bootstrap:
    labels = ("A", "B", "C")[: targets.shape[1]]
    table = Predictions.from_arrays(targets, np.full(targets.shape, 0.5), labels)
    return Bootstrap.of(table, BootstrapSettings(resamples=resamples, undefined_labels=policy))


def skewed(data: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.var(data, axis=axis)


@pytest.mark.parametrize("method", INTERVALS)
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_equals_scipy_on_the_same_replicates(method: str, level: float) -> None:
    data = np.random.default_rng(0).exponential(size=40)
    theirs = bootstrap((data,), skewed, n_resamples=999, method=method, confidence_level=level)
    jackknife = np.array([skewed(np.delete(data, i)) for i in range(40)])
    ours = intervals(
        method,
        np.array([skewed(data)]),
        theirs.bootstrap_distribution[:, None],
        level=level,
        jackknife=jackknife[:, None],
    )
    np.testing.assert_allclose(ours[0], theirs.confidence_interval, rtol=1e-12)


def test_bca_moves_with_the_bias() -> None:
    replicates = np.random.default_rng(0).normal(0.5, 1, (4000, 1))
    jackknife = np.linspace(-1, 1, 11)[:, None]
    point = np.zeros(1)
    plain = intervals("percentile", point, replicates)[0]
    corrected = intervals("bca", point, replicates, jackknife=jackknife)[0]
    # The point is at the replicates' -0.5 quantile, so both limits move by about twice that.
    np.testing.assert_allclose(corrected, plain - 1, atol=0.15)


@pytest.mark.parametrize("method", INTERVALS)
def test_gaps_are_left_out_by_column(method: str) -> None:
    rng = np.random.default_rng(0)
    replicates, jackknife, point = rng.random((200, 3)), rng.random((50, 3)), np.full(3, 0.5)
    gapped, gapped_out = replicates.copy(), jackknife.copy()
    gapped[::2, 1] = gapped_out[::5, 1] = np.nan
    gapped[:, 2] = gapped_out[:, 2] = np.nan
    ours = intervals(method, point, gapped, jackknife=gapped_out)
    whole = intervals(method, point, replicates, jackknife=jackknife)
    np.testing.assert_array_equal(ours[0], whole[0])
    defined = ~np.isnan(gapped_out[:, 1])
    alone = intervals(method, point[:1], replicates[1::2, 1:2], jackknife=jackknife[defined, 1:2])
    np.testing.assert_allclose(ours[1], alone[0], rtol=1e-12)
    assert np.isnan(ours[2]).all()


def test_degenerate_bca_intervals_are_finite() -> None:
    replicates = np.linspace(0.4, 0.6, 101)[:, None]
    beyond = intervals("bca", np.array([0.3]), replicates, jackknife=np.zeros((5, 1)))
    assert np.isfinite(beyond).all()
    assert beyond[0, 0] == pytest.approx(0.4)
    constant = intervals("bca", np.ones(1), np.ones((50, 1)), jackknife=np.ones((9, 1)))
    np.testing.assert_array_equal(constant, [[1.0, 1.0]])


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("skip", [0.75, 0.75, np.nan]),
        ("zero", [0.75, 0.5, 0.0]),
        ("error", [0.75, np.nan, np.nan]),
        ("resample", [0.75, np.nan, np.nan]),
    ],
)
def test_macro_means(policy: str, expected: list[float]) -> None:
    np.testing.assert_array_equal(macro(VALUES, policy), expected)


@pytest.mark.parametrize("policy", ["error", "resample"])
def test_strict_policies_name_the_undefined_labels(policy: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        bootstrap_of(TARGETS, policy)
    assert re.search("positive.* B;.*negative.* C\\b", str(caught.value))
    assert 'undefined_labels="skip"' in caught.value.remedy


def test_lenient_policies_need_one_defined_label() -> None:
    for policy in ("skip", "zero"):
        assert bootstrap_of(TARGETS, policy).settings.undefined_labels == policy
    with pytest.raises(EvaluationError, match="2 of 2 labels") as caught:
        bootstrap_of(TARGETS[:, 1:], "skip")
    assert "skip" not in caught.value.remedy


def test_auto_draws_again_only_where_every_label_is_defined() -> None:
    assert bootstrap_of(TARGETS, "auto").settings.undefined_labels == "skip"
    assert bootstrap_of(TARGETS[:, :1], "auto").settings.undefined_labels == "resample"


def test_only_error_refuses_resamples_that_lack_a_label() -> None:
    targets = np.array([[1, 0], [0, 1], [0, 1], [0, 1]])
    scores = np.full(targets.shape, 0.5)
    with pytest.raises(EvaluationError, match=r"20 .*A in \d+, B in \d+"):
        bootstrap_of(targets, "error", resamples=20).estimate(scores)
    bootstrap_of(targets, "skip", resamples=20).estimate(scores)
