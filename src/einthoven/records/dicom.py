"""DICOM waveforms: ECG leads in the multiplex groups of a data set, whatever its SOP class.

Source: DICOM PS3.3, C.10.9 "Waveform Module", and PS3.5. pydicom parses the data set; samples are
decoded here, because its `waveform_array` takes those of big-endian files in the wrong order and
applies no unit.
"""

from __future__ import annotations

import io
import math
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from einthoven.errors import RecordError
from einthoven.records.dicom_head import PREAMBLE, has_mark, recognises
from einthoven.records.dicom_metadata import first, number, statements_of, text
from einthoven.records.file import EcgFile
from einthoven.records.lead_codes import lead_of_code, lead_of_text
from einthoven.records.metadata import lead_fault
from einthoven.records.record import MILLIVOLTS, STANDARD_LEADS, Record

_META = 2  # group of the file's own elements
_DEFLATED = "1.2.840.10008.1.2.1.99"
_ECG_CLASSES = "1.2.840.10008.5.1.4.1.1.9.1."
"""Root of the storage classes of 12-lead, general and ambulatory ECG, and general 32-bit ECG."""
_LARGEST = 64 << 20  # bytes of an inflated data set; 10 s of 12 leads take 0.3 MB
_TYPES = {"SB": "i1", "UB": "u1", "SS": "i2", "US": "u2", "SL": "i4", "UL": "u4"}
_UNITS = {"\N{MICRO SIGN}V": "uV", "\N{GREEK SMALL LETTER MU}V": "uV"}
_AVERAGED = ("median", "average", "representative", "template", "beat")
_SHORTEST_RHYTHM = 2.0  # seconds; an averaged beat lasts 0.6 to 1.4 s
_INVALID = {"DISCONNECTED", "INVALID", "TEST DATA", "UNCALIBRATED"}  # no voltages of a patient
_DOUBTFUL = ("QUESTIONABLE", "UNZEROED")  # voltages all the same
_WHOLE = 0.01  # samples, to which a skew must be a whole number
_EXPORT = "export the ECG from its source again"


def read(file: EcgFile) -> Record:
    """Read the ECG of a DICOM data set.

    Parameters
    ----------
    file : EcgFile
        A data set with a Waveform Sequence, with or without preamble.

    Returns
    -------
    Record
        The rhythm, not an averaged beat: the group with the most leads, and the longest of several
        with equally many; groups of the same time and rate are added, and so are those of leads
        that were recorded in turn. NaN marks samples at which a lead was not recorded, padding,
        and channels that the file declares disconnected, invalid, uncalibrated or test data
        (`left_out` in the metadata names these); a channel that begins later by its skew or offset
        is shifted.

    Raises
    ------
    RecordError
        If the file is damaged or not DICOM, holds no waveform, no ECG lead or none with voltages of
        a patient, if rate, unit or scale are missing, or if a skew is no whole number of samples.
    """
    # pydicom warns about every value that violates the standard; what matters here is checked.
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        try:
            return _read(file)
        except RecordError:
            raise
        except Exception as error:  # pydicom converts late, and fails with any exception
            reason = f"is damaged or cut off: {type(error).__name__}, {str(error)[:200]}"
            raise file.refusal("data set", None, reason, remedy=_EXPORT) from None


def _read(file: EcgFile) -> Record:
    dataset = _dataset(file)
    groups = _groups(file, dataset)
    parts = _simultaneous(groups) or _in_turn(file, groups)
    leads, signal = _together(file, parts)
    return Record.create(
        signal,
        groups[0].rate,
        leads=leads,
        name=file.label,
        patient=text(dataset, "PatientID") or None,
        source=file.name,
        source_hash=file.sha256,
        metadata=statements_of(dataset, groups[0].item, _left_out(parts), _lead_quality(parts)),
    )


# ---------------------------------------------------------------------- data set


