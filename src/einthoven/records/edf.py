"""EDF and EDF+ files, and BDF and BDF+, which have 24 bits a sample: the ECG channels among others.

`edf_header` names the sources.
"""

from __future__ import annotations

import datetime as dt
import math
import re

import numpy as np
from numpy.typing import NDArray

from einthoven.records.edf_header import AGAIN, Channel, Header, read_header
from einthoven.records.file import EcgFile
from einthoven.records.formats import part_of
from einthoven.records.metadata import age_at, iso_time, metadata, sex_of
from einthoven.records.record import Record


def read(file: EcgFile) -> Record:
    """Read the ECG channels of an EDF or BDF file in millivolts.

    Parameters
    ----------
    file : EcgFile
        The recording.

    Returns
    -------
    Record
        Float32 mV of the channels that are labelled as an ECG (`ECG II`, `EKG`, `V1`, `MLII`) and
        have a unit of voltage; with several rates, those of the rate that most of them have.
        `left_out` in the metadata names the other channels. Gaps of a discontinuous recording are
        NaN.

    Raises
    ------
    RecordError
        If the header is inconsistent or announces another number of data records than the file
        holds, no channel is an ECG in a unit of voltage, its range is no electrocardiograph's, or
        the gaps are longer than the recording.
    """
    header = read_header(file)
    signal = _millivolts(file, header, 0, header.records)
    if header.discontinuous:
        signal = _with_gaps(file, header, signal)
    return _record(file, header, signal)


