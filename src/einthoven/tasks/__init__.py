"""Tasks: what is predicted, labels, classes or numbers, and what each kind of target needs.

A kind is one file here and one line in `registry.py`; another package calls `register_kind`.
"""

from einthoven.tasks.kind import Criterion, Kind
from einthoven.tasks.registry import kind_names, kind_of, register_kind
from einthoven.tasks.task import Task, compact, negatives, positives

__all__ = [
    "Criterion",
    "Kind",
    "Task",
    "compact",
    "kind_names",
    "kind_of",
    "negatives",
    "positives",
    "register_kind",
]


def __dir__() -> list[str]:
    return sorted(__all__)
