"""Conversion of ECG files of any format to WFDB, DICOM or CSV, with or without identities."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from einthoven.cohorts import SPLITS, TABLE_SUFFIXES, cinc, is_cohort, layout_of, open_cohort
from einthoven.cohorts.cohort import CohortWarning
from einthoven.cohorts.statements import known_codes
from einthoven.cohorts.table import ages_of
from einthoven.errors import CohortError, RecordError
from einthoven.files import lock_for, locked, read_table, replacing, write_text
from einthoven.progress import Progress
from einthoven.records import Record, read_record
from einthoven.records.anonymise import ABOVE_89, age_without_identity, anonymised, codes_of
from einthoven.records.csv_write import csv_content
from einthoven.records.digital import Step, check_written, step_of
from einthoven.records.file import SEPARATOR, EcgFile
from einthoven.records.formats import files_of, records_of
from einthoven.records.metadata import sex_of
from einthoven.records.record import canonical_patient
from einthoven.records.wfdb_write import wfdb_content

FORMATS = ("wfdb", "dicom", "csv")
_OF_FILES = (".hea", ".dat", ".dcm", ".csv")  # names that a folder is not meant to have
TABLE = "ecgs.csv"
_STATED = ("age", "sex")
_COLUMNS = ("split", "fold", *_STATED)
_PLACEHOLDER = re.compile(
    r"anon(ym)?|anonymous|anonymi[sz]ed|de-?identified|removed|redacted|deleted|hidden|unknown|none"
    r"|null|n/?a|nan|no ?id|patient( ?id)?|test|0+|x+|\W+",
    re.IGNORECASE,
)
"""Texts in files in place of a patient's identifier; many patients have the same."""
_AGE = re.compile(r"\d+(\.\d+)?", re.ASCII)
_SHOWN = 3  # names in a message
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")


class Conversion(NamedTuple):
    """What was converted.

    Attributes
    ----------
    folder : Path
        Files, and the table `ecgs.csv`.
    converted, refused : int
        Numbers of records.
    refused_file : Path
        Table of the records that were refused, with reason and remedy, if there are any.
    rounded : int
        Number of records that are multiples of no step of 16 bits.
    step : float
        Largest step of these, in microvolts; samples differ by at most half of it.
    dropped : tuple of str
        Columns of the table that anonymisation left out.
    binary_columns : tuple of str
        Columns of 0 and 1 that it kept. Their names may still be those of patients.
    unknown_codes : int
        Codes of diagnoses that it left out, because no vocabulary of the package has them.
    """

    folder: Path
    converted: int
    refused: int
    refused_file: Path
    rounded: int = 0
    step: float = 0.0
    dropped: tuple[str, ...] = ()
    binary_columns: tuple[str, ...] = ()
    unknown_codes: int = 0


@dataclass(frozen=True)
class _Item:
    """A record to convert; `patient` is empty where the source names none."""

    path: Path
    root: Path | None = None
    patient: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)


