"""SCP-ECG files, in which electrocardiographs store and exchange resting ECGs.

Source: EN 1064, also ISO 11073-91064. Sections and fields have their names there. Compression by
reference beats and by decimation (annex C) ended with version 3 of the protocol.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from einthoven.records.file import EcgFile
from einthoven.records.lead_codes import LEADS
from einthoven.records.rates import roundest_rate
from einthoven.records.record import Record
from einthoven.records.scp_huffman import Table, decode, tables_of
from einthoven.records.scp_metadata import metadata_of, patient_of
from einthoven.records.scp_sections import AGAIN, Section, read_sections

_MOST_DECIMATED = 8
_LEAST_SHARE = 16  # a sixteenth: twelve leads may follow each other
_VERSION_3 = 30


def read(file: EcgFile) -> Record:
    """Read an SCP-ECG file in millivolts.

    Parameters
    ----------
    file : EcgFile
        The ECG.

    Returns
    -------
    Record
        Float32 mV of the rhythm data (section 6), with the reference beat (section 5) where it was
        subtracted; samples between decimated ones (bimodal compression) are interpolated. A lead is
        NaN while only others were recorded. Leads that follow from others are not computed.

    Raises
    ------
    RecordError
        If a checksum fails, a section is missing or contradicts another, or a lead has fewer
        samples than it announces.
    """
    sections = read_sections(file)
    leads = _leads(_required(file, sections, 3))
    tables = _tables(sections.get(2))
    rhythm = _Waveforms.of(_required(file, sections, 6), len(leads))
    compression = _Compression.of(file, sections, rhythm, tables, len(leads))
    voltages = [
        compression.undone(lead, rhythm.nanovolts(number, compression.stored(lead), tables), number)
        for number, lead in enumerate(leads)
    ]
    return Record.create(
        _together(sections[3], leads, voltages),
        roundest_rate(compression.interval * 1e-6, 1e-6),
        leads=[lead.name for lead in leads],
        name=file.label,
        patient=patient_of(sections.get(1)),
        source=file.name,
        source_hash=file.sha256,
        metadata=metadata_of(sections),
    )


# ------------------------------------------------------------------ leads


@dataclass(frozen=True)
class _Lead:
    """A lead, and the samples of the recording that it has; the end is excluded."""

    name: str
    start: int
    stop: int


def _leads(section: Section) -> list[_Lead]:
    (number,) = section.unpack("B")
    leads = []
    for row in range(number):
        first, last, code = section.unpack("IIB", 2 + 9 * row)
        name = LEADS.get(code, f"lead {code}")
        if not 1 <= first <= last:
            raise section.refusal(f"samples of {name}", (first, last), "is no range from 1")
        leads.append(_Lead(name, first - 1, last))
    if not leads:
        raise section.refusal("number of leads", 0, "there is no ECG in the file")
    return leads


def _together(
    section: Section, leads: list[_Lead], voltages: list[NDArray[np.float64]]
) -> NDArray[np.float32]:
    """Float32 mV of shape (leads, samples) from nV; NaN where a lead was not recorded."""
    start, stop = min(lead.start for lead in leads), max(lead.stop for lead in leads)
    held = sum(map(len, voltages))
    if stop - start > held or (stop - start) * len(leads) > _LEAST_SHARE * held:
        reason = f"the leads have {held} of them together, and would be nearly empty"
        raise section.refusal("samples", (start + 1, stop), reason)
    signal = np.full((len(leads), stop - start), np.nan, np.float32)
    for row, lead, nanovolts in zip(signal, leads, voltages, strict=True):
        row[lead.start - start : lead.stop - start] = nanovolts / 1e6
    signal.flags.writeable = False
    return signal


def _required(file: EcgFile, sections: dict[int, Section], number: int) -> Section:
    if number not in sections:
        reason = "is missing" + (": the file has no resting ECG" if number == 6 else "")
        raise file.refusal(f"section {number}", None, reason, remedy=AGAIN)
    return sections[number]


# ------------------------------------------------------------------ samples


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
    """What was done to the samples before they were coded.

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
        cls,
        file: EcgFile,
        sections: dict[int, Section],
        rhythm: _Waveforms,
        tables: list[Table],
        leads: int,
    ) -> _Compression:
        _, flags = sections[3].unpack("BB")
        subtracted = bool(flags & 1)
        if not subtracted and not rhythm.bimodal:
            return cls(rhythm.interval, 1, [], [], [])
        locations = _required(file, sections, 4)
        median = _Waveforms.of(_required(file, sections, 5), leads)
        decimation = round(rhythm.interval / median.interval) if rhythm.bimodal else 1
        rounding = decimation  # of microseconds
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

    def stored(self, lead: _Lead) -> int:
        """Number of samples of a lead in the file."""
        spans = ((stop - start, protected) for start, stop, protected in self._spans(lead))
        return sum(
            size if protected else sum(divmod(size, self.decimation)) for size, protected in spans
        )

    def undone(self, lead: _Lead, stored: NDArray[np.float64], number: int) -> NDArray[np.float64]:
        """Samples of a lead as recorded, nV."""
        voltages = self._interpolated(lead, stored) if self.decimation > 1 else stored
        for beat in self.beats:
            reference = self.reference[number]
            start = max(beat.start, lead.start, beat.shift)
            stop = min(beat.stop, lead.stop, beat.shift + len(reference))
            if start < stop:
                added = reference[start - beat.shift : stop - beat.shift]
                voltages[start - lead.start : stop - lead.start] += added
        return voltages

    def _interpolated(self, lead: _Lead, stored: NDArray[np.float64]) -> NDArray[np.float64]:
        """Samples of the recording from those that bimodal compression left.

        A stored sample is the mean of `decimation` samples, around the middle of which it is put;
        samples left over at the end of a gap between zones are stored as they are. The standard
        also smooths the result over three samples, which hardly changes a straight line.
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

    def _spans(self, lead: _Lead) -> Iterator[tuple[int, int, bool]]:
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
