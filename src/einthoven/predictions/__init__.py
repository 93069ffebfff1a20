"""Tables of predictions, calibration of probabilities, and prediction sets."""

from einthoven.predictions.calibration import Calibration, ClassCalibration
from einthoven.predictions.sets import ClassSets, LabelSets, ValueIntervals
from einthoven.predictions.table import Predictions, listed

__all__ = [
    "Calibration",
    "ClassCalibration",
    "ClassSets",
    "LabelSets",
    "Predictions",
    "ValueIntervals",
    "listed",
]


def __dir__() -> list[str]:
    return sorted(__all__)
