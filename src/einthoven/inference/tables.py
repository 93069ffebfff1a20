"""Predictions of arrays, records, tables and folders, as one data frame or file.

Columns: `record`, `patient`; then `probability:LABEL`, `call:LABEL` (at or above its threshold) and
`answer:LABEL` (present, absent or cannot tell), or `probability:CLASS`, `class` and `class_set`, or
`value:NUMBER`, `low:NUMBER` and `high:NUMBER`, without calls if the model has no thresholds, and
without answers, class sets and intervals if it has no prediction sets; and
`quality` (warnings about the recording, and missing leads; empty if there are none). Probabilities
and calls are missing for labels that lose too much accuracy without the missing leads
(`einthoven.predictions.missing_leads`). `Predictions.load` and `einthoven
evaluate` read the columns that a table of predictions has as well.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from einthoven.cohorts import Cohort, is_cohort, layout_of, open_cohort
from einthoven.errors import EvaluationError, FileError
from einthoven.files import (
    Json,
    lock_for,
    locked,
    read_json,
    replacing,
    write_json,
)
from einthoven.inference.records import Predictor, RecordPrediction
from einthoven.inference.runtimes import AnyModel
from einthoven.models import SHIPPED, open_model, refuse_models
from einthoven.predictions import Calibration, ClassSets, LabelSets, Predictions
from einthoven.predictions.table import CLASS, DIGEST_KEY, PROBABILITY, VALUE, task_metadata
from einthoven.progress import Progress
from einthoven.records import Record
from einthoven.records.file import is_file_like
from einthoven.records.formats import files_of, read_excerpt, records_of
from einthoven.records.sidecar import described, described_array, description

CALL, ANSWER, LOW, HIGH = "call:", "answer:", "low:", "high:"
CLASS_SET = "class_set"
REFUSED, REMEDY = "refused", "remedy"
SUFFIXES = (".csv", ".parquet")


class Item(NamedTuple):
    """A record to predict."""

    name: str
    patient: str
    path: str
    read: Callable[[], Record]


class PredictionFile(NamedTuple):
    """A file of predictions, and the file of the records that were refused, with their numbers."""

    file: Path
    predicted: int
    refused: int
    refused_file: Path


def predict(
    source: Any,
    model: AnyModel | str | Path = SHIPPED,
    *,
    rate: float | None = None,
    leads: Sequence[str] | None = None,
    unit: str | None = None,
    root: str | Path | None = None,
    lead_subset: Sequence[str] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Predict ECGs: arrays, Records, files, bytes of files, a table or a folder.

    Parameters
    ----------
    source : Record, array, path, bytes, pandas.DataFrame, Cohort, or a sequence of the first four
        Arrays are (leads, samples), or (records, leads, samples). A path is an ECG file (all its
        records are predicted), a folder, or a table with the column `path`; a data frame is such a
        table. Bytes are the content of an ECG file. Labels are not read.
    model : Model, OnnxModel, path or str
        A model, its folder or name, or the `.onnx` file of `einthoven export`.
    rate, leads, unit
        Sampling rate (Hz), lead names and unit (of arrays in memory mV without one), as in
        `Record.from_array`; also of array files, as in `read_record`.
    root : path, optional
        Folder of the paths in a table or data frame. Default: the table's own, or the current one.
    lead_subset : sequence of str, optional
        Use these leads only; see `predict_record`. Default: of each record, all that it has.
    batch_size : int
        Records in one batch.
    device : str
        `auto`, `cpu`, or a GPU such as `cuda`.
    progress : Progress, optional

    Returns
    -------
    pandas.DataFrame
        A row a record, in their order (index: `record`, the name, path or row number): `patient`,
        the columns of the module's description, then `quality`, `refused`, the reason for which a
        record has
        no prediction (its values are missing), or the empty string, and `remedy`. A record of a
        table or folder without patients has the empty string as `patient`, unless its file names
        one.

    Raises
    ------
    EvaluationError
        If there are no records or all are refused, or `rate` and `leads` of arrays are missing.
    EinthovenError
        If the model, the table or the folder cannot be read.
    """
    with described(described_array(rate, unit, leads) or description()):
        items = _items(source, {"rate": rate, "leads": leads, "unit": unit or "mV"}, root)
        model = open_model(model) if isinstance(model, str | Path) else model
        predictor = Predictor(model, leads=lead_subset, device=device)
        frame = pd.concat(
            _frame(predictor, items[start : start + batch_size], (start, len(items)), progress)
            for start in range(0, len(items), batch_size)
        )
    _refuse_none(frame[frame[REFUSED] != ""], len(items))
    return frame


