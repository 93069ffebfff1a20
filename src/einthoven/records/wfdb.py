"""WFDB records, read strictly: lengths, initial values and checksums must agree with the header.

Format 16 and the MATLAB v4 form of the PhysioNet/CinC Challenges (`16+24`) are read here; every
other storage format goes through the wfdb package, under the same checks.

Source: the WFDB Applications Guide, header(5) and signal(5).
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence

import numpy as np

from einthoven.errors import RecordError
from einthoven.records.record import Record
from einthoven.records.wfdb_files import read_bytes, read_signal_bytes
from einthoven.records.wfdb_header import Header, LeadSpec, encoding, parse_header
from einthoven.records.wfdb_write import write_wfdb

__all__ = ["Header", "read_header", "read_wfdb", "write_wfdb"]

PathLike = str | os.PathLike[str]
_SUFFIXES = (".hea", ".dat", ".mat")
_AGAIN = "fetch the record again from its source"


def read_wfdb(path: PathLike, *, root: PathLike | None = None) -> Record:
    """Read a WFDB record in millivolts.

    Parameters
    ----------
    path : path-like
        The record, with or without `.hea`, `.dat` or `.mat`.
    root : path-like, optional
        Folder that signal files may not leave once symbolic links are followed; by default the
        header's folder.

    Returns
    -------
    Record
        Float32 mV; `metadata` holds the header's comments. Invalid samples are NaN.

    Raises
    ------
    RecordError
        If anything in the header or the signal files does not hold together.
    """
    source, header, data = _open(path)
    if header.segments:
        from einthoven.records.wfdb_segments import read_segments

        return read_segments(source, header, data, root=root)
    return _single(source, header, data, root)


def read_segment(path: str, *, root: PathLike | None) -> Record:
    """Read a part of a record of several segments.

    Raises
    ------
    RecordError
        As in `read_wfdb`; also if the part has segments itself.
    """
    source, header, data = _open(path)
    if header.segments:
        raise RecordError(
            source,
            "number of segments",
            len(header.segments),
            "a segment cannot have segments",
            remedy="name the segments of this record in the header of the whole one",
        )
    return _single(source, header, data, root)


def read_header(path: PathLike) -> Header:
    """Read and check a WFDB header alone.

    Parameters
    ----------
    path : path-like
        The record, with or without suffix.

    Raises
    ------
    RecordError
        If the header is missing, is not text, or a field of it is refused.
    """
    return _open(path)[1]


def header_path(path: PathLike) -> str:
    """Path of the header of a record that is named with or without suffix."""
    stem, suffix = os.path.splitext(os.fspath(path))
    if suffix.lower() == ".hea":
        return stem + suffix
    return f"{stem if suffix.lower() in _SUFFIXES else stem + suffix}.hea"


def verify(samples: np.ndarray, header: Header, source: str) -> None:
    """Compare the first value and the checksum of every lead with the header.

    Parameters
    ----------
    samples : np.ndarray
        Integers as stored, shape (leads, samples), C-contiguous.
    header : Header
        Its initial values and checksums; a checksum is the sum of the lead modulo 65536, written
        signed or unsigned.
    source : str
        Path of the header, for messages.

    Raises
    ------
    RecordError
        Naming the first lead that differs.
    """
    if samples.dtype == np.int16:
        # Sums that wrap at 16 bits are the checksum itself, and several times faster.
        sums = np.add.reduce(samples.view(np.uint16), axis=1, dtype=np.uint16).tolist()
    else:
        sums = (samples.sum(axis=1, dtype=np.int64) & 0xFFFF).tolist()
    first = samples[:, 0].tolist()
    for lead, value, total in zip(header.leads, first, sums, strict=True):
        if lead.initial is not None and lead.initial != value:
            _differs(source, "initial value", lead.name, lead.initial, value)
        if lead.checksum is not None and lead.checksum & 0xFFFF != total:
            _differs(source, "checksum", lead.name, lead.checksum, total)


def _differs(source: str, field: str, lead: str, announced: int, actual: int) -> None:
    reason = f"the signal file has {actual}: header and signal do not belong together"
    raise RecordError(source, f"{field} of lead {lead}", announced, reason, remedy=_AGAIN)


def _open(path: PathLike) -> tuple[str, Header, bytes]:
    source = header_path(path)
    if os.path.isfile(path) and not os.path.lexists(source):
        raise RecordError(
            os.fspath(path),
            "header",
            os.path.basename(source),
            "is missing: such a file is read as the signal of a WFDB record",
            remedy="fetch the header too; another format can be written as WFDB "
            "(einthoven.records.wfdb.write_wfdb)",
        )
    data = read_bytes(source)
    return source, parse_header(data, source), data


def _single(source: str, header: Header, data: bytes, root: PathLike | None) -> Record:
    samples, rate, digest = _stored(source, header, data, root)
    return Record.create(
        _millivolts(samples, header.leads),
        rate,
        leads=[lead.name for lead in header.leads],
        name=header.name,
        source=source,
        source_hash=digest,
        metadata=header.comments,
    )


def _stored(
    source: str, header: Header, data: bytes, root: PathLike | None
) -> tuple[np.ndarray, float, str]:
    """Verified integers of a single-segment record, its rate in Hz and the hash of its files.

    Integers are (leads, samples), int16, or int32 for storage formats with more than 16 bits. The
    smallest value of the type marks an invalid sample.
    """
    if any(encoding(fmt)[:3] != ("16", 1, 0) for fmt in {lead.fmt for lead in header.leads}):
        from einthoven.records.wfdb_package import read_other

        return read_other(source, header, data, root=root)
    samples, digest = _read_16(source, header, data, root)
    verify(samples, header, source)
    return samples, header.rate, digest


def _millivolts(samples: np.ndarray, leads: Sequence[LeadSpec]) -> np.ndarray:
    """Float32 millivolts, read-only; NaN where the file marks a sample invalid.

    Computed in float64 as (digital - baseline) / gain, as header(5) defines it.
    """
    physical = samples.astype(np.float64)
    physical[samples == np.iinfo(samples.dtype).min] = np.nan
    physical -= np.array([[lead.baseline] for lead in leads])
    physical /= np.array([[lead.gain] for lead in leads])
    for row, lead in enumerate(leads):
        if lead.units == "uV":
            physical[row] /= 1000.0
        elif lead.units == "V":
            physical[row] *= 1000.0
    with np.errstate(over="ignore"):  # An absurd gain overflows; Record refuses the infinity.
        signal = physical.astype(np.float32)
    signal.flags.writeable = False
    return signal


def _read_16(
    source: str, header: Header, data: bytes, root: PathLike | None
) -> tuple[np.ndarray, str]:
    """Samples of format 16, int16 (leads, samples), and the hash of all bytes read."""
    digest = hashlib.sha256(data)
    groups: dict[str, list[int]] = {}
    for row, lead in enumerate(header.leads):
        groups.setdefault(lead.file, []).append(row)
    parts = []
    for file, rows in groups.items():
        content, offset = _content(source, file, header, rows, root)
        digest.update(content)
        values = np.frombuffer(content, "<i2", offset=offset).reshape(header.samples, len(rows))
        parts.append((rows, values.T))
    if len(parts) == 1:
        return np.ascontiguousarray(parts[0][1], np.int16), digest.hexdigest()
    samples = np.empty((len(header.leads), header.samples), np.int16)
    for rows, part in parts:
        samples[rows] = part
    return samples, digest.hexdigest()


def _content(
    source: str, file: str, header: Header, rows: list[int], root: PathLike | None
) -> tuple[bytes, int]:
    """Bytes of one signal file of exactly the announced size, and where its samples begin."""
    offsets = {encoding(header.leads[row].fmt).offset for row in rows}
    if len(offsets) > 1:
        raise RecordError(
            source,
            "format",
            sorted(offsets),
            f"leads of one file {file} begin at different bytes",
            remedy=_AGAIN,
        )
    offset = offsets.pop()
    size = offset + 2 * len(rows) * header.samples
    content = read_signal_bytes(source, file, root=root, exactly=size)
    if offset == 24 and file.lower().endswith(".mat"):
        _check_matlab(os.path.join(os.path.dirname(source), file), content, header, len(rows))
    return content, offset


def _check_matlab(path: str, content: bytes, header: Header, leads: int) -> None:
    """Check the MATLAB v4 header: type (30: int16), rows, columns, and a name of 4 bytes."""
    fields = struct.unpack_from("<5i", content)
    expected = (30, leads, header.samples, 0, 4)
    if fields != expected:
        raise RecordError(
            path,
            "MATLAB v4 header",
            fields,
            f"must be {expected}: int16, leads, samples, real, name of 4 bytes",
            remedy=_AGAIN,
        )
