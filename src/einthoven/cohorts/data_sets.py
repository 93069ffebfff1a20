"""What the openers of several data sets have in common: tables of text, targets, the cohort."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from einthoven.cohorts.cohort import WITHOUT_LABEL, Cohort, checked, split_by_patient
from einthoven.cohorts.table import open_table
from einthoven.errors import CohortError
from einthoven.files import read_table
from einthoven.licences import Licence

EmptyRows = Literal["drop", "keep"]


def read_text_table(
    file: Path, columns: Collection[str], optional: Collection[str] = ()
) -> pd.DataFrame:
    """Read these columns of a data set's table as text; empty cells are empty strings.

    Raises
    ------
    CohortError
        If the table is missing, cannot be read, or lacks one of `columns`.
    """
    table = read_table(file, CohortError, text=[*columns, *optional])
    if missing := [name for name in columns if name not in table]:
        raise CohortError(
            f"{file}: columns {missing} are missing; it starts {list(table.columns[:4])}",
            remedy="use the file as it is published; spreadsheets rewrite its header",
        )
    return table[[name for name in (*columns, *optional) if name in table]].fillna("")


def marked(
    pairs: Sequence[tuple[int, str]], classes: Mapping[str, Collection[str]], records: int
) -> NDArray[np.uint8]:
    """`(records, classes)` matrix, 1 where a record has one of the codes of a class.

    `pairs` are the number of a record and a code that it has.
    """
    columns: dict[str, list[int]] = {}
    for column, codes in enumerate(classes.values()):
        for code in codes:
            columns.setdefault(code, []).append(column)
    matrix = np.zeros((records, len(classes)), dtype=np.uint8)
    for record, code in pairs:
        matrix[record, columns.get(code, [])] = 1
    return matrix


def data_set(
    root: Path,
    records: pd.DataFrame,
    labels: Sequence[str],
    matrix: NDArray[np.uint8],
    *,
    name: str,
    task: str,
    licence: Licence,
    descriptions: Mapping[str, str] | None = None,
    version: str = "",
    empty: NDArray[np.bool_] | None = None,
    empty_rows: EmptyRows = "drop",
    min_records: int = 0,
    seed: int = 0,
) -> Cohort:
    """Cohort of a data set.

    Parameters
    ----------
    root : Path
        Its folder.
    records : pandas.DataFrame
        Columns of `open_table` other than labels.
    labels, matrix
        Names of the labels, and `(records, labels)` with 1 where one holds.
    name, task, licence, descriptions, version
        Those of the cohort.
    empty : array of bool, shape (records,), optional
        Records of which no label is known. Default: those without any label.
    empty_rows : {"drop", "keep"}
        Treatment of these records.
    min_records : int
        Leave out labels that fewer records carry.
    seed : int
        Seed of the split, if the records have none.

    Raises
    ------
    CohortError
        If the records are inconsistent, or no label is left.
    """
    if empty_rows not in ("drop", "keep"):
        raise CohortError(f"empty_rows = {empty_rows!r}", remedy="choose 'drop' or 'keep'")
    is_split = "split" in records or "fold" in records
    if not is_split:
        splits = split_by_patient(records["patient"].tolist(), matrix, seed=seed)
        records = records.assign(split=splits)
    cohort = replace(
        open_table(records, root=root, labels=()),
        labels=tuple(labels),
        matrix=matrix,
        name=name,
        version=version,
        task=task,
        licence=licence,
        descriptions={key: text for key, text in (descriptions or {}).items() if key in labels},
        has_splits=is_split,
    ).with_common_labels(min_records)
    cohort = checked(cohort)
    if empty_rows == "keep":
        return cohort
    unknown = (matrix == 0).all(axis=1) if empty is None else empty
    return cohort.select(~unknown, reason=WITHOUT_LABEL)
