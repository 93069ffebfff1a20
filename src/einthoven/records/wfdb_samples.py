"""Stored samples of a WFDB record, checked against its header.

The formats 16 (also in the MATLAB v4 form of the PhysioNet/CinC Challenges, `16+24`), 24, 32, 80
and 212 are decoded here; rare formats and skewed leads by the wfdb package, under the same checks
of path, first value and checksum, and of the least size.

Source: the WFDB Applications Guide, signal(5).
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
import warnings
from collections.abc import Callable
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import RecordError
from einthoven.records.file import read_file
from einthoven.records.wfdb_header import Encoding, Header, LeadSpec, refusal

# signal(5): bytes a sample takes (compressed formats: unknown), and the bits whose smallest value
# marks an invalid sample (format 8 stores differences and has none).
_BYTES = {"8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0}
_BYTES |= {"212": 1.5, "310": 4 / 3, "311": 4 / 3}
_BITS = {"16": 16, "24": 24, "32": 32, "61": 16, "80": 8, "160": 16, "212": 12}
_BITS |= {"310": 10, "311": 10, "508": 8, "516": 16, "524": 24}
_WIDE = frozenset({"8", "24", "32", "524"})
_REFETCH = "fetch the record again from its source"
_CONVERT = "convert the record to format 16 with WFDB's xform, or fetch it again"


def read_samples(
    source: str, header: Header, data: bytes, root: str = ""
) -> tuple[np.ndarray, float, str]:
    """Read the digital values of the ECG leads of a single-segment record.

    Parameters
    ----------
    source, header, data : str, Header, bytes
        Path of the header, the header, and its bytes.
    root : str, optional
        Folder in which links may end: the cohort's. Default: that of the header.

    Returns
    -------
    samples : np.ndarray
        Int16, or int32 for storage formats with more than 16 bits, shape (leads, samples), the
        leads being `header.rows`. The smallest value of the type marks an invalid sample.
    rate : float
        Hz; frames a second times the samples a frame.
    digest : str
        SHA-256 of the header and of the signal files with ECG leads.

    Raises
    ------
    RecordError
        If a signal file is missing, of another size or outside the header's folder, if leads
        differ in rate, or if values differ from the header.
    """
    leads = [header.leads[row] for row in header.rows]
    per_frame = sorted({_encoding(source, lead).per_frame for lead in leads})
    if len(per_frame) > 1:
        raise RecordError(
            source,
            "format",
            per_frame,
            "leads differ in their samples a frame, so in their sampling rate",
            remedy="resample the record to one rate for all leads, with WFDB's xform",
        )
    digest = hashlib.sha256(data)
    files = {
        file: [each for each in header.leads if each.file == file]
        for file in dict.fromkeys(lead.file for lead in leads)
    }
    encodings = {file: [_encoding(source, each) for each in files[file]] for file in files}
    decodable = all(
        code.code in _DECODERS and not code.skew for codes in encodings.values() for code in codes
    )
    paths = {file: _signal_path(source, file, root) for file in files}
    frames = header.samples or _frames(source, paths, encodings, decodable=decodable)
    contents = {}
    for file, codes in encodings.items():
        contents[file] = _content(source, paths[file], codes, frames, exactly=decodable)
        digest.update(contents[file])
    rate = header.rate * per_frame[0]
    if not decodable:
        return _through_package(source, header), rate, digest.hexdigest()
    samples = np.empty((len(leads), frames * per_frame[0]), _sample_type(leads))
    for file, codes in encodings.items():
        values = _DECODERS[codes[0].code](contents[file][codes[0].offset :])
        columns = np.cumsum([0, *(code.per_frame for code in codes)])
        table = values[: frames * columns[-1]].reshape(frames, columns[-1])
        rows = [row for row, lead in enumerate(leads) if lead.file == file]
        if len(rows) == columns[-1]:
            samples[rows] = table.T
            continue
        kept = [place for place, lead in enumerate(files[file]) if lead.fault is None]
        for row, place in zip(rows, kept, strict=True):
            samples[row] = table[:, columns[place] : columns[place + 1]].reshape(-1)
    _verify(samples, leads, source)
    _mark_invalid(samples, samples, leads)
    return samples, rate, digest.hexdigest()


def _encoding(source: str, lead: LeadSpec) -> Encoding:
    """Storage format of a signal; RecordError if it is none."""
    if lead.encoding is None:
        raise refusal(source, lead.fault)
    return lead.encoding


def _frames(
    source: str, paths: dict[str, str], encodings: dict[str, list[Encoding]], *, decodable: bool
) -> int:
    """Number of frames by the sizes of the signal files, for a header that leaves it out.

    `_content` checks that a file has exactly so many.
    """
    counts = set()
    for file, codes in encodings.items():
        if decodable:
            size = len(read_file(paths[file], "signal file")) - codes[0].offset
            width = sum(code.per_frame for code in codes)
            counts.add(int(size / _BYTES[codes[0].code]) // width)
    if len(counts) != 1 or 0 in counts:
        raise RecordError(
            source,
            "number of samples",
            "",
            "is left out, and does not follow from the signal files",
            remedy="write it as the fourth field of the record line",
        )
    return int(counts.pop())


def _decode_24(content: bytes) -> NDArray[np.int32]:
    padded = np.zeros((len(content) // 3, 4), np.uint8)
    padded[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
    return padded.view("<i4")[:, 0] >> 8


def _decode_212(content: bytes) -> NDArray[np.int16]:
    """Pairs of 12 bits in three bytes; the middle one holds the high bits of both."""
    triples = np.frombuffer(content + bytes(-len(content) % 3), np.uint8).reshape(-1, 3)
    low, middle, other = triples.astype(np.int16).T
    pairs = np.stack([low | (middle & 0x0F) << 8, other | (middle & 0xF0) << 4], axis=1)
    return (pairs.ravel() << 4) >> 4  # extends the sign


_DECODERS: dict[str, Callable[[bytes], NDArray[np.signedinteger]]] = {
    "16": lambda content: np.frombuffer(content, "<i2"),
    "24": _decode_24,
    "32": lambda content: np.frombuffer(content, "<i4"),
    "80": lambda content: np.frombuffer(content, np.uint8).astype(np.int16) - np.int16(128),
    "212": _decode_212,
}


def _codes(leads: list[LeadSpec]) -> list[str]:
    return [lead.encoding.code for lead in leads if lead.encoding]


def _sample_type(leads: list[LeadSpec]) -> type[np.int16 | np.int32]:
    return np.int32 if _WIDE & set(_codes(leads)) else np.int16


def _mark_invalid(samples: np.ndarray, stored: np.ndarray, leads: list[LeadSpec]) -> None:
    """Set samples whose stored value marks an invalid one to the smallest value of the type."""
    smallest = np.iinfo(samples.dtype).min
    for row, code in enumerate(_codes(leads)):
        mark = -(2 ** (_BITS[code] - 1)) if code in _BITS else smallest
        if mark != smallest:
            samples[row, stored[row] == mark] = smallest


def _content(source: str, path: str, codes: list[Encoding], frames: int, *, exactly: bool) -> bytes:
    """Bytes of one signal file, of at least or exactly the size that its signals announce."""
    formats = sorted({(each.code, each.offset) for each in codes})
    if len(formats) > 1:
        reason = f"signals of one file {os.path.basename(path)} differ in format or first byte"
        raise RecordError(source, "format", formats, reason, remedy=_REFETCH)
    code, offset = formats[0]
    step = sum(_BYTES.get(code, 0) * each.per_frame for each in codes) * frames
    least = offset + (math.ceil(step) if exactly else int(step))
    # Format 212 may fill up its last three bytes.
    most = least + (-math.ceil(step) % 3 if code == "212" else 0) if exactly else math.inf
    content = read_file(path, "signal file", least=least, most=most)
    if exactly and offset == 24 and path.lower().endswith(".mat"):
        # MATLAB v4: type (30: int16), rows, columns, and a name of 4 bytes.
        fields, expected = struct.unpack_from("<5i", content), (30, len(codes), frames, 0, 4)
        if fields != expected:
            reason = f"must be {expected}: int16, leads, samples, real, name of 4 bytes"
            raise RecordError(path, "MATLAB v4 header", fields, reason, remedy=_REFETCH)
    return content


def _signal_path(source: str, file: str, root: str) -> str:
    """Path of a signal file that the header at `source` names.

    A folder in the name that is not there was lost when the record was copied, and counts as the
    header's own. Links are followed within `root` or the header's folder, and where the header is
    a link itself, as git-annex, DVC and `ln -s` make them.

    Raises RecordError if a link leads elsewhere.
    """
    folder, name = os.path.dirname(source), os.path.basename(file)
    path = os.path.join(folder, file)
    if not os.path.lexists(path) and os.path.lexists(os.path.join(folder, name)):
        path = os.path.join(folder, name)
    if os.path.dirname(path) == folder and (not os.path.islink(path) or os.path.islink(source)):
        return path
    real = os.path.realpath(path)
    if not any(
        real.startswith(os.path.join(os.path.realpath(place), ""))
        for place in (folder or os.curdir, *filter(None, [root]))
    ):
        raise RecordError(
            path,
            "signal file",
            real,
            f"lies outside {root or folder or os.curdir}",
            remedy="link the header as well, or copy the signal file into the folder of its header",
        )
    return path


def _verify(samples: np.ndarray, leads: list[LeadSpec], source: str) -> None:
    """Compare the first value and the checksum (sum modulo 65536) of every lead with the header."""
    if samples.dtype == np.int16:
        # Sums that wrap at 16 bits are the checksum itself, and several times faster.
        sums = np.add.reduce(samples.view(np.uint16), axis=1, dtype=np.uint16)
    else:
        sums = samples.sum(axis=1, dtype=np.int64) & 0xFFFF
    for lead, first, total in zip(leads, samples[:, 0].tolist(), sums.tolist(), strict=True):
        wrong = None
        if lead.initial is not None and lead.initial != first:
            wrong = "initial value", lead.initial, first
        elif lead.checksum is not None and lead.checksum & 0xFFFF != total:
            wrong = "checksum", lead.checksum, total
        if wrong:
            field, announced, actual = wrong
            reason = f"the signal file has {actual}: header and signal do not belong together"
            raise RecordError(
                source, f"{field} of lead {lead.name}", announced, reason, remedy=_REFETCH
            )


def _through_package(source: str, header: Header) -> np.ndarray:
    """Digital values by the wfdb package; invalid samples at the smallest value of the type."""
    stem = str(PurePath(os.path.abspath(source)).with_suffix(""))
    leads = [header.leads[row] for row in header.rows]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Already its import warns under a newer pandas.
            import wfdb

            record = wfdb.rdrecord(stem, channels=header.rows, physical=False, smooth_frames=False)
        stored = np.stack(record.e_d_signal).astype(np.int64)
    except Exception as error:  # The package raises whatever its parsing ran into.
        raise RecordError(
            source,
            "record",
            f"{type(error).__name__}: {error}",
            "the wfdb package cannot read it",
            remedy=_CONVERT,
        ) from error
    encodings = [lead.encoding for lead in leads if lead.encoding]
    expected = header.samples * encodings[0].per_frame
    if stored.shape[1] != expected:
        reason = f"the signal has {stored.shape[1]}"
        raise RecordError(source, "number of samples", expected, reason, remedy=_CONVERT)
    if not any(encoding.skew for encoding in encodings):  # Skewed leads lack their first samples.
        _verify(stored, leads, source)
    samples = stored.astype(_sample_type(leads))
    _mark_invalid(samples, stored, leads)
    return samples
