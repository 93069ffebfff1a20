"""MATLAB files of versions 4, 5 and 7.3.

A WFDB record keeps its samples in such a file too; its header beside it makes it a WFDB record.

Sources: MAT-File Format, The MathWorks; the China Physiological Signal Challenge 2018
(2018.icbeb.org/Challenge.html).
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import RecordError
from einthoven.records import hdf5
from einthoven.records.file import EcgFile
from einthoven.records.metadata import sex_of
from einthoven.records.record import STANDARD_LEADS, Record
from einthoven.records.sidecar import (
    chosen_array,
    complete_sidecar,
    description,
    known_layout,
    member_row,
    member_rows,
    record_of,
    refuse_larger,
    sidecar_of,
    sidecar_path,
    source_hash,
    stated_by_arrays,
)

_CPSC = {"ECG.data", "ECG.sex", "ECG.age"}
_DEPTH = 8  # of structures in structures
_LONGEST = 10_000  # letters of a text, cells of a list

_KINDS_OF_4 = ("f8", "f4", "i4", "i2", "u2", "u1")

# Version 5: kinds of elements, and classes of variables.
_MATRIX, _COMPRESSED = 14, 15
_KINDS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8"}
_KINDS[13] = "u8"
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16-{}", 16: "utf-8", 17: "utf-16-{}"}
_ENCODINGS[18] = "utf-32-{}"
_CELLS, _STRUCTURE, _TEXT, _NUMBERS = 1, 2, 4, range(6, 16)


def recognises(head: bytes) -> bool:
    """Whether a file begins as a v5 or v7.3 file does; v4 has no mark."""
    return head.startswith(b"MATLAB")


def read(file: EcgFile) -> Record:
    """Read the samples in a MATLAB file: a variable, or a field of a structure (`ECG.data`).

    A file may hold `rate`, `unit` and `leads` beside the samples; otherwise a sidecar states them.
    The structure of the China Physiological Signal Challenge 2018 is read without one.

    Raises
    ------
    RecordError
        If they are stated nowhere, or the file is damaged.
    """
    arrays = variables(file)
    if set(arrays) == _CPSC and sidecar_of(file).array is None:
        layout = complete_sidecar(file, known_layout(500, STANDARD_LEADS))
        statements = {"age": _scalar(arrays["ECG.age"]), "sex": sex_of(_scalar(arrays["ECG.sex"]))}
        member_row(file, (1,))
        return record_of(
            file,
            arrays["ECG.data"],
            layout,
            digest=source_hash(file),
            statements=statements,
            is_documented=True,
        )
    is_described = sidecar_path(file) is not None or description() is not None
    if not is_described and set(arrays) == {"val"}:
        raise file.refusal(
            "header",
            os.path.splitext(os.path.basename(file.name))[0] + ".hea",
            "is missing: `val` alone is the signal of a WFDB record",
            remedy="fetch the header too",
        )
    sidecar = complete_sidecar(file, stated_by_arrays(arrays))
    values = arrays[chosen_array(file, _numeric(arrays), sidecar)]
    row = member_row(file, values.shape)
    content = None if row is None else values[row].tobytes()
    return record_of(
        file, values if row is None else values[row], sidecar, digest=source_hash(file, content)
    )


def members(file: EcgFile) -> list[str]:
    """Row numbers of an array of several records; one record otherwise."""
    try:
        arrays = variables(file)
        sidecar = complete_sidecar(file, stated_by_arrays(arrays))
        name = chosen_array(file, _numeric(arrays), sidecar)
    except RecordError:
        return [""]  # refused when it is read
    return member_rows(arrays[name].shape)


def _numeric(arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    return {name: values.shape for name, values in arrays.items() if values.dtype.kind in "iuf"}


def _scalar(values: NDArray[Any]) -> object:
    return np.ravel(values)[0] if values.size == 1 else None


# ---------------------------------------------------------------------- variables


def variables(file: EcgFile) -> dict[str, NDArray[Any]]:
    """Numbers and texts in a file by name; fields of a structure as `NAME.FIELD`.

    RecordError if the file is damaged, or claims far more than it holds.
    """
    if hdf5.SIGNATURE in file.head:
        with hdf5.opened(file) as root:
            return dict(_version_7(file, root))
    try:
        # Version 4 has a zero among its first four bytes, version 5 begins with a text.
        is_4 = 0 in file.head[:4]
        return dict(_version_4(file) if is_4 else _version_5(file))
    except RecordError:
        raise
    except Exception as error:  # a damaged file raises any kind
        stem = os.path.splitext(os.path.basename(file.name))[0]
        raise file.refusal(
            "content",
            None,
            f"is no sound MATLAB file: {error or type(error).__name__}",
            remedy="fetch the file again from its source, or save it again in MATLAB; a WFDB "
            f"record needs its header {stem}.hea beside it",
        ) from None


def _version_4(file: EcgFile) -> Iterator[tuple[str, NDArray[Any]]]:
    content = memoryview(file.content)
    place = 0
    while place < len(content):
        order = "<" if content[place + 3] == 0 == content[place + 2] else ">"
        kind, rows, columns, is_complex, length = struct.unpack_from(f"{order}5i", content, place)
        if not 0 <= kind < 5000 or min(rows, columns, is_complex) < 0 or length < 1:
            raise ValueError("a variable that begins with other numbers than a variable")
        kind, layout, number, cls = kind // 1000, kind // 100 % 10, kind // 10 % 10, kind % 10
        name = bytes(content[place + 20 : place + 20 + length]).split(b"\0")[0].decode("latin-1")
        dtype = np.dtype(order + _KINDS_OF_4[number])
        size = rows * columns * dtype.itemsize
        place += 20 + length
        values = content[place : place + size]
        place += size * (2 if is_complex else 1)
        if place > len(content) or layout or kind != (order == ">"):
            raise ValueError(f"the variable {name} is cut off")
        if cls == 0 and not is_complex:
            yield name, np.frombuffer(values, dtype).reshape((rows, columns), order="F")
        elif cls == 1 and rows * columns <= _LONGEST:
            codes = np.frombuffer(values, dtype).reshape((rows, columns), order="F").astype(int)
            yield name, np.array(["".join(map(chr, row)) for row in codes.tolist()])


def _version_7(file: EcgFile, root: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """Variables of an HDF5 file, which stores arrays transposed, and text as numbers."""
    for name, dataset in hdf5.datasets(root).items():
        if name.startswith("#") or dataset.attrs.get("MATLAB_empty", 0):
            continue  # cells and structures of several, or an empty array
        values = hdf5.values_of(file, dataset).T
        if dataset.attrs.get("MATLAB_class", b"") == b"char" and values.size <= _LONGEST:
            values = np.array(["".join(map(chr, np.ravel(values).tolist()))])
        yield name.replace("/", "."), values


# scipy reads versions 4 and 5 as well, but a single damaged byte in version 5 may end the process
# (a segmentation fault in scipy 1.17, which uses kinds of elements without checking them).


def _version_5(file: EcgFile) -> Iterator[tuple[str, NDArray[Any]]]:
    content = file.content
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ValueError("its byte order is not stated")
    place, unpacked = 128, 0
    while place < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, place)
        element = memoryview(content)[place + 8 : place + 8 + size]
        place += 8 + size
        if len(element) < size:
            raise ValueError(f"a variable of {size} bytes is cut off")
        if kind == _COMPRESSED:
            inflator = zlib.decompressobj()
            kind, size = struct.unpack(f"{order}II", inflator.decompress(element, 8))
            unpacked += size
            refuse_larger(file, "variables", unpacked, len(content))
            element = memoryview(inflator.decompress(inflator.unconsumed_tail, size + 1))
            if len(element) != size or not inflator.eof:
                raise ValueError(f"a variable of {size} bytes is cut off")
        if kind != _MATRIX:
            raise ValueError(f"an element of kind {kind} is no variable")
        name, values = _matrix(element, order, _DEPTH)
        yield from _flattened(name, values)


def _flattened(name: str, values: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    if isinstance(values, dict):
        for key, inner in values.items():
            yield from _flattened(f"{name}.{key}", inner)
    elif values is not None:
        yield name, values


def _matrix(data: memoryview, order: str, depth: int) -> tuple[str, Any]:
    """Name and values of a variable: an array, fields of a structure, or None for other classes."""
    parts = _parts(data, order)
    (_, flags), (_, shape), (_, text) = next(parts), next(parts), next(parts)
    name = bytes(text).decode("latin-1")
    (bits,) = struct.unpack_from(f"{order}I", flags)
    sizes = np.frombuffer(shape, f"{order}i4").tolist()
    count = math.prod(sizes)
    cls, is_complex = bits & 0xFF, bits >> 11 & 1
    if cls in _NUMBERS and not is_complex:
        kind, stored = next(parts)
        numbers = np.frombuffer(stored, order + _KINDS[kind])
        return name, numbers.reshape(sizes, order="F")
    if cls == _TEXT and count <= _LONGEST:
        kind, stored = next(parts)
        letters = list(
            bytes(stored).decode(_ENCODINGS[kind].format("le" if order == "<" else "be"))
        )
        rows = np.array(letters).reshape(sizes, order="F")
        return name, np.array(["".join(row) for row in rows])
    if cls == _STRUCTURE and count == 1 and depth:
        length = int(np.frombuffer(next(parts)[1], f"{order}i4")[0])
        names = bytes(next(parts)[1])
        keys = [names[i : i + length].split(b"\0")[0] for i in range(0, len(names), length)]
        inner = [_matrix(part, order, depth - 1)[1] if len(part) else None for _, part in parts]
        return name, dict(zip((key.decode("latin-1") for key in keys), inner, strict=True))
    if cls == _CELLS and count <= _LONGEST and depth:
        cells = [_matrix(part, order, depth - 1)[1] for _, part in parts if len(part)]
        texts = [cell for cell in cells if isinstance(cell, np.ndarray) and cell.dtype.kind == "U"]
        if len(texts) == count > 0:
            return name, np.concatenate(texts)
    return name, None


def _parts(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Kind and content of each element in an element.

    Short ones hold their size in the upper half of their kind.
    """
    place = 0
    while place + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, place)
        start, step = place + 8, 8 + -(-size // 8) * 8
        if kind >> 16:
            kind, size, start, step = kind & 0xFFFF, kind >> 16, place + 4, 8
        if start + size > len(data) or (step == 8 and size > 4):
            raise ValueError(f"an element of {size} bytes is cut off")
        yield kind, data[start : start + size]
        place += step
