"""Philips Sierra XML 1.03, 1.04 and 1.04.01, root element `restingecgdata`.

Source: the schemas of the format, and the package sierraecg, which the tests compare with. It is
not used here: it reads paths only, takes 0.2 s for a file, decodes codes without a meaning, takes
memory for as many samples as a file claims, and takes the limb leads of uncompressed files for
differences.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from einthoven.records.file import EcgFile
from einthoven.records.metadata import (
    age_at,
    filters_text,
    iso_time,
    lead_fault,
    metadata,
    sex_of,
)
from einthoven.records.record import STANDARD_LEADS, Record, canonical_lead
from einthoven.records.xml import (
    attribute_of,
    count,
    date_of,
    decode_base64,
    figure,
    first_interval,
    format_name,
    interval,
    number,
    parse,
    samples,
    statements_of,
    text_of,
    time_of,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

NAME = "Philips Sierra"

_EXPORT = "export the ECG again"
_VERSIONS = ("1.03", "1.04", "1.04.01", "1.04.02")
_TWELVE = ("STD-12", "10-WIRE")  # acquisitions whose channels are the standard leads, in order
_LIMB_LEADS = STANDARD_LEADS[:6]
_CODE_BITS = 10
_END = (1 << _CODE_BITS) - 1  # code that ends the data
_INT16 = 32768
_SMALL = 5  # counts; a median of stored differences is 0 or 1
_INTERVALS = {
    "heart_rate_bpm": ("heartrate",),
    "pr_ms": ("print", "meanprint"),
    "qrs_ms": ("qrsdur", "meanqrsdur"),
    "qt_ms": ("qtint", "meanqtint"),
    "qtc_ms": ("qtcb", "meanqtc"),
}
_ARTEFACTS = {  # of a lead, with a level
    "baseartifacts": "baseline wander",
    "acartifacts": "mains noise",
    "muscleartifacts": "muscle noise",
}
_EVENTS = {"inops": "electrode off", "saturations": "saturation"}  # of a lead, with their times
_FLAGS = {
    ("overrangeflag", "true"): "saturation",
    ("qrsclippingflag", "true"): "QRS cut off",
    ("measuredflag", "false"): "not measured",
}
_AXES = {
    "p_axis_deg": "pfrontaxis",
    "qrs_axis_deg": "qrsfrontaxis",
    "t_axis_deg": "tfrontaxis",
}


def recognises(head: bytes) -> bool:
    """Whether the first bytes of a file have the root element of this format."""
    return format_name(head) == NAME


def read(file: EcgFile) -> Record:
    """Read the tracing of a Philips file, in millivolts.

    Parameters
    ----------
    file : EcgFile
        The file, on disk or in memory.

    Returns
    -------
    Record
        All samples, the device's calibration pulse at the end among them; `records/calibration.py`
        leaves it out before the ECG is used.

    Raises
    ------
    RecordError
        If the file has another version, no rate, resolution or lead names, another number of
        samples than announced, damaged compression, or uncompressed limb leads that may be
        differences.
    """
    root = parse(file, NAME)
    version = text_of(root, "documentinfo/documentversion")
    if version not in _VERSIONS:
        reason = f"is not supported; versions are {', '.join(_VERSIONS)}"
        raise file.refusal("documentversion", version, reason, remedy=_EXPORT)
    waveforms = root.find("waveforms/parsedwaveforms")
    if waveforms is None:
        raise file.refusal("parsedwaveforms", None, "is missing: no samples", remedy=_EXPORT)
    settings = _settings(file, root, waveforms)
    counts = _counts(file, waveforms, settings)
    signal = (counts - settings.offset) * (settings.resolution / 1000)
    return Record.create(
        signal.astype(np.float32),
        settings.rate,
        leads=settings.leads,
        name=file.label,
        patient=text_of(root, "patient/generalpatientdata/patientid") or None,
        source=file.name,
        source_hash=file.sha256,
        metadata=_metadata(root),
    )


class _Settings(NamedTuple):
    """What the samples mean: Hz, microvolts a count, the count of 0 mV, leads, samples of each."""

    rate: float
    resolution: float
    offset: float
    leads: tuple[str, ...]
    samples: int


def _settings(file: EcgFile, root: Element, waveforms: Element) -> _Settings:
    """Settings of the samples.

    Version 1.04 states them beside the samples. The characteristics of the acquisition, which
    version 1.03 has alone, need not hold for samples that were processed later.
    """
    acquisition = root.find("dataacquisition/signalcharacteristics")

    def setting(name: str, *elements: str) -> str:
        others = (text_of(acquisition, element) for element in elements)
        return attribute_of(waveforms, ".", name) or next(filter(None, others), "")

    bits = setting("bitspersample") or setting("nbitspersample")
    signed = setting("signalsigned", "signalsigned")
    for field, value, usual in (("bitspersample", bits, "16"), ("signalsigned", signed, "True")):
        if value.lower() not in ("", usual.lower()):
            raise file.refusal(field, value, f"only {usual} is supported", remedy=_EXPORT)
    # In microvolts by the schemas, which have no place for another unit.
    resolution = setting("resolution", "resolution", "signalresolution")
    rate = number(file, "samplingrate", setting("samplespersecond", "samplingrate"), positive=True)
    duration = number(file, "durationperchannel", setting("durationperchannel"), positive=True)
    length = round(duration * rate / 1000)
    if length < 1:
        reason = "milliseconds are less than a sample"
        raise file.refusal("durationperchannel", duration, reason, remedy=_EXPORT)
    return _Settings(
        rate=rate,
        resolution=number(file, "resolution", resolution, positive=True),
        offset=number(file, "signaloffset", setting("signaloffset", "signaloffset") or "0"),
        leads=_leads(file, waveforms, acquisition),
        samples=length,
    )


def _leads(file: EcgFile, waveforms: Element, acquisition: Element | None) -> tuple[str, ...]:
    labels = tuple((waveforms.get("leadlabels") or "").split())
    announced = waveforms.get("numberofleads") or text_of(acquisition, "numberchannelsallocated")
    number_of_leads = count(file, "numberofleads", announced)
    kind = text_of(acquisition, "acquisitiontype")
    if not labels and kind in _TWELVE and number_of_leads >= len(STANDARD_LEADS):
        return STANDARD_LEADS  # channels behind them have no signal
    if len(labels) < number_of_leads:
        reason = f"names {len(labels)} of {number_of_leads} leads"
        raise file.refusal("leadlabels", " ".join(labels), reason, remedy=_EXPORT)
    return labels[:number_of_leads]


# ------------------------------------------------------------------ samples


def _counts(file: EcgFile, waveforms: Element, settings: _Settings) -> NDArray[np.float64]:
    """Samples as they were counted, (leads, samples)."""
    method = waveforms.get("compressmethod") or waveforms.get("compression") or "Uncompressed"
    if (waveforms.get("compressflag") or "").lower() == "false":
        method = "Uncompressed"
    encoding = waveforms.get("dataencoding") or ""
    shape = len(settings.leads), settings.samples
    if encoding == "Plain" and method == "Uncompressed":
        counts = samples(file, "parsedwaveforms", waveforms.text)
    elif encoding == "Base64":
        data = decode_base64(file, "parsedwaveforms", waveforms.text)
        if method == "XLI":
            return _with_limb_leads(file, _decompressed(file, data, shape), settings)
        counts = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float64)
    else:
        reason = "only Base64 and Plain are supported"
        raise file.refusal("dataencoding", encoding, reason, remedy=_EXPORT)
    if method != "Uncompressed":
        reason = "only XLI and uncompressed samples are supported"
        raise file.refusal("compression", method, reason, remedy=_EXPORT)
    if len(counts) != shape[0] * shape[1]:
        reason = f"the file has {len(counts)} samples of {shape[0]} leads"
        raise file.refusal("durationperchannel", shape[1], reason, remedy=_EXPORT)
    counts = counts.reshape(shape)
    if settings.leads[:6] == _LIMB_LEADS:
        _refuse_differences(file, counts)
    return counts


def _decompressed(file: EcgFile, data: bytes, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Samples of XLI compression: for each lead a header of 8 bytes and a body.

    A header has the length of the body and a first difference. A file may have further leads,
    without a signal, behind those that it names.
    """
    rows, position = [], 0
    for lead in range(shape[0]):
        length = int.from_bytes(data[position : position + 4], "little", signed=True)
        body = data[position + 8 : position + 8 + length]
        if length < 1 or len(body) < length:
            reason = f"ends before lead {lead + 1} of {shape[0]}"
            raise file.refusal("parsedwaveforms", None, reason, remedy=_EXPORT)
        first = int.from_bytes(data[position + 6 : position + 8], "little", signed=True)
        rows.append(_second_sum(_unpacked(file, body, shape[1]), first))
        position += 8 + length
    counts = np.array(rows)
    if np.abs(counts).max() >= _INT16:
        reason = "has a value beyond 16 bits: the compressed samples are damaged"
        raise file.refusal("parsedwaveforms", None, reason, remedy=_EXPORT)
    return counts