def write_predictions(
    source: Any,
    out: str | Path,
    model: AnyModel | str | Path = SHIPPED,
    *,
    root: str | Path | None = None,
    lead_subset: Sequence[str] | None = None,
    batch_size: int = 64,
    device: str = "auto",
    progress: Progress | None = None,
) -> PredictionFile:
    """Predict ECG files, a table or a folder in batches, and write a `.csv` or `.parquet` file.

    Finished batches are kept beside `out` until it is complete: the same call resumes after an
    interruption, and predicts batches again that are damaged, or have files of another size or date
    than before.
    Records that are refused are in `NAME.refused.csv`, with the reasons and remedies. The hidden
    file `.NAME.request.json` holds the request.

    Parameters are those of `predict`.

    Raises
    ------
    EvaluationError
        For another suffix, if `out` exists and is not of the same model, source and leads, and as
        `predict`.
    """
    file = Path(out)
    if file.suffix not in SUFFIXES:
        raise EvaluationError(
            f"{file}: predictions end in {' or '.join(SUFFIXES)}, not in {file.suffix!r}",
            remedy="name the file predictions.csv or predictions.parquet",
        )
    items = _items(source, {"rate": None, "leads": None, "unit": "mV"}, root)
    model = open_model(model) if isinstance(model, str | Path) else model
    predictor = Predictor(model, leads=lead_subset, device=device)
    request = {
        "model": model.config.get("digest"),
        # Decides what is answered, but not in the digest, which it contains itself.
        "lead_accuracy": model.config.get("lead_accuracy"),
        "lead_subset": None if lead_subset is None else list(lead_subset),
        "source": _described(source, items),
        "sidecar": None if (sidecar := description()) is None else asdict(sidecar),
        "batch_size": batch_size,
    }
    folder = file.with_name(f".{file.name}.parts")
    with locked(lock_for(file)):
        _begin(file, folder, request, resume=all(item.path for item in items))
        parts = []
        for start in range(0, len(items), batch_size):
            part = items[start : start + batch_size]
            parts.append(folder / f"{start:09d}-{_digest(part)}.parquet")
            if not _is_whole(parts[-1], request):
                frame = _frame(predictor, part, (start, len(items)), progress)
                _write_part(parts[-1], frame.reset_index(), request)
        refused = pd.concat(_rows(parts, refused=True))
        write_refused(file, refused)
        if len(refused) == len(items):
            shutil.rmtree(folder)
            _request_file(file).unlink()
        _refuse_none(refused, len(items))
        with replacing(file) as temporary:
            _join(temporary, file.suffix, parts, model)
        shutil.rmtree(folder)
    return PredictionFile(file, len(items) - len(refused), len(refused), refused_file(file))


def _items(source: Any, array: dict[str, Any], root: str | Path | None) -> list[Item]:
    is_path = isinstance(source, str | Path)
    if is_path:
        refuse_models([source])
    if isinstance(source, Cohort | pd.DataFrame) or (is_path and is_cohort(Path(source))):
        cohort = source if isinstance(source, Cohort) else _unlabelled(source, root)
        rows = zip(cohort.ids(), cohort.patients(), cohort.table["path"], strict=True)
        is_folder = is_path and Path(source).is_dir()
        items = [
            Item(
                _file_name(cohort.root, name, path) if is_folder else str(name),
                "" if patient == path else str(patient),  # a table or folder without patients
                str(cohort.root / path),
                partial(read_excerpt, cohort.root / path, root=cohort.root),
            )
            for name, patient, path in rows
        ]
    else:
        is_one = is_file_like(source) or isinstance(source, Record)
        records = [source] if is_one else list(source)
        if records and np.ndim(records[0]) == 1:  # one array, (leads, samples)
            records = [source]
        items = [
            item
            for place, record in enumerate(records)
            for item in _items_of(record, str(place), array)
        ]
    if not items:
        raise EvaluationError("there is no record to predict", remedy="name ECG files")
    return items


