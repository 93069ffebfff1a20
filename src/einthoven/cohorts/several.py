"""Several cohorts as one: a TOML file that lists them, with statements of the map as labels.

Its key is `cohorts = ["data/ptb-xl", "data/georgia", "hospital/labels.csv"]`. With another one,
`statements = "any"`, the labels are the statements that one of the cohorts has, instead of those
that all of them have; they are unknown (NaN) in the others.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from einthoven.cohorts.cohort import Cohort, checked
from einthoven.cohorts.data_sets import EmptyRows
from einthoven.cohorts.statements import STATEMENTS, any_of, shared_statements, statements
from einthoven.errors import CohortError
from einthoven.licences import combined

KEY = "cohorts"
COMMON, ANY = "common", "any"  # values of the key `statements`


def recognises(path: Path) -> bool:
    """Whether a path is a TOML file with a list of cohorts."""
    return path.suffix == ".toml" and path.is_file() and KEY in _read(path)


def open_several(
    path: str | Path,
    open_member: Callable[[Path, EmptyRows], Cohort],
    *,
    empty_rows: EmptyRows = "drop",
    min_records: int = 0,
) -> Cohort:
    """Open the cohorts of a list as one.

    Records, patients and folds are those of each cohort: patients of different cohorts are
    different ones. Records are named after their cohort, as it is listed.

    Parameters
    ----------
    path : path
        TOML file; the folders and tables in it are relative to it.
    open_member : callable
        Open one of them with codes of the statement map as labels.
    empty_rows : {"drop", "keep"}
        Treatment of records without any label of their own cohort.
    min_records : int
        Leave out statements that fewer records carry.

    Raises
    ------
    CohortError
        If the list is not one of different paths, a cohort cannot be opened, or they share no
        statement.
    """
    file = Path(path)
    entries = {STATEMENTS: COMMON, **_read(file)}
    names, which = entries[KEY], entries[STATEMENTS]
    if len(entries) > 2 or which not in (COMMON, ANY):
        raise CohortError(
            f"{file}: the keys {', '.join(entries)} with {STATEMENTS} = {which!r}",
            remedy=f'write {KEY}, and if needed {STATEMENTS} = "{ANY}"',
        )
    if not isinstance(names, list) or not names or len(set(map(str, names))) < len(names):
        raise CohortError(
            f"{file}: {KEY} = {names!r} is not a list of different paths",
            remedy=f'write {KEY} = ["FOLDER", "TABLE.csv"]',
        )
    root = file.parent
    members = {str(name): open_member(root / str(name), empty_rows) for name in names}
    sides = [member.labels for member in members.values()]
    shared = shared_statements(*sides, common=which == COMMON)
    if not shared:
        raise CohortError(
            f"{file}: no statement is shared by {', '.join(members)}",
            remedy="list cohorts with common statements (docs/cohorts.md)",
        )
    columns = zip(*shared.values(), strict=True)  # by member
    matrices = map(any_of, (member.matrix for member in members.values()), columns)
    descriptions = {statement.name: statement.description for statement in statements()}
    cohort = Cohort(
        name=file.stem,
        version="",
        task=STATEMENTS,
        labels=tuple(shared),
        root=root,
        table=pd.concat([_table(name, member, root) for name, member in members.items()]),
        matrix=np.concatenate(list(matrices)),
        descriptions={name: descriptions[name] for name in shared if name in descriptions},
        licence=combined(*(member.licence for member in members.values())),
        left_out={
            f"{reason} ({name})": count
            for name, member in members.items()
            for reason, count in member.left_out.items()
        },
        has_splits=all(member.has_splits for member in members.values()),
    )
    return checked(cohort.with_common_labels(min_records))


def _table(name: str, member: Cohort, root: Path) -> pd.DataFrame:
    """Table of a member, with names that are unique in all, and paths relative to the list."""
    table = member.table.drop(columns="fold", errors="ignore")
    table = table.set_axis(pd.Index([f"{name}/{record}" for record in table.index], name="record"))
    paths = [os.path.relpath(file, root) for file in member.paths()]
    return table.assign(path=paths, patient=[f"{name}/{who}" for who in table["patient"]])


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CohortError(f"{file} cannot be read: {error}", remedy="write it again") from None
