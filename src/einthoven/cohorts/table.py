"""Cohorts from a table of records and labels, and from a folder of ECG files."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from einthoven.cohorts.cohort import (
    SPLITS,
    UNLABELLED,
    Cohort,
    CohortWarning,
    checked,
    split_by_patient,
    warn_of_far_values,
)
from einthoven.cohorts.layout import TABLE_SUFFIXES, Layout
from einthoven.errors import CohortError
from einthoven.files import read_table, without_index
from einthoven.licences import OWN_DATA, SIMULATED
from einthoven.records.formats import find_records
from einthoven.records.record import canonical_patient, visible_text
from einthoven.tasks import Task
from einthoven.tasks.task import condition_of

_UNNAMED = 100  # columns without a name that are passed over where labels are not read from all
# Read as text: "007" is neither 7 nor "7", a path keeps its zeros, and "NA" is a name.
_TEXT = ("path", "patient", "record")
NOT_LABELS = ("path", "patient", "record", "fold", "split", "age", "sex", "date", "device")
_AGE = r"^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\.?\s*$"
_PER_YEAR = {
    **dict.fromkeys(("", "y", "yr", "yrs", "year", "years"), 1.0),
    **dict.fromkeys(("m", "mo", "mos", "mth", "mths", "month", "months"), 12.0),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks"), 365.25 / 7),
    **dict.fromkeys(("d", "day", "days"), 365.25),
}
"""Number of a unit of age in a year, without a unit 1."""
_SPELLINGS: dict[str, Callable[[Any], str]] = {
    "patient": canonical_patient,
    "split": lambda value: visible_text(str(value)),
}
_OLDEST = 120  # years
_SHOWN = 3  # names in a message
_LEADING_ZEROS = r"(?<!\d)0+(?=\d)"
_ROUNDED = r"\d(?:[.,]\d+)?[eE]\+\d\d"
_EXPONENT = r"(\d(?:[.,]\d+)?)e\+?(\d{1,2})"
_UNKNOWN = ("na", "n/a", "nan", "null", "none", "unknown", "-", "?")  # names of no patient


def open_table(
    source: str | Path | pd.DataFrame,
    *,
    root: str | Path | None = None,
    task: Task | str | Path | None = None,
    labels: Sequence[str] | None = None,
    min_records: int = 0,
    seed: int = 0,
) -> Cohort:
    """Open a CSV or Parquet table, or a data frame, as a cohort.

    Columns: `path` (relative to `root`; default: the table's folder, or the current one for a data
    frame), `patient`, and one column of 0 and 1 a label, or what `task` names. Optional: `record`
    (id; the path without it), `split` (`train`, `validation`, `test`) or `fold` (whole numbers: the
    last fold tests, the last but one validates). Without either, patients are split 80 / 10 / 10,
    stratified by label.
    Also optional: `age` in years, or with its unit (`88`, `88 y`, `3 months`), `sex`, `date`
    of the recording in ISO 8601, `device`. An age or a date in another form counts as missing, with
    a CohortWarning; so does an age above 120, among them PTB-XL's code 300. Patients whose names
    differ only in case, blanks, punctuation or leading zeros are different ones, also with a
    CohortWarning.

    `task` is a `Task`, or its TOML file. `labels` names the label columns of a table with further
    columns; an empty list reads none, and
    without `patient` each record is then a patient of its own. With `min_records`, labels that
    fewer records carry are left out. An empty cell is not known, and counts neither as positive nor
    as negative; a record without any known target is left out.

    A table without label columns serves for pretraining and prediction; no test split is set aside.

    Raises
    ------
    CohortError
        For missing columns, label values other than 0 and 1, or a patient in two splits.
    """
    if isinstance(source, pd.DataFrame):
        file, frame = Path("table"), _checked_frame(source.rename(columns=str), "data frame")
    else:
        file = Path(source)
        frame = _read(file, named=labels is None)
    if labels is not None and not labels and "patient" not in frame and "path" in frame:
        frame = frame.assign(patient=frame["path"])
    missing = [name for name in ("path", "patient") if name not in frame]
    if missing:
        raise CohortError(
            f"{file}: columns {missing} are missing; it has {list(frame.columns[:8])}",
            remedy="name the ECG file in `path` and its patient in `patient`",
        )
    goal = _task_of(task, labels, frame)
    ages = ages_of(frame["age"], file) if "age" in frame else None
    columns = frame if ages is None else frame.assign(age=ages)
    if goal.targets:
        is_chosen = labels is not None or task is not None
        _warn_of_unread_columns(frame, goal.targets if is_chosen else (), file)
    names, matrix = goal.behaviour.read(goal, columns, file)
    if not isinstance(source, pd.DataFrame):
        _warn_of_empty_words(goal, frame, file)
    patients = frame["patient"].astype(str).to_numpy(dtype=str)
    table = pd.DataFrame({"path": frame["path"].astype(str), "patient": patients})
    table["split"] = _splits(frame, patients, goal.behaviour.strata(matrix), seed, file)
    if not np.array_equal(table["patient"], table["path"]):
        _warn_of_similar_patients(table, file)
        _warn_of_rounded_patients(table["patient"], file)
        _warn_of_unknown_patients(table["patient"], file)
    for extra in ("fold", "sex", "device"):
        if extra in frame:
            table[extra] = frame[extra].to_numpy()
    if ages is not None:
        table["age"] = ages
    if "date" in frame:
        table["date"] = _dates(frame["date"], file)
    table.index = pd.Index(frame.get("record", frame["path"]).astype(str), name="record")
    warn_of_far_values(goal.behaviour.numbers(goal, columns, file), table.index.tolist(), file)
    cohort = Cohort(
        name=file.stem,
        version="",
        task=UNLABELLED,
        labels=names,
        root=Path(root) if root else file.parent,
        table=table,
        matrix=matrix,
        has_splits="split" in frame or "fold" in frame,
        target=goal.resolved(names),
    )
    cohort = cohort.known().with_common_labels(min_records)
    licence = SIMULATED if cohort.is_synthetic else OWN_DATA
    return checked(replace(cohort, task=_name_of(cohort), licence=licence))


def open_folder(path: str | Path) -> Cohort:
    """Open every ECG file below a folder, all in `train`, each as a patient of its own.

    Raises CohortError if there is none.
    """
    root = Path(path)
    paths = paths_below(root)
    if not paths:
        raise CohortError(
            f"{root} contains neither ECG files nor the tables of a known data set",
            remedy="choose a folder that does, or a .csv or .parquet table with the path of each "
            "ECG file; `einthoven download ptb-xl DEST` downloads PTB-XL",
        )
    frame = pd.DataFrame({"path": paths, "patient": paths, "split": "train"})
    cohort = open_table(frame, root=root, labels=())
    return replace(cohort, name=root.resolve().name, has_splits=False)


def paths_below(root: Path) -> list[str]:
    """Paths of all records below a folder, relative to it and sorted.

    A CohortWarning names links that lead nowhere, and folders that cannot be read.
    """
    unreachable: list[Path] = []
    paths = [str(file.relative_to(root)) for file in find_records(root, unreachable)]
    if unreachable:
        names = sorted(str(place.relative_to(root)) for place in unreachable)
        warnings.warn(
            f"{root}: {len(names)} links that lead nowhere, or folders that cannot be read, are "
            f"left out: {', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)}",
            CohortWarning,
            stacklevel=3,
        )
    return paths


def columns_of(path: str | Path) -> list[str]:
    """Names of a table's columns, as `open_table` reads it; CohortError if it cannot be read."""
    return [str(name) for name in _read(Path(path), named=False)]


