"""Cohorts: records, labels and folds, from PTB-XL, an own table, or the synthesizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from einthoven.cohorts.cohort import SPLITS, Cohort
from einthoven.errors import CohortError

__all__ = ["SPLITS", "Cohort", "open_cohort"]


def open_cohort(path: str | Path, task: str = "all-71", **options: Any) -> Cohort:
    """Open a cohort: PTB-XL's layout, an own table, or a plain folder of ECG files.

    Parameters
    ----------
    path : path
        Folder with `ptbxl_database.csv` and `scp_statements.csv` (PTB-XL, or what
        `einthoven synthesize` writes), a `.csv` / `.parquet` table (see
        `einthoven.cohorts.table.open_table`), or a folder of WFDB records (no labels: it can be
        packed, pretrained on and predicted).
    task : str
        For PTB-XL's layout: `all-71`, `diagnostic-44`, `subclass-23`, `superclass-5`, `form-19`
        or `rhythm-12`. An own table has one task, its label columns.
    **options
        Passed on: `min_records`; `empty_rows`, `match_1_0_3`, `rate` (PTB-XL's layout), or `root`,
        `labels`, `seed` (own table).

    Returns
    -------
    Cohort
        With `labels` (ordered names), `ids(split)`, `patients(split)` and `targets(split)` for
        `train`, `validation` and `test`.

    Raises
    ------
    CohortError
        When the path is neither, or its tables do not hold together.
    """
    from einthoven.cohorts import folder, ptbxl, table

    where = Path(path)
    if where.is_dir() and any((where / name).is_file() for name in ptbxl.TABLES):
        return ptbxl.open_ptbxl(where, task, **options)
    if where.is_dir() and folder.has_records(where):
        return folder.open_folder(where)
    if where.is_dir():
        raise CohortError(
            f"{where} holds neither PTB-XL's tables ({', '.join(ptbxl.TABLES)}) nor WFDB records "
            "(.hea)",
            remedy="name the folder that does, or a .csv or .parquet table with the path of each "
            "ECG file; `einthoven download ptb-xl DEST` fetches PTB-XL",
        )
    if where.suffix in (".csv", ".parquet"):
        return table.open_table(where, **options)
    raise CohortError(
        f"{where} is neither a folder in PTB-XL's layout nor a .csv or .parquet table",
        remedy="name the folder that holds ptbxl_database.csv, or your own label table",
    )
