"""The catalogue of layouts of cohorts.

A layout is added by a module with a `Layout` and a line in `LAYOUTS` below, or by `register_layout`
in a module that a package declares as an entry point (`einthoven.extensions`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pandas import DataFrame

from einthoven.cohorts import cinc, code15, ludb, mimic_iv_ecg, ptbxl, several, sph, table
from einthoven.cohorts.cohort import Cohort
from einthoven.cohorts.data_sets import EmptyRows
from einthoven.cohorts.layout import Layout, unknown_task
from einthoven.cohorts.statements import STATEMENTS, with_statements
from einthoven.errors import CohortError
from einthoven.extensions import import_extensions
from einthoven.tasks import Task


def _open_list(
    path: Path,
    task: str = STATEMENTS,
    *,
    empty_rows: EmptyRows = "drop",
    min_records: int = 0,
) -> Cohort:
    if task != STATEMENTS:
        raise unknown_task(task, (STATEMENTS,))
    return several.open_several(path, _open_codes, empty_rows=empty_rows, min_records=min_records)


def _open_codes(path: Path, empty_rows: EmptyRows) -> Cohort:
    """A cohort with the codes of its vocabulary as labels."""
    layout = layout_of(path)
    options = {"empty_rows": empty_rows} if "empty_rows" in layout.options else {}
    return open_cohort(path, layout.codes or None, **options)


LISTS = Layout(
    "list of cohorts",
    'a .toml file with cohorts = ["FOLDER", "TABLE.csv"]',
    several.recognises,
    _open_list,
    (STATEMENTS,),
)
LAYOUTS = [
    table.FOLDER,
    table.TABLE,
    LISTS,
    cinc.LAYOUT,
    code15.LAYOUT,
    code15.TEST_LAYOUT,
    ludb.LAYOUT,
    mimic_iv_ecg.LAYOUT,
    sph.LAYOUT,
    ptbxl.LAYOUT,
]
"""Registered layouts; the last one that recognises a path is used. Plain folders come first."""


def register_layout(new: Layout) -> None:
    """Add a layout to the catalogue."""
    LAYOUTS.append(new)


def layout_of(path: str | Path) -> Layout:
    """Layout of a cohort's path.

    Raises
    ------
    CohortError
        If it has none.
    """
    import_extensions()
    root = Path(path)
    for layout in reversed(LAYOUTS):
        if layout.recognises(root):
            return layout
    holds = ", ".join(layout.holds for layout in reversed(LAYOUTS))
    raise CohortError(
        f"{root} is not a cohort" if root.exists() else f"{root} is missing",
        remedy=f"choose one of: {holds}",
    )


def open_cohort(
    source: str | Path | DataFrame, task: Task | str | Path | None = None, **options: Any
) -> Cohort:
    """Open a cohort: a data set in its publisher's layout, a table, or a folder of ECG files.

    Parameters
    ----------
    source : path or pandas.DataFrame
        Folder of a data set of the catalogue (docs/cohorts.md), such as PTB-XL or the output of
        `einthoven synthesize`; a `.csv` or `.parquet` table or a data frame
        (see `einthoven.cohorts.table.open_table`); a `.toml` file that lists several of these,
        which are opened as one cohort; or a folder of ECG files (without labels: it can
        be packed, used for pretraining, and predicted).
    task : Task, str or path, optional
        What is predicted: a `Task`, or its TOML file. Data sets have named tasks: `all-71` (the
        default), `diagnostic-44`, `subclass-23`, `superclass-5`, `form-19`, `rhythm-12`, `sex`,
        `age` or `superclass-single` of PTB-XL, `cinc-2021`, `cinc-2020` or `all` of the Challenges
        (docs/cohorts.md has the others); `statements` of any source whose labels are codes of the
        statement map. Default of a table: all its label columns.
    **options
        Those of the layout (`layout_of(source).options`). PTB-XL: `empty_rows`, `min_records`,
        `match_1_0_3`, `rate`. Other data sets: `empty_rows`, `min_records`, `seed`. Table: `root`,
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
    layout, kind = table.TABLE, "a data frame"
    if not isinstance(source, DataFrame):
        layout, kind = layout_of(source), str(source)
        source = Path(source)
    if task == STATEMENTS and task not in layout.tasks:
        return with_statements(open_cohort(source, layout.codes or None, **options))
    options |= {} if task is None else {"task": task}
    names = layout.options
    if unknown := [name for name in options if name not in names]:
        raise CohortError(
            f"{kind}: unknown option {', '.join(unknown)}",
            remedy=f"the options are {', '.join(names)}" if names else "remove it",
        )
    return layout.open(source, **options)


def without_labels(cohort: Cohort, source: object) -> CohortError:
    """CohortError for a cohort without labels; it names the tables that a data set lacks."""
    for layout in reversed(LAYOUTS):
        if any(next(cohort.root.glob(pattern), None) for pattern in layout.signals):
            return CohortError(
                f"{source} has signals of {layout.name}, but no labels",
                remedy=f"add the published tables: {layout.holds}",
            )
    return CohortError(
        f"{source} has no labels",
        remedy="name a table with a column of 0 and 1 for each label, or what is predicted: "
        "`task=Task(kind=KIND, target=COLUMN)`",
    )
