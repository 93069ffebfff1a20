"""Exceptions of einthoven: refusals of invalid input, each with a remedy.

The command line prints an `EinthovenError` and exits with status 1; other exceptions are defects.
`validated` makes dataclasses that refuse invalid arguments with one of these exceptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = [
    "BackboneError",
    "CalibrationError",
    "CohortError",
    "DownloadError",
    "EinthovenError",
    "EstimatorError",
    "EvaluationError",
    "FileError",
    "ModelError",
    "PreparationError",
    "RecipeError",
    "RecordError",
    "ReproduceError",
    "StoreError",
    "TrainingError",
    "WeightsError",
    "listed",
]

SHOWN_NAMES = 5  # in a message

Kind = TypeVar("Kind")


def __dir__() -> list[str]:
    return sorted(__all__)


class EinthovenError(Exception):
    """Base class: a refusal with its remedy.

    Parameters
    ----------
    problem : str
        The problem: file or argument, value, and limit.
    remedy : str
        What the user can do.
    """

    def __init__(self, problem: str, *, remedy: str) -> None:
        super().__init__(f"{problem}\n  What to do: {remedy}")
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments are lost by the default pickling, which worker processes use.
        return _rebuild, (type(self), self.__dict__.copy(), self.args)


def _rebuild(
    kind: type[EinthovenError], state: dict[str, object], args: tuple[object, ...]
) -> EinthovenError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class RecordError(EinthovenError):
    """An ECG file that is damaged, ambiguous or unsupported.

    Parameters
    ----------
    file : str
        Path of the file.
    field : str
        Field of the file (`gain`, `sampling rate`, `checksum of lead V2`, ...); empty for the file
        itself.
    value : object
        Value of the field; None if `reason` continues a phrase that begins with the field.
    reason : str
        Why it is refused, with the limit if there is one.
    remedy : str
        What the user can do.
    """

    def __init__(
        self, file: object, field: str, value: object, reason: str, *, remedy: str
    ) -> None:
        place = f"{field} " if value is None else f"{field} = {value!r}: "
        super().__init__(f"{file}: {place.lstrip()}{reason}", remedy=remedy)
        self.file = str(file)
        self.field = field
        self.value = value


class CohortError(EinthovenError):
    """A cohort with inconsistent tables, labels or folds."""


class PreparationError(EinthovenError):
    """A signal that a Preparation cannot process."""


class StoreError(EinthovenError):
    """A packed store that is incomplete, damaged, or belongs to another cohort."""


class RecipeError(EinthovenError):
    """A recipe with an unknown key, a wrong type or an impossible combination."""


class BackboneError(EinthovenError):
    """An unknown backbone, or input that a backbone does not support."""


class WeightsError(EinthovenError):
    """A checkpoint that is damaged, unsafe, or belongs to another network."""


class TrainingError(EinthovenError):
    """Training that cannot start or continue."""


class ModelError(EinthovenError):
    """A model folder that is incomplete, damaged, or cannot be downloaded."""


class EstimatorError(EinthovenError, ValueError):
    """Invalid arrays or parameters of an estimator; a ValueError, as scikit-learn expects."""


class EvaluationError(EinthovenError):
    """Predictions that cannot be scored or compared."""


class CalibrationError(EinthovenError):
    """An inconsistent calibration, or probabilities that do not match it."""


class DownloadError(EinthovenError):
    """A download that failed or did not match its checksum."""


class FileError(EinthovenError):
    """A file written by einthoven that is missing or damaged."""


class ReproduceError(EinthovenError):
    """A reproduction that cannot be listed, run or written."""


# ------------------------------------------------------------------ validation


@dataclass_transform(frozen_default=True)
def validated(name: str, refusal: type[EinthovenError]) -> Callable[[type[Kind]], type[Kind]]:
    """Decorate a frozen dataclass whose arguments pydantic checks against their annotations.

    Numbers are finite, and a bool or 2.0 is not an integer. Numbers may be NumPy's, and a list or
    an array serves as a tuple.

    Parameters
    ----------
    name : str
        Name of the class in messages.
    refusal : type of EinthovenError
        Exception for an unknown, missing or invalid argument; it names field, value and remedy.
    """
    # Imported here because `import einthoven` needs this module, and pydantic takes 0.1 s.
    from pydantic import ConfigDict, ValidationError
    from pydantic.dataclasses import dataclass

    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    def decorate(kind: type[Kind]) -> type[Kind]:
        checked: Any = dataclass(kind, frozen=True, config=config)
        create = checked.__init__

        @wraps(create)
        def init(self: Any, *args: Any, **values: Any) -> None:
            try:
                create(self, *map(plain, args), **{key: plain(values[key]) for key in values})
            except ValidationError as error:
                problem, remedy = first_fault(error, [field.name for field in fields(checked)])
                raise refusal(f"{name}: {problem}", remedy=remedy) from error

        checked.__init__ = init
        return checked  # type: ignore[no-any-return]

    return decorate


def plain(value: Any) -> Any:
    """Lists and arrays as tuples, NumPy's numbers as Python's."""
    import numpy as np

    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def first_fault(error: ValidationError, names: list[str]) -> tuple[str, str]:
    """Problem and remedy of the first invalid argument; `names` are those of the fields."""
    fault = error.errors(include_url=False)[0]
    place, kind = fault["loc"], fault["type"]
    field = names[place[0]] if isinstance(place[0], int) and place[0] < len(names) else place[0]
    if kind == "missing" and len(place) == 1:
        return f"{field} is missing", f"the fields are {', '.join(names)}"
    if kind.startswith("unexpected"):
        return f"unknown field {field!r}", f"the fields are {', '.join(names)}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{field} = {fault['input']!r}", message[0].lower() + message[1:]


def listed(names: Sequence[object], *, separator: str = ", ") -> str:
    """Join the first few names for a message, with the number of the others."""
    shown = separator.join(str(name) for name in names[:SHOWN_NAMES])
    more = len(names) - SHOWN_NAMES
    return shown if more <= 0 else f"{shown} and {more} more"