def _unpacked(file: EcgFile, body: bytes, length: int) -> NDArray[np.int64]:
    """Second differences of a lead. All high bytes come before all low bytes."""
    unpacked = _lzw(body, 2 * length)
    if unpacked is None or len(unpacked) != 2 * length:
        reason = f"has damaged codes, or not {length} samples, in a lead"
        raise file.refusal("parsedwaveforms", None, reason, remedy=_EXPORT)
    high, low = np.frombuffer(unpacked, np.uint8).reshape(2, length).astype(np.int64)
    return (high << 8 | low) - ((high >> 7) << 16)


def _lzw(body: bytes, most: int) -> bytes | None:
    """Bytes of LZW compression with codes of ten bits; None for a code without a meaning.

    Stops after `most` bytes, because a few codes can stand for a thousand times as many bytes, and
    at the code that ends the data. The table of words stops growing when it is full.
    """
    # A code stands for one byte at least.
    bits = np.unpackbits(np.frombuffer(body[: most * _CODE_BITS // 8 + 2], np.uint8))
    codes = bits[: len(bits) // _CODE_BITS * _CODE_BITS].reshape(-1, _CODE_BITS)
    values = (np.packbits(codes, axis=1).view(">u2").ravel() >> (16 - _CODE_BITS)).tolist()
    words = [bytes([value]) for value in range(256)]
    output, total, size, word = [], 0, len(words), b""
    for code in values:
        previous = word
        if code < size:
            word = words[code]
        elif code == _END:
            break
        elif code == size and previous:
            word = previous + previous[:1]
        else:
            return None
        if previous and size < _END:
            words.append(previous + word[:1])
            size += 1
        output.append(word)
        total += len(word)
        if total > most:
            break
    return b"".join(output)


def _second_sum(values: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """Samples of second differences.

    The first two values are samples. Sample i is 2 s[i-1] - s[i-2] - d[i-1], where d[1] is `first`
    and every later d is the value less 64.
    """
    steps = values.copy()
    steps[1:2] -= values[:1]
    steps[2:3] = -first
    steps[3:] = 64 - values[2:-1]
    steps[1:] = np.cumsum(steps[1:])
    return np.cumsum(steps)


def _with_limb_leads(
    file: EcgFile, counts: NDArray[np.int64], settings: _Settings
) -> NDArray[np.float64]:
    """Add to III and the augmented leads what compression has taken from them.

    They are stored as what remains when they are computed from I and II, in whole counts.
    """
    if settings.leads[:6] != _LIMB_LEADS or settings.offset:
        shown = f"{' '.join(settings.leads[:6])}, offset {settings.offset:g}"
        reason = "compressed limb leads must be I II III aVR aVL aVF, without offset"
        raise file.refusal("leadlabels", shown, reason, remedy=_EXPORT)
    whole = counts.copy()
    whole[2] = counts[1] - counts[0] - counts[2]
    whole[3] = -counts[3] - (counts[0] + counts[1]) // 2
    whole[4] = (counts[0] - whole[2]) // 2 - counts[4]
    whole[5] = (counts[1] + whole[2]) // 2 - counts[5]
    return whole.astype(np.float64)


def _refuse_differences(file: EcgFile, counts: NDArray[np.float64]) -> None:
    """Refuse uncompressed limb leads that look like the differences of compressed ones."""
    usual = np.median(np.abs([counts[1] - counts[0], *counts[2:6]]), axis=1)
    if usual[0] > _SMALL >= usual[1:].max():
        reason = "counts, where I and II differ: flat leads, or the differences that XLI stores"
        value = ", ".join(f"{count:g}" for count in usual[1:])
        raise file.refusal("leads III aVR aVL aVF", value, reason, remedy=_EXPORT)


# ------------------------------------------------------------------ metadata


def _metadata(root: Element) -> dict[str, str]:
    patient = root.find("patient/generalpatientdata")
    acquisition = root.find("dataacquisition")
    report = root.find("interpretations/interpretation")
    measurements = report.find("globalmeasurements") if report is not None else None
    if measurements is None and report is not None:
        measurements = report.find("interpretationmeasurements")
    day = date_of(attribute_of(acquisition, ".", "date"))
    years = figure(text_of(patient, "age/years"))
    inches, pounds = text_of(patient, "height/inch"), text_of(patient, "weight/lb")
    machine = text_of(acquisition, "machine")
    signature = text_of(report, "mdsignatureline")
    confirmed = signature.lower().startswith("confirmed by")
    band = root.find("dataacquisition/signalcharacteristics")
    return metadata(
        time=iso_time(day, time_of(attribute_of(acquisition, ".", "time"))),
        age=age_at(date_of(text_of(patient, "age/dateofbirth")), day) if years is None else years,
        sex=sex_of(text_of(patient, "sex")),
        height_cm=interval(text_of(patient, "height/cm")) or _times(interval(inches), 2.54),
        weight_kg=interval(text_of(patient, "weight/kg")) or _times(interval(pounds), 0.45359237),
        statements=statements_of(
            report.findall("statement") if report is not None else [],
            "leftstatement",
            "rightstatement",
        ),
        lead_quality=list(_lead_quality(root)),
        severity=text_of(report, "severity").strip("- "),
        confirmed_by=signature[len("confirmed by") :].strip(": ") if confirmed else None,
        device=machine and f"Philips {machine}",
        filters=filters_text(text_of(band, "hipass"), text_of(band, "lowpass"), None)
        or filters_text(*_band(text_of(band, "signalbandwidth")), None),
        **{
            key: first_interval(text_of(measurements, name) for name in names)
            for key, names in _INTERVALS.items()
        },
        **{key: figure(text_of(measurements, name)) for key, name in _AXES.items()},
    )


def _lead_quality(root: Element) -> Iterator[str]:
    """Faults of the leads, as the program that measured them states them."""
    for measured in root.iterfind("internalmeasurements/leadmeasurements/leadmeasurement"):
        lead = canonical_lead(measured.get("leadname") or "")
        states = measured.find("leadqualitystates")
        if not lead or states is None:
            continue
        faults = {}
        for name, fault in _ARTEFACTS.items():
            level = attribute_of(states, name, "level").lower()
            if level not in ("", "none"):
                faults[fault] = level
        for name, fault in _EVENTS.items():
            if any(event.get("starttime") for event in states.iterfind(f"{name}/*")):
                faults[fault] = ""
        for (flag, value), fault in _FLAGS.items():
            if (states.get(flag) or "").lower() == value:
                faults[fault] = ""
        yield from (lead_fault(lead, fault, grade) for fault, grade in faults.items())


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 1)


def _band(text: str) -> tuple[str, str]:
    """Cut-off frequencies of text such as `0.05-150`."""
    low, _, high = text.partition("-")
    return (low, high) if figure(low) is not None and figure(high) is not None else ("", "")
