"""Cohorts: records, labels and patient-disjoint splits, from a data set, a table or a folder.

Each layout of files is one file here and one line in `registry.py`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from einthoven.cohorts.layout import TABLE_SUFFIXES, Layout, is_cohort

if TYPE_CHECKING:
    from einthoven.cohorts.cohort import SPLITS, Cohort
    from einthoven.cohorts.registry import (
        layout_of,
        open_cohort,
        register_layout,
        without_labels,
    )

__all__ = [
    "SPLITS",
    "TABLE_SUFFIXES",
    "Cohort",
    "Layout",
    "is_cohort",
    "layout_of",
    "open_cohort",
    "register_layout",
    "without_labels",
]

# Imported when they are first used, because they import pandas.
_HOMES = {
    "Cohort": "cohort",
    "SPLITS": "cohort",
    "layout_of": "registry",
    "open_cohort": "registry",
    "register_layout": "registry",
    "without_labels": "registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
