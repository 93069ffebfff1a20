"""ISHNE Holter files: recordings of a day or more, with up to twelve leads.

Source: F. Badilini for the ISHNE Standard Output Format Task Force, "The ISHNE Holter Standard
Output File Format", Annals of Noninvasive Electrocardiology 3 (1998) 263.
"""

from __future__ import annotations

import datetime as dt
import math
from binascii import crc_hqx

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import RecordError
from einthoven.records.file import EcgFile
from einthoven.records.formats import part_of
from einthoven.records.metadata import age_at, iso_time, lead_fault, metadata
from einthoven.records.record import STANDARD_LEADS, Record

_MAGIC = b"ISHNE1.0"
_START = 10  # of the header, after the magic number and the checksum
_HEADER = np.dtype(
    [
        ("size of the variable block", "<i4"),
        ("number of samples", "<i4"),  # of each lead
        ("offset of the variable block", "<i4"),
        ("offset of the ECG", "<i4"),
        ("version", "<i2"),
        ("first name", "S40"),
        ("last name", "S40"),
        ("patient", "S20"),
        ("sex", "<i2"),
        ("race", "<i2"),
        ("date of birth", "<i2", 3),  # day, month, year
        ("date of recording", "<i2", 3),
        ("date of the file", "<i2", 3),
        ("start", "<i2", 3),  # hour, minute, second
        ("number of leads", "<i2"),
        ("leads", "<i2", 12),
        ("quality", "<i2", 12),
        ("resolution", "<i2", 12),  # nV a count
        ("pacemaker", "<i2"),
        ("recorder", "S40"),
        ("sampling rate", "<i2"),
        ("proprietary", "S80"),
        ("copyright", "S80"),
        ("reserved", "S88"),
    ]
)
_LEADS = dict(enumerate(("X", "Y", "Z", *STANDARD_LEADS, "ES", "AS", "AI"), start=2))
_BIPOLAR = 1  # any bipolar lead
_QUALITIES = {  # 0 is unknown, 1 good
    2: ("noise", "intermittent"),
    3: ("noise", "frequent"),
    4: ("electrode off", "intermittent"),
    5: ("electrode off", "frequent"),
}
_SEXES = {1: "male", 2: "female"}
_DISCONNECTED = np.iinfo(np.int16).min
_AGAIN = "export the recording again from the Holter system"


def recognises(head: bytes) -> bool:
    """Whether a file begins with the magic number; files of annotations have another one."""
    return head.startswith(_MAGIC)


def read(file: EcgFile) -> Record:
    """Read an ISHNE file in millivolts.

    Parameters
    ----------
    file : EcgFile
        The recording; the annotations beside it (`.ann`) are not read.

    Returns
    -------
    Record
        Float32 mV; NaN where a lead was disconnected (-32768). A lead that the header calls
        bipolar or unknown is named by its number, such as `bipolar 1`.

    Raises
    ------
    RecordError
        If the header fails its checksum, has no rate, resolution or lead, or announces another
        number of samples than the file holds.
    """
    return read_part(file, 0, math.inf)


def read_part(file: EcgFile, start: float, stop: float) -> Record:
    """Read the samples from one time to another, in seconds; see `read` and `read_record`."""
    header = _header(file)
    leads, rate = int(header["number of leads"]), int(header["sampling rate"])
    first, last = part_of(file, rate, int(header["number of samples"]), start, stop)
    offset, frame = int(header["offset of the ECG"]), 2 * leads
    names = _lead_names(header["leads"][:leads])
    counts = np.frombuffer(file.part(offset + first * frame, offset + last * frame), "<i2")
    return Record.create(
        _millivolts(counts.reshape(-1, leads), header["resolution"]),
        rate,
        leads=names,
        name=file.label,
        patient=_text(header["patient"]) or None,
        source=file.name,
        source_hash=file.sha256,
        metadata=_metadata(header, names),
    )


def duration(file: EcgFile) -> float:
    """Seconds of a file, by its header. RecordError as for `read`."""
    header = _header(file)
    return int(header["number of samples"]) / int(header["sampling rate"])


