"""WFDB records, read strictly: lengths, initial values and checksums must agree with the header.

Source: the WFDB Applications Guide, header(5) and signal(5).
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from einthoven.errors import RecordError
from einthoven.records.digital import blocks
from einthoven.records.file import EcgFile, read_file
from einthoven.records.formats import part_of
from einthoven.records.record import Record
from einthoven.records.wfdb_header import Header, LeadSpec, parse_header
from einthoven.records.wfdb_samples import Part, read_samples
from einthoven.records.wfdb_write import write_wfdb

__all__ = ["read_wfdb", "write_wfdb"]

_SUFFIXES = (".hea", ".dat", ".mat")
_LARGEST_HEADER = 4 << 20
# A recording of more than 200 MB in memory must hold more than a fifth of its samples.
_LARGE, _MOST_GAPS = 50_000_000, 5
_SEGMENTS = "correct the header of the whole record, or read its segments one by one"


def read_wfdb(file: EcgFile) -> Record:
    """Read a WFDB record, of one or several segments, in millivolts.

    Parameters
    ----------
    file : EcgFile
        The record, with or without `.hea`, `.dat` or `.mat`, on disk.

    Returns
    -------
    Record
        Float32 mV; `metadata` holds the header's comments, and `patient` is that of a comment as
        `write_wfdb` writes it. Invalid samples are NaN, and so are gaps between segments and leads
        that a segment lacks. The hash of a record of several segments covers its header and then
        the hash of each segment.

    Raises
    ------
    RecordError
        If anything in the header or the signal files is inconsistent.
    """
    return read_part(file, 0, math.inf)


def read_part(file: EcgFile, start: float, stop: float) -> Record:
    """Read the samples from one time to another, in seconds; see `read_wfdb` and `read_record`.

    The whole record is checked, and memory is needed for the part alone.
    """
    source = _header_of(file)
    header, data = _open(source)

    def part(rate: float, samples: int) -> tuple[int, int]:
        return part_of(file, rate, samples, start, stop)

    return (_joined if header.segments else _single)(source, header, data, file.root, part)


def duration(file: EcgFile) -> float:
    """Seconds of a record, by its header. RecordError as for `read_wfdb`."""
    header, _ = _open(_header_of(file))
    return header.samples / header.rate if header.samples else read_wfdb(file).duration


def _header_of(file: EcgFile) -> str:
    """Path of the header of a record."""
    if file.data is not None:
        raise file.refusal(
            "header",
            None,
            "names files, which bytes in memory do not have",
            remedy="read a WFDB record by its path",
        )
    stem, suffix = os.path.splitext(file.name)
    if suffix.lower() == ".hea":
        source = stem + suffix
    else:
        source = f"{stem if suffix.lower() in _SUFFIXES else stem + suffix}.hea"
    if os.path.isfile(file.name) and not os.path.lexists(source):
        raise file.refusal(
            "header",
            os.path.basename(source),
            "is missing: such a file is read as the signal of a WFDB record",
            remedy="fetch the header too",
        )
    return source


def _open(source: str) -> tuple[Header, bytes]:
    data = read_file(source, "header", most=_LARGEST_HEADER)
    return parse_header(data, source), data


def _single(source: str, header: Header, data: bytes, root: str, part: Part) -> Record:
    header.require_leads(source)
    samples, rate, digest = read_samples(source, header, data, root, part)
    leads = [header.leads[row] for row in header.rows]
    others = [
        f"{each.name or each.file} ({each.fault.reason})" for each in header.leads if each.fault
    ]
    return Record.create(
        _millivolts(samples, leads),
        rate,
        leads=[lead.name for lead in leads],
        name=header.name,
        patient=header.patient,
        source=source,
        source_hash=digest,
        metadata=header.comments | ({"left_out": ", ".join(others)} if others else {}),
    )


def _millivolts(samples: np.ndarray, leads: Sequence[LeadSpec]) -> np.ndarray:
    """Float32 millivolts, read-only; NaN where the file marks a sample invalid.

    Computed in float64 as (digital - baseline) / gain, as header(5) defines it.
    """
    signal = np.empty(samples.shape, np.float32)
    for stored, millivolts in zip(blocks(samples), blocks(signal), strict=True):
        millivolts[:] = _converted(stored, leads)
    signal.flags.writeable = False
    return signal


def _converted(samples: np.ndarray, leads: Sequence[LeadSpec]) -> np.ndarray:
    """Float32 millivolts of samples that fit into memory as float64."""
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
        return physical.astype(np.float32)


def _joined(source: str, header: Header, data: bytes, root: str, part: Part) -> Record:
    """Record of several segments, see header(5), "Multi-segment records"."""
    total = sum(length for _, length in header.segments)
    if total != header.samples:
        reason = f"the segments announce {total}"
        raise RecordError(source, "number of samples", header.samples, reason, remedy=_SEGMENTS)
    starts = np.cumsum([0, *(length for _, length in header.segments)])
    # A layout segment has no samples, and `~` is a gap.
    segments = {
        name: (int(start), length)
        for start, (name, length) in zip(starts, header.segments, strict=False)
        if length and name != "~"
    }
    if len(segments) < sum(length > 0 and name != "~" for name, length in header.segments):
        repeated = max(segments, key=[name for name, _ in header.segments].count)
        reason = "is there more than once"
        raise RecordError(source, "segment", repeated, reason, remedy=_SEGMENTS)
    first, last = part(header.rate, header.samples)
    read = (
        _segment(source, header, name, root, _Span(start, n, first, last))
        for name, (start, n) in segments.items()
    )
    parts = [segment for segment in read if segment is not None]
    if not parts:
        reason = "none of the segments has an ECG lead"
        raise RecordError(source, "segments", len(header.segments), reason, remedy=_SEGMENTS)
    leads = tuple(dict.fromkeys(lead for segment in parts for lead in segment.leads))
    for segment in parts:
        if header.segments[0][1] and set(segment.leads) != set(leads):
            reason = f"{segment.name} has other leads, and there is no layout segment"
            raise RecordError(source, "leads", ", ".join(segment.leads), reason, remedy=_SEGMENTS)
    samples = sum(segment.span.length for segment in parts)
    if header.samples > _MOST_GAPS * samples and len(leads) * header.samples > _LARGE:
        reason = f"only {samples} of them are stored, the others are gaps"
        raise RecordError(source, "number of samples", header.samples, reason, remedy=_SEGMENTS)
    signal = np.full((len(leads), last - first), np.nan, np.float32)
    digest = hashlib.sha256(data)
    for segment in parts:
        rows = [leads.index(lead) for lead in segment.leads]
        signal[rows, segment.span.place] = segment.signal
        digest.update(segment.digest.encode())
    signal.flags.writeable = False
    return Record.create(
        signal,
        header.rate,
        leads=leads,
        name=header.name,
        patient=header.patient,
        source=source,
        source_hash=digest.hexdigest(),
        metadata=header.comments,
    )


class _Span(NamedTuple):
    """A segment's first sample and length, and the part of the whole record that is read."""

    start: int
    length: int
    first: int
    last: int

    @property
    def own(self) -> tuple[int, int]:
        """The part within the segment, perhaps empty."""
        first = min(max(self.first - self.start, 0), self.length)
        return first, max(min(self.last - self.start, self.length), first)

    @property
    def place(self) -> slice:
        """Where it lies in the part that is read."""
        first, last = self.own
        begin = max(self.start - self.first, 0) if last > first else 0
        return slice(begin, begin + last - first)


class _Segment(NamedTuple):
    """What was read of a segment."""

    name: str
    leads: tuple[str, ...]
    span: _Span
    signal: np.ndarray
    digest: str


def _segment(whole: str, header: Header, name: str, root: str, span: _Span) -> _Segment | None:
    """Part of a segment; None if it has no ECG lead."""
    source = os.path.join(os.path.dirname(whole), f"{name}.hea")
    own_header, data = _open(source)
    if own_header.segments:
        raise RecordError(
            source,
            "number of segments",
            len(own_header.segments),
            "a segment cannot have segments",
            remedy="name the segments of this record in the header of the whole one",
        )
    if not own_header.rows:
        return None
    own_header.require_leads(source)

    def part(rate: float, length: int) -> tuple[int, int]:
        if (rate, length) != (header.rate, span.length):
            reason = f"the whole record announces {header.rate} Hz and {span.length} samples"
            raise RecordError(whole, f"segment {name}", (rate, length), reason, remedy=_SEGMENTS)
        return span.own

    samples, _, digest = read_samples(source, own_header, data, root, part)
    leads = [own_header.leads[row] for row in own_header.rows]
    names = tuple(lead.name for lead in leads)
    return _Segment(own_header.name, names, span, _millivolts(samples, leads), digest)
