"""Predictions to numbers: metrics, bootstrap intervals, paired comparisons."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from einthoven.evaluate.comparison import Comparison, Difference, compare
    from einthoven.evaluate.metrics import auroc, average_precision, f_max, trapezoid_auprc
    from einthoven.evaluate.scores import Score, score

# No module bears the name of a function: importing it would hide the function.
_HOMES = {
    "Comparison": "comparison",
    "Difference": "comparison",
    "Score": "scores",
    "auroc": "metrics",
    "average_precision": "metrics",
    "compare": "comparison",
    "f_max": "metrics",
    "score": "scores",
    "trapezoid_auprc": "metrics",
}

__all__ = [
    "Comparison",
    "Difference",
    "Score",
    "auroc",
    "average_precision",
    "compare",
    "f_max",
    "score",
    "trapezoid_auprc",
]


def __getattr__(name: str) -> Any:
    # pandas and scipy wait until somebody evaluates something.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