def _header(file: EcgFile) -> np.void:
    """Header, checked."""
    end = _START + _HEADER.itemsize
    data = file.part(0, end)
    if not recognises(data) or len(data) < end:
        reason = f"no header of an ISHNE file, {end} bytes from {_MAGIC.decode()}"
        raise file.refusal("header", data[:8], reason, remedy=_AGAIN)
    header: np.void = np.frombuffer(data, _HEADER, offset=_START)[0]
    _check_checksum(file, header)
    if not 1 <= header["number of leads"] <= 12:
        raise _refusal(file, header, "number of leads", "must be 1 to 12")
    if header["sampling rate"] <= 0:
        raise _refusal(file, header, "sampling rate", "must be positive")
    resolutions = header["resolution"][: header["number of leads"]]
    if (resolutions <= 0).any():
        reason = "must be positive for every lead, nV a count"
        raise file.refusal("resolution", resolutions.tolist(), reason, remedy=_AGAIN)
    _check_samples(file, header)
    return header


def _check_checksum(file: EcgFile, header: np.void) -> None:
    """Refuse a header whose checksum, over its fixed and its variable block, fails."""
    end = _START + _HEADER.itemsize + int(header["size of the variable block"])
    if not _START + _HEADER.itemsize <= end <= int(header["offset of the ECG"]) <= file.size:
        reason = f"the ECG is at {header['offset of the ECG']}, the file has {file.size} bytes"
        raise _refusal(file, header, "size of the variable block", reason)
    stored = int.from_bytes(file.part(8, _START), "little")
    actual = crc_hqx(file.part(_START, end), 0xFFFF)
    if stored != actual:
        reason = f"the checksum of the header is {actual}: the header is damaged"
        raise file.refusal("checksum", stored, reason, remedy=_AGAIN)


def _check_samples(file: EcgFile, header: np.void) -> None:
    samples = (file.size - int(header["offset of the ECG"])) / (2 * int(header["number of leads"]))
    if samples != header["number of samples"] or not samples:
        reason = f"the file holds {samples:g} samples of {header['number of leads']} leads"
        raise _refusal(file, header, "number of samples", reason)


def _refusal(file: EcgFile, header: np.void, field: str, reason: str) -> RecordError:
    return file.refusal(field, int(header[field]), reason, remedy=_AGAIN)


def _millivolts(counts: NDArray[np.int16], resolutions: NDArray[np.int16]) -> NDArray[np.float32]:
    """Float32 millivolts of shape (leads, samples), read-only, from counts (samples, leads)."""
    signal = np.empty(counts.shape[::-1], np.float32)
    for row, column, nanovolts in zip(signal, counts.T, resolutions, strict=False):
        np.multiply(column, float(nanovolts) / 1e6, out=row, casting="same_kind")
        row[column == _DISCONNECTED] = np.nan
    signal.flags.writeable = False
    return signal


def _lead_names(codes: NDArray[np.int16]) -> list[str]:
    kinds = ("bipolar" if code == _BIPOLAR else "lead" for code in codes)
    return [
        _LEADS.get(int(code), f"{kind} {number}")
        for number, (code, kind) in enumerate(zip(codes, kinds, strict=True), start=1)
    ]


def _metadata(header: np.void, leads: list[str]) -> dict[str, str]:
    date = _date(header["date of recording"])
    return metadata(
        time=iso_time(date, _time(header["start"])),
        age=age_at(_date(header["date of birth"]), date),
        sex=_SEXES.get(int(header["sex"])),
        device=_text(header["recorder"]),
        lead_quality=[
            lead_fault(lead, *_QUALITIES[code])
            for lead, code in zip(leads, header["quality"].tolist(), strict=False)
            if code in _QUALITIES
        ],
    )


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("latin-1").strip()


def _date(field: NDArray[np.int16]) -> dt.date | None:
    day, month, year = field.tolist()
    try:
        return dt.date(year, month, day)
    except ValueError:  # fields that were not filled in are 0 or -9
        return None


def _time(field: NDArray[np.int16]) -> dt.time | None:
    try:
        return dt.time(*field.tolist())
    except ValueError:
        return None
