"""CODE-15 % and CODE-test: ECGs of the Telehealth Network of Minas Gerais, with six abnormalities.

CODE-15 % is 15 % of the patients of CODE, 345,779 exams of 233,770 patients (Ribeiro et al. 2021,
doi.org/10.5281/zenodo.4916206). CODE-test is the test set of Ribeiro et al., Nature Communications
11:1760, 2020: 827 exams of as many patients, each read by two cardiologists or three
(zenodo.3765780).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from einthoven.cohorts.cohort import Cohort
from einthoven.cohorts.layout import Layout, has_columns, unknown_task
from einthoven.cohorts.table import open_table
from einthoven.errors import CohortError, RecordError
from einthoven.files import read_table
from einthoven.licences import Licence
from einthoven.records import hdf5
from einthoven.records.file import SEPARATOR, EcgFile

EXAMS = "exams.csv"
TRACINGS, ATTRIBUTES = "ecg_tracings.hdf5", "attributes.csv"
GOLD_STANDARD = Path("annotations", "gold_standard.csv")
DESCRIPTIONS = {
    "1dAVb": "first-degree atrioventricular block",
    "RBBB": "right bundle branch block",
    "LBBB": "left bundle branch block",
    "SB": "sinus bradycardia",
    "ST": "sinus tachycardia",
    "AF": "atrial fibrillation",
    "normal_ecg": "normal ECG",
}
ABNORMALITIES = tuple(DESCRIPTIONS)[:6]
TASKS = {"abnormalities-6": ABNORMALITIES, "all-7": tuple(DESCRIPTIONS)}
LICENCE = Licence(
    "CC-BY-4.0",
    "trained on CODE-15 %; attribute Ribeiro et al., Nature Communications 11:1760, 2020",
    True,
)
_COLUMNS = ("exam_id", "patient_id", "trace_file", "age", "is_male")
_SIZE = (345_779, 233_770)  # exams and patients of version 1.0.0
_DOWNLOAD = "unzip exams_part*.zip of doi.org/10.5281/zenodo.4916206 into the folder of exams.csv"


def open_code15(
    path: str | Path,
    task: str = "abnormalities-6",
    *,
    min_records: int = 0,
    seed: int = 0,
) -> Cohort:
    """Open the folder of CODE-15 % (or some of its parts), or that of CODE-test.

    An exam without any of the six abnormalities is not a normal one: only half of them have
    `normal_ecg`, the seventh label of the task `all-7`. Patients of CODE-15 % are split 80 / 10 /
    10, stratified by label; all exams of CODE-test are in the test split.

    Parameters
    ----------
    path : path
        Folder with `exams.csv` and `exams_part*.hdf5`; or with `attributes.csv`, `annotations` and
        `ecg_tracings.hdf5`.
    task : {"abnormalities-6", "all-7"}
        Labels; CODE-test has the first task only.
    min_records : int
        Leave out labels that fewer records carry.
    seed : int
        Seed of the split.

    Raises
    ------
    CohortError
        For an unknown task, missing files, or tables of another layout.
    """
    root = Path(path)
    is_test = (root / GOLD_STANDARD).is_file()
    tasks = dict(list(TASKS.items())[:1]) if is_test else TASKS
    if task not in tasks:
        raise unknown_task(task, tasks)
    labels = tasks[task]
    frame, left_out = _code_test(root) if is_test else _code15(root, labels)
    cohort = open_table(frame, root=root, labels=labels, min_records=min_records, seed=seed)
    size = (len(cohort), cohort.table["patient"].nunique())
    return replace(
        cohort,
        name="code-test" if is_test else "code-15",
        version="1.0.0" if size == _SIZE else "",
        task=task,
        licence=LICENCE,
        descriptions={label: DESCRIPTIONS[label] for label in cohort.labels},
        left_out=left_out,
    )


def _code15(root: Path, labels: tuple[str, ...]) -> tuple[pd.DataFrame, dict[str, int]]:
    """Exams whose tracings are there, and the numbers of the others."""
    exams = _read(root / EXAMS, (*_COLUMNS, *labels))
    parts = {file.name: file for file in sorted(root.rglob("exams_part*.hdf5"))}
    in_parts = {name: set(_names(file)) for name, file in parts.items()}
    files = exams["trace_file"].astype(str).str.strip()
    names = exams["exam_id"].astype(str)
    has_part = files.isin(in_parts).to_numpy()
    is_there = np.array(
        [name in in_parts.get(file, ()) for name, file in zip(names, files, strict=True)]
    )
    if not is_there.any():
        raise CohortError(
            f"{root}: none of the {len(exams)} exams of {EXAMS} has a tracing", remedy=_DOWNLOAD
        )
    counts = {
        "in a part that is not there": int((~has_part).sum()),
        "not in its part": int((has_part & ~is_there).sum()),
    }
    folders = {name: file.relative_to(root).as_posix() for name, file in parts.items()}
    frame = pd.DataFrame(
        {
            "path": files.map(folders) + SEPARATOR + names,
            "record": names,
            "patient": exams["patient_id"],
            "age": exams["age"],
            "sex": _sexes(exams["is_male"]),
            **{label: exams[label] for label in labels},
        }
    )
    return frame[is_there], {reason: count for reason, count in counts.items() if count}


def _code_test(root: Path) -> tuple[pd.DataFrame, dict[str, int]]:
    """Exams of CODE-test: the rows of its tables and of its tracings are the same exams."""
    attributes = _read(root / ATTRIBUTES, ("age", "sex"))
    labels = _read(root / GOLD_STANDARD, ABNORMALITIES)
    names = _names(root / TRACINGS)
    if not len(attributes) == len(labels) == len(names):
        raise CohortError(
            f"{root}: {len(attributes)} rows of {ATTRIBUTES}, {len(labels)} of {GOLD_STANDARD} and "
            f"{len(names)} tracings",
            remedy="use the files as published: the rows are joined by their number",
        )
    frame = pd.DataFrame(
        {
            "path": [TRACINGS + SEPARATOR + name for name in names],
            "record": names,
            "patient": names,
            "split": "test",
            "age": attributes["age"],
            "sex": attributes["sex"].map({"F": "female", "M": "male"}),
            **{label: labels[label] for label in ABNORMALITIES},
        }
    )
    return frame, {}


def _read(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    table = read_table(file, CohortError, text=("exam_id", "patient_id", "trace_file"))
    absent = [name for name in columns if name not in table]
    if absent:
        raise CohortError(
            f"{file}: columns {absent} are missing; it has {list(table.columns[:8])}",
            remedy="use the table as published",
        )
    return table


def _names(file: Path) -> list[str]:
    try:
        return hdf5.members(EcgFile(str(file)))
    except RecordError as error:
        raise CohortError(error.problem, remedy=_DOWNLOAD) from None


def _sexes(is_male: pd.Series[bool]) -> pd.Series[str]:
    return is_male.astype(str).str.strip().str.lower().map({"true": "male", "false": "female"})


def _is_test(path: Path) -> bool:
    return all((path / name).is_file() for name in (ATTRIBUTES, GOLD_STANDARD))


def _recognises(path: Path) -> bool:
    return has_columns(path / EXAMS, _COLUMNS)


LAYOUT = Layout(
    "CODE-15 %",
    f"CODE-15 %'s folder with {EXAMS} and exams_part*.hdf5",
    _recognises,
    open_code15,
    tuple(TASKS),
    "all-7",
    ("exams_part*.hdf5", "*/exams_part*.hdf5"),
)
TEST_LAYOUT = Layout(
    "CODE-test",
    f"CODE-test's folder with {ATTRIBUTES}, {TRACINGS} and {GOLD_STANDARD}",
    _is_test,
    open_code15,
    tuple(TASKS)[:1],
    signals=(TRACINGS,),
)
