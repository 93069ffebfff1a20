"""Tables of predictions, calibration of probabilities, and prediction sets."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name != "Predictions":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Imported when it is first used, because it imports pandas.
    return import_module("einthoven.predictions.table").Predictions


def __dir__() -> list[str]:
    return sorted(__all__)
