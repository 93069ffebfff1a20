"""WFDB storage formats that are rare among ECG corpora, read by the wfdb package.

The package opens only files that have passed the same header, path and size checks as the fast
path, and what it returns is compared with the header again.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import PurePath
from typing import Any

import numpy as np

from einthoven.errors import RecordError
from einthoven.records.wfdb import verify
from einthoven.records.wfdb_files import read_signal_bytes
from einthoven.records.wfdb_header import Header, encoding

PathLike = str | os.PathLike[str]

# signal(5): bytes a sample takes (compressed formats: unknown), and the value that marks an
# invalid sample (format 8 stores differences and has none).
_BYTES = {"8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0}
_BYTES |= {"212": 1.5, "310": 4 / 3, "311": 4 / 3}
_BITS = {"16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12}
_BITS |= {"310": 10, "311": 10, "508": 8, "516": 16, "524": 24}
_WIDE = frozenset({"8", "24", "32", "524"})
_REMEDY = "convert the record to format 16 with WFDB's xform, or fetch it again"


def read_other(
    source: str, header: Header, data: bytes, *, root: PathLike | None
) -> tuple[np.ndarray, float, str]:
    """Digital values of a single-segment record in any format that the wfdb package reads.

    Parameters
    ----------
    source, header, data : str, Header, bytes
        Path of the header, the header, and its bytes.
    root
        As in `read_wfdb`.

    Returns
    -------
    samples : np.ndarray
        Int16 or int32, (leads, samples), invalid samples at the smallest value of the type.
    rate : float
        Hz; frames a second times the samples a frame.
    digest : str
        SHA-256 of header and signal files.

    Raises
    ------
    RecordError
        If the package fails, leads differ in rate, or the values differ from the header.
    """
    codes = [encoding(lead.fmt) for lead in header.leads]
    per_frame = {code.per_frame for code in codes}
    if len(per_frame) > 1:
        raise RecordError(
            source,
            "format",
            sorted(per_frame),
            "leads differ in their samples a frame, so in their sampling rate",
            remedy="resample the record to one rate for all leads, with WFDB's xform",
        )
    digest = _checked_files(source, header, data, root)
    stored = _through_package(source)
    expected = header.samples * codes[0].per_frame
    if stored.shape[1] != expected:
        reason = f"the signal has {stored.shape[1]}"
        raise RecordError(source, "number of samples", expected, reason, remedy=_REMEDY)
    if not any(code.skew for code in codes):  # A shifted lead no longer has its first samples.
        verify(stored, header, source)
    wide = any(code.code in _WIDE for code in codes)
    samples = _marked(stored, [code.code for code in codes], np.int32 if wide else np.int16)
    return samples, header.rate * codes[0].per_frame, digest


def _checked_files(source: str, header: Header, data: bytes, root: PathLike | None) -> str:
    """Read every signal file once; too short for the header is refused before it is decoded."""
    digest = hashlib.sha256(data)
    sizes: dict[str, float] = {}
    for lead in header.leads:
        code = encoding(lead.fmt)
        sizes.setdefault(lead.file, code.offset)
        sizes[lead.file] += _BYTES.get(code.code, 0.0) * code.per_frame * header.samples
    for file, size in sizes.items():
        digest.update(read_signal_bytes(source, file, root=root, least=int(size)))
    return digest.hexdigest()


def _through_package(source: str) -> np.ndarray:
    """Digital values as stored, int64 (leads, samples)."""
    stem = str(PurePath(os.path.abspath(source)).with_suffix(""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Already its import warns under a newer pandas.
            import wfdb

            record = wfdb.rdrecord(stem, physical=False, smooth_frames=False)
        return np.stack(record.e_d_signal).astype(np.int64)
    except Exception as error:  # The package raises whatever its parsing ran into.
        raise RecordError(
            source,
            "record",
            f"{type(error).__name__}: {error}",
            "the wfdb package cannot read it",
            remedy=_REMEDY,
        ) from error


def _marked(stored: np.ndarray, codes: list[str], dtype: type[np.signedinteger[Any]]) -> np.ndarray:
    samples = stored.astype(dtype)
    for row, code in enumerate(codes):
        if code in _BITS:
            samples[row, stored[row] == -(2 ** (_BITS[code] - 1))] = np.iinfo(dtype).min
    return samples
