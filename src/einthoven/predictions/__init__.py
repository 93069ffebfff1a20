"""Tables of predicted probabilities, and the calibration of probabilities."""

from einthoven.predictions.calibration import Calibration
from einthoven.predictions.table import (
    Predictions,
    checked_labels,
    checked_probabilities,
    checked_targets,
    listed,
)

__all__ = [
    "Calibration",
    "Predictions",
    "checked_labels",
    "checked_probabilities",
    "checked_targets",
    "listed",
]
