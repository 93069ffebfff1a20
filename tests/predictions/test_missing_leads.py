"""Labels that are answered with fewer leads."""

from __future__ import annotations

from typing import Any

import pytest

from einthoven.predictions.missing_leads import LARGEST_LOSS, LOWEST_AUROC, answered_labels

BEST = {"auroc": 0.95, "sensitivity": 0.8, "precision": 0.6}


def accuracy(**changes: Any) -> dict[str, Any]:
    """Two labels; with lead I the first one has changed values, with I and V1 none has."""
    whole = {"labels": {"A": BEST, "B": BEST}}
    one = {"leads": ["I"], "labels": {"A": BEST | changes, "B": BEST | {"sensitivity": 0.0}}}
    return {"all": whole, "sets": [one, {"leads": ["I", "V1"], **whole}]}


def test_the_largest_set_among_the_leads_counts() -> None:
    assert answered_labels(accuracy(), ["I"]) == ("A",)
    assert answered_labels(accuracy(), ["I", "V2"]) == ("A",)
    assert answered_labels(accuracy(), ["V2", "V1", "I"]) == ("A", "B")


def test_without_a_measured_set_no_label_is_answered() -> None:
    assert answered_labels(accuracy(), ["V1", "V2"]) == ()


@pytest.mark.parametrize("key", list(BEST))
def test_a_label_is_answered_up_to_the_largest_loss(key: str) -> None:
    at_the_limit = {key: round(BEST[key] - LARGEST_LOSS, 4)}
    beyond = {key: round(BEST[key] - LARGEST_LOSS - 0.0001, 4)}
    assert answered_labels(accuracy(**at_the_limit), ["I"]) == ("A",)
    assert answered_labels(accuracy(**beyond), ["I"]) == ()
    assert answered_labels(accuracy(**{key: None}), ["I"]) == ()


def test_a_low_auroc_is_not_answered_even_without_a_loss() -> None:
    for value, answered in ((LOWEST_AUROC, ("A",)), (LOWEST_AUROC - 0.0001, ())):
        measured = accuracy(auroc=value)
        measured["all"]["labels"]["A"] = BEST | {"auroc": value}
        assert answered_labels(measured, ["I"]) == answered


def test_without_thresholds_only_the_auroc_counts() -> None:
    measured = {
        "all": {"labels": {"A": {"auroc": 0.9}}},
        "sets": [{"leads": ["I"], "labels": {"A": {"auroc": 0.87}}}],
    }
    assert answered_labels(measured, ["I"]) == ("A",)
