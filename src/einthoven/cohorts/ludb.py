"""LUDB, the Lobachevsky University database: 200 records of 200 people, with diagnoses.

Kalyakulina et al. 2020 (PhysioNet, version 1.0.1). The delineation of waves in its WFDB annotation
files is not read.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from einthoven.cohorts.cohort import Cohort
from einthoven.cohorts.data_sets import EmptyRows, data_set, marked, read_text_table
from einthoven.cohorts.layout import Layout, unknown_task
from einthoven.licences import Licence

TABLE = "ludb.csv"
COLUMNS = {
    "rhythm": "Rhythms",
    "axis": "Electric axis of the heart",
    "conduction": "Conduction abnormalities",
    "extrasystole": "Extrasystolies",
    "hypertrophy": "Hypertrophies",
    "pacing": "Cardiac pacing",
    "ischaemia": "Ischemia",
    "repolarisation": "Non-specific repolarization abnormalities",
    "other": "Other states",
}
ALL = "all"
TASKS = (ALL, *COLUMNS)
LICENCE = Licence(
    "ODC-By-1.0", "trained on LUDB; attribute Kalyakulina et al., IEEE Access 8, 2020", True
)
_SEXES = {"f": "female", "m": "male"}


def open_ludb(
    path: str | Path,
    task: str = ALL,
    *,
    empty_rows: EmptyRows = "drop",
    min_records: int = 0,
    seed: int = 0,
) -> Cohort:
    """Open LUDB's folder; labels are the diagnoses, as they are written.

    Parameters
    ----------
    path : path
        Folder with `ludb.csv`, and the records in `data`.
    task : str
        `all` diagnoses, or those of one column: `rhythm`, `axis`, `conduction`, `extrasystole`,
        `hypertrophy`, `pacing`, `ischaemia`, `repolarisation` or `other`.
    empty_rows : {"drop", "keep"}
        Treatment of records without any diagnosis of the task.
    min_records : int
        Leave out diagnoses that fewer records have.
    seed : int
        Seed of the split, 80 / 10 / 10, stratified by diagnosis.

    Raises
    ------
    CohortError
        For an unknown task, or a table that is missing, unreadable or inconsistent.
    """
    root = Path(path)
    if task not in TASKS:
        raise unknown_task(task, TASKS)
    table = read_text_table(root / TABLE, ("ID", "Sex", "Age", *COLUMNS.values()))
    columns = COLUMNS.values() if task == ALL else (COLUMNS[task],)
    pairs = [
        (number, line)
        for name in columns
        for number, cell in enumerate(table[name])
        for line in _lines(cell)
    ]
    labels = sorted({line for _, line in pairs})
    identifiers = table["ID"].str.strip().str.removesuffix(".0")
    ages = table["Age"].str.strip()
    records = pd.DataFrame(
        {
            "path": "data/" + identifiers,
            "patient": identifiers,
            "record": identifiers,
            "age": ages.where(ages.str.fullmatch(r"\d+"), ""),  # ">89" is not an age
            "sex": table["Sex"].str.strip().str.lower().map(_SEXES).fillna(""),
        }
    )
    return data_set(
        root,
        records,
        labels,
        marked(pairs, {label: (label,) for label in labels}, len(table)),
        name="ludb",
        task=task,
        licence=LICENCE,
        empty_rows=empty_rows,
        min_records=min_records,
        seed=seed,
    )


def _lines(cell: str) -> list[str]:
    """Diagnoses of a cell, one a line, without a full stop and the prefix of rhythms."""
    lines = (line.strip().rstrip(".").removeprefix("Rhythm: ") for line in cell.splitlines())
    return [line for line in lines if line]


def _recognises(path: Path) -> bool:
    return (path / TABLE).is_file()


LAYOUT = Layout("LUDB", f"a folder with {TABLE}", _recognises, open_ludb, TASKS, ALL)
