"""MIMIC-IV-ECG: 800,035 records of 161,352 patients, with the sentences of the ECG machine.

Gow et al. 2023 (PhysioNet, version 1.0). The sentences are those of `machine_measurements.csv`:
no physician has confirmed them.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from einthoven.cohorts.cohort import Cohort
from einthoven.cohorts.data_sets import EmptyRows, data_set, read_text_table
from einthoven.cohorts.layout import Layout, unknown_task
from einthoven.cohorts.statements import STATEMENTS
from einthoven.errors import CohortError
from einthoven.licences import Licence

RECORDS = "record_list.csv"
MEASUREMENTS = "machine_measurements.csv"
LINES = tuple(f"report_{number}" for number in range(18))
SENTENCES = "sentences"
LICENCE = Licence(
    "ODbL-1.0",
    "trained on MIMIC-IV-ECG; attribute Gow et al., PhysioNet 2023; databases that are derived "
    "from it have the same licence",
    True,
)
# Lines that express a doubt are not divided: what follows "with" is in doubt too.
_DOUBT = re.compile(
    r"\b(?:possible|possibly|probable|probably|consider|cannot|suggests?|suggestive|or|borderline|"
    r"no|may)\b"
)
_AGE = re.compile(r"\s*-+\s*age\b.*$|,?\s*age (?:undetermined|indeterminate)$")
_SHARE = 1000


def open_mimic_iv_ecg(
    path: str | Path,
    task: str = SENTENCES,
    *,
    empty_rows: EmptyRows = "drop",
    min_records: int | None = None,
    seed: int = 0,
) -> Cohort:
    """Open MIMIC-IV-ECG's folder.

    Labels are the sentences of the ECG machine in lower case, without the age of an infarct;
    "sinus rhythm with PVC(s)" is two of them. Patients are split 80 / 10 / 10, stratified by label.
    Ages and sexes are in MIMIC-IV itself, which needs an account, and the dates are shifted: none
    of them is read.

    Parameters
    ----------
    path : path
        Folder with `record_list.csv` and `machine_measurements.csv`.
    task : str
        `sentences`.
    empty_rows : {"drop", "keep"}
        Treatment of records without any of the sentences.
    min_records : int, optional
        Leave out sentences that fewer records have. Default: one record in 1,000.
    seed : int
        Seed of the split.

    Raises
    ------
    CohortError
        For an unknown task, or tables that are missing, unreadable or inconsistent.
    """
    root = Path(path)
    if task != SENTENCES:
        raise unknown_task(task, (SENTENCES, STATEMENTS))
    listed = read_text_table(root / RECORDS, ("subject_id", "study_id", "path"))
    reports = read_text_table(root / MEASUREMENTS, ("study_id", LINES[0]), LINES[1:])
    if (repeated := listed["study_id"][listed["study_id"].duplicated()]).size:
        raise CohortError(
            f"{root / RECORDS}: study {repeated.iloc[0]} occurs more than once",
            remedy="use the file as it is published",
        )
    pairs = _sentences(reports, listed["study_id"])
    counts = pairs["sentence"].value_counts()
    least = max(1, len(listed) // _SHARE if min_records is None else min_records)
    labels = sorted(counts.index[counts >= least])
    if not labels:
        raise CohortError(
            f"{root}: no sentence has {least} records", remedy="use a smaller minimum"
        )
    columns = pd.Index(labels).get_indexer(pd.Index(pairs["sentence"]))
    matrix = np.zeros((len(listed), len(labels)), dtype=np.uint8)
    matrix[pairs["record"].to_numpy()[columns >= 0], columns[columns >= 0]] = 1
    records = pd.DataFrame(
        {"path": listed["path"], "patient": listed["subject_id"], "record": listed["study_id"]}
    )
    return data_set(
        root,
        records,
        labels,
        matrix,
        name="mimic-iv-ecg",
        task=task,
        licence=LICENCE,
        empty_rows=empty_rows,
        seed=seed,
    )


def _sentences(reports: pd.DataFrame, studies: pd.Series[str]) -> pd.DataFrame:
    """Pairs of `record`, its number, and `sentence`, each once."""
    parts = []
    numbers = pd.Index(studies).get_indexer(pd.Index(reports["study_id"]))
    for name in reports.columns.drop("study_id"):
        places, lines = pd.factorize(reports[name])  # each line is divided once
        divided = pd.Series(map(sentences_of, lines), dtype=object).explode().dropna()
        pairs = pd.DataFrame({"record": numbers[numbers >= 0], "line": places[numbers >= 0]})
        parts.append(pairs.merge(divided.rename("sentence"), left_on="line", right_index=True))
    return pd.concat(parts)[["record", "sentence"]].drop_duplicates()


def sentences_of(text: str) -> list[str]:
    """Sentences of a line of a report, in lower case.

    A line is divided at "with" unless it expresses a doubt.
    """
    plain = _AGE.sub("", " ".join(text.lower().split()).strip(" .-*"))
    parts = [plain] if _DOUBT.search(plain) else plain.split(" with ")
    return [part.strip(" .,-") for part in parts if part.strip(" .,-")]


def _recognises(path: Path) -> bool:
    return (path / RECORDS).is_file() and (path / MEASUREMENTS).is_file()


LAYOUT = Layout(
    "MIMIC-IV-ECG",
    f"a folder with {RECORDS} and {MEASUREMENTS}",
    _recognises,
    open_mimic_iv_ecg,
    (SENTENCES,),
    SENTENCES,
    ("files/p[0-9]*",),
)
