"""Small sound files of the XML formats, from counts of shape (leads, samples)."""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
EIGHT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def counts_of(leads: Sequence[str], samples: int = 200, seed: int = 5) -> NDArray[np.int64]:
    """Random walks as counts of about a millivolt; limb leads obey Einthoven's law."""
    steps = np.random.default_rng(seed).integers(-6, 7, (len(leads), samples))
    rows = dict(zip(leads, steps.cumsum(axis=1), strict=True))
    if set(STANDARD[:6]) <= set(rows):
        one, two = rows["I"], rows["II"]
        rows |= {"III": two - one, "aVR": -((one + two) // 2)}
        rows |= {"aVL": (one - rows["III"]) // 2, "aVF": (two + rows["III"]) // 2}
    return np.array(list(rows.values()))


# ------------------------------------------------------------------ HL7 aECG


def aecg(
    counts: NDArray[np.int64],
    leads: Sequence[str] = STANDARD,
    *,
    increment: str = '<increment value="0.002" unit="s"/>',
    scale: str = '<origin value="0" unit="uV"/><scale value="5" unit="uV"/>',
    more: str = "",
    series: str = "",
    annotations: str = "",
) -> str:
    """HL7 aECG; `more` stands behind the sequence set, `series` behind the series."""
    sequences = "".join(
        f'<component><sequence><code code="MDC_ECG_LEAD_{lead.upper()}"/><value>{scale}'
        f"<digits>{' '.join(map(str, row))}</digits></value></sequence></component>"
        for lead, row in zip(leads, counts.tolist(), strict=True)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<AnnotatedECG xmlns="urn:hl7-org:v3">'
        '<effectiveTime><center value="20240517093000"/></effectiveTime>'
        "<componentOf><timepointEvent><componentOf><subjectAssignment><subject><trialSubject>"
        '<id root="1.2" extension="P-7"/><subjectDemographicPerson>'
        '<administrativeGenderCode code="F"/><birthTime value="19600518"/>'
        "</subjectDemographicPerson></trialSubject></subject></subjectAssignment></componentOf>"
        "</timepointEvent></componentOf>"
        '<component><series><code code="RHYTHM"/><component><sequenceSet>'
        '<component><sequence><code code="TIME_ABSOLUTE"/><value><head value="20240517093000"/>'
        f"{increment}</value></sequence></component>{sequences}</sequenceSet></component>{more}"
        f"<subjectOf><annotationSet>{annotations}</annotationSet></subjectOf>"
        f"</series></component>{series}</AnnotatedECG>"
    )


# ------------------------------------------------------------------ GE MUSE


def muse_lead(lead: str, row: Iterable[int], scale: str = "4.88") -> str:
    """A lead of a MUSE file, with its checksum."""
    data = np.asarray(row, "<i2").tobytes()
    return (
        f"<LeadData><LeadByteCountTotal>{len(data)}</LeadByteCountTotal><LeadTimeOffset>0"
        f"</LeadTimeOffset><LeadSampleCountTotal>{len(data) // 2}</LeadSampleCountTotal>"
        f"<LeadAmplitudeUnitsPerBit>{scale}</LeadAmplitudeUnitsPerBit>"
        f"<LeadAmplitudeUnits>MICROVOLTS</LeadAmplitudeUnits><LeadID>{lead}</LeadID>"
        "<LeadOffsetFirstSample>0</LeadOffsetFirstSample><LeadSampleSize>2</LeadSampleSize>"
        f"<LeadDataCRC32>{zlib.crc32(data)}</LeadDataCRC32>"
        f"<WaveFormData>\n{b64encode(data).decode()}\n</WaveFormData></LeadData>"
    )


def muse_waveform(
    counts: NDArray[np.int64], leads: Sequence[str], kind: str = "Rhythm", rate: int = 500
) -> str:
    """A waveform of a MUSE file."""
    rows = "".join(muse_lead(*pair) for pair in zip(leads, counts, strict=True))
    return (
        f"<Waveform><WaveformType>{kind}</WaveformType><NumberofLeads>{len(leads)}</NumberofLeads>"
        f"<SampleType>CONTINUOUS_SAMPLES</SampleType><SampleBase>{rate}</SampleBase>"
        f"<SampleExponent>0</SampleExponent><HighPassFilter>16</HighPassFilter>"
        f"<LowPassFilter>150</LowPassFilter>{rows}</Waveform>"
    )


def muse(
    counts: NDArray[np.int64],
    leads: Sequence[str] = EIGHT,
    *,
    more: str = "",
    rhythm: str | None = None,
    diagnosis: str = "",
) -> str:
    """GE MUSE, with an averaged beat in front of the rhythm, as MUSE writes them."""
    beat = muse_waveform(counts[:, :50] + 1000, leads, "Median")
    rhythm = muse_waveform(counts, leads) if rhythm is None else rhythm
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n'
        '<!DOCTYPE RestingECG SYSTEM "restecg.dtd">\n<RestingECG>'
        "<PatientDemographics><PatientID>0017</PatientID><PatientAge>18</PatientAge>"
        "<AgeUnits>MONTHS</AgeUnits><Gender>FEMALE</Gender></PatientDemographics>"
        "<TestDemographics><AcquisitionDevice>MAC55</AcquisitionDevice><Status>UNCONFIRMED</Status>"
        "<AcquisitionTime>09:30:00</AcquisitionTime><AcquisitionDate>05-17-2024</AcquisitionDate>"
        "</TestDemographics><RestingECGMeasurements><VentricularRate>90</VentricularRate>"
        f"<QRSDuration>0</QRSDuration><RAxis>0</RAxis></RestingECGMeasurements>{diagnosis}"
        f"{beat}{rhythm}{more}</RestingECG>"
    )


# ------------------------------------------------------------------ GE CardioSoft


def cardiosoft(counts: NDArray[np.int64], leads: Sequence[str] = STANDARD) -> str:
    """GE CardioSoft, with an averaged beat in front of the tracing."""
    rows = "".join(
        f'<WaveformData lead="{lead}">\n{",".join(map(str, row))}</WaveformData>'
        for lead, row in zip(leads, counts.tolist(), strict=True)
    )
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<CardiologyXML>'
        "<ObservationType>RestECG</ObservationType><ObservationDateTime><Hour>9</Hour>"
        "<Minute>30</Minute><Second>0</Second><Day>17</Day><Month>5</Month><Year>2024</Year>"
        "</ObservationDateTime><PatientInfo><PID>0017</PID><Age units='YEARS'>64</Age>"
        "<Gender>FEMALE</Gender><Height units='INCHES'>70</Height></PatientInfo>"
        "<FilterSetting><Filter50Hz>Yes</Filter50Hz><LowPass units='Hz'>100</LowPass>"
        "</FilterSetting><RestingECGMeasurements><PQInterval units='ms'>174</PQInterval>"
        "<MedianSamples><WaveformData lead='I'>1,2,3</WaveformData></MedianSamples>"
        f"</RestingECGMeasurements><StripData><NumberOfLeads>{len(leads)}</NumberOfLeads>"
        "<SampleRate units='Hz'>500</SampleRate><ChannelSampleCountTotal>"
        f"{counts.shape[1]}</ChannelSampleCountTotal><Resolution units='uVperLsb'>5</Resolution>"
        f"{rows}</StripData></CardiologyXML>"
    )


# ------------------------------------------------------------------ Philips Sierra


def philips(
    counts: NDArray[np.int64],
    leads: Sequence[str] = STANDARD,
    *,
    compression: str = "XLI",
    encoding: str = "Base64",
    stored: NDArray[np.int64] | None = None,
    attributes: str = "",
) -> str:
    """Philips Sierra 1.04. `stored` replaces what is compressed of the counts."""
    if encoding == "Plain":
        data = " ".join(map(str, counts.ravel().tolist()))
    elif compression == "XLI":
        rows = _differences(counts) if stored is None else stored
        data = b64encode(b"".join(map(_xli, rows))).decode()
    else:
        data = b64encode(counts.astype("<i2").tobytes()).decode()
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<restingecgdata xmlns="http://www3.medical.philips.com"><documentinfo>'
        "<documenttype>PhilipsECG</documenttype><documentversion>1.04</documentversion>"
        "</documentinfo><dataacquisition date='2024-05-17' time='09:30:00'>"
        "<machine>PageWriter TC</machine><signalcharacteristics>"
        "<samplingrate>1000</samplingrate><resolution>1</resolution>"
        "<acquisitiontype>STD-12</acquisitiontype><signalsigned>True</signalsigned>"
        "<numberchannelsallocated>12</numberchannelsallocated></signalcharacteristics>"
        "</dataacquisition><patient><generalpatientdata><patientid>0017</patientid><age>"
        "<dateofbirth>1960-05-18</dateofbirth></age><sex>Female</sex></generalpatientdata>"
        "</patient><interpretations><interpretation><globalmeasurements><heartrate>60</heartrate>"
        "<print>Indeterminate</print><qrsfrontaxis>0</qrsfrontaxis></globalmeasurements>"
        "<mdsignatureline>Unconfirmed diagnosis</mdsignatureline><severity>- NORMAL ECG -"
        "</severity><statement><leftstatement>SINUS RHYTHM</leftstatement><rightstatement>V-rate"
        " 60-99</rightstatement></statement></interpretation></interpretations><waveforms>"
        f'<parsedwaveforms dataencoding="{encoding}" compression="{compression}" {attributes}'
        f' numberofleads="{len(leads)}" leadlabels="{" ".join(leads)}" samplespersecond="500"'
        f' durationperchannel="{counts.shape[1] * 2}" resolution="5" bitspersample="16">\n{data}\n'
        "</parsedwaveforms></waveforms></restingecgdata>"
    )


