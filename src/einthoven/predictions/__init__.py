"""Tables of predictions, calibration of probabilities, and prediction sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from einthoven.lazy import lazy_names
from einthoven.predictions.calibration import Calibration, ClassCalibration
from einthoven.predictions.sets import ClassSets, LabelSets, ValueIntervals

if TYPE_CHECKING:
    from einthoven.predictions.table import Predictions

__all__ = [
    "Calibration",
    "ClassCalibration",
    "ClassSets",
    "LabelSets",
    "Predictions",
    "ValueIntervals",
]


# Imported when it is first used, because it imports pandas.
__getattr__ = lazy_names(__name__, {"Predictions": "predictions.table"})


def __dir__() -> list[str]:
    return sorted(__all__)
