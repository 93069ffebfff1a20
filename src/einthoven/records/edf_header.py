"""Header of EDF and BDF files: consistency, the channels that are an ECG, and their scale.

Sources: B. Kemp et al., "A simple format for exchange of digitized polygraphic recordings",
Electroencephalography and Clinical Neurophysiology 82 (1992) 391; B. Kemp and J. Olivan,
"European data format 'plus' (EDF+)", Clinical Neurophysiology 114 (2003) 1755; the labels of
https://www.edfplus.info/specs/edftexts.html.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from einthoven.records.file import EcgFile
from einthoven.records.lead_codes import lead_of_text
from einthoven.records.rates import roundest_rate
from einthoven.records.record import MILLIVOLTS

if TYPE_CHECKING:
    import edfio

AGAIN = "export the recording again, as EDF+ or in another format"
_BYTES = {b"0       ": 2, b"\xffBIOSEMI": 3}  # of a sample, by the first bytes of a file
_FIXED = 256  # bytes on the recording, and as many on each channel
_ANNOTATIONS = "Annotations"
_ECG = re.compile(r"(?:ECG|EKG)[ _.:-]*", re.IGNORECASE)
_HOLTER = re.compile(r"ML(?:I{1,3}|V[1-6])|MCL[1-6]|CM5|CC5", re.IGNORECASE)  # modified leads
_WIDEST_MV, _COARSEST_MV = 1000.0, 0.010
_HIGHEST_RATE = 1e6  # Hz


def recognises(head: bytes) -> bool:
    """Whether a file begins with the version of EDF or BDF and a size of the header."""
    return head[:8] in _BYTES and head[184:192].rstrip().isdigit()


@dataclass(frozen=True, eq=False)
class Channel:
    """A channel of the file.

    Attributes
    ----------
    header : edfio.EdfSignal
        Its header; there are no data in it.
    first : int
        Number of samples in front of it in each data record.
    samples : int
        Number of its own samples in each data record.
    """

    header: edfio.EdfSignal
    first: int
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

    @property
    def lead(self) -> str:
        """Lead of the label, or the label itself of another ECG; empty if it is none."""
        label = self.label.strip()
        ecg = _ECG.match(label)
        name = label[ecg.end() :] if ecg else label
        lead = lead_of_text(name) or (name if _HOLTER.fullmatch(name) else None)
        if not ecg:
            return lead or (label if re.search(r"[ _.:-](?:ECG|EKG)$", label, re.I) else "")
        # Without the prefix, X may be an accelerometer.
        return lead or (name.upper() if name.upper() in ("X", "Y", "Z") else label)

    @property
    def calibration(self) -> tuple[float, float]:
        """Millivolts a count, and millivolts of a count of zero."""
        low, high = self.header.physical_range
        first, last = self.header.digital_range
        gain = (high - low) / (last - first)
        factor = MILLIVOLTS[self.unit]
        return gain * factor, (low - gain * first) * factor


@dataclass(frozen=True, eq=False)
class Header:
    """A header that is consistent, and borne out by the size of the file.

    Attributes
    ----------
    text : str
        Its 256 characters on the recording.
    parsed : edfio.Edf
        The same, parsed.
    width : int
        Bytes of a sample.
    records : int
        Number of data records.
    channels : list of Channel
        All channels, in the order of the file.
    leads : dict of str to Channel
        Channels that form the record, by lead; all have the same number of samples.
    """

    text: str
    parsed: edfio.Edf
    width: int
    records: int
    channels: list[Channel]
    leads: dict[str, Channel]

    @property
    def samples(self) -> int:
        """Number of samples of each lead in a data record."""
        return next(iter(self.leads.values())).samples

    @property
    def rate(self) -> float:
        """Samples a second. The seconds of a data record are rounded if they fill their field."""
        seconds = self.text[244:252].strip()
        decimals = len(seconds.partition(".")[2]) if len(seconds) == 8 else 0
        if not decimals:
            return self.samples / float(seconds)
        return roundest_rate(float(seconds) / self.samples, 0.1**decimals / self.samples)

    @property
    def discontinuous(self) -> bool:
        return self.text[192:197] in ("EDF+D", "BDF+D")

    @property
    def size(self) -> int:
        """Bytes of the header."""
        return _FIXED * (len(self.channels) + 1)

    @property
    def record_size(self) -> int:
        """Bytes of a data record."""
        return _samples_of(self.channels) * self.width


def read_header(file: EcgFile) -> Header:
    """Read and check the header of a file.

    Raises
    ------
    RecordError
        As `edf.read`, but for gaps.
    """
    start = file.part(0, _FIXED)
    width = _BYTES.get(start[:8], 0)
    if len(start) < _FIXED or not width:
        raise file.refusal("header", start[:8], "is of neither EDF nor BDF", remedy=AGAIN)
    text = start.decode("latin-1")
    parsed = _parsed(file, text)
    channels = _channels(file, parsed)
    records = _number_of_records(file, text, channels, width)
    return Header(text, parsed, width, records, channels, _leads(file, channels))


def _parsed(file: EcgFile, text: str) -> edfio.Edf:
    """Header as edfio parses it, without data.

    edfio shortens the signals of an incomplete file, and reads BDF only in later versions and never
    in parts. The data are therefore read from the file itself.
    """
    import edfio  # here, because every unknown file passes `recognises`

    channels = _integer(file, "number of signals", text[252:256])
    size = _FIXED * (channels + 1)
    content = file.part(0, size)
    if channels < 1 or text[184:192].strip() != str(size) or len(content) < size:
        reason = f"{channels} signals have a header of {size} bytes"
        raise file.refusal("size of the header", text[184:192].strip(), reason, remedy=AGAIN)
    _check_duration(file, text[244:252])
    plain = content.decode("latin-1").replace("\xb5", "u").encode("ascii", "replace")
    # BDF has the header of EDF, annotations are channels as well, and no data follow.
    labels = plain[_FIXED : _FIXED + 16 * channels]
    labels = re.sub(b"[EB]DF Annotations ", _ANNOTATIONS.encode().ljust(16), labels)
    behind = plain[_FIXED + len(labels) :]
    fixed = b"0".ljust(8) + plain[8:236] + b"0".ljust(8) + plain[244:_FIXED]
    try:
        return edfio.read_edf(io.BytesIO(fixed + labels + behind))
    except ValueError as error:
        raise file.refusal("header", None, f"cannot be read: {error}", remedy=AGAIN) from None


def _check_duration(file: EcgFile, text: str) -> None:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        reason = "must be a positive number of seconds: there is no sampling rate without it"
        raise file.refusal("duration of a data record", text.strip(), reason, remedy=AGAIN)


def _channels(file: EcgFile, parsed: edfio.Edf) -> list[Channel]:
    channels: list[Channel] = []
    for signal in parsed.signals:
        samples = signal.samples_per_data_record
        if samples <= 0 or not signal.sampling_frequency < _HIGHEST_RATE:
            field = f"samples of {signal.label} in a data record"
            reason = f"must be a positive number; the rate is {signal.sampling_frequency} Hz"
            raise file.refusal(field, samples, reason, remedy=AGAIN)
        channels.append(Channel(signal, _samples_of(channels), samples))
    return channels


def _samples_of(channels: list[Channel]) -> int:
    """Number of samples in a data record."""
    return channels[-1].first + channels[-1].samples if channels else 0


def _number_of_records(file: EcgFile, text: str, channels: list[Channel], width: int) -> int:
    """Number of data records, which the size of the file must bear out."""
    size = _samples_of(channels) * width
    held = (file.size - _FIXED * (len(channels) + 1)) / size
    records = _integer(file, "number of data records", text[236:244])
    if records == held and records > 0:
        return records
    reason = f"the file holds {held:.10g} data records of {size} bytes"
    if records == -1:
        reason = f"the recording was not finished; {reason}"
    raise file.refusal("number of data records", records, reason, remedy=AGAIN)


def _integer(file: EcgFile, field: str, text: str) -> int:
    if not re.fullmatch(r"-?\d+ *", text, re.ASCII):
        raise file.refusal(field, text, "is not an integer", remedy=AGAIN)
    return int(text)


def _leads(file: EcgFile, channels: list[Channel]) -> dict[str, Channel]:
    """Channels that form the record, by lead."""
    ecg = [channel for channel in channels if channel.lead]
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
    leads: dict[str, Channel] = {}
    for channel in volts:
        if channel.samples != samples:
            continue
        if channel.lead in leads:
            value = f"{leads[channel.lead].label}, {channel.label}"
            reason = f"both are lead {channel.lead}"
            raise file.refusal("channels", value, reason, remedy="give each lead its own label")
        _check_range(file, channel)
        leads[channel.lead] = channel
    return leads


def _check_range(file: EcgFile, channel: Channel) -> None:
    """Refuse ranges that define no scale, or one that no electrocardiograph has."""
    field = f"physical and digital range of {channel.label}"
    try:
        physical, digital = channel.header.physical_range, channel.header.digital_range
    except (ValueError, OverflowError):
        raise file.refusal(field, None, "is not made of numbers", remedy=AGAIN) from None
    value = (*physical, *digital)
    if not all(map(math.isfinite, physical)) or physical[0] == physical[1]:
        raise file.refusal(field, value, "the physical range is empty", remedy=AGAIN)
    if digital[0] >= digital[1]:
        raise file.refusal(field, value, "the digital range is empty", remedy=AGAIN)
    # Electrodes have offsets of up to 300 mV, and electrocardiographs must resolve 10 uV (AHA
    # 1990). Converters that do not have the gain write +-1000 mV.
    step = abs(channel.calibration[0])
    width = step * (digital[1] - digital[0])
    if width > _WIDEST_MV and step > _COARSEST_MV:
        raise file.refusal(
            field,
            value,
            f"{width:g} mV in steps of {1000 * step:.3g} uV are no electrocardiograph's: the "
            "converter that wrote the file did not have the gain",
            remedy="take the device's own export, or correct the physical range in the header",
        )
