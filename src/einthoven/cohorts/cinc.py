"""Folders of the PhysioNet/CinC Challenges 2020 and 2021, and others with `#Dx` in their headers.

One database or several, as downloaded: Chapman-Shaoxing, Ningbo, Georgia, CPSC 2018, CPSC-Extra,
PTB, PTB-XL and St Petersburg, in nested folders or not. Age, sex and SNOMED CT codes are lines of
the WFDB headers. `cinc.csv` lists the codes of the Challenges and the classes that they score
(Reyna et al. 2021; physionetchallenges/evaluation-2021).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from einthoven.cohorts.cohort import Cohort, CohortWarning
from einthoven.cohorts.data_sets import EmptyRows, data_set, marked
from einthoven.cohorts.layout import Layout, unknown_task
from einthoven.cohorts.ptbxl import TABLES
from einthoven.cohorts.table import paths_below
from einthoven.errors import CohortError
from einthoven.files import files_below
from einthoven.licences import Licence
from einthoven.records.formats import suffixes
from einthoven.records.record import canonical_patient
from einthoven.records.wfdb_header import patient_of

ALL_CODES = "all"
TASKS = ("cinc-2021", "cinc-2020", ALL_CODES)
PAIRS = {
    "cinc-2021": (("CLBBB", "LBBB"), ("CRBBB", "RBBB"), ("PAC", "SVPB"), ("PVC", "VPB")),
    "cinc-2020": (("CRBBB", "RBBB"), ("PAC", "SVPB"), ("PVC", "VPB")),
}
"""Classes that each Challenge scores as the same diagnosis."""
LICENCE = Licence(
    "CC-BY-4.0",
    "trained on data of the PhysioNet/CinC Challenges; attribute Reyna et al., Computing in "
    "Cardiology 2021, and the databases that were used",
    True,
)
_LINE = re.compile(r"^#\s*(age|sex|dx)\s*:[ \t]*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_SEXES = {"f": "female", "female": "female", "m": "male", "male": "male"}
_UNKNOWN = {"", "nan", "unknown"}
_FIRST, _SAMPLE = 10_000, 20  # files, and ECGs among them, by which a folder is recognised
_OF_WFDB = {".hea", ".dat", ".mat", ".csv", ".tsv"}  # and tables
_SHOWN = 3  # names in a message


def open_cinc(
    path: str | Path,
    task: str = TASKS[0],
    *,
    empty_rows: EmptyRows = "drop",
    min_records: int = 0,
    seed: int = 0,
) -> Cohort:
    """Open a folder of records with SNOMED CT codes in their headers.

    A patient is that of the line `#patient: 17`, which `einthoven convert-ecg` writes. The headers
    of the Challenge name none: each record is then a patient of its own, with a CohortWarning.
    Records are split 80 / 10 / 10, stratified by label. A CohortWarning names ECG files without
    such codes, which count as records without any code.

    Parameters
    ----------
    path : path
        Folder; records of all folders below it are read.
    task : str
        `cinc-2021` (26 classes of 30 codes), `cinc-2020` (24 of 27), or `all`: every code.
    empty_rows : {"drop", "keep"}
        Treatment of records without any code. A record with other codes than those of the task is
        negative for all of its labels.
    min_records : int
        Leave out labels that fewer records carry.
    seed : int
        Seed of the split.

    Raises
    ------
    CohortError
        For an unknown task, or headers that cannot be read.
    """
    root = Path(path)
    if task not in TASKS:
        raise unknown_task(task, TASKS)
    names = paths_below(root)
    heads = [_read(root / f"{name}.hea") for name in names]
    stated = [head.codes for head in heads]
    patients = [head.patient or name for head, name in zip(heads, names, strict=True)]
    codes = [row or frozenset() for row in stated]
    others = [name for name, row in zip(names, stated, strict=True) if row is None]
    classes = _each(codes) if task == ALL_CODES else scored(task)
    pairs = [(number, code) for number, row in enumerate(codes) for code in row]
    cohort = data_set(
        root,
        pd.DataFrame(
            {
                "path": names,
                "patient": patients,
                "age": [head.age for head in heads],
                "sex": [head.sex for head in heads],
            }
        ),
        list(classes),
        marked(pairs, classes, len(names)),
        name=root.resolve().name,
        task=task,
        licence=LICENCE,
        descriptions=_descriptions(classes),
        empty=np.array([not row for row in codes]),
        empty_rows=empty_rows,
        min_records=min_records,
        seed=seed,
    )
    if unnamed := sum(not head.patient for head in heads):
        _warn_of_patients(cohort, unnamed, len(names))
    if others:
        shown = ", ".join(others[:_SHOWN]) + ", ..." * (len(others) > _SHOWN)
        warnings.warn(
            f"{cohort.name}: {len(others)} of {len(names)} ECGs have no line #Dx and so no label: "
            f"{shown}",
            CohortWarning,
            stacklevel=2,
        )
    return cohort


@cache
def _codes() -> pd.DataFrame:
    """The Challenges' codes (index): `abbreviation`, `description`, `scored` (years)."""
    with files("einthoven.cohorts").joinpath("cinc.csv").open(encoding="utf-8") as lines:
        return pd.read_csv(lines, dtype=str, keep_default_na=False).set_index("code")