def _dataset(file: EcgFile) -> Dataset:
    content = file.content
    if not recognises(content):
        reason = "does not begin as DICOM does"
        raise file.refusal("data set", None, reason, remedy="check that it is a DICOM file")
    stream = io.BytesIO(content)
    stream.seek(PREAMBLE if has_mark(content) else 0)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != _META)
    if str(meta.get("TransferSyntaxUID", "")).strip("\0 ") == _DEFLATED:
        content = _inflated(file, content[stream.tell() :])
    dataset = dcmread(io.BytesIO(content), force=True)
    if "WaveformSequence" not in dataset:
        kind = UID(text(dataset, "SOPClassUID")).name or "of no class"
        raise file.refusal(
            "Waveform Sequence",
            None,
            f"is missing; the file is {kind}",
            remedy="export the ECG as a waveform; its picture or PDF cannot be read",
        )
    raw = dataset.get_item("WaveformSequence")
    length = getattr(raw, "length", 0)  # absent once pydicom has converted it
    if length and length != 0xFFFFFFFF and len(raw.value or b"") < length:
        reason = f"holds {len(raw.value or b''):,} bytes: the file is cut off"
        raise file.refusal("length of the Waveform Sequence", length, reason, remedy=_EXPORT)
    return dataset


def _inflated(file: EcgFile, deflated: bytes) -> bytes:
    """Data set of the deflated transfer syntax. pydicom would inflate any amount."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflate.decompress(deflated, _LARGEST)
    if not inflate.eof:
        cut = len(data) < _LARGEST
        reason = "is cut off" if cut else f"inflates to more than {_LARGEST >> 20} MB"
        raise file.refusal("deflated data set", None, reason, remedy=_EXPORT)
    return data


# ---------------------------------------------------------------------- groups


@dataclass(frozen=True)
class _Group:
    """A multiplex group with ECG leads.

    `place` is its own among the groups; `leads` maps places of channels to names.
    """

    item: Dataset
    place: int
    leads: dict[int, str]
    rate: float
    samples: int
    channels: list[Dataset]

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    @property
    def statuses(self) -> dict[str, set[str]]:
        """Values of Channel Status of each lead."""
        return {
            lead: set(text(self.channels[place], "ChannelStatus").upper().split("\\"))
            for place, lead in self.leads.items()
        }

    @property
    def invalid(self) -> dict[str, str]:
        """Status of each lead whose samples are no voltages of a patient."""
        statuses = {lead: status & _INVALID for lead, status in self.statuses.items()}
        return {lead: ", ".join(sorted(status)) for lead, status in statuses.items() if status}

    @property
    def rank(self) -> tuple[int, float, bool]:
        is_original = text(self.item, "WaveformOriginality") != "DERIVED"
        return len(self.leads), self.seconds, is_original

    @property
    def start(self) -> int:
        """First sample, from the reference time of the file; 0 if that is not stated."""
        offset = number(self.item, "MultiplexGroupTimeOffset") or 0.0  # milliseconds
        return round(offset * self.rate / 1000)

    @property
    def stop(self) -> int:
        return self.start + self.samples


def _groups(file: EcgFile, dataset: Dataset) -> list[_Group]:
    """Groups of the rhythm, the best one first."""
    is_ecg = text(dataset, "SOPClassUID").startswith(_ECG_CLASSES)
    rhythms: list[_Group] = []
    channels: list[Dataset] = []
    averaged = ""
    for place, item in enumerate(dataset.WaveformSequence):
        label = text(item, "MultiplexGroupLabel")
        own = list(item.get("ChannelDefinitionSequence") or ())
        if _is_averaged(label):
            averaged = label
        elif leads := dict(_leads(file, own, is_ecg)):
            rhythms.append(_group(file, item, place, leads, own))
        channels += own
    if averaged and not rhythms:
        raise file.refusal(
            "multiplex groups",
            averaged,
            "an averaged beat, and there is no recording beside it",
            remedy="export the recorded ECG (rhythm) too",
        )
    if not rhythms:
        raise file.refusal(
            "channels",
            ", ".join(map(_title, channels[:8])),
            "none is an ECG lead",
            remedy="export an ECG; its leads are named by codes of SCP-ECG or MDC, or I to V6",
        )
    longest = max(group.seconds for group in rhythms)
    if longest > _SHORTEST_RHYTHM:
        rhythms = [group for group in rhythms if group.seconds >= _SHORTEST_RHYTHM]
    return sorted(rhythms, key=lambda group: group.rank, reverse=True)


def _is_averaged(label: str) -> bool:
    words = label.lower()
    return any(word in words for word in _AVERAGED) and "rhythm" not in words


def _group(
    file: EcgFile, item: Dataset, place: int, leads: dict[int, str], channels: list[Dataset]
) -> _Group:
    rate = number(item, "SamplingFrequency")
    if rate is None or not (math.isfinite(rate) and rate > 0):
        reason = "must be a positive number of hertz; it is never guessed"
        raise file.refusal("Sampling Frequency", rate, reason, remedy=_EXPORT)
    samples = number(item, "NumberOfWaveformSamples")
    announced = number(item, "NumberOfWaveformChannels")
    if not samples or samples < 1 or announced != len(channels):
        reason = f"{len(channels)} channels are defined, {samples or 'no'} samples announced"
        raise file.refusal("Number of Waveform Channels", announced, reason, remedy=_EXPORT)
    return _Group(item, place, leads, rate, int(samples), channels)


def _leads(file: EcgFile, channels: list[Dataset], is_ecg: bool) -> Iterator[tuple[int, str]]:
    """Place and name of each channel that is an ECG lead.

    In an ECG storage class every voltage is one; elsewhere (haemodynamic, electrophysiology) only
    what is named as one, because catheters measure voltages too.
    """
    for place, channel in enumerate(channels):
        source = first(channel, "ChannelSourceSequence")
        texts = [text(source, "CodeMeaning"), text(channel, "ChannelLabel")]
        code = text(source, "CodeValue")
        names = list(filter(None, [lead_of_code(code), *map(lead_of_text, (code, *texts))]))
        if len({name.removesuffix("-cal") for name in names}) > 1:  # a label may omit "derived"
            reason = f"code and names disagree: {', '.join(filter(None, [code, *texts]))}"
            raise file.refusal("Channel Source Sequence", code, reason, remedy=_EXPORT)
        lead = max(names, key=len, default=None)
        if lead is None and is_ecg and _unit(channel) in MILLIVOLTS:
            lead = next(filter(None, [*reversed(texts), code]), None)
        if lead is not None:
            yield place, lead


def _simultaneous(groups: list[_Group]) -> list[_Group]:
    """Groups of the rate and time of the first; empty if they lack standard leads of others."""
    best = groups[0]
    span = (best.rate, best.start, best.stop)
    rhythm = [group for group in groups if (group.rate, group.start, group.stop) == span]
    return [] if _standard(groups) - _standard(rhythm) else rhythm


def _in_turn(file: EcgFile, groups: list[_Group]) -> list[_Group]:
    """Groups of leads that were recorded in turn: 3 x 4, perhaps with a strip of one lead.

    RecordError if they have several rates, or their times are not stated: the same time for groups
    of different lengths is none.
    """
    rates = {group.rate for group in groups}
    times = {(group.start, group.stop) for group in groups}
    total = max(group.stop for group in groups) - min(group.start for group in groups)
    is_stated = len({start for start, _ in times}) > 1
    if len(rates) > 1 or not is_stated or total > sum(group.samples for group in groups):
        absent = _standard(groups) - _standard(groups[:1])
        reason = f"recorded at another time or rate than {', '.join(groups[0].leads.values())}"
        raise file.refusal(
            "multiplex groups",
            ", ".join(lead for lead in STANDARD_LEADS if lead in absent),
            reason,
            remedy="export all leads of the same time (12 x 10 s instead of 3 x 4 x 2.5 s)",
        )
    return groups


def _standard(groups: list[_Group]) -> set[str]:
    return {lead for group in groups for lead in group.leads.values()} & set(STANDARD_LEADS)


def _together(file: EcgFile, groups: list[_Group]) -> tuple[list[str], NDArray[np.float32]]:
    """Leads, and their float32 mV of shape (leads, samples); NaN where one was not recorded.

    A lead of several groups is taken from the longest, or the first of several.
    """
    owners: dict[str, _Group] = {}
    for group in sorted(groups, key=lambda group: group.samples, reverse=True):
        for lead in group.leads.values():
            owners.setdefault(lead, group)
    invalid = [group.invalid for group in groups]
    if sum(map(len, invalid)) == sum(len(group.leads) for group in groups):
        statuses = ", ".join(sorted({status for each in invalid for status in each.values()}))
        reason = "of every lead: there are no voltages of a patient"
        raise file.refusal("Channel Status", statuses, reason, remedy=_EXPORT)
    parts = sorted(groups, key=lambda group: group.place)
    leads = list(dict.fromkeys(lead for group in parts for lead in group.leads.values()))
    decoded = [_millivolts(file, group) for group in parts]  # after their lengths were checked
    starts = [[group.start + shift for shift in _shifts(file, group)] for group in parts]
    start = min(map(min, starts))
    stop = max(max(begin) + group.samples for group, begin in zip(parts, starts, strict=True))
    signal = np.full((len(leads), stop - start), np.nan, np.float32)
    for group, rows, begins in zip(parts, decoded, starts, strict=True):
        for lead, row, begin in zip(group.leads.values(), rows, begins, strict=True):
            if owners[lead] is group:
                signal[leads.index(lead), begin - start : begin - start + group.samples] = row
    signal.flags.writeable = False
    return leads, signal


def _shifts(file: EcgFile, group: _Group) -> list[int]:
    """Samples by which each lead of a group begins later than the group.

    Channels that are sampled one after another within a sampling interval count as simultaneous.
    RecordError for a longer skew that is no whole number of samples, or as long as the group.
    """
    shifts = []
    for place, lead in group.leads.items():
        channel = group.channels[place]
        seconds, samples = (number(channel, f"Channel{x}Skew") for x in ("Time", "Sample"))
        offset = (number(channel, "ChannelOffset") or 0.0) * group.rate
        if (
            seconds is not None
            and samples is not None
            and not abs(seconds * group.rate - samples) < 1
        ):
            reason = f"s, and {samples:g} samples: they contradict each other"
            raise file.refusal(f"Channel Time Skew of {lead}", seconds, reason, remedy=_EXPORT)
        skew = offset + ((seconds or 0.0) * group.rate if samples is None else samples)
        if abs(skew) < 1 - _WHOLE:
            skew = 0.0
        if not (abs(skew) < group.samples and abs(skew - round(skew)) <= _WHOLE):
            reason = (
                "samples, with the offset: only whole numbers below that of the group's samples"
            )
            raise file.refusal(f"Channel Skew of {lead}", skew, reason, remedy=_EXPORT)
        shifts.append(round(skew))
    return shifts


def _left_out(groups: list[_Group]) -> list[str]:
    """Channels that are no ECG lead, of the first group, and leads without valid samples."""
    best = groups[0]
    others = [x for place, x in enumerate(best.channels) if place not in best.leads]
    invalid = {lead: status for group in groups for lead, status in group.invalid.items()}
    return [
        *(f"{_title(channel)}: no ECG lead" for channel in others),
        *(f"{lead}: {status}" for lead, status in invalid.items()),
    ]


def _lead_quality(groups: list[_Group]) -> list[str]:
    """Leads whose status is doubtful, though their samples are voltages."""
    statuses = {lead: status for group in groups for lead, status in group.statuses.items()}
    return [
        lead_fault(lead, doubt.lower())
        for lead, status in statuses.items()
        for doubt in _DOUBTFUL
        if doubt in status
    ]


def _title(channel: Dataset) -> str:
    source = first(channel, "ChannelSourceSequence")
    return text(channel, "ChannelLabel") or text(source, "CodeMeaning") or text(source, "CodeValue")


# ---------------------------------------------------------------------- samples


def _millivolts(file: EcgFile, group: _Group) -> NDArray[np.float32]:
    """Float32 millivolts of a group's leads, shape (leads, samples)."""
    samples = _samples(file, group)
    padding, invalid = _padding(file, group, samples), group.invalid
    signal = np.empty((len(group.leads), group.samples), np.float32)
    for row, (place, lead) in enumerate(group.leads.items()):
        channel = group.channels[place]
        scale, baseline = _scale(file, channel, lead)
        digital = samples[:, place]
        with np.errstate(over="ignore"):  # Record refuses the infinity
            voltages = digital * scale
            signal[row] = voltages + baseline if baseline else voltages
        if padding is not None:
            signal[row][digital == padding] = np.nan
        if lead in invalid:
            signal[row] = np.nan
    return signal