def _items_of(record: Any, place: str, array: dict[str, Any]) -> list[Item]:
    """A Record, an array or bytes as one item; a file as those of its records."""
    if isinstance(record, Record):
        return [Item(record.name, record.patient or "", "", lambda: record)]
    if isinstance(record, str | os.PathLike):
        refuse_models([Path(record)])
        return [
            Item(str(path), "", str(path), partial(read_excerpt, path))
            for path in records_of(record)
        ]
    if is_file_like(record):
        return [Item(place, "", "", partial(read_excerpt, record))]
    if array["rate"] is None or array["leads"] is None:
        raise EvaluationError(
            "an array has neither a sampling rate nor lead names",
            remedy="pass rate= and leads=, or Records (Record.from_array)",
        )
    read = partial(Record.from_array, record, name=f"record {place}", **array)
    return [Item(place, "", "", read)]


def _file_name(root: Path, name: str, path: str) -> str:
    """Name of a record of a folder; one that is called by its path has the suffix of its file."""
    header = f"{path}.hea"
    return header if name == path and (root / header).is_file() else str(name)


def _unlabelled(source: str | Path | pd.DataFrame, root: str | Path | None) -> Cohort:
    """Every record of a table or folder; labels are not read."""
    if isinstance(source, pd.DataFrame) or "labels" in layout_of(source).options:
        return open_cohort(source, labels=(), root=root)
    keeps = "empty_rows" in layout_of(source).options
    return open_cohort(source, **({"empty_rows": "keep"} if keeps else {}))


def _frame(
    predictor: Predictor,
    items: Sequence[Item],
    place: tuple[int, int],
    progress: Progress | None,
) -> pd.DataFrame:
    """Predictions of a batch; `place` is its start, and the number of all records."""
    labels = predictor.model.labels
    results = predictor([item.read for item in items])
    good = [result if isinstance(result, RecordPrediction) else None for result in results]
    columns: dict[str, Any] = {
        "patient": [
            item.patient or (result.record.patient or "" if result else "")
            for item, result in zip(items, good, strict=True)
        ]
    }
    form = predictor.model.task.behaviour.form
    prefix = VALUE if form == "values" else PROBABILITY
    for label in labels:
        columns[prefix + label] = [
            (r.values or r.probabilities)[label] if r else np.nan for r in good
        ]
    if form == "classes":
        columns[CLASS] = [(r.predicted_class or "") if r else "" for r in good]
    if isinstance(predictor.model.calibration, Calibration):
        for label in labels:
            calls = [
                label in (r.above_threshold or ()) if r and label not in r.without_call else None
                for r in good
            ]
            columns[CALL + label] = pd.array(calls, dtype="boolean")
    columns |= _set_columns(predictor.model, good)
    columns["quality"] = ["; ".join(result.warnings) if result else "" for result in good]
    columns[REFUSED] = [
        "" if isinstance(result, RecordPrediction) else getattr(result, "problem", str(result))
        for result in results
    ]
    columns[REMEDY] = [
        ""
        if isinstance(result, RecordPrediction)
        else getattr(result, REMEDY, "check that the file can be read")
        for result in results
    ]
    if progress:
        progress("predict", place[0] + len(items), place[1])
    return pd.DataFrame(columns, index=pd.Index([item.name for item in items], name="record"))


def _set_columns(model: AnyModel, results: Sequence[RecordPrediction | None]) -> dict[str, Any]:
    """Columns of the prediction sets; empty cells for records without sets."""
    if isinstance(model.sets, LabelSets):
        return {
            ANSWER + label: [r.answers.get(label, "") if r else "" for r in results]
            for label in model.labels
        }
    if isinstance(model.sets, ClassSets):
        return {CLASS_SET: ["; ".join(r.class_set) if r else "" for r in results]}
    if model.sets is None:
        return {}
    return {
        prefix + name: [r.intervals[name][end] if r and r.intervals else np.nan for r in results]
        for name in model.labels
        for end, prefix in enumerate((LOW, HIGH))
    }


def _refuse_none(refused: pd.DataFrame, count: int) -> None:
    if len(refused) == count:
        first = refused[REFUSED].iloc[0]
        raise EvaluationError(
            first
            if count == 1
            else f"none of {count} records can be predicted; the first: {first}",
            remedy=refused[REMEDY].iloc[0],
        )


def refused_file(file: Path) -> Path:
    """Table of the records that a file of results lacks."""
    return file.with_name(f"{file.stem}.refused.csv")


