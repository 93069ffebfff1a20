"""Cohorts: records, labels and patient-disjoint splits, from PTB-XL, a table or a folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pandas import DataFrame

from einthoven.cohorts.cohort import SPLITS, Cohort
from einthoven.cohorts.ptbxl import TABLES, open_ptbxl
from einthoven.cohorts.table import TABLE_SUFFIXES, open_folder, open_table
from einthoven.errors import CohortError
from einthoven.records.formats import find_records

__all__ = ["SPLITS", "TABLE_SUFFIXES", "Cohort", "is_cohort", "open_cohort"]


def open_cohort(source: str | Path | DataFrame, task: str | None = None, **options: Any) -> Cohort:
    """Open a cohort: a folder in PTB-XL's layout, a table, or a plain folder of ECG files.

    Parameters
    ----------
    source : path or pandas.DataFrame
        Folder with `ptbxl_database.csv` and `scp_statements.csv` (PTB-XL, or the output of
        `einthoven synthesize`), a `.csv` or `.parquet` table or a data frame
        (see `einthoven.cohorts.table.open_table`), or a folder of ECG files (without labels: it can
        be packed, used for pretraining, and predicted).
    task : str, optional
        For PTB-XL's layout only: `all-71` (the default), `diagnostic-44`, `subclass-23`,
        `superclass-5`, `form-19` or `rhythm-12`. The task of a table is its label columns.
    **options
        PTB-XL's layout: `empty_rows`, `min_records`, `match_1_0_3`, `rate`. Table: `root`,
        `labels`, `min_records`, `seed`.

    Returns
    -------
    Cohort
        With `labels` (ordered names), `ids(split)`, `patients(split)` and `targets(split)` for
        `train`, `validation` and `test`.

    Raises
    ------
    CohortError
        If the source is none of these, an option does not apply to it, or its tables are
        inconsistent.
    """
    options |= {} if task is None else {"task": task}
    opener: Callable[..., Cohort]
    if isinstance(source, DataFrame):
        return _opened(open_table, source, options)
    root = Path(source)
    if root.is_dir() and any((root / name).is_file() for name in TABLES):
        opener = open_ptbxl
    elif root.is_dir() and find_records(root):
        opener = open_folder
    elif not root.is_dir() and root.suffix in TABLE_SUFFIXES:
        opener = open_table
    elif root.is_dir():
        raise CohortError(
            f"{root} contains neither PTB-XL's tables ({', '.join(TABLES)}) nor ECG files",
            remedy="choose a folder that does, or a .csv or .parquet table with the path of each "
            "ECG file; `einthoven download ptb-xl DEST` downloads PTB-XL",
        )
    else:
        raise CohortError(
            f"{root} is neither a folder in PTB-XL's layout nor a .csv or .parquet table",
            remedy="choose the folder that contains ptbxl_database.csv, or a table of labels",
        )
    return _opened(opener, root, options)


def is_cohort(path: Path) -> bool:
    """Whether a path is a cohort: a folder or a table, not a record's name without suffix."""
    is_record_name = path.with_name(f"{path.name}.hea").is_file()
    return (path.is_dir() and not is_record_name) or path.suffix in TABLE_SUFFIXES


def _opened(opener: Callable[..., Cohort], source: Any, options: dict[str, Any]) -> Cohort:
    names = list(inspect.signature(opener).parameters)[1:]
    unknown = [name for name in options if name not in names]
    if unknown:
        kind = "a data frame" if isinstance(source, DataFrame) else source
        raise CohortError(
            f"{kind}: unknown option {', '.join(unknown)}",
            remedy=f"the options are {', '.join(names)}" if names else "remove it",
        )
    return opener(source, **options)


def __dir__() -> list[str]:
    return sorted(__all__)