def _differences(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts with III, aVR, aVL and aVF as what remains when they are computed from I and II."""
    one, two, three = counts[:3]
    rows = counts.copy()
    rows[2] = two - one - three
    rows[3] = -counts[3] - (one + two) // 2
    rows[4] = (one - three) // 2 - counts[4]
    rows[5] = (two + three) // 2 - counts[5]
    return rows


def _xli(row: NDArray[np.int64]) -> bytes:
    """A lead in XLI compression."""
    second = 2 * row[1:-1] - row[:-2] - row[2:]  # what sample i takes off, for i = 2, 3, ...
    values = np.concatenate([row[:2], second[1:] + 64, [64]]).astype(">i2")
    body = _lzw(values.view(np.uint8).reshape(-1, 2).T.tobytes())
    first = int(second[0]).to_bytes(2, "little", signed=True)
    return len(body).to_bytes(4, "little") + b"\1\0" + first + body


def _lzw(data: bytes) -> bytes:
    """LZW with codes of 10 bits, the last of which is 1022."""
    codes = {bytes([value]): value for value in range(256)}
    word, bits = b"", []
    for value in data:
        longer = word + bytes([value])
        if longer in codes:
            word = longer
            continue
        bits.append(f"{codes[word]:010b}")
        if len(codes) <= 1022:
            codes[longer] = len(codes)
        word = bytes([value])
    text = "".join([*bits, f"{codes[word]:010b}"])
    text += "0" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big")


# ------------------------------------------------------------------ sound files


def sound_aecg(folder: Path) -> Path:
    """A sound file of its format, as are the next three."""
    return write(folder, aecg(counts_of(STANDARD)))


def sound_muse(folder: Path) -> Path:
    return write(folder, muse(counts_of(EIGHT)))


def sound_cardiosoft(folder: Path) -> Path:
    return write(folder, cardiosoft(counts_of(STANDARD)))


def sound_philips(folder: Path) -> Path:
    return write(folder, philips(counts_of(STANDARD)))


def write(folder: Path, text: str) -> Path:
    """Write a file and return its path."""
    (folder / "sound.xml").write_text(text)
    return folder / "sound.xml"