def write_refused(file: Path, rows: pd.DataFrame) -> None:
    """List refused records beside a file of results; without any, delete an earlier list."""
    refused_file(file).unlink(missing_ok=True)
    if len(rows):
        with replacing(refused_file(file)) as temporary:
            rows[["record", "patient", REFUSED, REMEDY]].to_csv(temporary, index=False)


def _write_part(file: Path, frame: pd.DataFrame, request: Json) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    digest = _part_digest(table.to_pandas(), file, request)
    with replacing(file) as temporary:
        pq.write_table(
            table.replace_schema_metadata((table.schema.metadata or {}) | {DIGEST_KEY: digest}),
            temporary,
        )


def _is_whole(file: Path, request: Json) -> bool:
    """Whether a finished batch is there as it was written for this request."""
    try:
        table = pq.read_table(file)
        stored = (table.schema.metadata or {})[DIGEST_KEY]
        return bool(stored == _part_digest(table.to_pandas(), file, request))
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError):
        return False


def _part_digest(frame: pd.DataFrame, file: Path, request: Json) -> bytes:
    """Digest of a batch, of the records in its name, and of the request."""
    content = [file.name, request, frame.to_csv(index=False)]
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest().encode()


def _digest(items: Sequence[Item]) -> str:
    """Digest of the names of records, and of the sizes and dates of their files."""
    listing = [
        (item.name, item.path, [(s.st_size, s.st_mtime_ns) for s in map(os.stat, files)])
        for item in items
        for files in [files_of(item.path) if item.path else []]
    ]
    return sha256(repr(listing).encode()).hexdigest()[:16]


def _begin(file: Path, folder: Path, request: Json, *, resume: bool) -> None:
    """Keep the batches of an interrupted call with the same request, and no others.

    Raises EvaluationError if the finished file is of another request.
    """
    stored = _request_file(file)
    try:
        before: Json = read_json(stored)
    except FileError:
        before = {}
    same = bool(request["model"]) and before | {"batch_size": 0} == request | {"batch_size": 0}
    if file.exists() and not same:
        raise EvaluationError(
            f"{file} exists, and its predictions are not of this model, source and leads",
            remedy="write to another file (`out=...`), or delete this one",
        )
    if not (same and resume and before["batch_size"] == request["batch_size"]):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    write_json(stored, request)


def _request_file(file: Path) -> Path:
    return file.with_name(f".{file.name}.request.json")


def _described(source: Any, items: Sequence[Item]) -> str:
    """A table or folder by its place, other sources by a digest of the names of their records."""
    if isinstance(source, str | Path):
        return str(Path(source).resolve())
    return sha256(repr([item.name for item in items]).encode()).hexdigest()


def _rows(parts: Sequence[Path], *, refused: bool) -> Iterator[pd.DataFrame]:
    for part in parts:
        frame = pd.read_parquet(part)
        yield frame[(frame[REFUSED] != "") == refused]


def _join(file: Path, suffix: str, parts: Sequence[Path], model: AnyModel) -> None:
    """Write the batches as one file; Parquet with the digest of the whole."""
    kind: Any = pa.csv.CSVWriter if suffix == ".csv" else pq.ParquetWriter
    metadata = {} if suffix == ".csv" else _metadata(parts, model)
    writer = None
    for frame in _rows(parts, refused=False):
        if len(frame):
            table = pa.Table.from_pandas(
                frame.drop(columns=[REFUSED, REMEDY]), preserve_index=False
            )
            schema = table.schema.with_metadata((table.schema.metadata or {}) | metadata)
            writer = writer or kind(file, schema)
            writer.write_table(table.cast(schema))
    if writer is not None:
        writer.close()


def _metadata(parts: Sequence[Path], model: AnyModel) -> dict[bytes, bytes]:
    """Metadata by which `Predictions.load` finds changes; none of a table that it refuses anyway.

    It refuses the same record twice, and probabilities that are missing.
    """
    prefix = VALUE if model.task.behaviour.form == "values" else PROBABILITY
    columns = ["record", "patient", *(prefix + label for label in model.labels)]
    frame = pd.concat(rows[columns] for rows in _rows(parts, refused=False))
    values, metadata = frame[columns[2:]].to_numpy(), task_metadata(model.task, len(model.labels))
    records, patients = (frame[name].to_numpy() for name in columns[:2])
    try:
        table = Predictions(model.labels, records, patients, None, values, metadata)
    except EvaluationError:
        return {}
    return dict(table.to_arrow().schema.metadata)
