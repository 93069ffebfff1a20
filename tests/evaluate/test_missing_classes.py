"""Policies for labels without both classes."""

from __future__ import annotations

import numpy as np
import pytest

from einthoven.errors import EvaluationError
from einthoven.evaluate.missing_classes import macro, refuse_gaps, refuse_undefined

VALUES = np.array([[0.5, 1.0, 0.75], [0.5, np.nan, 1.0], [np.nan] * 3])
TARGETS = np.array([[1, 0, 1], [0, 0, 1]], np.uint8)


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
        refuse_undefined(TARGETS, ("A", "B", "C"), policy)
    assert "no positive among 2 records for B" in str(caught.value)
    assert "no negative among 2 records for C" in str(caught.value)
    assert 'undefined_labels="skip"' in caught.value.remedy
    assert "drop these labels" in caught.value.remedy


def test_lenient_policies_need_one_defined_label() -> None:
    refuse_undefined(TARGETS, ("A", "B", "C"), "skip")
    refuse_undefined(TARGETS, ("A", "B", "C"), "zero")
    with pytest.raises(EvaluationError, match="2 of 2 labels are undefined") as caught:
        refuse_undefined(TARGETS[:, 1:], ("B", "C"), "skip")
    assert "skip" not in caught.value.remedy


def test_only_error_refuses_gaps_in_resamples() -> None:
    with pytest.raises(EvaluationError, match=r"2 of 3 resamples lack a label: B in 2, A in 1"):
        refuse_gaps(VALUES, ("A", "B", "C"), "error")
    refuse_gaps(VALUES, ("A", "B", "C"), "skip")
    refuse_gaps(VALUES[:1], ("A", "B", "C"), "error")
