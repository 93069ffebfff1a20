"""Layouts of cohorts: how a data set lies in its folder, and the function that opens it.

The catalogue of layouts is in `registry.py`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from einthoven.errors import CohortError
from einthoven.records.formats import is_table_of_samples

if TYPE_CHECKING:
    from einthoven.cohorts.cohort import Cohort
    from einthoven.tasks import Task

TABLE_SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Layout:
    """A layout of cohorts.

    Attributes
    ----------
    name : str
        Name of the layout, such as `PTB-XL`.
    holds : str
        Files by which it is known, for messages: "a folder with ptbxl_database.csv".
    recognises : callable
        Whether a path, which need not exist, has this layout. It reads as little as it can.
    open : callable
        Open a path as a Cohort. Its first parameter is the path, the others are the options of
        `open_cohort`; raise CohortError for files that are missing or inconsistent.
    tasks : tuple of str
        Names of its labelling tasks, the default first; empty without an option `task`.
    codes : str
        Task whose labels are codes of the statement map (`einthoven.cohorts.statements`); empty
        for the default labels.
    signals : tuple of str
        Patterns of its signal files, by which a folder without its tables is known.
    """

    name: str
    holds: str
    recognises: Callable[[Path], bool]
    open: Callable[..., Cohort]
    tasks: tuple[str, ...] = ()
    codes: str = ""
    signals: tuple[str, ...] = ()

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options of `open`: its parameters after the first."""
        return tuple(inspect.signature(self.open).parameters)[1:]


def unknown_task(task: Task | str | Path, names: Collection[str]) -> CohortError:
    """CohortError for a task that a data set with these named tasks does not have."""
    if isinstance(task, str | Path):
        return CohortError(
            f"unknown task {str(task)!r}", remedy=f"choose one of {', '.join(names)}"
        )
    targets = ", ".join(task.targets)
    return CohortError(
        f"the data set has named tasks, and no columns of targets ({task.kind}: {targets})",
        remedy="write a table of its ECGs with the columns path, patient and what is predicted, or "
        f"choose one of {', '.join(names)}",
    )


def has_columns(file: Path, columns: Collection[str]) -> bool:
    """Whether a CSV file, which need not exist, has these columns in its first line."""
    try:
        with open(file, encoding="utf-8-sig", errors="replace") as lines:
            header = lines.readline(1 << 12)
    except OSError:
        return False
    return set(columns) <= {name.strip() for name in header.split(",")}


def is_cohort(path: Path) -> bool:
    """Whether a path is a cohort: a folder, table or list.

    A record's name without suffix is none, nor is a text file with the samples of an ECG.
    """
    if path.is_dir():
        return not os.path.isfile(f"{os.path.abspath(path)}.hea")  # `.` and `/` have no name
    if path.suffix == ".toml":
        from einthoven.cohorts.several import recognises  # which imports pandas

        return recognises(path)
    return path.suffix in TABLE_SUFFIXES and not is_table_of_samples(path)
