"""EDF and EDF+ files, and BDF and BDF+, which have 24 bits a sample: the ECG channels among others.

Sources: B. Kemp et al., "A simple format for exchange of digitized polygraphic recordings",
Electroencephalography and Clinical Neurophysiology 82 (1992) 391; B. Kemp and J. Olivan,
"European data format 'plus' (EDF+)", Clinical Neurophysiology 114 (2003) 1755; the labels of
https://www.edfplus.info/specs/edftexts.html.
"""

from __future__ import annotations

import datetime as dt
import io
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from einthoven.records.file import EcgFile
from einthoven.records.formats import part_of
from einthoven.records.metadata import age_at, iso_time, metadata, sex_of
from einthoven.records.rates import roundest_rate
from einthoven.records.record import MILLIVOLTS, Record, canonical_lead

if TYPE_CHECKING:
    import edfio

_BYTES = {b"0       ": 2, b"\xffBIOSEMI": 3}  # of a sample, by the first bytes of a file
_PREFIX = r"(?:(?:ECG|EKG)[ _.:-]*)"
_LEAD = r"I{1,3}|aV[RLF]|V[1-9]R?|ML(?:I{1,3}|V[1-6])|MCL[16]|CM[1-5]|CC5"
_LABEL = re.compile(rf"{_PREFIX}?(?:lead[ _]*)?({_LEAD})|{_PREFIX}([XYZ])", re.IGNORECASE)
_ECG = re.compile(r"(?:ECG|EKG).*|.*[ _.:-](?:ECG|EKG)", re.IGNORECASE)
_WIDEST_MV, _COARSEST_MV = 1000.0, 0.010
_HIGHEST_RATE = 1e6  # Hz
_AGAIN = "export the recording again, as EDF+ or in another format"


def recognises(head: bytes) -> bool:
    """Whether a file begins with the version of EDF or BDF and a size of the header."""
    return head[:8] in _BYTES and head[184:192].rstrip().isdigit()


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
    recording = _Recording.open(file)
    signal = recording.millivolts(0, recording.records)
    if recording.discontinuous:
        signal = _with_gaps(recording, signal)
    return recording.record(signal)


