"""Task: what is predicted, from which columns of a table.

A task is written in Python, on the command line, or as a TOML file:

    kind = "regression"
    target = "lvef"
    unit = "%"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from einthoven.errors import CohortError, validated
from einthoven.files import Json, read_toml

if TYPE_CHECKING:
    from einthoven.tasks.kind import Kind

Matrix = NDArray[Any]
"""Targets, `(records, outputs)`: uint8 for 0 and 1 without gaps, else float32 with NaN for what is
not known."""
Names = Annotated[
    str | tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]
"""Names, held as a tuple."""
_CONDITION = re.compile(r"\s*(?P<column>.+?)\s*(?P<relation><=|>=|<|>|=)\s*(?P<value>.+?)\s*")


class Condition(NamedTuple):
    """A column, and the relation to a value for which the target is positive."""

    column: str
    relation: str
    value: str


@validated("task", CohortError)
class Task:
    """What is predicted.

    Parameters
    ----------
    kind : str
        `multilabel` (columns of 0 and 1), `binary` (one of them, or a column of two values such as
        yes and no), `threshold` (a condition on a number), `multiclass` (a column of names),
        `regression` (columns of numbers), or a kind that another package registers.
    target : str or sequence of str
        Columns. A label may be a condition: `lvef <= 40`, or `sex = female`.
    unit : str or sequence of str
        Unit of a number: one for all targets, or one for each.
    classes : sequence of str
        Classes of `multiclass`, in this order; default: all names in the column, sorted. Records of
        other classes are left out.
    mean, scale : sequence of float
        Mean and standard deviation of the numbers in the training records, in their unit. They are
        fitted by training, and not set by users.

    Raises
    ------
    CohortError
        If the kind is unknown, or a field does not apply to it.
    """

    kind: str = "multilabel"
    target: Names = ()
    unit: Names = ()
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[Annotated[float, Field(gt=0)], ...] = ()

    def __post_init__(self) -> None:
        self.behaviour.check(self)

    @property
    def behaviour(self) -> Kind:
        """The kind of target."""
        from einthoven.tasks.registry import kind_of  # which has kinds, which read tasks

        return kind_of(self.kind)

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns."""
        return self.target if isinstance(self.target, tuple) else (self.target,)

    @classmethod
    def load(cls, file: str | Path) -> Task:
        """Read a TOML file, whose keys are the parameters.

        Raises
        ------
        CohortError
            If the file cannot be read, or a key is unknown or wrong.
        """
        if Path(file).suffix != ".toml":
            raise CohortError(
                f"unknown task {str(file)!r}", remedy="name a .toml file; PTB-XL has named tasks"
            )
        table = read_toml(Path(file), CohortError)
        try:
            return cls(**table)
        except CohortError as error:
            raise CohortError(f"{file}: {error.problem}", remedy=error.remedy) from error

    def fitted(self, targets: Matrix) -> Task:
        """The task with what is fitted on the targets of the training records."""
        return self.behaviour.fitted(self, targets)

    def select(self, columns: Sequence[int], labels: Sequence[str]) -> Task:
        """The task of some of its outputs, by their places among `labels`."""
        names = tuple(labels[column] for column in columns)
        if self.behaviour.form == "classes":
            return replace(self, classes=names)

        def some(values: Any) -> Any:
            return tuple(values[c] for c in columns) if len(values) == len(labels) else values

        target, unit = some(self.targets), some(self.unit)
        mean, scale = some(self.mean), some(self.scale)
        return replace(self, target=target, unit=unit, mean=mean, scale=scale)

    def stated(self) -> Task:
        """The task without what was fitted."""
        return replace(self, mean=(), scale=())

    def resolved(self, names: tuple[str, ...]) -> Task:
        """The task with the names of its outputs, as they were read."""
        return replace(self, classes=names) if self.behaviour.form == "classes" else self

    def units(self, outputs: int) -> tuple[str, ...]:
        """Unit of each output; empty strings for none."""
        units = self.unit if isinstance(self.unit, tuple) else (self.unit,)
        return (units or ("",)) * outputs if len(units) < 2 else units

    def to_dict(self) -> Json:
        """The fields that are set, as arguments of an equal task."""
        values = {key: list(x) if isinstance(x, tuple) else x for key, x in asdict(self).items()}
        return {key: value for key, value in values.items() if value}


def condition_of(target: str) -> Condition | None:
    """Parse `lvef <= 40` or `sex = female`; None for the name of a column."""
    match = _CONDITION.fullmatch(target)
    return Condition(**match.groupdict()) if match else None


def is_read_from(target: str, columns: Sequence[str]) -> bool:
    """Whether a table with these columns has a target."""
    condition = condition_of(target)
    return target in columns or (condition is not None and condition.column in columns)


def compact(matrix: NDArray[np.floating[Any]]) -> Matrix:
    """The matrix as uint8 if it holds nothing but 0 and 1, else as float32."""
    is_complete = bool(np.isin(matrix, (0, 1)).all())
    return np.ascontiguousarray(matrix, dtype=np.uint8 if is_complete else np.float32)


def positives(targets: Matrix) -> NDArray[np.int64]:
    """Number of records with each label or class, shape (outputs,)."""
    return np.asarray((targets == 1).sum(axis=0, dtype=np.int64))


def negatives(targets: Matrix) -> NDArray[np.int64]:
    """Number of records that are known not to have each label or class, shape (outputs,)."""
    return np.asarray((targets == 0).sum(axis=0, dtype=np.int64))
