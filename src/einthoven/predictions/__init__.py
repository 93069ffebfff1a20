"""Tables of predicted probabilities, and the calibration of probabilities."""

from einthoven.predictions.calibration import Calibration, ClassCalibration
from einthoven.predictions.table import Predictions, listed

__all__ = ["Calibration", "ClassCalibration", "Predictions", "listed"]


def __dir__() -> list[str]:
    return sorted(__all__)
