"""Samples of SCP-ECG files: coding, differences, reference beats and bimodal compression.

Source: EN 1064, sections 2 to 6 and annex C. Compression by reference beats and by decimation ended
with version 3 of the protocol.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from einthoven.records.scp_huffman import Table, decode, tables_of
from einthoven.records.scp_sections import Section, Sections

_MOST_DECIMATED = 8
_VERSION_3 = 30


@dataclass(frozen=True)
class Lead:
    """A lead, and the samples of the recording that it has; the end is excluded."""

    name: str
    start: int
    stop: int


def voltages(sections: Sections, leads: list[Lead]) -> tuple[list[NDArray[np.float64]], int]:
    """Samples of the leads as recorded, nV, and microseconds between two of them.

    Raises
    ------
    RecordError
        If a section is missing or contradicts another, or a lead has fewer samples than it
        announces.
    """
    tables = _tables(sections.get(2))
    rhythm = _Waveforms.of(sections.required(6), len(leads))
    compression = _Compression.of(sections, rhythm, tables, len(leads))
    values = [
        compression.decompress(
            lead, rhythm.nanovolts(number, compression.count_of(lead), tables), number
        )
        for number, lead in enumerate(leads)
    ]
    return values, compression.interval


def _tables(section: Section | None) -> list[Table]:
    """Huffman tables; none for samples of 16 bits."""
    if section is None:
        return []
    try:
        return tables_of(section.body)
    except ValueError as error:
        raise section.refusal("Huffman tables", None, f"cannot be used: {error}") from None


@dataclass(frozen=True)
class _Waveforms:
    """Samples of each lead as stored: section 6, or the reference beat of section 5.

    `unit` is nV a count, `interval` microseconds between samples, `differences` how often the
    samples were subtracted from the next ones.
    """

    section: Section
    unit: int
    interval: int
    differences: int
    bimodal: bool
    leads: list[bytes]

    @classmethod
    def of(cls, section: Section, leads: int) -> _Waveforms:
        unit, interval, differences, bimodal = section.unpack("HHBB")
        sizes = section.unpack(f"{leads}H", 6)
        for field, value in (("amplitude value multiplier", unit), ("sample interval", interval)):
            if not value:
                raise section.refusal(field, value, "must be positive")
        if differences > 2:
            raise section.refusal("kind of differences", differences, "must be 0, 1 or 2")
        ends = np.cumsum([6 + 2 * leads, *sizes]).tolist()
        if ends[-1] > len(section.body):
            reason = f"the section has {len(section.body)} bytes"
            raise section.refusal("end of the samples", ends[-1], reason)
        contents = [section.body[first:last] for first, last in pairwise(ends)]
        # The byte is reserved in section 5, and in every section from version 3 on.
        bimodal = bool(bimodal) and section.number == 6 and section.protocol < _VERSION_3
        return cls(section, unit, interval, differences, bimodal, contents)

    def nanovolts(
        self, number: int, samples: int, tables: list[Table], *, least: int | None = None
    ) -> NDArray[np.float64]:
        """Samples of a lead. RecordError if there are fewer than `least`, all by default."""
        content = self.leads[number]
        if tables:
            counts = decode(content, samples, tables)
        else:
            counts = np.frombuffer(content, "<i2", min(samples, len(content) // 2)).astype(np.int64)
        if len(counts) < (samples if least is None else least):
            reason = f"the section has {len(counts)}, or a code that is in no table"
            raise self.section.refusal(f"samples of lead {number + 1}", samples, reason)
        if self.differences == 2 and len(counts) > 1:
            # The first two samples are stored as they are.
            counts[1] -= counts[0]
            counts[1:] = np.cumsum(counts[1:])
        if self.differences:
            counts = np.cumsum(counts)
        return counts.astype(np.float64) * self.unit


# ------------------------------------------------------------------ compression


@dataclass(frozen=True)
class _Beat:
    """Samples of the recording from which the reference beat was subtracted."""

    start: int
    stop: int
    shift: int  # from a sample of the reference beat to that of the recording


@dataclass(frozen=True)
class _Compression:
    """Compression of the samples before their coding.

    `interval` is that of the recording, `decimation` the number of its samples for a stored one,
    outside the protected zones. The reference beat is in nV, one array a lead.
    """

    interval: int
    decimation: int
    zones: list[tuple[int, int]]
    beats: list[_Beat]
    reference: list[NDArray[np.float64]]

    @classmethod
    def of(
        cls, sections: Sections, rhythm: _Waveforms, tables: list[Table], leads: int
    ) -> _Compression:
        _, flags = sections.required(3).unpack("BB")
        subtracted = bool(flags & 1)
        if not subtracted and not rhythm.bimodal:
            return cls(rhythm.interval, 1, [], [], [])
        locations = sections.required(4)
        median = _Waveforms.of(sections.required(5), leads)
        decimation = round(rhythm.interval / median.interval) if rhythm.bimodal else 1
        rounding = decimation  # of intervals in whole microseconds
        if (
            not 1 <= decimation <= _MOST_DECIMATED
            or abs(rhythm.interval - decimation * median.interval) > rounding
        ):
            reason = f"does not fit that of section 5, {median.interval} us"
            raise rhythm.section.refusal("sample interval", rhythm.interval, reason)
        length, fiducial, number = locations.unpack("HHH")
        zones = _zones(locations, number) if rhythm.bimodal else []
        if not subtracted:
            return cls(median.interval, decimation, zones, [], [])
        # The length is in whole milliseconds, so that the number of samples is not exact.
        samples = math.ceil((length + 1) * 1000 / median.interval)
        reference = [median.nanovolts(row, samples, tables, least=0) for row in range(leads)]
        beats = _beats(locations, number, fiducial)
        return cls(median.interval, decimation, zones, beats, reference)

    def count_of(self, lead: Lead) -> int:
        """Number of samples of a lead in the file."""
        spans = ((stop - start, protected) for start, stop, protected in self._spans(lead))
        return sum(
            size if protected else sum(divmod(size, self.decimation)) for size, protected in spans
        )

    def decompress(
        self, lead: Lead, stored: NDArray[np.float64], number: int
    ) -> NDArray[np.float64]:
        """Undo the compression of a lead: its samples as recorded, nV."""
        voltages = self._interpolated(lead, stored) if self.decimation > 1 else stored
        for beat in self.beats:
            reference = self.reference[number]
            start = max(beat.start, lead.start, beat.shift)
            stop = min(beat.stop, lead.stop, beat.shift + len(reference))
            if start < stop:
                added = reference[start - beat.shift : stop - beat.shift]
                voltages[start - lead.start : stop - lead.start] += added
        return voltages

    def _interpolated(self, lead: Lead, stored: NDArray[np.float64]) -> NDArray[np.float64]:
        """Samples of the recording from those that bimodal compression left.

        A stored sample is the mean of `decimation` samples, around the middle of which it is put;
        samples left over at the end of a gap between zones are stored as they are. Other decoders
        smooth the result over three samples as well, which hardly changes a straight line.
        """
        pieces = []
        position = 0
        for start, stop, protected in self._spans(lead):
            means, rest = (0, stop - start) if protected else divmod(stop - start, self.decimation)
            if means:
                middles = np.arange(means) * self.decimation + self.decimation // 2
                places = np.arange(means * self.decimation)
                pieces.append(np.interp(places, middles, stored[position : position + means]))
            pieces.append(stored[position + means : position + means + rest])
            position += means + rest
        return np.concatenate(pieces)

    def _spans(self, lead: Lead) -> Iterator[tuple[int, int, bool]]:
        """Parts of a lead (start, stop, protected) within and between the protected zones."""
        position = lead.start
        for start, stop in self.zones:
            start, stop = max(start, position), min(stop, lead.stop)
            if start < stop:
                if position < start:
                    yield position, start, False
                yield start, stop, True
                position = stop
        if position < lead.stop:
            yield position, lead.stop, False


def _zones(section: Section, number: int) -> list[tuple[int, int]]:
    """Protected zones, in which no sample is left out; they follow the beats in section 4."""
    rows = (section.unpack("II", 6 + 14 * number + 8 * row) for row in range(number))
    return [(first - 1, last) for first, last in rows if first]


def _beats(section: Section, number: int, fiducial: int) -> list[_Beat]:
    """Beats of type 0, those of which the reference beat is the median."""
    rows = (section.unpack("HIII", 6 + 14 * row) for row in range(number))
    return [
        _Beat(first - 1, last, middle - fiducial)
        for kind, first, middle, last in rows
        if kind == 0 and first
    ]