def _read(file: Path, *, named: bool) -> pd.DataFrame:
    """Read a table; `named` refuses columns without a name, which would be labels."""
    if file.suffix not in TABLE_SUFFIXES:
        kinds = " or ".join(TABLE_SUFFIXES)
        raise CohortError(f"{file}: unknown kind of table", remedy=f"use {kinds}")
    unnamed = () if named else [f"unnamed {place}" for place in range(_UNNAMED)]
    return _checked_frame(read_table(file, CohortError, text=_TEXT, unnamed=unnamed), str(file))


def _checked_frame(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    twice = frame.columns[frame.columns.duplicated()].tolist()
    if twice:  # in a data frame; `read_table` refuses files
        raise CohortError(
            f"{name}: the column {twice[0]!r} is there twice", remedy="use each name once"
        )
    frame = without_index(frame)
    texts = [column for column in (*_TEXT, "split") if column in frame]
    frame = frame.assign(**{column: _stripped(frame[column]) for column in texts})
    needed = [column for column in (*texts, "fold") if column in frame]
    gaps = [column for column in needed if frame[column].isna().any()]
    if gaps or frame.empty:
        raise CohortError(
            f"{name}: {'no rows' if frame.empty else f'empty cells in {gaps}'}",
            remedy="fill in every path, patient, record, split and fold",
        )
    return frame


def _stripped(column: pd.Series[Any]) -> pd.Series[Any]:
    """A column as text without surrounding blanks, patients in one spelling; NaN where empty."""
    spell = _SPELLINGS.get(str(column.name), lambda value: str(value).strip())
    texts = column.map(spell, na_action="ignore").astype(object)
    return texts.where(texts != "", np.nan)


def ages_of(column: pd.Series[Any], file: Path, *, oldest: float = _OLDEST) -> NDArray[np.float64]:
    """Ages in years, NaN where missing; shape (records,).

    A number without a unit is one of years. Other texts than numbers with a unit of time, and an
    age above `oldest`, count as missing, with a CohortWarning. So does `35M`, which may be a man of
    35 years, unless other ages of the column have the unit `Y`, `W` or `D` and none ends in `F`;
    `035M` is the form in which DICOM writes months.
    """
    texts = column.astype(str).where(column.notna(), "")
    parts = texts.str.lower().str.extract(_AGE)
    letters = set(parts[1].dropna())
    has_units = not letters.isdisjoint("ywd") and "f" not in letters
    is_unclear = (parts[1] == "m") & ~(parts[0].str.fullmatch(r"\d{3}") & ("f" not in letters))
    units = parts[1].map(_PER_YEAR).mask(is_unclear & (not has_units))
    years = parts[0].astype(np.float64) / units
    years = years.where(years <= oldest)
    bad = texts.str.strip().ne("") & years.isna()
    months = ", or in months such as '3 months'" if (bad & is_unclear).any() else ""
    _warn(column, bad, f"an age up to {oldest:g} years{months}", file)
    return np.asarray(years, np.float64)


def _dates(column: pd.Series[Any], file: Path) -> NDArray[np.str_]:
    """Dates as text in ISO 8601, empty where missing; shape (records,)."""
    texts = column.astype(str).str.strip().where(column.notna(), "")
    dates = pd.to_datetime(texts.where(texts != ""), format="ISO8601", errors="coerce", utc=True)
    _warn(column, texts.ne("") & dates.isna(), "a date such as 2024-07-31", file)
    return dates.dt.strftime("%Y-%m-%d").fillna("").to_numpy(np.str_)


def _warn(column: pd.Series[Any], bad: pd.Series[bool], expected: str, file: Path) -> None:
    if bad.any():
        warnings.warn(
            f"{file}: {column.name} {str(column[bad].iloc[0])!r} is not {expected}; "
            f"{int(bad.sum())} of {len(column)} rows count as missing",
            CohortWarning,
            stacklevel=4,
        )


def _warn_of_empty_words(task: Task, frame: pd.DataFrame, file: Path) -> None:
    """Name words, such as `null` among classes, that count as empty cells in a CSV table."""
    names = {c.column if (c := condition_of(name)) else name for name in task.targets}
    names = {name for name in names if name in frame and not is_numeric_dtype(frame[name])}
    if file.suffix != ".csv" or not any(frame[name].isna().any() for name in names):
        return
    cells = pd.read_csv(
        file,
        encoding="utf-8-sig",
        usecols=lambda name: str(name).strip() in names,
        dtype=str,
        keep_default_na=False,
    )
    for column in cells:
        name = str(column).strip()
        words = cells[column].str.strip()[frame[name].isna().to_numpy()]
        counts = words[words != ""].value_counts()
        if len(counts):
            shown = ", ".join(f"{count} x {word!r}" for word, count in counts.items())
            warnings.warn(
                f"{file}: column {name!r}: {shown} count as not known. If it is a class, "
                "give it another name in the table",
                CohortWarning,
                stacklevel=3,
            )


def _warn_of_unread_columns(frame: pd.DataFrame, named: Sequence[str], file: Path) -> None:
    """Name columns, such as `Split`, that nearly have the name of one that is read.

    `named` are targets that a user has named, which are read as such.
    """
    targets = {c.column if (c := condition_of(name)) else name for name in named}
    for column in frame.columns.difference([*NOT_LABELS, *targets]):
        name = visible_text(str(column)).casefold()
        if name in NOT_LABELS and name not in frame:
            warnings.warn(
                f"{file}: the column {column!r} is not read as {name!r}. Rename it to {name!r} if "
                "it is one",
                CohortWarning,
                stacklevel=3,
            )


def _warn_of_similar_patients(table: pd.DataFrame, file: Path) -> None:
    """Name patients, such as `ABC-1` and `abc 1`, that may be one."""
    patients = pd.Index(table["patient"].unique())
    names = patients.map(_letters_and_digits)
    strict, loose = (
        texts.str.replace(_LEADING_ZEROS, "", regex=True)
        for texts in (names, names.str.replace("-", ""))
    )
    # `1-11` and `11-1` are two patients, of which `111` may be either.
    spellings = pd.Series(strict).where(strict.str.contains("-")).groupby(loose).nunique()
    keys = pd.Series(np.where(loose.map(spellings.to_dict()) > 1, strict, loose), index=patients)
    keys = keys[keys.duplicated(keep=False)]
    splits = table[table["patient"].isin(keys.index)].groupby("patient")["split"].agg(set)
    groups = [names for _, names in splits.groupby(splits.index.map(keys.to_dict()))]
    if not groups:
        return
    crossing = [names for names in groups if len(set.union(*names)) > 1]
    first = ", ".join(map(repr, (crossing or groups)[0].index[:_SHOWN]))
    warnings.warn(
        f"{file}: patients {first} differ only in case, blanks, punctuation or leading zeros, "
        f"and count as different ones; {len(groups)} such group{'s' * (len(groups) > 1)}, "
        f"{len(crossing)} in different splits. "
        "Write a patient in one way, or the model is tested on patients that it has seen",
        CohortWarning,
        stacklevel=3,
    )


def _warn_of_rounded_patients(patients: pd.Series[str], file: Path) -> None:
    """Name patients, such as `1.23457E+11`, whose last digits a spreadsheet left out."""
    rounded = patients[patients.str.fullmatch(_ROUNDED)]
    if len(rounded):
        warnings.warn(
            f"{file}: patient {rounded.iloc[0]!r} ({len(rounded)} records have such a name) is a "
            "number without its last digits. Format the column as text in the spreadsheet and "
            "export it again, or several patients count as one, and one as several",
            CohortWarning,
            stacklevel=3,
        )


def _warn_of_unknown_patients(patients: pd.Series[str], file: Path) -> None:
    """Name a patient of several records whose name, such as `NA`, may mean that it is unknown."""
    counts = patients.value_counts()
    for name, count in counts[counts > 1].items():
        if str(name).casefold() in _UNKNOWN:
            warnings.warn(
                f"{file}: {count} records have the patient {name!r} and count as those of one "
                "patient. If it means that the patient is not known, write another name for each",
                CohortWarning,
                stacklevel=3,
            )


def _letters_and_digits(patient: str) -> str:
    """Letters in lower case and digits of a name; a hyphen for what separates two digits.

    A number with an exponent, such as `1e5`, is written out.
    """
    text = unicodedata.normalize("NFKC", patient).casefold()
    if exponent := re.fullmatch(_EXPONENT, text):
        return canonical_patient(f"{exponent[1]}e+{int(exponent[2]):02}")
    text = re.sub(r"(?<=\d)[\W_]+(?=\d)", "-", text)
    return re.sub(r"[^\w-]|_|(?<!\d)-|-(?!\d)", "", text) or patient


def _task_of(
    task: Task | str | Path | None, labels: Sequence[str] | None, frame: pd.DataFrame
) -> Task:
    """The task with its columns: those of `labels`, or all that are not named otherwise."""
    if isinstance(task, str | Path):
        task = Task.load(task)
    if labels is not None and not labels:
        return Task()
    if labels is not None:
        return replace(task or Task(), target=tuple(labels))
    if task is not None and (task.targets or task.kind != Task().kind):
        return task
    return Task(target=tuple(str(c) for c in frame if c not in NOT_LABELS))


def _name_of(cohort: Cohort) -> str:
    is_classes = cohort.target.behaviour.form == "classes"
    return task_name(cohort.target.targets if is_classes else cohort.labels)


def task_name(names: Sequence[str]) -> str:
    """Name of a task without one: its few labels, or their number."""
    return ",".join(names) or UNLABELLED if len(names) < 5 else f"{len(names)} labels"


def _splits(
    frame: pd.DataFrame,
    patients: NDArray[np.str_],
    strata: NDArray[np.uint8],
    seed: int,
    file: Path,
) -> NDArray[np.str_]:
    if "split" in frame:
        unknown = sorted(set(frame["split"]) - set(SPLITS))
        if unknown:
            raise CohortError(
                f"{file}: splits {unknown}", remedy=f"use the names {', '.join(SPLITS)}"
            )
        return frame["split"].to_numpy(dtype=str)
    if "fold" not in frame:
        splits = split_by_patient(patients, strata, seed=seed)
        return splits if strata.shape[1] else np.where(splits == "test", "train", splits)
    numbers = pd.to_numeric(frame["fold"], errors="coerce")
    if (bad := numbers.isna() | (numbers % 1 != 0)).any():
        raise CohortError(
            f"{file}: fold {str(frame.loc[bad, 'fold'].iloc[0])!r} is not a whole number",
            remedy="number the folds: the last one tests, the last but one validates",
        )
    folds = np.unique(numbers)
    if len(folds) < 3:
        raise CohortError(
            f"{file}: {len(folds)} folds, at least 3 are needed",
            remedy="number at least three folds, or drop the column to split by patient",
        )
    names = {folds[-1]: "test", folds[-2]: "validation"}
    return np.array([names.get(fold, "train") for fold in numbers], dtype=str)


def _is_table(path: Path) -> bool:
    return path.suffix in TABLE_SUFFIXES and not path.is_dir()


TABLE = Layout("table", "a .csv or .parquet table with the path of each ECG", _is_table, open_table)
FOLDER = Layout("folder", "a folder of ECG files", Path.is_dir, open_folder)