def _samples(file: EcgFile, group: _Group) -> NDArray[np.integer]:
    """Samples as they are stored, shape (samples, channels)."""
    item, count = group.item, len(group.channels)
    kind = text(item, "WaveformSampleInterpretation")
    bits = number(item, "WaveformBitsAllocated")
    if kind not in _TYPES or bits != 8 * int(_TYPES[kind][1]):
        raise file.refusal(
            "Waveform Sample Interpretation",
            kind,
            f"with {bits or 'no'} bits allocated; supported are {', '.join(_TYPES)}",
            remedy="export linear samples of 8, 16 or 32 bits",
        )
    _, is_little_endian = item.original_encoding
    element = item.get("WaveformData") and item["WaveformData"]
    data = bytes(element.value) if element else b""
    if bits == 8 and not is_little_endian and element and element.VR == "OW":
        reason = "8-bit samples in big-endian words: their order is not certain"
        raise file.refusal("Waveform Data", "OW", reason, remedy=_EXPORT)
    expected = group.samples * count * int(bits) // 8
    if len(data) not in (expected, expected + expected % 2):
        reason = f"{group.samples} samples of {count} channels take {expected:,} bytes"
        raise file.refusal("length of the Waveform Data", len(data), reason, remedy=_EXPORT)
    dtype = np.dtype(_TYPES[kind]).newbyteorder("<" if is_little_endian else ">")
    samples = np.frombuffer(data, dtype, group.samples * count).reshape(group.samples, count)
    _check_sign(file, group, samples)
    return samples