def convert(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    to: str,
    anonymise: bool = False,
    mapping: str | Path | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Convert ECG files, folders, or a table, and verify each file by reading it.

    `out` is filled when all records are converted. It holds a file for each record, at its place
    among the sources, and `ecgs.csv` with `path`, `patient`, `age`, `sex` and the columns of a
    table, or the labels and splits of a data set, so that the result can be used as a cohort at
    once. A record counts as a patient of its own if its file names no patient, or has a placeholder
    such as `removed` or `ANONYMOUS` in its place (with a CohortWarning).

    Anonymisation keeps the signal, sex, age (90 for higher ones), plausible heights, weights and
    measurements, filters, known leads, and SNOMED CT codes (`Dx`) of the statement map and of the
    Challenges. It leaves out everything else, among it names, dates,
    devices, institutions and the text of statements, which may contain names; unique identifiers
    are new. Records and patients get running numbers in random order: the same patient has the same
    number. Columns of a table are kept if they hold only 0 and 1 (their names, which may identify
    somebody, are in `binary_columns`), or are `split`, `fold` (whole numbers), `age` or `sex`.

    Parameters
    ----------
    sources : sequence of paths
        ECG files and folders, or one table or data set.
    out : path
        Folder to write; must be empty or not exist.
    to : {"wfdb", "dicom", "csv"}
    anonymise : bool
    mapping : path, optional
        CSV file for the numbers of anonymised records and patients. Whoever has it can undo the
        anonymisation; without it, nobody can.
    progress : Progress, optional

    Raises
    ------
    CohortError
        If a source or a place is not suitable, another process converts to the same place, or no
        record can be converted.
    """
    folder = Path(os.path.abspath(out))
    with ExitStack() as stack:
        places = [folder] if mapping is None else [folder, Path(mapping)]
        for lock, place in {lock_for(place): place for place in places}.items():
            if not stack.enter_context(locked(lock, wait=False)):
                raise CohortError(
                    f"another process is converting to {place}",
                    remedy="let it finish, or choose another place",
                )
        _check(sources, folder, to, anonymise, mapping)
        result = _convert(sources, folder, to, anonymise, mapping, progress)
    return result._replace(folder=Path(out))


def _convert(
    sources: Sequence[str | Path],
    folder: Path,
    to: str,
    anonymise: bool,
    mapping: str | Path | None,
    progress: Progress | None,
) -> Conversion:
    """Fill the folder, of which this process holds the lock."""
    items = _items([Path(source) for source in sources])
    if anonymise:
        secrets.SystemRandom().shuffle(items)
    names = None if anonymise else _names(items)
    staging = _staging(folder)
    shutil.rmtree(staging, ignore_errors=True)  # of a conversion that was killed
    staging.mkdir(parents=True)
    try:
        result, tables = _converted(items, names, staging, to, anonymise, progress)
        refused_file = folder.with_name(f"{folder.name}.refused.csv")
        result = result._replace(refused_file=refused_file)
        refused_file.unlink(missing_ok=True)  # of an earlier conversion
        _write_table(refused_file, tables["refused"])
        if not result.converted:
            first = tables["refused"].iloc[0]
            raise CohortError(
                f"none of {len(items)} records can be converted; the first: {first['refused']}",
                remedy=str(first["remedy"]),
            )
        table, dropped = _table(tables["ecgs"], anonymise=anonymise)
        _write_table(staging / TABLE, table)
        if mapping is not None:
            _write_table(Path(mapping), tables["mapping"])
        _publish(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    targets = [str(name) for name in table if name not in ("path", "patient", *_COLUMNS)]
    return result._replace(dropped=dropped, binary_columns=tuple(targets) if anonymise else ())


# ---------------------------------------------------------------------- sources


def _check(
    sources: Sequence[str | Path],
    folder: Path,
    to: str,
    anonymise: bool,
    mapping: str | Path | None,
) -> None:
    if to not in FORMATS:
        raise CohortError(f"unknown format {to!r}", remedy=f"choose {', '.join(FORMATS)}")
    if mapping is not None and not anonymise:
        raise CohortError(
            "a mapping is written of anonymised records only", remedy="anonymise, or leave it out"
        )
    if mapping is not None and (
        Path(mapping).exists() or Path(mapping).resolve().is_relative_to(folder.resolve())
    ):
        raise CohortError(
            f"{mapping} exists, or lies in {folder}",
            remedy="name a new file outside the folder, so that it is not passed on with the ECGs",
        )
    if folder.is_file() or (folder.is_dir() and {*folder.iterdir()} - {_staging(folder)}):
        raise CohortError(f"{folder} exists and is not empty", remedy="name a new folder")
    if folder.suffix.lower() in _OF_FILES and not folder.is_dir():
        raise CohortError(f"{folder} has the name of a file", remedy="name a new folder")
    for source in map(Path, sources):
        if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
            raise CohortError(f"{folder} lies in {source}", remedy="choose a folder outside it")


def _staging(folder: Path) -> Path:
    """Where files are written: inside an empty folder, which may be a disk of its own."""
    return folder / ".partial" if folder.is_dir() else folder.with_name(f".{folder.name}.partial")


def _publish(staging: Path, folder: Path) -> None:
    """Give the files of a finished conversion their place, the table last."""
    if not folder.is_dir():
        os.replace(staging, folder)
        return
    for path in sorted(staging.iterdir(), key=lambda path: path.name == TABLE):
        os.replace(path, folder / path.name)
    staging.rmdir()


def _items(sources: list[Path]) -> list[_Item]:
    tables = [source for source in sources if source.suffix in TABLE_SUFFIXES and is_cohort(source)]
    if tables and len(sources) > 1:
        raise CohortError(
            f"{tables[0]} is a table, and one of {len(sources)} sources",
            remedy="convert it alone, or name ECG files and folders only",
        )
    if tables:
        items = _rows(tables[0])
    else:
        items = [
            item
            for source in sources
            for item in (_folder(source) if is_cohort(source) else _file(source))
        ]
    if not items:
        raise CohortError("there is no ECG file to convert", remedy="name ECG files or folders")
    return items


def _file(path: Path) -> list[_Item]:
    return [_Item(record) for record in records_of(path)]


def _rows(file: Path) -> list[_Item]:
    """Records of a table, each with all its cells."""
    cohort = open_cohort(file, labels=())  # refuses tables that are inconsistent
    frame = read_table(file, CohortError, text=("path", "patient", "record"))
    has_patients = "patient" in frame
    rows = _dicts(frame.drop(columns=["path", "patient"], errors="ignore"))
    return [
        _Item(cohort.root / path, cohort.root, patient if has_patients else "", row)
        for path, patient, row in zip(cohort.table["path"], cohort.patients(), rows, strict=True)
    ]


def _dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = frame.to_dict("records")  # type: ignore[assignment]
    return rows or [{} for _ in frame.index]  # pandas 2 has no rows without columns


def _folder(folder: Path) -> list[_Item]:
    """Records of a folder; those of a data set with its labels, splits, ages and sexes."""
    keeps = "empty_rows" in layout_of(folder).options
    cohort = labelled = open_cohort(folder, **({"empty_rows": "keep"} if keeps else {}))
    if keeps:  # the labels of the other records are not known, and stay empty
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CohortWarning)  # they have been shown
            labelled = open_cohort(folder)
    columns = [
        name for name in _COLUMNS if name in cohort.table and (name != "split" or cohort.has_splits)
    ]
    labels = pd.DataFrame(labelled.targets(), labelled.table.index, labelled.labels)
    rows = _dicts(cohort.table[columns].join(labels))
    for row in rows:  # the file may state what the data set does not
        for name in _STATED:
            if name in row and (pd.isna(row[name]) or row[name] == ""):
                del row[name]
    return [
        _Item(cohort.root / path, cohort.root, "" if patient == path else str(patient), row)
        for path, patient, row in zip(cohort.table["path"], cohort.patients(), rows, strict=True)
    ]


def _names(items: list[_Item]) -> Iterator[str]:
    """Paths of records without suffix, relative to their common folder; each is unique."""
    paths = [Path(os.path.abspath(item.path)) for item in items]
    common = os.path.commonpath([path.parent for path in paths])
    taken = {Path(TABLE).stem}
    for path in paths:
        file = EcgFile.of(path)
        whole = replace(file, member="").label if os.path.isfile(file.name) else path.name
        label = f"{whole}-{file.member}" if file.member else whole
        stem = re.sub(r"[^-\w]+", "_", label, flags=re.ASCII) or "_"
        name = wanted = str(path.parent.relative_to(common) / stem)
        number = 1
        while name.casefold() in taken:  # many file systems ignore case
            number += 1
            name = f"{wanted}-{number}"
        taken.add(name.casefold())
        yield name


# ---------------------------------------------------------------------- records


def _converted(
    items: list[_Item],
    names: Iterator[str] | None,
    folder: Path,
    to: str,
    anonymise: bool,
    progress: Progress | None,
) -> tuple[Conversion, dict[str, pd.DataFrame]]:
    """Write a file for each record; tables of the converted, of the refused, and of numbers.

    Without names, the records that are written are numbered.
    """
    ecgs: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    mapping: list[dict[str, str]] = []
    numbers: dict[str, str] = {}
    steps: list[float] = []
    width = len(str(len(items)))
    codes = cinc.known_codes() | known_codes("snomed")
    unknown = 0
    placeholders: list[str] = []
    sexes: dict[str, dict[str, str]] = {}  # a record of each sex, by patient
    for done, item in enumerate(items, 1):
        name = next(names) if names is not None else f"{len(ecgs) + 1:0{width}}"
        key = ""
        try:
            record = read_record(item.path, root=item.root)
            patient = canonical_patient(item.patient or record.patient or "")
            if not item.patient and _PLACEHOLDER.fullmatch(patient):
                placeholders.append(patient)
                patient = ""
            original = patient
            if patient and (sex := _stated(record)["sex"]):
                sexes.setdefault(patient, {}).setdefault(sex, str(item.path))
            if anonymise:
                key = patient or f"{SEPARATOR}{name}"
                patient = numbers.get(key, f"P{len(numbers) + 1:0{width}}")
                stated = codes_of(record)
                record = anonymised(record, codes)
            record = replace(record, name=Path(name).name, patient=patient or None)
            path, step = _write(record, folder / name, to, anonymise)
        except RecordError as error:
            problem = error.problem.replace(str(folder / name), str(item.path))
            refused.append({"record": str(item.path), "refused": problem, "remedy": error.remedy})
        else:
            numbers[key] = patient
            if anonymise:
                unknown += len(stated) - len(codes_of(record))
            if step is not None and not step.is_exact:
                steps.append(step.microvolts)
            row = {"path": path.relative_to(folder).as_posix(), "patient": patient or name}
            ecgs.append(row | _stated(record) | dict(item.columns))
            mapping.append(
                {
                    "source": str(item.path),
                    "patient": original,
                    "path": row["path"],
                    "number": row["patient"],
                }
            )
        if progress:
            progress("convert", done, len(items))
    _warn_of_patients(placeholders, sexes)
    tables = {"ecgs": ecgs, "refused": refused, "mapping": mapping}
    result = Conversion(
        folder,
        len(ecgs),
        len(refused),
        folder,
        len(steps),
        max(steps, default=0),
        unknown_codes=unknown,
    )
    return result, {key: pd.DataFrame(rows) for key, rows in tables.items()}


def _warn_of_patients(placeholders: list[str], sexes: dict[str, dict[str, str]]) -> None:
    """Warn of placeholders for patients, and of patients with a record of either sex."""
    if placeholders:
        names = list(dict.fromkeys(placeholders))
        warnings.warn(
            f"records with a placeholder for their patient: {len(placeholders)} "
            f"({', '.join(map(repr, names[:_SHOWN]))}"
            f"{', ...' * (len(names) > _SHOWN)}). Each counts as a patient, so that "
            "records of one patient may be in several splits",
            CohortWarning,
            stacklevel=5,
        )
    contradictory = [tuple(records.values()) for records in sexes.values() if len(records) > 1]
    if contradictory:
        warnings.warn(
            f"patients with records of both sexes: {len(contradictory)}, such as that of "
            f"{' and '.join(contradictory[0])}. Such an identifier may stand for several persons; "
            "they count as one patient, unless the column `patient` of a table tells them apart",
            CohortWarning,
            stacklevel=5,
        )


def _stated(record: Record) -> dict[str, str]:
    """Age in years and sex that a record states; empty where it states none."""
    texts = {key.lower(): text.strip() for key, text in record.metadata.items()}  # `#Age: 85`
    age = texts.get("age", "")
    return {"age": age if _AGE.fullmatch(age) else "", "sex": sex_of(texts.get("sex", ""))}


def _write(record: Record, stem: Path, to: str, is_anonymous: bool) -> tuple[Path, Step | None]:
    """Write the files of a record, the first-named one last, and verify them."""
    if to == "wfdb":  # whose lead names are words
        record = replace(record, leads=tuple(re.sub(r"\s+", "_", lead) for lead in record.leads))
    files, step = _encoded(record, stem, to, is_anonymous)
    for suffix, content in reversed(files.items()):
        with replacing(stem.with_name(stem.name + suffix), sync=False) as temporary:
            temporary.write_bytes(content)
    path = stem.with_name(stem.name + next(iter(files)))
    try:
        check_written(record, read_record(path), step)
    except RecordError:
        for file in files_of(path):
            file.unlink()
        raise
    return path, step


def _encoded(
    record: Record, stem: Path, to: str, is_anonymous: bool
) -> tuple[dict[str, bytes], Step | None]:
    """Content of the files of a record by suffix, and the size of a count; None for decimals."""
    if to == "csv":
        samples, sidecar = csv_content(record)
        return {".csv": samples, ".toml": sidecar}, None
    if to == "dicom":
        from einthoven.records.dicom_write import dicom_content  # pydicom takes 0.2 s

        content, step = dicom_content(record, is_anonymous=is_anonymous)
        return {".dcm": content}, step
    step = step_of(record.signal)
    header, samples = wfdb_content(
        str(stem),
        record.signal,
        rate=record.rate,
        leads=record.leads,
        patient=record.patient and _UNPRINTABLE.sub(" ", record.patient),
        comments=[
            f"{key}: {_UNPRINTABLE.sub(' ', line)}"
            for key, value in record.metadata.items()
            for line in value.splitlines()
        ],
        microvolts=step.microvolts,
    )
    return {".hea": header, ".dat": samples}, step


# ---------------------------------------------------------------------- tables


def _table(frame: pd.DataFrame, *, anonymise: bool) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Table of the records, without empty columns; and the columns that were left out."""
    frame = frame.dropna(axis="columns", how="all")
    frame = frame.loc[:, [name for name in frame if (frame[name].astype(str) != "").any()]]
    if not anonymise:
        return frame, ()
    columns = [
        name
        for name in frame
        if name in ("path", "patient", "age", "sex")
        or (name == "split" and frame[name].dropna().isin(["", *SPLITS]).all())
        or (name == "fold" and frame[name].dropna().map(_is_fold).all())
        or frame[name].dropna().isin([0, 1]).all()
    ]
    dropped = tuple(str(name) for name in frame if name not in columns)
    frame = frame[columns].sort_values("path")
    if "age" in frame:
        ages = ages_of(frame["age"], Path(TABLE), oldest=ABOVE_89)
        frame["age"] = np.array(
            [age_without_identity(str(age)) for age in ages.round(3)], np.float64
        )
    if "sex" in frame:
        frame["sex"] = frame["sex"].where(frame["sex"].isin([0, 1]), frame["sex"].map(sex_of))
    return frame, dropped


def _is_fold(value: object) -> bool:
    """Whether a cell is the number of a fold, or empty."""
    return re.fullmatch(r"(\d{1,3}(\.0)?)?", str(value).strip()) is not None


def _write_table(file: Path, frame: pd.DataFrame) -> None:
    if len(frame):
        write_text(file, frame.to_csv(index=False))
