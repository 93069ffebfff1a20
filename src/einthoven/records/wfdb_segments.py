"""WFDB records of several segments, put together from single-segment records.

Source: the WFDB Applications Guide, header(5), "Multi-segment records".
"""

from __future__ import annotations

import hashlib
import os

import numpy as np

from einthoven.errors import RecordError
from einthoven.records.record import Record
from einthoven.records.wfdb import PathLike, read_segment
from einthoven.records.wfdb_header import Header

_REMEDY = "correct the header of the whole record, or read its segments one by one"


def read_segments(source: str, header: Header, data: bytes, *, root: PathLike | None) -> Record:
    """Read a record of several segments in millivolts.

    Parameters
    ----------
    source, header, data : str, Header, bytes
        Path of the header, the header, and its bytes.
    root
        As in `read_wfdb`.

    Returns
    -------
    Record
        Gaps, and leads that a segment lacks, are NaN. `source_hash` covers the header and then
        the hash of each segment.

    Raises
    ------
    RecordError
        If a segment is refused, or lengths, rates or leads do not hold together.
    """
    _check_total(source, header)
    parts = [
        _segment(source, header, name, length, root)
        for name, length in header.segments
        if length  # A layout segment has no samples; the segments themselves name their leads.
    ]
    leads = tuple(dict.fromkeys(lead for part in parts if part for lead in part.leads))
    if header.segments[0][1]:
        _check_fixed_layout(source, parts, leads)
    digest = hashlib.sha256(data)
    for part in parts:
        digest.update(part.source_hash.encode() if part else b"")
    return Record.create(
        _joined(source, header, parts, leads),
        header.rate,
        leads=leads,
        name=header.name,
        source=source,
        source_hash=digest.hexdigest(),
        metadata=header.comments,
    )


def _segment(
    source: str, header: Header, name: str, length: int, root: PathLike | None
) -> Record | None:
    if name == "~":
        return None
    part = read_segment(os.path.join(os.path.dirname(source), f"{name}.hea"), root=root)
    actual = (part.rate, part.signal.shape[1])
    if actual != (header.rate, length):
        reason = f"the whole record announces {header.rate} Hz and {length} samples"
        raise RecordError(source, f"segment {name}", actual, reason, remedy=_REMEDY)
    return part


def _check_total(source: str, header: Header) -> None:
    total = sum(length for _, length in header.segments)
    if total != header.samples:
        reason = f"the segments announce {total}"
        raise RecordError(source, "number of samples", header.samples, reason, remedy=_REMEDY)


def _check_fixed_layout(source: str, parts: list[Record | None], leads: tuple[str, ...]) -> None:
    """Without a layout segment, every segment holds the same leads."""
    for part in parts:
        if part and set(part.leads) != set(leads):
            reason = f"{part.name} has other leads, and there is no layout segment"
            raise RecordError(source, "leads", ", ".join(part.leads), reason, remedy=_REMEDY)


def _joined(
    source: str, header: Header, parts: list[Record | None], leads: tuple[str, ...]
) -> np.ndarray:
    try:
        signal = np.full((len(leads), header.samples), np.nan, np.float32)
    except (MemoryError, ValueError):
        reason = "more than memory holds"
        raise RecordError(
            source, "number of samples", header.samples, reason, remedy=_REMEDY
        ) from None
    start = 0
    lengths = [length for _, length in header.segments if length]
    for part, length in zip(parts, lengths, strict=True):
        if part:
            rows = [leads.index(lead) for lead in part.leads]
            signal[rows, start : start + length] = part.signal
        start += length
    signal.flags.writeable = False
    return signal
