"""Files of embeddings, written in pieces: Parquet, or a NumPy array with a sidecar.

A `.parquet` file has the columns `record` and `patient`, then `e0000`, `e0001`, ... (pooled), one
list column for each lead, by name (lead), or the list column `tokens`. A `.npy` file is one array;
the `.json` beside it holds the ids of its rows, their patients and its shape. Memory does not grow
with the records (but for their ids), and existing files are replaced only when the new ones are
complete.
"""

from __future__ import annotations

import json
import os
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
from einthoven.files import write_json

METADATA_KEY = b"einthoven.embeddings"
ROW_GROUP = 1 << 25  # bytes of vectors that are gathered before they are written
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Embedded:
    """What was written.

    Attributes
    ----------
    file : Path
    shape : tuple of int
        Of the whole array. Where records have different numbers of tokens, which Parquet can
        hold, the second one is that of the first record.
    about : dict
        Level, leads and what stands for missing ones, crops, and where the vectors come from.
    """

    file: Path
    shape: tuple[int, ...]
    about: dict[str, Any]


class EmbeddingFile(ABC):
    """A file that records are added to.

    Parameters
    ----------
    temporary : Path
        Where it is written until it is whole.
    level : str
    leads : sequence of str
        Names of the rows of lead-level arrays.
    about : dict
        What the file says of itself.
    """

    embedded: Embedded

    def __init__(
        self, temporary: Path, level: str, leads: tuple[str, ...], about: dict[str, Any]
    ) -> None:
        self.temporary, self.level, self.leads, self.about = temporary, level, leads, about
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
        """Write them, or keep them for later."""

    @abstractmethod
    def finish(self) -> None:
        """Write what is left; the temporary file is then whole."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the temporary file, whole or not."""

    def publish(self, file: Path) -> None:
        """Put the file in its place."""
        os.replace(self.temporary, file)


class _Npy(EmbeddingFile):
    """One float32 array; its header is written again when its length is known."""

    def __init__(self, temporary: Path, *rest: Any) -> None:
        super().__init__(temporary, *rest)
        self.ids: list[str] = []
        self.patients: list[str] = []
        self.handle = open(temporary, "wb")  # noqa: SIM115

    def _add(self, ids: list[str], patients: list[str], arrays: list[Floats]) -> None:
        for name, array in zip(ids, arrays, strict=True):
            if array.shape != self.shape:
                raise EvaluationError(
                    f"record {name} has {array.shape[0]} tokens, the first one {self.shape[0]}, "
                    "and one array cannot hold both",
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

    def publish(self, file: Path) -> None:
        sidecar = file.with_suffix(".json")
        sidecar.unlink(missing_ok=True)  # it comes last and says that the array is whole
        super().publish(file)
        rows = {"records": self.ids, "patients": self.patients}
        write_json(sidecar, self.about | {"shape": [self.count, *self.shape]} | rows)

    def _write_header(self) -> None:
        shape = (self.count, *self.shape)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self.handle, header)


class _Parquet(EmbeddingFile):
    """A table; records are gathered into row groups of `ROW_GROUP` bytes."""

    def __init__(self, temporary: Path, *rest: Any) -> None:
        super().__init__(temporary, *rest)
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
        table = table.replace_schema_metadata({METADATA_KEY: json.dumps(self.about).encode()})
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.temporary, table.schema, use_dictionary=False)
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
    out: str | Path, level: str, leads: tuple[str, ...], about: dict[str, Any]
) -> Iterator[EmbeddingFile]:
    """A file that appears under its name when the block has ended well, and never otherwise.

    Raises
    ------
    EvaluationError
        For another suffix than .parquet or .npy, and when no record was added.
    """
    file = Path(out)
    kind = _KINDS.get(file.suffix.lower())
    if kind is None:
        raise EvaluationError(
            f"{file}: embeddings end in {' or '.join(_KINDS)}, not in {file.suffix!r}",
            remedy="name the file embeddings.parquet or embeddings.npy",
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    writer = kind(temporary, level, leads, about)
    try:
        yield writer
        if not writer.count:
            raise EvaluationError(
                "there is no record to embed", remedy="name a split that has records, or ECG files"
            )
        writer.finish()
        writer.publish(file)
        writer.embedded = Embedded(file, (writer.count, *writer.shape), about)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)
