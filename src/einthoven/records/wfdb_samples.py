"""Stored samples of a WFDB record, checked against its header.

Format 16 and the MATLAB v4 form of the PhysioNet/CinC Challenges (`16+24`) are decoded here, every
other storage format by the wfdb package, under the same checks of path, size, first value and
checksum.

Source: the WFDB Applications Guide, signal(5).
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import warnings
from pathlib import PurePath

import numpy as np

from einthoven.errors import RecordError
from einthoven.records.wfdb_files import read_file, signal_path
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
    plain = all(encoding[:3] == ("16", 1, 0) for encoding in encodings)
    files: dict[str, list[int]] = {}
    for row, lead in enumerate(header.leads):
        files.setdefault(lead.file, []).append(row)
    contents = {}
    for file, rows in files.items():
        leads = [header.leads[row] for row in rows]
        contents[file] = _content(source, file, leads, header.samples, exactly=plain)
        digest.update(contents[file])
    if not plain:
        samples = _through_package(source, header)
        return samples, header.rate * per_frame[0], digest.hexdigest()
    samples = np.empty((len(header.leads), header.samples), np.int16)
    for file, rows in files.items():
        values = np.frombuffer(contents[file], "<i2", offset=encodings[rows[0]].offset)
        samples[rows] = values.reshape(header.samples, len(rows)).T
    _verify(samples, header, source)
    return samples, header.rate, digest.hexdigest()


def _content(
    source: str, file: str, leads: list[LeadSpec], samples: int, *, exactly: bool
) -> bytes:
    """Bytes of one signal file, of at least or exactly the size that its leads announce."""
    offsets = sorted({lead.encoding.offset for lead in leads})
    if len(offsets) > 1:
        reason = f"leads of one file {file} begin at different bytes"
        raise RecordError(source, "format", offsets, reason, remedy=_REFETCH)
    steps = sum(_BYTES.get(lead.encoding.code, 0) * lead.encoding.per_frame for lead in leads)
    size = offsets[0] + int(steps * samples)
    path = signal_path(source, file)
    content = read_file(path, "signal file", least=size, most=size if exactly else math.inf)
    if exactly and offsets[0] == 24 and file.lower().endswith(".mat"):
        # MATLAB v4: type (30: int16), rows, columns, and a name of 4 bytes.
        fields, expected = struct.unpack_from("<5i", content), (30, len(leads), samples, 0, 4)
        if fields != expected:
            reason = f"must be {expected}: int16, leads, samples, real, name of 4 bytes"
            raise RecordError(path, "MATLAB v4 header", fields, reason, remedy=_REFETCH)
    return content


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
    dtype = np.int32 if any(encoding.code in _WIDE for encoding in encodings) else np.int16
    samples = stored.astype(dtype)
    for row, encoding in enumerate(encodings):
        if encoding.code in _BITS:
            invalid = stored[row] == -(2 ** (_BITS[encoding.code] - 1))
            samples[row, invalid] = np.iinfo(dtype).min
    return samples
