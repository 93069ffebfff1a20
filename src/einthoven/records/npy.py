"""NumPy's .npy and .npz, with a sidecar. Pickled objects are never loaded.

Source: the documentation of numpy.lib.format.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import RecordError
from einthoven.records.file import EcgFile
from einthoven.records.record import Record
from einthoven.records.sidecar import (
    chosen_array,
    complete_sidecar,
    member_row,
    member_rows,
    record_of,
    refuse_larger,
    source_hash,
    stated_by_arrays,
)

_MAGIC, _ZIP = b"\x93NUMPY", b"PK\x03\x04"


def recognises(head: bytes) -> bool:
    """Whether a file begins as an .npy does, or as a ZIP archive of them."""
    first_name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return head.startswith(_MAGIC) or (head.startswith(_ZIP) and first_name.endswith(b".npy"))


def read(file: EcgFile) -> Record:
    """Read an .npy, or one array of an .npz: leads and samples, or records of them.

    An .npz may hold `rate`, `unit` and `leads` beside the samples; otherwise a sidecar states them.

    Raises
    ------
    RecordError
        If they are stated nowhere, or the file is damaged or holds objects.
    """
    arrays = _arrays(file)
    sidecar = complete_sidecar(file, stated_by_arrays(arrays))
    values = arrays[chosen_array(file, {key: x.shape for key, x in arrays.items()}, sidecar)]
    row = member_row(file, values.shape)
    if row is None:
        return record_of(file, values, sidecar, digest=source_hash(file))
    digest = source_hash(file, values[row].tobytes())
    return record_of(file, values[row], sidecar, digest=digest)


def members(file: EcgFile) -> list[str]:
    """Row numbers of an array of several records; one record otherwise."""
    arrays = _arrays(file)
    try:
        sidecar = complete_sidecar(file, stated_by_arrays(arrays))
        name = chosen_array(file, {key: x.shape for key, x in arrays.items()}, sidecar)
    except RecordError:
        return [""]  # refused when it is read
    return member_rows(arrays[name].shape)


def _arrays(file: EcgFile) -> dict[str, NDArray[Any]]:
    """Arrays of a file by name; one without a name for an .npy, which stays on disk."""
    head = file.head  # RecordError for anything but a readable file
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers of Python 2
            if head.startswith(_MAGIC):
                if file.data is None:
                    return {"": np.load(file.name, mmap_mode="r", allow_pickle=False)}
                return {"": np.load(io.BytesIO(file.data), allow_pickle=False)}
            if head.startswith(_ZIP):
                return _unpacked(file)
    except RecordError:
        raise
    except Exception as error:  # damaged files raise many kinds
        raise file.refusal(
            "array",
            None,
            f"cannot be read: {error}",
            remedy="save it again with numpy.save, as an array of numbers without objects",
        ) from None
    raise file.refusal(
        "content", None, "is no NumPy array", remedy="save it with numpy.save or numpy.savez"
    )


def _unpacked(file: EcgFile) -> dict[str, NDArray[Any]]:
    content = file.content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
        refuse_larger(file, "arrays", size, len(content))
        objects = {entry.filename for entry in archive.infolist() if _is_pickled(archive, entry)}
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files if f"{name}.npy" not in objects}


def _is_pickled(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    """Whether an array holds objects, such as texts of a data frame."""
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)[2].hasobject
        return np.lib.format.read_array_header_2_0(stream)[2].hasobject