def _check_sign(file: EcgFile, group: _Group, samples: NDArray[np.integer]) -> None:
    """Refuse samples of fewer bits than allocated whose sign was not extended: 4095 for -1."""
    if samples.dtype.kind == "u":
        return
    for place, lead in group.leads.items():
        stored = number(group.channels[place], "WaveformBitsStored")
        if stored and 1 < stored < 8 * samples.itemsize:
            digital = samples[:, place]
            if digital.min() >= 0 and digital.max() >= 1 << int(stored) - 1:
                reason = f"lead {lead} holds {digital.max()}, and the sign of none is extended"
                raise file.refusal("Waveform Bits Stored", stored, reason, remedy=_EXPORT)


def _padding(file: EcgFile, group: _Group, samples: NDArray[np.integer]) -> int | None:
    """Padding value of a group, or None if the file has none or its value is that of samples.

    A file may declare 0, and mean nothing by it: every zero crossing would be lost. A value counts
    as padding if no voltage can have it, which holds

    * for the lowest and the highest number that the samples' bits hold: a sample there is padding
      or clipped, and neither is a voltage;
    * for a value that is farther from every other sample of the group than these are apart.
    """
    raw = group.item.get("WaveformPaddingValue")
    if raw is None or raw == b"":
        return None
    if isinstance(raw, bytes):
        if len(raw) < samples.itemsize:
            reason = f"has {len(raw)} bytes, a sample {samples.itemsize}"
            raise file.refusal("Waveform Padding Value", raw, reason, remedy=_EXPORT)
        padding = int(np.frombuffer(raw, samples.dtype, 1)[0])
    else:
        padding = int(raw)
    used = samples[:, list(group.leads)]
    others = used[used != padding]
    if not others.size:
        reason = "every sample has it"
        raise file.refusal("Waveform Padding Value", padding, reason, remedy=_EXPORT)
    lowest, highest = int(others.min()), int(others.max())
    distance = max(lowest - padding, padding - highest)
    is_extreme = padding in _extremes(group, samples.dtype)
    return padding if distance > 0 and (is_extreme or distance > highest - lowest) else None


