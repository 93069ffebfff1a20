"""Predictions to numbers: metrics, bootstrap intervals, paired comparisons."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from einthoven.evaluate.calibrate import fit_calibration
    from einthoven.evaluate.comparison import Comparison, Difference, compare
    from einthoven.evaluate.metrics import auroc, average_precision, f_max, trapezoid_auprc
    from einthoven.evaluate.reliability import CalibrationReport, calibration_report
    from einthoven.evaluate.scores import Score, score
    from einthoven.evaluate.subgroups import Subgroups, score_subgroups

# No module bears the name of a function: importing it would hide the function.
_HOMES = {
    "CalibrationReport": "einthoven.evaluate.reliability",
    "Comparison": "einthoven.evaluate.comparison",
    "Difference": "einthoven.evaluate.comparison",
    "Score": "einthoven.evaluate.scores",
    "Subgroups": "einthoven.evaluate.subgroups",
    "auroc": "einthoven.evaluate.metrics",
    "average_precision": "einthoven.evaluate.metrics",
    "calibration_report": "einthoven.evaluate.reliability",
    "compare": "einthoven.evaluate.comparison",
    "f_max": "einthoven.evaluate.metrics",
    "fit_calibration": "einthoven.evaluate.calibrate",
    "score": "einthoven.evaluate.scores",
    "score_subgroups": "einthoven.evaluate.subgroups",
    "trapezoid_auprc": "einthoven.evaluate.metrics",
}

__all__ = [
    "CalibrationReport",
    "Comparison",
    "Difference",
    "Score",
    "Subgroups",
    "auroc",
    "average_precision",
    "calibration_report",
    "compare",
    "f_max",
    "fit_calibration",
    "score",
    "score_subgroups",
    "trapezoid_auprc",
]


def __getattr__(name: str) -> Any:
    # pandas and scipy wait until somebody evaluates something.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
