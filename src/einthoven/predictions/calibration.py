"""Calibration of predicted probabilities.

A label's temperature T and bias b act on the logit, `sigmoid(logit(p) / T + b)`: temperature
scaling (Guo et al. 2017, arXiv 1706.04599), with a bias Platt scaling (Platt 1999). Both are
increasing in p, so the ranking of records, and with it AUROC and average precision of a label, do
not change. A label's threshold is a calibrated probability. Classes share one temperature,
`softmax(log(p) / T)`, and the most probable one is called. This module applies a calibration;
`einthoven.evaluate.calibrate` fits it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy.special import expit, logit, softmax

from einthoven.errors import CalibrationError, validated

Temperature = Annotated[float, Field(gt=0)]


@validated("calibration", CalibrationError)
class Calibration:
    """Temperature, bias and threshold of every label, in the order of a classifier's outputs.

    Parameters
    ----------
    temperatures : sequence of float
        Above 0; values above 1 move probabilities towards one half, below 1 away from it.
    biases : sequence of float
        Added to the scaled logit; 0 where only temperatures were fitted.
    thresholds : sequence of float
        Calibrated probabilities, in [0, 1], from which a label is called present.

    Raises
    ------
    CalibrationError
        If lengths differ, or a value is out of range.
    """

    temperatures: Annotated[tuple[Temperature, ...], Field(min_length=1)]
    biases: tuple[float, ...]
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...]

    def __post_init__(self) -> None:
        lengths = {name: len(values) for name, values in vars(self).items()}
        if len(set(lengths.values())) != 1:
            raise CalibrationError(
                f"a calibration has one number of each kind for every label, not {lengths}",
                remedy="pass temperatures, biases and thresholds of the same labels",
            )

    def __len__(self) -> int:
        return len(self.temperatures)

    def apply(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """Calibrate a network's probabilities.

        Parameters
        ----------
        probabilities : array, shape (..., labels)
            In [0, 1]; 0 and 1 do not change.

        Returns
        -------
        array of float64, shape (..., labels)

        Raises
        ------
        CalibrationError
            If the number of labels differs, or a value is outside [0, 1].
        """
        logits = logit(self._checked(probabilities))
        return np.asarray(expit(logits / np.array(self.temperatures) + np.array(self.biases)))

    def decide(self, calibrated: ArrayLike) -> NDArray[np.bool_]:
        """Call a label present where its calibrated probability reaches the threshold.

        Parameters
        ----------
        calibrated : array, shape (..., labels)
            From `apply`.

        Raises
        ------
        CalibrationError
            As `apply`.
        """
        return np.asarray(self._checked(calibrated) >= np.array(self.thresholds))

    def select(self, columns: Sequence[int]) -> Calibration:
        """The calibration of the labels in some columns, in their order."""

        def some(values: Sequence[float]) -> tuple[float, ...]:
            return tuple(values[place] for place in columns)

        return Calibration(some(self.temperatures), some(self.biases), some(self.thresholds))

    def put(self, columns: Sequence[int], some: Calibration) -> Calibration:
        """This calibration with that of the labels in some columns replaced."""
        fields = {name: list(values) for name, values in vars(self).items()}
        for name, values in vars(some).items():
            for place, value in zip(columns, values, strict=True):
                fields[name][place] = value
        return Calibration(**{name: tuple(values) for name, values in fields.items()})

    def after(self, first: Calibration) -> Calibration:
        """One calibration that does what `first` and then this one do, with these thresholds."""
        temperatures, biases = np.array(self.temperatures), np.array(self.biases)
        return Calibration(
            tuple((np.array(first.temperatures) * temperatures).tolist()),
            tuple((np.array(first.biases) / temperatures + biases).tolist()),
            self.thresholds,
        )

    def to_dict(self) -> dict[str, list[float]]:
        """A JSON-serialisable dict of lists, the arguments of an equal calibration."""
        return {name: list(values) for name, values in asdict(self).items()}

    def _checked(self, values: ArrayLike) -> NDArray[np.float64]:
        array = np.asarray(values, dtype=np.float64)
        if not array.ndim or array.shape[-1] != len(self):
            raise CalibrationError(
                f"probabilities of shape {array.shape} for a calibration of {len(self)} labels",
                remedy="pass one column for each label, in the order of the model's labels",
            )
        # Written so that NaN fails the comparison.
        if not bool(((array >= 0) & (array <= 1)).all()):
            raise CalibrationError(
                "probabilities outside [0, 1], or not a number",
                remedy="pass probabilities after the sigmoid",
            )
        return array


@validated("calibration", CalibrationError)
class ClassCalibration:
    """Temperature of the classes of one softmax.

    Parameters
    ----------
    classes : int
        Number of classes.
    temperature : float
        Above 0; values above 1 move probabilities towards each other.
    weights : sequence of float
        Weights that the loss gave to the classes, by which probabilities are divided first; empty
        for none.
    """

    classes: Annotated[int, Field(ge=2)]
    temperature: Temperature = 1.0
    weights: tuple[Temperature, ...] = ()

    def __len__(self) -> int:
        return self.classes

    def apply(self, probabilities: ArrayLike) -> NDArray[np.float64]:
        """Calibrate probabilities, `(..., classes)`."""
        values = np.asarray(probabilities, dtype=np.float64)
        if not values.ndim or values.shape[-1] != self.classes:
            raise CalibrationError(
                f"probabilities of shape {values.shape} for a calibration of {self.classes} "
                "classes",
                remedy="pass one column for each class, in the order of the model's classes",
            )
        if self.weights:
            values = values / np.array(self.weights)
        with np.errstate(divide="ignore"):
            return np.asarray(softmax(np.log(values) / self.temperature, axis=-1))

    def decide(self, calibrated: ArrayLike) -> NDArray[np.bool_]:
        """Call the most probable class, `(..., classes)`."""
        values = np.asarray(calibrated)
        return np.asarray(values.argmax(axis=-1)[..., None] == np.arange(self.classes))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable dict, the arguments of an equal calibration."""
        return asdict(self) | {"weights": list(self.weights)}


def read_calibration(values: dict[str, Any]) -> Calibration | ClassCalibration:
    """The calibration that `to_dict` describes.

    Raises
    ------
    CalibrationError
        If an entry is missing or wrong.
    """
    return ClassCalibration(**values) if "temperature" in values else Calibration(**values)