def _extremes(group: _Group, dtype: np.dtype[np.integer]) -> set[int]:
    """Lowest and highest number of the bits allocated, and of the bits stored."""
    place = next(iter(group.leads))
    bits = {8 * dtype.itemsize, int(number(group.channels[place], "WaveformBitsStored") or 0)}
    bits -= set(range(8))  # no electrocardiograph has so few
    if dtype.kind == "u":
        return {0, *((1 << count) - 1 for count in bits)}
    return {bound for count in bits for bound in (-1 << count - 1, (1 << count - 1) - 1)}


def _unit(channel: Dataset) -> str:
    unit = text(first(channel, "ChannelSensitivityUnitsSequence"), "CodeValue")
    return _UNITS.get(unit, unit)


def _scale(file: EcgFile, channel: Dataset, lead: str) -> tuple[float, float]:
    """Millivolts of a digital step, and of the digital value 0."""
    unit = _unit(channel)
    if unit not in MILLIVOLTS:
        reason = f"unit of lead {lead}; supported are {', '.join(MILLIVOLTS)}, and none is guessed"
        raise file.refusal("Channel Sensitivity Units", unit, reason, remedy=_EXPORT)
    sensitivity = number(channel, "ChannelSensitivity")
    correction = number(channel, "ChannelSensitivityCorrectionFactor")
    baseline = number(channel, "ChannelBaseline") or 0.0
    correction = 1.0 if correction is None else correction  # absent: the sensitivity is exact
    step = math.nan if sensitivity is None else sensitivity * correction
    if not (math.isfinite(step) and step > 0 and math.isfinite(baseline)):
        reason = f"with correction factor {correction:g} and baseline {baseline:g}: not a scale"
        field = f"Channel Sensitivity of lead {lead}"
        raise file.refusal(field, sensitivity, reason, remedy=_EXPORT)
    return step * MILLIVOLTS[unit], baseline * MILLIVOLTS[unit]
