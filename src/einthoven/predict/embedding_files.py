"""Files of embeddings, written in pieces: Parquet, or a NumPy array with a JSON file.

A `.parquet` file has the columns `record` and `patient`, then `e0000`, `e0001`, ... (pooled), one
list column for each lead, by name (lead), or the list column `tokens`. A `.npy` file is one array;
the `.json` file of the same name holds the ids of its rows, their patients and its shape. Only ids
are kept in memory, and existing files are replaced when the new ones are complete.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from einthoven.errors import EvaluationError
from einthoven.files import Json, replacing, write_json

METADATA_KEY = b"einthoven.embeddings"
ROW_GROUP = 1 << 25  # bytes of vectors in a row group
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """A file of embeddings.

    Attributes
    ----------
    file : Path
    shape : tuple of int
        Of the whole array. If records have different numbers of tokens, which is possible in
        Parquet, the second number is that of the first record.
    metadata : dict
        Level, leads, the policy for missing leads, crops, and the source of the vectors.
    """

    file: Path
    shape: tuple[int, ...]
    metadata: Json


class EmbeddingFile(ABC):
    """A file to which records are added.

    Parameters
    ----------
    file : Path
    level : str
    leads : sequence of str
        Names of the rows of lead-level arrays.
    metadata : dict
    """

    embedded: Embedded

    def __init__(self, file: Path, level: str, leads: tuple[str, ...], metadata: Json) -> None:
        self.file, self.level, self.leads, self.metadata = file, level, leads, metadata
        self.count = 0
        self.shape: tuple[int, ...] = ()

    def add(self, ids: list[str], patients: list[str], arrays: list[Floats]) -> None:
        """Add records, each with its own array."""
        if not self.count:
            self.shape = arrays[0].shape
        self.count += len(ids)
        self._add(ids, patients, arrays)

    @abstractmethod
    def _add(self, ids: list[str], patients: list[str], arrays: list[Floats]) -> None:
        """Write records, or keep them for the next row group."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the file and close it."""

    @abstractmethod
    def close(self) -> None:
        """Close the file, complete or not."""

    def describe(self, file: Path) -> None:  # noqa: B027 (Parquet files contain their ids)
        """Write the ids of the rows of a complete file."""


class _Npy(EmbeddingFile):
    """One float32 array; its header is written again when its length is known."""

    def __init__(self, file: Path, *options: Any) -> None:
        super().__init__(file, *options)
        self.ids: list[str] = []
        self.patients: list[str] = []
        self.handle = open(file, "wb")  # noqa: SIM115

    def _add(self, ids: list[str], patients: list[str], arrays: list[Floats]) -> None:
        for name, array in zip(ids, arrays, strict=True):
            if array.shape != self.shape:
                raise EvaluationError(
                    f"record {name} has {array.shape[0]} tokens and the first one "
                    f"{self.shape[0]}; an array needs equal numbers",
                    remedy="name a .parquet file, or embed records of one length",
                )
        if not self.ids:
            self._write_header()
        for array in arrays:
            self.handle.write(np.ascontiguousarray(array, dtype="<f4").data)
        self.ids += ids
        self.patients += patients

    def finish(self) -> None:
        # NumPy leaves room in a header for the first axis to grow.
        self.handle.seek(0)
        self._write_header()
        self.close()

    def close(self) -> None:
        self.handle.close()

    def describe(self, file: Path) -> None:
        rows = {"records": self.ids, "patients": self.patients}
        shape = [self.count, *self.shape]
        write_json(file.with_suffix(".json"), self.metadata | {"shape": shape} | rows)

    def _write_header(self) -> None:
        shape = (self.count, *self.shape)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.handle, header)


class _Parquet(EmbeddingFile):
    """A table, written in row groups of `ROW_GROUP` bytes."""

    def __init__(self, file: Path, *options: Any) -> None:
        super().__init__(file, *options)
        self.waiting: list[tuple[str, str, Floats]] = []
        self.gathered = 0  # bytes
        self.writer: Any = None

    def _add(self, ids: list[str], patients: list[str], arrays: list[Floats]) -> None:
        self.waiting += zip(ids, patients, arrays, strict=True)
        self.gathered += sum(array.nbytes for array in arrays)
        if self.gathered >= ROW_GROUP:
            self._write()

    def finish(self) -> None:
        if self.waiting:
            self._write()
        self.close()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _write(self) -> None:
        ids, patients, arrays = (list(column) for column in zip(*self.waiting, strict=True))
        columns = {"record": pa.array(ids, pa.string()), "patient": pa.array(patients, pa.string())}
        table = pa.table(columns | self._columns(arrays))
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(self.metadata).encode()})
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.file, table.schema, use_dictionary=False)
        self.writer.write_table(table)
        self.waiting, self.gathered = [], 0

    def _columns(self, arrays: list[Floats]) -> dict[str, Any]:
        if self.level == "token":
            starts = np.cumsum([0, *(len(array) for array in arrays)], dtype=np.int32)
            return {"tokens": pa.ListArray.from_arrays(starts, _lists(np.concatenate(arrays)))}
        whole = np.stack(arrays)
        if self.level == "lead":
            return {lead: _lists(whole[:, i]) for i, lead in enumerate(self.leads)}
        return {f"e{i:04d}": pa.array(whole[:, i]) for i in range(whole.shape[1])}


def _lists(rows: Floats) -> Any:
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[-1])


_KINDS: dict[str, type[EmbeddingFile]] = {".parquet": _Parquet, ".npy": _Npy}


@contextmanager
def writing(
    out: str | Path, level: str, leads: tuple[str, ...], metadata: Json
) -> Iterator[EmbeddingFile]:
    """Write a file that replaces `out` when the block ends without an error.

    Raises
    ------
    EvaluationError
        For another suffix than .parquet or .npy, and if no record was added.
    """
    file = Path(out)
    kind = _KINDS.get(file.suffix.lower())
    if kind is None:
        raise EvaluationError(
            f"{file}: embeddings end in {' or '.join(_KINDS)}, not in {file.suffix!r}",
            remedy="name the file embeddings.parquet or embeddings.npy",
        )
    with replacing(file) as temporary:
        writer = kind(temporary, level, leads, metadata)
        try:
            yield writer
            if not writer.count:
                raise EvaluationError(
                    "there is no record to embed",
                    remedy="name a split that has records, or ECG files",
                )
            writer.finish()
        finally:
            writer.close()
        if kind is _Npy:  # without its JSON file an array is incomplete
            file.with_suffix(".json").unlink(missing_ok=True)
    writer.describe(file)
    writer.embedded = Embedded(file, (writer.count, *writer.shape), metadata)