def known_codes() -> frozenset[str]:
    """SNOMED CT codes of the Challenges, scored or not."""
    return frozenset(_codes().index)


def scored(task: str) -> dict[str, tuple[str, ...]]:
    """Classes that a Challenge scores, such as `CRBBB|RBBB`, and the codes of each."""
    table = _codes()
    table = table[table["scored"].str.contains(task.removeprefix("cinc-"))]
    code_of = dict(zip(table["abbreviation"], table.index, strict=True))
    pairs = {name: pair for pair in PAIRS[task] for name in pair}
    groups = dict.fromkeys(pairs.get(name, (name,)) for name in sorted(code_of, key=str.lower))
    return {"|".join(group): tuple(code_of[name] for name in group) for group in groups}


def _descriptions(classes: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    text_of = _codes()["description"].to_dict()
    texts = {
        label: [text_of[code] for code in codes if code in text_of]
        for label, codes in classes.items()
    }
    return {label: " or ".join(names) for label, names in texts.items() if names}


def _each(codes: Iterable[Collection[str]]) -> dict[str, tuple[str, ...]]:
    """Every code that a record has, as a class of its own."""
    carried = set().union(*codes)
    return {code: (code,) for code in sorted(carried, key=lambda code: (len(code), code))}


class _Head(NamedTuple):
    """Lines of a header.

    `sex` is `female`, `male` or empty, `codes` None without a header or a line for them.
    """

    age: str = ""
    sex: str = ""
    codes: frozenset[str] | None = None
    patient: str = ""


def _read(header: Path) -> _Head:
    """Read the lines of a header that describe its record."""
    try:
        text = header.read_text(encoding="latin-1")
    except FileNotFoundError:  # an ECG file of another format
        text = ""
    except OSError as error:
        raise CohortError(
            f"{header} cannot be read: {error.strerror}",
            remedy="check the file and its permissions",
        ) from None
    lines = {name.lower(): value for name, value in _LINE.findall(text)}
    age, sex = lines.get("age", ""), lines.get("sex", "").lower()
    codes = None
    if "dx" in lines:
        cells = {cell.strip() for cell in lines["dx"].split(",")}
        codes = frozenset(cell for cell in cells if cell.lower() not in _UNKNOWN)
    notes = [line.strip()[1:] for line in text.splitlines() if line.startswith("#")]
    patient = canonical_patient(patient_of(notes))
    return _Head("" if age.lower() in _UNKNOWN else age, _SEXES.get(sex, ""), codes, patient)


def _warn_of_patients(cohort: Cohort, unnamed: int, count: int) -> None:
    headers = "the headers" if unnamed == count else f"{unnamed} of {count} headers"
    message = f"{cohort.name}: {headers} name no patients: each record counts as a patient"
    copies = cohort.table["path"].str.contains(r"(?:^|/)HR\d+$").sum()
    if copies:
        message += (
            f". {copies} records (HR...) are PTB-XL's, where patients have several: open PTB-XL "
            "itself instead"
        )
    warnings.warn(message, CohortWarning, stacklevel=3)


def _recognises(path: Path) -> bool:
    """Whether most of the first ECGs are headers with a line for codes."""
    if not path.is_dir() or any((path / name).is_file() for name in TABLES):
        return False
    others = {*suffixes()} - _OF_WFDB
    has_codes: list[bool] = []
    for file in islice(files_below(path), _FIRST):  # a large folder of other files takes no longer
        if file.suffix == ".hea" and not file.name.startswith("."):
            has_codes.append(_has_codes(file))
        elif file.suffix.lower() in others:
            has_codes.append(False)
        if len(has_codes) == _SAMPLE:
            break
    return 2 * sum(has_codes) > len(has_codes)


def _has_codes(header: Path) -> bool:
    """Whether a header has a line for codes, perhaps an empty one."""
    try:
        return _read(header).codes is not None
    except CohortError:
        return False


LAYOUT = Layout(
    "PhysioNet/CinC Challenge",
    "a folder of WFDB records with #Dx in their headers",
    _recognises,
    open_cinc,
    TASKS,
    ALL_CODES,
)
