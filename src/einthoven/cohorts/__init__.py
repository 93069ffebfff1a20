"""Cohorts: records, labels and patient-disjoint splits, from a data set, a table or a folder.

Each layout of files is one file here and one line in `registry.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einthoven.cohorts.layout import TABLE_SUFFIXES, Layout, is_cohort
from einthoven.lazy import lazy_names

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
__getattr__ = lazy_names(
    __name__,
    {
        "Cohort": "cohorts.cohort",
        "SPLITS": "cohorts.cohort",
        "layout_of": "cohorts.registry",
        "open_cohort": "cohorts.registry",
        "register_layout": "cohorts.registry",
        "without_labels": "cohorts.registry",
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