def read_part(file: EcgFile, start: float, stop: float) -> Record:
    """Read the samples from one time to another, in seconds; see `read` and `read_record`."""
    recording = _Recording.open(file)
    if recording.discontinuous:  # where a time lies depends on every gap before it
        signal = _with_gaps(recording, recording.millivolts(0, recording.records))
        first, last = part_of(file, recording.rate, signal.shape[1], start, stop)
        return recording.record(signal[:, first:last])
    each = recording.samples
    first, last = part_of(file, recording.rate, recording.records * each, start, stop)
    signal = recording.millivolts(first // each, math.ceil(last / each))
    first, last = (sample - first // each * each for sample in (first, last))
    return recording.record(signal[:, first:last])


@dataclass(frozen=True, eq=False)
class _Channel:
    """A channel: its header, and where it lies in each data record."""

    header: edfio.EdfSignal
    first: int  # samples of the data record in front of it
    samples: int

    @property
    def label(self) -> str:
        return self.header.label or "(no label)"

    @property
    def unit(self) -> str:
        return self.header.physical_dimension.strip()

    @property
    def is_annotation(self) -> bool:
        return self.label == _ANNOTATIONS


@dataclass(frozen=True, eq=False)
class _Recording:
    """A file whose header has been read and checked.

    `text` is the header's part on the recording, `width` the bytes of a sample, `records` the
    number of data records, `leads` the channels that form the record, by name.
    """

    file: EcgFile
    text: str
    header: edfio.Edf
    channels: list[_Channel]
    leads: dict[str, _Channel]
    width: int
    records: int

    @classmethod
    def open(cls, file: EcgFile) -> _Recording:
        start = file.part(0, 256)
        width = _BYTES.get(start[:8], 0)
        if len(start) < 256 or not width:
            raise file.refusal("header", start[:8], "is of neither EDF nor BDF", remedy=_AGAIN)
        text = start.decode("latin-1")
        header = _header(file, text)
        channels = _channels(file, header)
        records = _number_of_records(file, text, channels, width)
        return cls(file, text, header, channels, _leads(file, channels), width, records)

    @property
    def rate(self) -> float:
        """Hz. The duration of a data record has eight characters, which may round it."""
        seconds = self.text[244:252].strip()
        decimals = len(seconds.partition(".")[2]) if len(seconds) == 8 else 0
        if not decimals:
            return float(self._any_lead.header.sampling_frequency)
        return roundest_rate(float(seconds) / self.samples, 0.1**decimals / self.samples)

    @property
    def samples(self) -> int:
        """Samples of each lead in a data record."""
        return self._any_lead.samples

    @property
    def _any_lead(self) -> _Channel:
        return next(iter(self.leads.values()))

    @property
    def discontinuous(self) -> bool:
        return self.text[192:197] in ("EDF+D", "BDF+D")

    def content(self, first: int, last: int) -> NDArray[np.uint8]:
        """Some data records, shape (records, bytes)."""
        size = _samples_of_record(self.channels) * self.width
        begin = 256 * (len(self.channels) + 1)
        content = self.file.part(begin + first * size, begin + last * size)
        return np.frombuffer(content, np.uint8).reshape(-1, size)

    def columns(self, channel: _Channel) -> slice:
        """Bytes of a channel in every data record."""
        return slice(channel.first * self.width, (channel.first + channel.samples) * self.width)

    def millivolts(self, first: int, last: int) -> NDArray[np.float32]:
        """Leads in some data records, float32 mV of shape (leads, samples)."""
        content = self.content(first, last)
        signal = np.empty((len(self.leads), len(content) * self.samples), np.float32)
        for row, channel in zip(signal, self.leads.values(), strict=True):
            gain, offset = _calibration(channel)
            with np.errstate(over="ignore"):  # Record refuses an infinity
                row[:] = _integers(content[:, self.columns(channel)], self.width) * gain + offset
        return signal

    def record(self, signal: NDArray[np.float32]) -> Record:
        return Record.create(
            signal,
            self.rate,
            leads=self.leads,
            name=self.file.label,
            patient=_patient(self.header),
            source=self.file.name,
            source_hash=self.file.sha256,
            metadata=_metadata(self),
        )


# ------------------------------------------------------------------ header


def _header(file: EcgFile, text: str) -> edfio.Edf:
    """Header as edfio reads it, without data.

    edfio shortens the signals of an incomplete file, and reads BDF only in later versions and never
    in parts. The data are therefore read from the file itself, and BDF has the same header.
    """
    import edfio  # here, because every unknown file passes `recognises`

    channels = _integer(file, "number of signals", text[252:256])
    size = 256 * (channels + 1)
    content = file.part(0, size)
    if channels < 1 or text[184:192].strip() != str(size) or len(content) < size:
        reason = f"{channels} signals have a header of {size} bytes"
        raise file.refusal("size of the header", text[184:192].strip(), reason, remedy=_AGAIN)
    try:
        seconds = float(text[244:252])
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        reason = "must be a positive number of seconds: there is no sampling rate without it"
        raise file.refusal("duration of a data record", text[244:252], reason, remedy=_AGAIN)
    plain = content.decode("latin-1").replace("\xb5", "u").encode("ascii", "replace")
    labels = re.sub(
        rb"[EB]DF Annotations ", _ANNOTATIONS.encode().ljust(16), plain[256:][: 16 * channels]
    )
    plain = (
        b"0       "
        + plain[8:236]
        + b"0       "
        + plain[244:256]
        + labels
        + plain[256 + len(labels) :]
    )
    try:
        return edfio.read_edf(io.BytesIO(plain))
    except ValueError as error:
        raise file.refusal("header", None, f"cannot be read: {error}", remedy=_AGAIN) from None


_ANNOTATIONS = "Annotations"  # our label of them; edfio hides channels that have the standard's


def _channels(file: EcgFile, header: edfio.Edf) -> list[_Channel]:
    channels: list[_Channel] = []
    for signal in header.signals:
        samples = signal.samples_per_data_record
        if samples <= 0 or not signal.sampling_frequency < _HIGHEST_RATE:
            field = f"samples of {signal.label} in a data record"
            reason = f"must be a positive number; the rate is {signal.sampling_frequency} Hz"
            raise file.refusal(field, samples, reason, remedy=_AGAIN)
        channels.append(_Channel(signal, _samples_of_record(channels), samples))
    return channels


def _samples_of_record(channels: list[_Channel]) -> int:
    return channels[-1].first + channels[-1].samples if channels else 0


def _number_of_records(file: EcgFile, text: str, channels: list[_Channel], width: int) -> int:
    """Number of data records, which the size of the file must bear out."""
    size = _samples_of_record(channels) * width
    held = (file.size - 256 * (len(channels) + 1)) / size
    records = _integer(file, "number of data records", text[236:244])
    if records == held and records > 0:
        return records
    reason = f"the file holds {held:.10g} data records of {size} bytes"
    if records == -1:
        reason = f"the recording was not finished; {reason}"
    raise file.refusal("number of data records", records, reason, remedy=_AGAIN)


def _integer(file: EcgFile, field: str, text: str) -> int:
    if not re.fullmatch(r"-?\d+ *", text, re.ASCII):
        raise file.refusal(field, text, "is not an integer", remedy=_AGAIN)
    return int(text)


# ------------------------------------------------------------------ channels


def _lead_of(label: str) -> str:
    """Lead of a channel: its standard name, the label itself of another ECG; else empty."""
    match = _LABEL.fullmatch(label.strip())
    if match:
        return canonical_lead(match[1] or match[2])
    return label.strip() if _ECG.fullmatch(label.strip()) else ""


def _leads(file: EcgFile, channels: list[_Channel]) -> dict[str, _Channel]:
    """Channels that form the record, by lead."""
    ecg = [channel for channel in channels if _lead_of(channel.label)]
    if not ecg:
        raise file.refusal(
            "channels",
            ", ".join(channel.label for channel in channels),
            "none is labelled as an ECG",
            remedy="if one is an ECG, give it the label of its lead, such as ECG II",
        )
    volts = [channel for channel in ecg if channel.unit in MILLIVOLTS]
    if not volts:
        raise file.refusal(
            f"physical dimension of {ecg[0].label}",
            ecg[0].unit,
            "is no unit of voltage",
            remedy=f"correct it in the header to {', '.join(MILLIVOLTS)}; it is never guessed",
        )
    sizes = Counter(channel.samples for channel in volts)
    samples = max(sizes, key=lambda size: (sizes[size], size))
    leads: dict[str, _Channel] = {}
    for channel in volts:
        if channel.samples == samples:
            lead = _lead_of(channel.label)
            if lead in leads:
                value = f"{leads[lead].label}, {channel.label}"
                remedy = "correct the labels: one lead each"
                raise file.refusal("channels", value, f"both are lead {lead}", remedy=remedy)
            _check_range(file, channel)
            leads[lead] = channel
    return leads


def _check_range(file: EcgFile, channel: _Channel) -> None:
    """Refuse ranges that define no scale, or one that no electrocardiograph has."""
    field = f"physical and digital range of {channel.label}"
    signal = channel.header
    try:
        physical, digital = signal.physical_range, signal.digital_range
    except (ValueError, OverflowError):
        raise file.refusal(field, None, "is not made of numbers", remedy=_AGAIN) from None
    value = (*physical, *digital)
    if not all(map(math.isfinite, physical)) or physical[0] == physical[1]:
        raise file.refusal(field, value, "the physical range is empty", remedy=_AGAIN)
    if digital[0] >= digital[1]:
        raise file.refusal(field, value, "the digital range is empty", remedy=_AGAIN)
    # Electrodes have offsets of up to 300 mV, and a resolution of 10 uV is the least that
    # electrocardiographs must have (AHA 1990). A converter that has no gain writes +-1000 mV.
    step = abs(_calibration(channel)[0])
    width = step * (digital[1] - digital[0])
    if width > _WIDEST_MV and step > _COARSEST_MV:
        raise file.refusal(
            field,
            value,
            f"{width:g} mV in steps of {1000 * step:.3g} uV are no electrocardiograph's: the "
            "converter that wrote the file did not have the gain",
            remedy="take the device's own export, or correct the physical range in the header",
        )


def _calibration(channel: _Channel) -> tuple[float, float]:
    """Millivolts a count, and millivolts of a count of zero."""
    low, high = channel.header.physical_range
    first, last = channel.header.digital_range
    gain = (high - low) / (last - first)
    factor = MILLIVOLTS[channel.unit]
    return gain * factor, (low - gain * first) * factor


# ------------------------------------------------------------------ data


def _integers(content: NDArray[np.uint8], width: int) -> NDArray[np.signedinteger]:
    """Little-endian integers of two or three bytes."""
    if width == 2:
        return np.ascontiguousarray(content).view("<i2").ravel()
    padded = np.zeros((content.size // 3, 4), np.uint8)
    padded[:, 1:] = content.reshape(-1, 3)
    return padded.view("<i4").ravel() >> 8


def _with_gaps(recording: _Recording, signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Signal of a discontinuous recording with NaN in its gaps."""
    each = recording.samples
    onsets = np.array(_onsets(recording))
    starts = np.rint((onsets - onsets[0]) * recording.rate).astype(np.int64)
    field = "onsets of the data records"
    if (np.diff(starts) < each).any():
        raise recording.file.refusal(field, None, "overlap or go back in time", remedy=_AGAIN)
    total = int(starts[-1]) + each
    if total > 2 * signal.shape[1]:
        raise recording.file.refusal(
            field,
            f"{total / recording.rate:g} s",
            f"gaps longer than the {signal.shape[1] / recording.rate:g} s of signal",
            remedy="export the parts between the gaps one by one",
        )
    whole = np.full((len(signal), total), np.nan, np.float32)
    columns = (starts[:, None] + np.arange(each)).ravel()
    whole[:, columns] = signal
    return whole


def _onsets(recording: _Recording) -> list[float]:
    """Seconds from the start of the recording to each data record, from its first annotation."""
    timekeeping = next((each for each in recording.channels if each.is_annotation), None)
    field = "onset of a data record"
    if timekeeping is None:
        reason = "is missing: the recording is discontinuous and has no annotations"
        raise recording.file.refusal(field, None, reason, remedy=_AGAIN)
    onsets = []
    for row in recording.content(0, recording.records)[:, recording.columns(timekeeping)]:
        match = re.match(rb"([+-]\d+(?:\.\d*)?)\x14\x14", row.tobytes())
        if match is None or len(match[1]) > 20:
            value = row[:20].tobytes()
            raise recording.file.refusal(field, value, "is no time in seconds", remedy=_AGAIN)
        onsets.append(float(match[1]))
    return onsets


# ------------------------------------------------------------------ metadata


def _fields_of_patient(header: edfio.Edf) -> list[str]:
    """Code, sex, date of birth and name as EDF+ orders them; empty for other text."""
    fields = header.local_patient_identification.split()
    ordered = len(fields) >= 4 and fields[1] in ("M", "F", "X")
    return fields if ordered and re.fullmatch(r"X|\d\d-[A-Za-z]{3}-\d{4}", fields[2]) else []


def _patient(header: edfio.Edf) -> str | None:
    code = (_fields_of_patient(header) or ["X"])[0]
    return None if code == "X" else code


def _metadata(recording: _Recording) -> dict[str, str]:
    header = recording.header
    patient = _fields_of_patient(header)
    date = _date(recording)
    equipment = header.recording.equipment_code if _follows_plus(header) else "X"
    filters = {channel.header.prefiltering.strip() for channel in recording.leads.values()}
    return metadata(
        time=iso_time(date, _time(recording.text[176:184])),
        age=age_at(_birth(header), date) if patient else None,
        sex=sex_of(patient[1]) if patient else None,
        device=None if equipment == "X" else equipment.replace("_", " "),
        filters=filters.pop() if len(filters) == 1 else None,
        left_out=_left_out(recording),
    )


def _left_out(recording: _Recording) -> str:
    """Channels that are not in the record, with their rate and unit if they are an ECG."""
    texts = []
    for channel in recording.channels:
        if channel in recording.leads.values() or channel.is_annotation:
            continue
        rate, unit = channel.header.sampling_frequency, channel.unit or "without unit"
        ecg = f" ({rate:g} Hz, {unit})" if _lead_of(channel.label) else ""
        texts.append(channel.label + ecg)
    return ", ".join(texts)


def _follows_plus(header: edfio.Edf) -> bool:
    return header.local_recording_identification.startswith("Startdate ")


def _date(recording: _Recording) -> dt.date | None:
    """Date of the recording: that of EDF+, which has four digits a year, else EDF's."""
    if _follows_plus(recording.header):
        try:
            return recording.header.recording.startdate
        except ValueError:  # also of an anonymous recording, whose other date is 01.01.85
            return None
    match = re.fullmatch(r"(\d\d)\.(\d\d)\.(\d\d)", recording.text[168:176])
    try:
        day, month, year = map(int, match.groups() if match else ())
        return dt.date(year + (1900 if year >= 85 else 2000), month, day)
    except ValueError:
        return None


def _birth(header: edfio.Edf) -> dt.date | None:
    try:
        return header.patient.birthdate
    except ValueError:
        return None


def _time(text: str) -> dt.time | None:
    try:
        return dt.time.fromisoformat(text.replace(".", ":"))
    except ValueError:
        return None
