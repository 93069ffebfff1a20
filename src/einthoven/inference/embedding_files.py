"""Files of embeddings, written in pieces: Parquet, or a NumPy array with a JSON file.

A `.parquet` file has the columns `record` and `patient`, then `e0000`, `e0001`, ... (pooled), one
list column for each lead, by name (lead), or the list column `tokens`. A `.npy` file is one array;
the `.json` file of the same name holds the ids of its rows, their patients and its shape. Only ids
are kept in memory, and existing files are replaced when the new ones are complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from einthoven.errors import EvaluationError
from einthoven.files import Json, read_json, replacing, write_json

METADATA_KEY = b"einthoven.embeddings"
ROW_GROUP = 1 << 25  # bytes of vectors in a row group
SUFFIXES = (".parquet", ".npy")


@dataclass(frozen=True)
class EmbeddingFile:
    """A file of embeddings.

    Attributes
    ----------
    file : Path
    shape : tuple of int
        Shape of the whole array. If records have different numbers of tokens, which is possible in
        Parquet, the second number is that of the first record.
    metadata : dict
        Level, leads, the policy for missing leads, crops, and the source of the vectors.
    refused : int
        Number of records without an embedding.
    refused_file : Path, optional
        Table of these, with reason and remedy, if there are any.
    """

    file: Path
    shape: tuple[int, ...]
    metadata: Json
    refused: int = 0
    refused_file: Path | None = None


class Embedding(NamedTuple):
    """Embedding of one record."""

    record: str
    patient: str
    array: NDArray[np.float32]


class Embeddings(NamedTuple):
    """Pooled embeddings: ids and patients, (records,); vectors, (records, dim); metadata."""

    records: NDArray[np.str_]
    patients: NDArray[np.str_]
    vectors: NDArray[np.float32]
    metadata: Json


def read_embeddings(file: str | Path) -> Embeddings:
    """Read pooled embeddings that `write_embeddings` wrote.

    Raises
    ------
    EvaluationError
        If there is no such file, it is not one of embeddings, or they are not pooled.
    """
    path = Path(file)
    remedy = "write one: einthoven embed COHORT --out embeddings.parquet"
    if not path.is_file():
        raise EvaluationError(f"{path}: no such file of embeddings", remedy=remedy)
    try:
        read = _read_array if path.suffix.lower() == ".npy" else _read_parquet
        result = read(path)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise EvaluationError(f"{path} is no file of embeddings: {error}", remedy=remedy) from error
    level = result.metadata.get("level")
    if level != "pooled":
        raise EvaluationError(
            f"{path} has embeddings of the level {level}", remedy="embed with `level='pooled'`"
        )
    return result


def _read_array(path: Path) -> Embeddings:
    about = read_json(path.with_suffix(".json"))
    vectors = np.load(path, allow_pickle=False)
    records, patients = (np.array(about.pop(key), dtype=str) for key in ("records", "patients"))
    return Embeddings(records, patients, vectors, about)


def _read_parquet(path: Path) -> Embeddings:
    table = pq.read_table(path)
    about: Json = json.loads((table.schema.metadata or {})[METADATA_KEY])
    records, patients = (table[key].to_numpy().astype(str) for key in ("record", "patient"))
    columns = [name for name in table.column_names if name not in ("record", "patient")]
    vectors = np.zeros((len(records), 0), dtype=np.float32)
    if about.get("level") == "pooled":
        vectors = np.stack([table[name].to_numpy() for name in columns], axis=1)
    return Embeddings(records, patients, vectors, about)


def write_embeddings(out: str | Path, rows: Iterable[Embedding], metadata: Json) -> EmbeddingFile:
    """Write rows as they come; `out` is replaced when the file is complete.

    Raises
    ------
    EvaluationError
        For another suffix than .parquet or .npy, if there is no row, or if the rows of a `.npy`
        file have different shapes.
    """
    file = Path(out)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise EvaluationError(
            f"{file}: embeddings end in {' or '.join(SUFFIXES)}, not in {file.suffix!r}",
            remedy="name the file embeddings.parquet or embeddings.npy",
        )
    with replacing(file) as temporary:
        if suffix == ".parquet":
            return EmbeddingFile(file, _write_parquet(temporary, rows, metadata), metadata)
        ids, shape = _write_array(temporary, rows)
        # Without its JSON file an array is incomplete.
        file.with_suffix(".json").unlink(missing_ok=True)
    write_json(file.with_suffix(".json"), metadata | {"shape": list(shape)} | ids)
    return EmbeddingFile(file, shape, metadata)


def _write_array(
    file: Path, rows: Iterable[Embedding]
) -> tuple[dict[str, list[str]], tuple[int, ...]]:
    ids: dict[str, list[str]] = {"records": [], "patients": []}
    shape: tuple[int, ...] = ()
    with open(file, "wb") as handle:
        for row in rows:
            if not shape:
                shape = row.array.shape
                _write_header(handle, (0, *shape))
            if row.array.shape != shape:
                raise EvaluationError(
                    f"record {row.record} has {row.array.shape[0]} tokens and the first one "
                    f"{shape[0]}; an array needs equal numbers",
                    remedy="name a .parquet file, or embed records of one length",
                )
            handle.write(np.ascontiguousarray(row.array, dtype="<f4").data)
            ids["records"].append(row.record)
            ids["patients"].append(row.patient)
        shape = (_some(len(ids["records"])), *shape)
        # NumPy leaves room in a header for the first axis to grow.
        handle.seek(0)
        _write_header(handle, shape)
    return ids, shape


def _write_header(handle: Any, shape: tuple[int, ...]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(handle, header)


def _write_parquet(file: Path, rows: Iterable[Embedding], metadata: Json) -> tuple[int, ...]:
    count, shape, writer = 0, (), None
    try:
        for group in _groups(rows):
            count, shape = count + len(group), shape or group[0].array.shape
            table = _table(group, metadata)
            if writer is None:
                writer = pq.ParquetWriter(file, table.schema, use_dictionary=False)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
    return (_some(count), *shape)


def _groups(rows: Iterable[Embedding]) -> Iterator[list[Embedding]]:
    """Collect rows into groups of at least `ROW_GROUP` bytes."""
    group: list[Embedding] = []
    size = 0
    for row in rows:
        group.append(row)
        size += row.array.nbytes
        if size >= ROW_GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _table(group: Sequence[Embedding], metadata: Json) -> pa.Table:
    records, patients, arrays = (list(column) for column in zip(*group, strict=True))
    columns = {"record": pa.array(records), "patient": pa.array(patients)}
    if metadata["level"] == "token":
        starts = np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int32)
        columns["tokens"] = pa.ListArray.from_arrays(starts, _lists(np.concatenate(arrays)))
    else:
        whole = np.stack(arrays)
        if metadata["level"] == "lead":
            columns |= {lead: _lists(whole[:, i]) for i, lead in enumerate(metadata["leads"])}
        else:
            columns |= {f"e{i:04d}": pa.array(values) for i, values in enumerate(whole.T)}
    return pa.table(columns, metadata={METADATA_KEY: json.dumps(metadata).encode()})


def _lists(rows: NDArray[np.float32]) -> Any:
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[-1])


def _some(count: int) -> int:
    if not count:
        raise EvaluationError(
            "there is no record to embed", remedy="name a split that has records, or ECG files"
        )
    return count
