"""The 12-lead data set of Shandong Provincial Hospital (SPH), with statements of the AHA's list.

Liu et al., Scientific Data 9:272, 2022 (figshare collection 5779802): 25,770 records of 24,666
patients, 44 primary statements, 15 modifiers.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from einthoven.cohorts.cohort import Cohort
from einthoven.cohorts.layout import Layout, has_columns, unknown_task
from einthoven.cohorts.table import open_table
from einthoven.errors import CohortError
from einthoven.files import read_table
from einthoven.licences import Licence

METADATA, CODES = "metadata.csv", "code.csv"
TASKS = ("primary", "modified")
LICENCE = Licence(
    "CC-BY-4.0",
    "trained on the SPH data set; attribute Liu et al., Scientific Data 9:272, 2022",
    True,
)
_MODIFIER = "Modifier"  # category of the codes that qualify a statement
_COLUMNS = ("ECG_ID", "AHA_Code", "Patient_ID", "Age", "Sex", "Date")
_SIZE = (25_770, 24_666)  # records and patients as published
_PUBLISHED = "use metadata.csv and code.csv as published, and unpack records.tar.gz with tar -xf"


def open_sph(
    path: str | Path, task: str = "primary", *, min_records: int = 0, seed: int = 0
) -> Cohort:
    """Open the folder of SPH.

    A record has one or several statements, each a primary code with or without modifiers:
    `60+310;147` is 60 (ventricular premature complexes), modified by 310 (frequent), and 147.
    Patients are split 80 / 10 / 10, stratified by label.

    Parameters
    ----------
    path : path
        Folder with `metadata.csv`, `code.csv` and the folder `records`.
    task : {"primary", "modified"}
        Labels: primary codes; or these and every modified one that a record carries (`60+310`).
    min_records : int
        Leave out labels that fewer records carry.
    seed : int
        Seed of the split.

    Raises
    ------
    CohortError
        For an unknown task, missing files, or codes that are not in `code.csv`.
    """
    root = Path(path)
    if task not in TASKS:
        raise unknown_task(task, TASKS)
    table = _read(root / METADATA, _COLUMNS)
    codes = _read(root / CODES, ("Category", "Code", "Description"))
    is_modifier = codes["Category"].astype(str).str.strip() == _MODIFIER
    texts = dict(zip(codes["Code"].str.strip(), codes["Description"], strict=True))
    primary = list(codes["Code"].str.strip()[~is_modifier])
    rows = [_labels(str(cell), primary, texts, root) for cell in table["AHA_Code"]]
    pairs = sorted({label for row in rows for label in row} - set(primary)) if rows else []
    labels = primary if task == "primary" else [*primary, *pairs]
    folder = "records" if (root / "records").is_dir() else "."
    names = table["ECG_ID"].str.strip()
    files = {file.stem for file in (root / folder).glob("*.h5")}
    is_there = names.isin(files).to_numpy()
    if not is_there.any():
        raise CohortError(f"{root / folder} has none of the records", remedy=_PUBLISHED)
    frame = pd.DataFrame(
        {
            "path": [f"{folder}/{name}.h5" for name in names],
            "record": names,
            "patient": table["Patient_ID"],
            "age": table["Age"],
            "sex": table["Sex"].map({"F": "female", "M": "male"}),
            "date": table["Date"],
        }
    )
    frame[labels] = np.array([[label in row for label in labels] for row in rows], dtype=np.uint8)
    cohort = open_table(
        frame[is_there], root=root, labels=labels, min_records=min_records, seed=seed
    )
    size = (len(cohort), cohort.table["patient"].nunique())
    absent = int((~is_there).sum())
    return replace(
        cohort,
        name="sph",
        version="1" if size == _SIZE else "",
        task=task,
        licence=LICENCE,
        descriptions={label: _description(label, texts) for label in cohort.labels},
        left_out={"without a file": absent} if absent else {},
    )


def _labels(cell: str, primary: list[str], texts: dict[str, str], root: Path) -> set[str]:
    """Primary codes of a record, and each with each of its modifiers."""
    labels: set[str] = set()
    for statement in cell.split(";"):
        code, *modifiers = (part.strip() for part in statement.split("+"))
        unknown = [part for part in (code, *modifiers) if part not in texts]
        if unknown or code not in primary:
            raise CohortError(
                f"{root / METADATA}: AHA_Code {cell!r} has {unknown or [code]}, which {CODES} does "
                "not list as such",
                remedy=_PUBLISHED,
            )
        labels |= {code, *(f"{code}+{modifier}" for modifier in modifiers)}
    return labels


def _description(label: str, texts: dict[str, str]) -> str:
    return ": ".join(str(texts[code]).strip() for code in label.split("+"))


def _read(file: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    table = read_table(file, CohortError, text=("ECG_ID", "AHA_Code", "Patient_ID", "Code"))
    absent = [name for name in columns if name not in table]
    if absent:
        raise CohortError(
            f"{file}: columns {absent} are missing; it has {list(table.columns[:8])}",
            remedy=_PUBLISHED,
        )
    return table


def _recognises(path: Path) -> bool:
    return has_columns(path / METADATA, _COLUMNS)


LAYOUT = Layout(
    "SPH",
    f"SPH's folder with {METADATA} and {CODES}",
    _recognises,
    open_sph,
    TASKS,
    "primary",
    ("A[0-9][0-9][0-9][0-9][0-9].h5", "records/A[0-9][0-9][0-9][0-9][0-9].h5"),
)
