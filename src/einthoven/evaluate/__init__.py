"""Predictions to numbers: metrics, intervals, comparisons, calibration and subgroups."""

from einthoven.evaluate.calibrate import fit_calibration
from einthoven.evaluate.comparison import Comparison, Difference, compare
from einthoven.evaluate.measures import ValueScore
from einthoven.evaluate.metrics import auroc, average_precision, f_max, trapezoid_auprc
from einthoven.evaluate.reliability import CalibrationReport, calibration_report
from einthoven.evaluate.scores import Score, score, score_predictions
from einthoven.evaluate.subgroups import Subgroups, score_subgroups

__all__ = [
    "CalibrationReport",
    "Comparison",
    "Difference",
    "Score",
    "Subgroups",
    "ValueScore",
    "auroc",
    "average_precision",
    "calibration_report",
    "compare",
    "f_max",
    "fit_calibration",
    "score",
    "score_predictions",
    "score_subgroups",
    "trapezoid_auprc",
]


def __dir__() -> list[str]:
    return sorted(__all__)
