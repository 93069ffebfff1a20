"""Predictions to numbers: metrics, bootstrap intervals, paired comparisons."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from einthoven.evaluate.comparison import Comparison, Difference, compare
    from einthoven.evaluate.scores import Score, score
    from einthoven.metrics.label_metrics import auroc, average_precision, f_max, trapezoid_auprc

# No module bears the name of a function: importing it would hide the function.
_HOMES = {
    "Comparison": "einthoven.evaluate.comparison",
    "Difference": "einthoven.evaluate.comparison",
    "Score": "einthoven.evaluate.scores",
    "auroc": "einthoven.metrics",
    "average_precision": "einthoven.metrics",
    "compare": "einthoven.evaluate.comparison",
    "f_max": "einthoven.metrics",
    "score": "einthoven.evaluate.scores",
    "trapezoid_auprc": "einthoven.metrics",
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
    return getattr(import_module(_HOMES[name]), name)