def read_part(file: EcgFile, start: float, stop: float) -> Record:
    """Read the samples from one time to another, in seconds; see `read` and `read_record`."""
    header = read_header(file)
    if header.discontinuous:  # where a time lies depends on every gap before it
        signal = _with_gaps(file, header, _millivolts(file, header, 0, header.records))
        first, last = part_of(file, header.rate, signal.shape[1], start, stop)
        return _record(file, header, signal[:, first:last])
    each = header.samples
    first, last = part_of(file, header.rate, header.records * each, start, stop)
    signal = _millivolts(file, header, first // each, math.ceil(last / each))
    before = first // each * each
    return _record(file, header, signal[:, first - before : last - before])


def duration(file: EcgFile) -> float:
    """Seconds of a file with its gaps, by its header and annotations. RecordError as for `read`."""
    header = read_header(file)
    samples = header.records * header.samples
    if header.discontinuous:
        samples = int(_starts(file, header)[-1]) + header.samples
    return samples / header.rate


def _record(file: EcgFile, header: Header, signal: NDArray[np.float32]) -> Record:
    patient = _patient(header)
    return Record.create(
        signal,
        header.rate,
        leads=header.leads,
        name=file.label,
        patient=patient[0] if patient and patient[0] != "X" else None,
        source=file.name,
        source_hash=file.sha256,
        metadata=_metadata(header, patient),
    )


# ------------------------------------------------------------------ data


def _millivolts(file: EcgFile, header: Header, first: int, last: int) -> NDArray[np.float32]:
    """Leads in some data records, float32 mV of shape (leads, samples)."""
    content = _content(file, header, first, last)
    signal = np.empty((len(header.leads), len(content) * header.samples), np.float32)
    for row, channel in zip(signal, header.leads.values(), strict=True):
        gain, offset = channel.calibration
        counts = _integers(content[:, _columns(header, channel)], header.width)
        with np.errstate(over="ignore"):  # Record refuses an infinity
            values = counts * gain
            values += offset
            row[:] = values
    return signal


def _content(file: EcgFile, header: Header, first: int, last: int) -> NDArray[np.uint8]:
    """Some data records, shape (records, bytes)."""
    begin, end = (header.size + number * header.record_size for number in (first, last))
    return np.frombuffer(file.part(begin, end), np.uint8).reshape(-1, header.record_size)


def _columns(header: Header, channel: Channel) -> slice:
    """Bytes of a channel in every data record."""
    return slice(channel.first * header.width, (channel.first + channel.samples) * header.width)


def _integers(content: NDArray[np.uint8], width: int) -> NDArray[np.signedinteger]:
    """Little-endian integers of two or three bytes."""
    if width == 2:
        return np.ascontiguousarray(content).view("<i2").ravel()
    padded = np.zeros((content.size // 3, 4), np.uint8)
    padded[:, 1:] = content.reshape(-1, 3)
    return padded.view("<i4").ravel() >> 8


def _with_gaps(file: EcgFile, header: Header, signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signal of a discontinuous recording with NaN in its gaps."""
    each, starts = header.samples, _starts(file, header)
    whole = np.full((len(signal), int(starts[-1]) + each), np.nan, np.float32)
    whole[:, (starts[:, None] + np.arange(each)).ravel()] = signal
    return whole


def _starts(file: EcgFile, header: Header) -> NDArray[np.int64]:
    """Places of the data records of a discontinuous recording, in samples from the first."""
    each, samples = header.samples, header.records * header.samples
    onsets = np.array(_onsets(file, header))
    starts: NDArray[np.int64] = np.rint((onsets - onsets[0]) * header.rate).astype(np.int64)
    field = "onsets of the data records"
    if (np.diff(starts) < each).any():
        raise file.refusal(field, None, "overlap or go back in time", remedy=AGAIN)
    total = int(starts[-1]) + each
    if total > 2 * samples:
        raise file.refusal(
            field,
            f"{total / header.rate:g} s",
            f"gaps longer than the {samples / header.rate:g} s of signal",
            remedy="export the parts between the gaps one by one",
        )
    return starts


def _onsets(file: EcgFile, header: Header) -> list[float]:
    """Seconds from the start of the recording to each data record, from its first annotation."""
    timekeeping = next((each for each in header.channels if each.is_annotation), None)
    field = "onset of a data record"
    if timekeeping is None:
        reason = "is missing: the recording is discontinuous and has no annotations"
        raise file.refusal(field, None, reason, remedy=AGAIN)
    onsets = []
    for row in _content(file, header, 0, header.records)[:, _columns(header, timekeeping)]:
        match = re.match(rb"([+-]\d{1,9}(?:\.\d*)?)\x14\x14", row.tobytes())
        if match is None:
            value = row[:20].tobytes()
            raise file.refusal(field, value, "is no time in seconds", remedy=AGAIN)
        onsets.append(float(match[1]))
    return onsets


# ------------------------------------------------------------------ metadata


def _patient(header: Header) -> list[str]:
    """Code, sex, date of birth and name as EDF+ orders them, X if unknown; empty for other text."""
    fields = header.parsed.local_patient_identification.split()
    ordered = len(fields) >= 4 and fields[1] in ("M", "F", "X")
    return fields if ordered and re.fullmatch(r"X|\d\d-[A-Za-z]{3}-\d{4}", fields[2]) else []


def _metadata(header: Header, patient: list[str]) -> dict[str, str]:
    date = _date(header)
    fields = header.parsed.local_recording_identification.split()
    equipment = fields[4] if _follows_plus(header) and len(fields) > 4 else "X"
    filters = {channel.header.prefiltering.strip() for channel in header.leads.values()}
    return metadata(
        time=iso_time(date, _time(header.text[176:184])),
        age=age_at(_birth(header), date) if patient else None,
        sex=sex_of(patient[1]) if patient else None,
        device=None if equipment == "X" else equipment.replace("_", " "),
        filters=filters.pop() if len(filters) == 1 else None,
        left_out=_left_out(header),
    )


def _left_out(header: Header) -> str:
    """Channels that are not in the record, with their rate and unit if they are an ECG."""
    texts = []
    for channel in header.channels:
        if channel in header.leads.values() or channel.is_annotation:
            continue
        rate, unit = channel.header.sampling_frequency, channel.unit or "without unit"
        texts.append(channel.label + (f" ({rate:g} Hz, {unit})" if channel.lead else ""))
    return ", ".join(texts)


def _follows_plus(header: Header) -> bool:
    return header.parsed.local_recording_identification.startswith("Startdate ")


def _date(header: Header) -> dt.date | None:
    """Date of the recording: that of EDF+, which has four digits a year, else EDF's."""
    try:
        if _follows_plus(header):
            return header.parsed.recording.startdate
        match = re.fullmatch(r"(\d\d)\.(\d\d)\.(\d\d)", header.text[168:176])
        day, month, year = map(int, match.groups() if match else ())
        return dt.date(year + (1900 if year >= 85 else 2000), month, day)
    except ValueError:  # also of an anonymous recording, whose other date is 01.01.85
        return None


def _birth(header: Header) -> dt.date | None:
    try:
        return header.parsed.patient.birthdate
    except ValueError:
        return None


def _time(text: str) -> dt.time | None:
    try:
        return dt.time.fromisoformat(text.replace(".", ":"))
    except ValueError:
        return None
