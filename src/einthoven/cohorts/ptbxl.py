"""PTB-XL and anything in its folder layout, by the rules of its benchmark.

Sources: Wagner et al. 2020 (the data set); Strodthoff et al. 2021 (the six tasks and the folds).
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from einthoven.cohorts.cohort import (
    ABOVE_89,
    WITHOUT_LABEL,
    Cohort,
    checked,
    warn_of_far_values,
)
from einthoven.cohorts.layout import Layout
from einthoven.errors import CohortError
from einthoven.files import read_table
from einthoven.licences import CC_BY_4, OWN_DATA, SIMULATED
from einthoven.records.record import canonical_patient
from einthoven.tasks import Task, compact

DATABASE = "ptbxl_database.csv"
STATEMENTS = "scp_statements.csv"
TABLES = (DATABASE, STATEMENTS)

# task -> (flag column in scp_statements.csv or None, column the codes are mapped to or None, size)
TASKS: dict[str, tuple[str | None, str | None, int]] = {
    "all-71": (None, None, 71),
    "diagnostic-44": ("diagnostic", None, 44),
    "subclass-23": ("diagnostic", "diagnostic_subclass", 23),
    "superclass-5": ("diagnostic", "diagnostic_class", 5),
    "form-19": ("form", None, 19),
    "rhythm-12": ("rhythm", None, 12),
}

SUPERCLASS = "superclass"
"""Column of the superclass of the records that have one only."""
COLUMN_TASKS = {
    "sex": Task(kind="binary", target="sex = female"),
    "age": Task(kind="regression", target="age", unit="years"),
    "superclass-single": Task(kind="multiclass", target=SUPERCLASS),
}
"""Tasks whose targets are columns of the database. An age of more than 89 years is not known."""

_DATABASE_COLUMNS = ["ecg_id", "patient_id", "scp_codes", "strat_fold"]
_STATEMENT_COLUMNS = sorted({name for task in TASKS.values() for name in task[:2] if name})

# Records of 1.0.1 that 1.0.3 no longer has: duplicates and triplicates.
REMOVED_IN_1_0_3 = frozenset({
    137, 139, 140, 141, 142, 143, 145, 456, 458, 459, 461, 462, 2506, 2511, 3795, 3798, 3800,
    3801, 3832, 5817, 7777, 7779, 7782, 9821, 9825, 9888, 11810, 11814, 11815, 11817, 11838,
    13791, 13793, 13796, 13797, 13799, 15742, 18150,
})  # fmt: skip
# ecg_id -> patient_id of a few records, that distinguish real PTB-XL from cohorts in its layout.
_PATIENTS = {
    1: 15709, 2: 13243, 3: 20372, 10: 9456, 100: 21404, 136: 13445, 500: 1168, 1000: 4008,
    2000: 6645, 4000: 5410, 8000: 17772, 12000: 658, 16000: 6533, 20000: 17638, 21837: 11744,
}  # fmt: skip


def open_ptbxl(
    path: str | Path,
    task: Task | str | Path = "all-71",
    *,
    empty_rows: Literal["drop", "keep"] = "drop",
    min_records: int = 0,
    match_1_0_3: bool = False,
    rate: int | None = None,
) -> Cohort:
    """Open a folder in PTB-XL's layout.

    A statement counts as positive when its code is present, whatever its likelihood; labels are
    sorted by code point; folds 1 to 8 train, 9 validates, 10 tests.

    Parameters
    ----------
    path : path
        Folder with `ptbxl_database.csv` and `scp_statements.csv`.
    task : Task, str or path
        One of `all-71`, `diagnostic-44`, `subclass-23`, `superclass-5`, `form-19`, `rhythm-12`,
        `sex`, `age` (years; unknown above 89), `superclass-single` (records of one superclass); or
        a task, or its TOML file, about other columns of `ptbxl_database.csv`.
    empty_rows : {"drop", "keep"}
        Treatment of records without any label of the task. The benchmark drops them.
    min_records : int
        Leave out labels that fewer records carry. 0 keeps the task's whole list.
    match_1_0_3 : bool
        Leave out the 38 records of version 1.0.1 that version 1.0.3 removed.
    rate : int, optional
        100 or 500: which of the two recordings the paths name. By default the one that is there,
        500 Hz only when `records100` is not.

    Raises
    ------
    CohortError
        For missing files, tables of another layout, unknown codes, or folds that share a patient.
    """
    root = Path(path)
    name, goal = _task_of(task)
    if empty_rows not in ("drop", "keep"):
        raise CohortError(f"empty_rows = {empty_rows!r}", remedy="choose 'drop' or 'keep'")
    if rate not in (None, 100, 500):
        raise CohortError(f"rate {rate} Hz", remedy="PTB-XL is recorded at 100 and at 500 Hz")
    database = _read_database(root / DATABASE)
    labelling = name if goal.kind == "multilabel" and name in TASKS else "superclass-5"
    labels, positives, descriptions = _labels(database, root, labelling)
    table = _record_table(database, root, rate)
    if name in TASKS:
        matrix = compact(np.array([[x in row for x in labels] for row in positives], np.float32))
    else:
        columns = _target_columns(database, table, positives)
        labels, matrix = goal.behaviour.read(goal, columns, root / DATABASE)
        numbers = goal.behaviour.numbers(goal, columns, root / DATABASE)
        warn_of_far_values(numbers, table.index.tolist(), root / DATABASE)
    version = _version(database)
    published = bool(version)
    cohort = Cohort(
        name="ptb-xl" if published else root.resolve().name,
        version=version,
        task=name,
        labels=labels,
        root=root,
        table=table,
        matrix=matrix,
        descriptions=descriptions,
        licence=CC_BY_4 if published else OWN_DATA,
        target=goal.resolved(labels),
    )
    if cohort.is_synthetic:
        cohort = replace(cohort, licence=SIMULATED)
    if match_1_0_3:
        keep = ~database.index.isin(list(REMOVED_IN_1_0_3))
        cohort = cohort.select(keep, reason="removed in version 1.0.3")
    cohort = cohort.with_common_labels(min_records)
    if empty_rows == "drop" and name in TASKS:
        cohort = cohort.select(cohort.matrix.sum(axis=1) > 0, reason=WITHOUT_LABEL)
    elif name not in TASKS:
        cohort = cohort.known()
    return checked(cohort)


def _recognises(path: Path) -> bool:
    return any((path / name).is_file() for name in TABLES)


def _task_of(task: Task | str | Path) -> tuple[str, Task]:
    """Name of a task, and the task."""
    if isinstance(task, str) and task in TASKS:
        return task, Task()
    if isinstance(task, str) and task in COLUMN_TASKS:
        return task, COLUMN_TASKS[task]
    if not isinstance(task, Task):
        if Path(task).suffix != ".toml":
            names = ", ".join([*TASKS, *COLUMN_TASKS])
            raise CohortError(
                f"unknown task {str(task)!r}", remedy=f"choose one of {names}, or a .toml file"
            )
        task = Task.load(task)
    return ",".join(task.targets), task


def _read(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    if not file.is_file():
        raise CohortError(
            f"{file} is missing",
            remedy="choose a folder with both tables, or download it: einthoven download ptb-xl "
            "DEST",
        )
    table = read_table(file, CohortError, text=("scp_codes", "patient_id"), unnamed=("code",))
    missing = [name for name in columns if name not in table]
    if missing:
        raise CohortError(
            f"{file}: columns {missing} are missing; it starts {list(table.columns[:4])}",
            remedy="use the file as PhysioNet publishes it; spreadsheets rewrite its header",
        )
    return table


def _read_database(file: Path) -> pd.DataFrame:
    table = _read(file, [*_DATABASE_COLUMNS, "filename_lr", "filename_hr"])
    gaps = table[_DATABASE_COLUMNS].isna().any(axis=1)
    if gaps.any():
        raise CohortError(
            f"{file}: {int(gaps.sum())} rows lack a patient, codes or a fold, "
            f"first ecg_id {table.loc[gaps, 'ecg_id'].iloc[0]}",
            remedy="use the file as PhysioNet publishes it",
        )
    outside = ~table["strat_fold"].isin(range(1, 11))
    if outside.any():
        raise CohortError(
            f"{file}: strat_fold {table.loc[outside, 'strat_fold'].iloc[0]} is outside 1 to 10",
            remedy="use the folds as PhysioNet publishes them",
        )
    twice = table["ecg_id"][table["ecg_id"].duplicated()]
    if len(twice):
        raise CohortError(
            f"{file}: ecg_id {twice.iloc[0]} occurs more than once ({len(twice)} such rows)",
            remedy="drop the duplicates, or use the file as PhysioNet publishes it",
        )
    # PTB-XL writes patients as `15709.0`.
    table["patient_id"] = table["patient_id"].map(canonical_patient)
    return table.set_index("ecg_id")


def _record_table(database: pd.DataFrame, root: Path, rate: int | None) -> pd.DataFrame:
    folds = database["strat_fold"].astype(int)
    low = rate == 100 if rate else (root / "records100").is_dir()
    table = pd.DataFrame(
        {
            "path": database["filename_lr" if low else "filename_hr"].astype(str),
            "patient": database["patient_id"],
            "split": np.select([folds == 9, folds == 10], ["validation", "test"], "train"),
            "fold": folds,
        }
    )
    if "age" in database:
        table["age"] = database["age"]
    if "sex" in database:
        table["sex"] = database["sex"].map({0: "male", 1: "female"})
    for name, source in {"date": "recording_date", "device": "device"}.items():
        if source in database:
            table[name] = database[source]
    table.index = pd.Index(database.index.astype(str), name="record")
    return table


def _labels(
    database: pd.DataFrame, root: Path, task: str
) -> tuple[tuple[str, ...], list[set[str]], dict[str, str]]:
    """Labels of a task of statements, those of each record, and label -> description."""
    statements = _read(root / STATEMENTS, ["code", "description", *_STATEMENT_COLUMNS])
    statements = statements.set_index("code")
    mapping, descriptions = _label_mapping(statements, task, root / STATEMENTS)
    codes = [_parse_codes(text, root / DATABASE) for text in database["scp_codes"]]
    unknown = sorted(set().union(*codes) - set(statements.index))
    if unknown:
        raise CohortError(
            f"{root / DATABASE} uses codes {unknown[:5]} that {STATEMENTS} does not list",
            remedy="use both files of one version, or add the codes to scp_statements.csv",
        )
    positives = [{mapping[code] for code in row & mapping.keys()} for row in codes]
    return tuple(sorted(set(mapping.values()))), positives, descriptions


def _target_columns(
    database: pd.DataFrame, table: pd.DataFrame, superclasses: list[set[str]]
) -> pd.DataFrame:
    """Columns that a task can be about: the database's, age and sex as in the table, superclass."""
    columns = database.assign(**{x: table[x].to_numpy() for x in ("age", "sex") if x in table})
    columns[SUPERCLASS] = [row.copy().pop() if len(row) == 1 else None for row in superclasses]
    if "age" in columns:
        columns["age"] = columns["age"].mask(columns["age"] == ABOVE_89)
    return columns


