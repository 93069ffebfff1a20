"""Everything that einthoven refuses, as one small family of exceptions.

Every message says what was found, where, and what to do about it. The command line prints an
`EinthovenError` as it is and exits with status 1; anything else is a defect.
"""

from __future__ import annotations


class EinthovenError(Exception):
    """A refusal, with its remedy.

    Parameters
    ----------
    problem : str
        What was found and where, with the value and the limit.
    remedy : str
        What the user can do about it.
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
    """An ECG file that cannot be trusted.

    Parameters
    ----------
    file : str
        The file at fault.
    field : str
        The field of the file (`gain`, `sampling rate`, `checksum of lead V2`, ...).
    value : object
        The value found there.
    reason : str
        Why it is refused, with the limit where there is one.
    remedy : str
        What the user can do about it.
    """

    def __init__(
        self, file: object, field: str, value: object, reason: str, *, remedy: str
    ) -> None:
        super().__init__(f"{file}: {field} = {value!r}: {reason}", remedy=remedy)
        self.file = str(file)
        self.field = field
        self.value = value


class CohortError(EinthovenError):
    """A cohort whose tables, labels or folds do not hold together."""


class PreparationError(EinthovenError):
    """A signal and a Preparation that do not fit each other."""


class StoreError(EinthovenError):
    """A packed store that is incomplete, damaged or of another cohort."""


class RecipeError(EinthovenError):
    """A recipe with an unknown key, a wrong type or an impossible combination."""


class BackboneError(EinthovenError):
    """An unknown backbone, or input that a backbone was not made for."""


class WeightsError(EinthovenError):
    """A checkpoint that is damaged, unsafe, or of another network."""


class TrainingError(EinthovenError):
    """Training that cannot go on."""


class ModelError(EinthovenError):
    """A model folder that is incomplete, damaged, or cannot be downloaded."""


class EstimatorError(EinthovenError, ValueError):
    """Arrays or parameters that an estimator cannot use; a ValueError, as scikit-learn expects."""


class EvaluationError(EinthovenError):
    """Predictions that cannot be scored or compared."""


class CalibrationError(EinthovenError):
    """A calibration, or probabilities given to it, that do not hold together."""


class DownloadError(EinthovenError):
    """A download that failed or did not match its checksum."""


class FileError(EinthovenError):
    """A file of einthoven's own that is missing or damaged."""


class ReproduceError(EinthovenError):
    """A reproduction that cannot be planned, shared between processes, or written down."""
