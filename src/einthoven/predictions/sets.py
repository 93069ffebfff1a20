"""Prediction sets: the answers that a calibration set does not rule out.

Split conformal prediction, by class (Vovk 2012, arXiv 1209.2673; Angelopoulos and Bates 2021,
arXiv 2107.07511). Of the records that have a label, at least the share `coverage` has "present" in
its set, and of those that lack it, at least this share has "absent", if later records come from
where the calibration records came from. What the threshold calls is in the set as well: among the
71 labels of a record, several have a probability that is rare without the label and still far too
low to call it. A set with both answers is shown as `CANNOT_TELL`. Of classes, those are in the set
whose probability is high enough for the class, and the most probable one; a number lies in an
interval around the predicted one. This module applies bounds; `einthoven.evaluate.conformal` fits
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from einthoven.errors import CalibrationError, validated

PRESENT, ABSENT, CANNOT_TELL, NO_ANSWER = "present", "absent", "cannot tell", ""
COVERAGE = 0.9
"""Share of the records of each class whose set has the true answer, by default."""

Coverage = Annotated[float, Field(gt=0, lt=1)]
Bounds = tuple[Annotated[float, Field(ge=0, le=1)] | None, ...]


@validated("prediction sets", CalibrationError)
class LabelSets:
    """Bounds of every label, in the order of a classifier's outputs.

    Parameters
    ----------
    coverage : float
    lowest : sequence of float or None
        Calibrated probability from which "present" is in the set; None with too few positives.
    highest : sequence of float or None
        Calibrated probability up to which "absent" is in the set; None with too few negatives.
    """

    coverage: Coverage
    lowest: Bounds
    highest: Bounds

    def __len__(self) -> int:
        return len(self.lowest)

    def __post_init__(self) -> None:
        if len(self.lowest) != len(self.highest):
            raise CalibrationError(
                f"{len(self.lowest)} lowest and {len(self.highest)} highest probabilities",
                remedy="pass both for every label",
            )

    def select(self, columns: Sequence[int]) -> LabelSets:
        """The sets of the labels in some columns, in their order."""
        lowest, highest = ([x[place] for place in columns] for x in (self.lowest, self.highest))
        return LabelSets(self.coverage, tuple(lowest), tuple(highest))

    def put(self, columns: Sequence[int], some: LabelSets) -> LabelSets:
        """These sets with those of the labels in some columns replaced."""
        lowest, highest = list(self.lowest), list(self.highest)
        for place, low, high in zip(columns, some.lowest, some.highest, strict=True):
            lowest[place], highest[place] = low, high
        return LabelSets(self.coverage, tuple(lowest), tuple(highest))

    def contains(
        self, calibrated: ArrayLike, called: ArrayLike
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether "present", and whether "absent", is in the set, each `(..., labels)`.

        Parameters
        ----------
        calibrated, called : array, shape (..., labels)
            Calibrated probabilities, and the calls by the thresholds. Both answers are in the set
            of a label without bounds.

        Raises
        ------
        CalibrationError
            If the number of labels differs.
        """
        values, calls = _checked(calibrated, len(self)), np.asarray(called, dtype=bool)
        lowest = [0.0 if bound is None else bound for bound in self.lowest]
        highest = [1.0 if bound is None else bound for bound in self.highest]
        return (values >= np.array(lowest)) | calls, (values <= np.array(highest)) | ~calls

    def answers(self, calibrated: ArrayLike, called: ArrayLike) -> NDArray[np.str_]:
        """Answer of every label, `(..., labels)`; `NO_ANSWER` for one that has too few records.

        Parameters and errors are those of `contains`.
        """
        present, absent = self.contains(calibrated, called)
        bounds = zip(self.lowest, self.highest, strict=True)
        answers = np.where(present == absent, CANNOT_TELL, np.where(present, PRESENT, ABSENT))
        return np.where([None in pair for pair in bounds], NO_ANSWER, answers)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable dict, the arguments of equal sets."""
        return _listed(asdict(self))


@validated("prediction sets", CalibrationError)
class ClassSets:
    """Bounds of the classes of one softmax.

    Parameters
    ----------
    coverage : float
    lowest : sequence of float or None
        Calibrated probability from which a class is in the set; None with too few of its records,
        which puts it into every set.
    """

    coverage: Coverage
    lowest: Annotated[Bounds, Field(min_length=2)]

    def __len__(self) -> int:
        return len(self.lowest)

    def contains(self, calibrated: ArrayLike) -> NDArray[np.bool_]:
        """Whether each class is in the set, `(..., classes)`."""
        lowest = [0.0 if bound is None else bound for bound in self.lowest]
        values = _checked(calibrated, len(self))
        most_probable = values == values.max(axis=-1, keepdims=True)
        return np.asarray((values >= np.array(lowest)) | most_probable)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable dict, the arguments of equal sets."""
        return _listed(asdict(self))


@validated("prediction sets", CalibrationError)
class ValueIntervals:
    """Intervals around predicted numbers.

    Parameters
    ----------
    coverage : float
    half_widths : sequence of float or None
        Distance of either end from the prediction, in the number's unit; None with too few records.
    """

    coverage: Coverage
    half_widths: Annotated[tuple[Annotated[float, Field(ge=0)] | None, ...], Field(min_length=1)]

    def __len__(self) -> int:
        return len(self.half_widths)

    def bounds(self, values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Lower and upper ends, `(..., numbers)`; infinite without a width."""
        middle = _checked(values, len(self))
        widths = np.array([np.inf if width is None else width for width in self.half_widths])
        return middle - widths, middle + widths

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable dict, the arguments of equal intervals."""
        return _listed(asdict(self))


Sets = LabelSets | ClassSets | ValueIntervals


def read_sets(values: dict[str, Any]) -> Sets:
    """The sets that `to_dict` describes.

    Raises
    ------
    CalibrationError
        If an entry is missing or wrong.
    """
    kind: type[Sets] = LabelSets
    if "half_widths" in values:
        kind = ValueIntervals
    elif "highest" not in values:
        kind = ClassSets
    return kind(**values)


def _checked(values: ArrayLike, count: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not array.ndim or array.shape[-1] != count:
        raise CalibrationError(
            f"predictions of shape {array.shape} for prediction sets of {count} outputs",
            remedy="pass one column for each output, in the order of the model's labels",
        )
    return array


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items()
    }