def _label_mapping(
    statements: pd.DataFrame, task: str, file: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Code -> label of the task, and label -> description."""
    flag, column, size = TASKS[task]
    rows = statements if flag is None else statements[statements[flag] == 1]
    mapping = dict(zip(rows.index, rows.index if column is None else rows[column], strict=True))
    if len(set(mapping.values())) != size:
        raise CohortError(
            f"{file}: {len(set(mapping.values()))} labels for task {task}, {size} expected",
            remedy="use scp_statements.csv as PhysioNet publishes it, or open a table of "
            "labels (einthoven.open_cohort('labels.csv'))",
        )
    texts = rows["description"].astype(str)
    return mapping, dict(zip(rows.index, texts, strict=True)) if column is None else {}


def _parse_codes(text: str, file: Path) -> set[str]:
    try:
        return set(dict(ast.literal_eval(text)))
    except (ValueError, SyntaxError, TypeError):
        raise CohortError(
            f"{file}: scp_codes {text!r} is not a dictionary", remedy="use PhysioNet's table"
        ) from None


def _version(database: pd.DataFrame) -> str:
    """Version of PTB-XL, by content.

    A part of PTB-XL has a version only if it reaches as far as the first removed record.
    """
    patients = database["patient_id"].reindex(list(_PATIENTS)).dropna()
    if patients.empty or any(patients != patients.index.map(_PATIENTS).astype(str)):
        return ""
    if not REMOVED_IN_1_0_3.isdisjoint(database.index):
        return "1.0.1"
    return "1.0.3" if database.index.max() > min(REMOVED_IN_1_0_3) else "1.0.1 or 1.0.3"


LAYOUT = Layout(
    "PTB-XL",
    f"a folder with {' and '.join(TABLES)}",
    _recognises,
    open_ptbxl,
    (*TASKS, *COLUMN_TASKS),
    "all-71",
    ("records[15]00/[0-9]*/*.hea",),
)
