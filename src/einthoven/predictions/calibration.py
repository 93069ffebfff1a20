"""Calibration of predicted probabilities.

A label's temperature T and bias b act on the logit, `sigmoid(logit(p) / T + b)`: temperature
scaling (Guo et al. 2017, arXiv 1706.04599), with a bias Platt scaling (Platt 1999). Both are
increasing in p, so the ranking of records, and with it AUROC and average precision of a label, do
not change. A label's threshold is a calibrated probability. This module applies a calibration;
`einthoven.evaluate.calibrate` fits it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from einthoven.errors import CalibrationError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
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

    temperatures: tuple[float, ...]
    biases: tuple[float, ...]
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in self._names():
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        lengths = {name: len(getattr(self, name)) for name in self._names()}
        if len(set(lengths.values())) != 1 or not self.temperatures:
            raise CalibrationError(
                f"a calibration has one number of each kind for every label, not {lengths}",
                remedy="pass temperatures, biases and thresholds of the same labels",
            )
        _refuse("temperatures", self.temperatures, np.array(self.temperatures) > 0, "above 0")
        inside = (np.array(self.thresholds) >= 0) & (np.array(self.thresholds) <= 1)
        _refuse("thresholds", self.thresholds, inside, "from 0 to 1")

    def __len__(self) -> int:
        return len(self.temperatures)

    def apply(self, probabilities: ArrayLike) -> Floats:
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
        raw = self._checked(probabilities)
        with np.errstate(divide="ignore"):  # the logits of 0 and 1 are infinite
            logits = np.log(raw) - np.log1p(-raw)
        return sigmoid(logits / np.array(self.temperatures) + np.array(self.biases))

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

    def to_dict(self) -> dict[str, list[float]]:
        """A JSON-serialisable dict of lists; `from_dict` restores an equal value."""
        return {name: list(getattr(self, name)) for name in self._names()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Restore a calibration from the result of `to_dict`.

        Raises
        ------
        CalibrationError
            If a key is missing or unknown, and as in the constructor.
        """
        if not isinstance(values, Mapping) or set(values) != set(cls._names()):
            raise CalibrationError(
                f"a calibration has the keys {', '.join(cls._names())}, but this is {values!r}",
                remedy="pass a result of Calibration.to_dict",
            )
        return cls(**values)

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls)]

    def _checked(self, values: ArrayLike) -> Floats:
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


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-logits)), without a warning where that is 0 or 1."""
    with np.errstate(over="ignore"):
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise CalibrationError(
            f"{name} = {values!r} are not numbers", remedy="pass one number for every label"
        ) from error
    if array.ndim != 1:
        raise CalibrationError(
            f"{name} have shape {array.shape}", remedy="pass one number for every label"
        )
    _refuse(name, array.tolist(), np.isfinite(array), "finite")
    return tuple(array.tolist())


def _refuse(name: str, values: Sequence[float], good: NDArray[np.bool_], limit: str) -> None:
    if not good.all():
        place = int(np.flatnonzero(~good)[0])
        raise CalibrationError(
            f"{name}: number {place} is {values[place]!r}, expected {limit}",
            remedy="fit the calibration again (einthoven.evaluate.fit_calibration)",
        )
