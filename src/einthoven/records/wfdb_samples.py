"""Stored samples of a WFDB record, checked against its header.

The formats 16 (also in the MATLAB v4 form of the PhysioNet/CinC Challenges, `16+24`), 24, 32, 80
and 212 are decoded here; rare formats and skewed leads by the wfdb package, under the same checks
of path, first value and checksum, and of the least size.

Source: the WFDB Applications Guide, signal(5).
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import RecordError
from einthoven.records.file import read_file
from einthoven.records.wfdb_header import Header, LeadSpec

# signal(5): bytes a sample takes (compressed formats: unknown), and the bits whose smallest value
# marks an invalid sample (format 8 stores differences and has none).
_BYTES = {"8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0}
_BYTES |= {"212": 1.5, "310": 4 / 3, "311": 4 / 3}
_BITS = {"16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12}
_BITS |= {"310": 10, "311": 10, "508": 8, "516": 16, "524": 24}
_WIDE = frozenset({"8", "24", "32", "524"})
_REFETCH = "fetch the record again from its source"
_CONVERT = "convert the record to format 16 with WFDB's xform, or fetch it again"


def read_samples(source: str, header: Header, data: bytes) -> tuple[np.ndarray, float, str]:
    """Read the digital values of a single-segment record.

    Parameters
    ----------
    source, header, data : str, Header, bytes
        Path of the header, the header, and its bytes.

    Returns
    -------
    samples : np.ndarray
        Int16, or int32 for storage formats with more than 16 bits, shape (leads, samples). The
        smallest value of the type marks an invalid sample.
    rate : float
        Hz; frames a second times the samples a frame.
    digest : str
        SHA-256 of header and signal files.

    Raises
    ------
    RecordError
        If a signal file is missing, of another size or outside the header's folder, if leads
        differ in rate, or if values differ from the header.
    """
    encodings = [lead.encoding for lead in header.leads]
    per_frame = sorted({encoding.per_frame for encoding in encodings})
    if len(per_frame) > 1:
        raise RecordError(
            source,
            "format",
            per_frame,
            "leads differ in their samples a frame, so in their sampling rate",
            remedy="resample the record to one rate for all leads, with WFDB's xform",
        )
    digest = hashlib.sha256(data)
    decodable = all(code.code in _DECODERS and not code.skew for code in encodings)
    files: dict[str, list[int]] = {}
    for row, lead in enumerate(header.leads):
        files.setdefault(lead.file, []).append(row)
    contents = {}
    for file, rows in files.items():
        leads = [header.leads[row] for row in rows]
        contents[file] = _content(source, file, leads, header.samples, exactly=decodable)
        digest.update(contents[file])
    if not decodable:
        samples = _through_package(source, header)
        return samples, header.rate * per_frame[0], digest.hexdigest()
    shape = len(header.leads), header.samples * per_frame[0]
    samples = np.empty(shape, _sample_type(header))
    for file, rows in files.items():
        encoding = encodings[rows[0]]
        values = _DECODERS[encoding.code](contents[file][encoding.offset :])
        frames = values[: len(rows) * shape[1]].reshape(header.samples, len(rows), per_frame[0])
        samples[rows] = frames.swapaxes(0, 1).reshape(len(rows), -1)
    _verify(samples, header, source)
    _mark_invalid(samples, samples, header)
    return samples, header.rate * per_frame[0], digest.hexdigest()


def _decode_24(content: bytes) -> NDArray[np.int32]:
    padded = np.zeros((len(content) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
    return padded.view("<i4")[:, 0] >> 8


def _decode_212(content: bytes) -> NDArray[np.int16]:
    """Pairs of 12 bits in three bytes; the middle one holds the high bits of both."""
    triples = np.frombuffer(content + bytes(-len(content) % 3), np.uint8).reshape(-1, 3)
    low, middle, other = triples.astype(np.int16).T
    pairs = np.stack([low | (middle & 0x0F) << 8, other | (middle & 0xF0) << 4], axis=1)
    return (pairs.ravel() << 4) >> 4  # extends the sign


_DECODERS: dict[str, Callable[[bytes], NDArray[np.signedinteger]]] = {
    "16": lambda content: np.frombuffer(content, "<i2"),
    "24": _decode_24,
    "32": lambda content: np.frombuffer(content, "<i4"),
    "80": lambda content: np.frombuffer(content, np.uint8).astype(np.int16) - np.int16(128),
    "212": _decode_212,
}


def _sample_type(header: Header) -> type[np.int16 | np.int32]:
    is_wide = any(lead.encoding.code in _WIDE for lead in header.leads)
    return np.int32 if is_wide else np.int16


def _mark_invalid(samples: np.ndarray, stored: np.ndarray, header: Header) -> None:
    """Set samples whose stored value marks an invalid one to the smallest value of the type."""
    smallest = np.iinfo(samples.dtype).min
    for row, lead in enumerate(header.leads):
        mark = -(2 ** (_BITS[lead.encoding.code] - 1)) if lead.encoding.code in _BITS else smallest
        if mark != smallest:
            samples[row, stored[row] == mark] = smallest


def _content(
    source: str, file: str, leads: list[LeadSpec], samples: int, *, exactly: bool
) -> bytes:
    """Bytes of one signal file, of at least or exactly the size that its leads announce."""
    formats = sorted({(lead.encoding.code, lead.encoding.offset) for lead in leads})
    if len(formats) > 1:
        reason = f"leads of one file {file} differ in format or first byte"
        raise RecordError(source, "format", formats, reason, remedy=_REFETCH)
    code, offset = formats[0]
    step = sum(_BYTES.get(code, 0) * lead.encoding.per_frame for lead in leads) * samples
    least = offset + (math.ceil(step) if exactly else int(step))
    # Format 212 may fill up its last three bytes.
    most = least + (-math.ceil(step) % 3 if code == "212" else 0) if exactly else math.inf
    path = _signal_path(source, file)
    content = read_file(path, "signal file", least=least, most=most)
    if exactly and offset == 24 and file.lower().endswith(".mat"):
        # MATLAB v4: type (30: int16), rows, columns, and a name of 4 bytes.
        fields, expected = struct.unpack_from("<5i", content), (30, len(leads), samples, 0, 4)
        if fields != expected:
            reason = f"must be {expected}: int16, leads, samples, real, name of 4 bytes"
            raise RecordError(path, "MATLAB v4 header", fields, reason, remedy=_REFETCH)
    return content


def _signal_path(source: str, file: str) -> str:
    """Path of a signal file that the header at `source` names.

    Raises RecordError if a symbolic link leads out of the header's folder.
    """
    path = os.path.join(os.path.dirname(source), file)
    if os.path.basename(file) == file and not os.path.islink(path):
        return path
    folder, real = os.path.realpath(os.path.dirname(source)), os.path.realpath(path)
    if not real.startswith(os.path.join(folder, "")):
        raise RecordError(
            path,
            "signal file",
            real,
            f"lies outside {folder}",
            remedy="copy the signal file into the folder of its header",
        )
    return path


def _verify(samples: np.ndarray, header: Header, source: str) -> None:
    """Compare the first value and the checksum (sum modulo 65536) of every lead with the header."""
    if samples.dtype == np.int16:
        # Sums that wrap at 16 bits are the checksum itself, and several times faster.
        sums = np.add.reduce(samples.view(np.uint16), axis=1, dtype=np.uint16)
    else:
        sums = samples.sum(axis=1, dtype=np.int64) & 0xFFFF
    for lead, first, total in zip(header.leads, samples[:, 0].tolist(), sums.tolist(), strict=True):
        wrong = None
        if lead.initial is not None and lead.initial != first:
            wrong = "initial value", lead.initial, first
        elif lead.checksum is not None and lead.checksum & 0xFFFF != total:
            wrong = "checksum", lead.checksum, total
        if wrong:
            field, announced, actual = wrong
            reason = f"the signal file has {actual}: header and signal do not belong together"
            raise RecordError(
                source, f"{field} of lead {lead.name}", announced, reason, remedy=_REFETCH
            )


def _through_package(source: str, header: Header) -> np.ndarray:
    """Digital values by the wfdb package; invalid samples at the smallest value of the type."""
    stem = str(PurePath(os.path.abspath(source)).with_suffix(""))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Already its import warns under a newer pandas.
            import wfdb

            record = wfdb.rdrecord(stem, physical=False, smooth_frames=False)
        stored = np.stack(record.e_d_signal).astype(np.int64)
    except Exception as error:  # The package raises whatever its parsing ran into.
        raise RecordError(
            source,
            "record",
            f"{type(error).__name__}: {error}",
            "the wfdb package cannot read it",
            remedy=_CONVERT,
        ) from error
    encodings = [lead.encoding for lead in header.leads]
    expected = header.samples * encodings[0].per_frame
    if stored.shape[1] != expected:
        reason = f"the signal has {stored.shape[1]}"
        raise RecordError(source, "number of samples", expected, reason, remedy=_CONVERT)
    if not any(encoding.skew for encoding in encodings):  # Skewed leads lack their first samples.
        _verify(stored, header, source)
    samples = stored.astype(_sample_type(header))
    _mark_invalid(samples, stored, header)
    return samples
