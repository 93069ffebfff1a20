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
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any

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
_BLOCK = 1 << 20  # samples that are decoded at once
_WIDE = frozenset({"8", "24", "32", "524"})
_REFETCH = "fetch the record again from its source"
_CONVERT = "convert the record to format 16 with WFDB's xform, or fetch it again"


Part = Callable[[float, int], tuple[int, int]]
"""First sample of a part, and the one after its last, by rate (Hz) and number of samples."""


def read_samples(
    source: str, header: Header, data: bytes, root: str, part: Part
) -> tuple[np.ndarray, float, str]:
    """Read the digital values of the ECG leads of a single-segment record, or of a part of it.

    The whole record is checked, in blocks, so that memory is needed for the part alone.

    Parameters
    ----------
    source, header, data : str, Header, bytes
        Path of the header, the header, and its bytes.
    root : str
        Folder in which links may end: the cohort's. Empty: that of the header.
    part : callable
        Chooses the samples that are returned.

    Returns
    -------
    samples : np.ndarray
        Int16, or int32 for storage formats with more than 16 bits, shape (leads, samples of the
        part), the leads being `header.rows`. The smallest value of the type marks an invalid one.
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
    rate, length = header.rate * per_frame[0], frames * per_frame[0]
    first, last = part(rate, length)
    if not decodable:
        for file, codes in encodings.items():
            digest.update(_content(source, paths[file], codes, frames, exactly=False))
        return _through_package(source, header)[:, first:last], rate, digest.hexdigest()
    for file, codes in encodings.items():  # sizes bound the memory that is needed
        _content(source, paths[file], codes, frames, stop=0)
    samples = np.empty((len(leads), last - first), _sample_type(leads))
    initial, sums = np.zeros((2, len(leads)), np.int64)
    for file, codes in encodings.items():
        rows = [row for row, lead in enumerate(leads) if lead.file == file]
        columns = np.cumsum([0, *(code.per_frame for code in codes)])
        for start, content in _blocks(source, paths[file], codes, frames):
            digest.update(content)
            skipped = codes[0].offset if start == 0 else 0
            values = _DECODERS[codes[0].code](content[skipped:])
            table = values[: len(values) // columns[-1] * columns[-1]].reshape(-1, columns[-1])
            table = table[: frames - start]  # without what fills up the last bytes
            block = _lead_rows(table, files[file], columns, samples.dtype)
            if start == 0:
                initial[rows] = block[:, 0]
            sums[rows] += _checksums(block)
            begin = start * per_frame[0] - first  # of the block, from the first sample of the part
            own = block[:, max(-begin, 0) : max(last - first - begin, 0)]
            samples[rows, max(begin, 0) : max(begin, 0) + own.shape[1]] = own
    _verify(initial, sums, leads, source)
    _mark_invalid(samples, samples, leads)
    return samples, rate, digest.hexdigest()


def _lead_rows(
    frames: NDArray[np.integer[Any]],
    signals: list[LeadSpec],
    columns: NDArray[np.intp],
    dtype: np.dtype[Any],
) -> NDArray[np.integer[Any]]:
    """Samples (leads, samples) of the ECG leads among the signals of a file, whose frames are rows.

    The samples of signal i are in `columns[i]` to `columns[i + 1]`.
    """
    places = [place for place, signal in enumerate(signals) if signal.fault is None]
    if len(places) == columns[-1]:  # all columns, a sample each
        return np.ascontiguousarray(frames.T, dtype)
    parts = [frames[:, columns[place] : columns[place + 1]].reshape(-1) for place in places]
    return np.stack(parts).astype(dtype, copy=False)


def _blocks(
    source: str, path: str, codes: list[Encoding], frames: int
) -> Iterator[tuple[int, bytes]]:
    """First frame and bytes of the blocks of a signal file, together all of it."""
    width = sum(code.per_frame for code in codes)
    size = 2 * max(1, _BLOCK // (2 * width))  # frames; even, so that format 212 fills its bytes
    step = int(size * width * _BYTES[codes[0].code])
    for start in range(0, frames, size):
        after = codes[0].offset + (start // size + 1) * step
        begin, stop = after - step if start else 0, after if start + size < frames else None
        yield start, _content(source, path, codes, frames, begin=begin, stop=stop)


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


def _content(
    source: str,
    path: str,
    codes: list[Encoding],
    frames: int,
    *,
    exactly: bool = True,
    begin: int = 0,
    stop: int | None = None,
) -> bytes:
    """Bytes of one signal file, of at least or exactly the size that its signals announce.

    They are those from `begin` to `stop`, by default the end.
    """
    formats = sorted({(each.code, each.offset) for each in codes})
    if len(formats) > 1:
        reason = f"signals of one file {os.path.basename(path)} differ in format or first byte"
        raise RecordError(source, "format", formats, reason, remedy=_REFETCH)
    code, offset = formats[0]
    step = sum(_BYTES.get(code, 0) * each.per_frame for each in codes) * frames
    least = offset + (math.ceil(step) if exactly else int(step))
    # Format 212 may fill up its last three bytes.
    most = least + (-math.ceil(step) % 3 if code == "212" else 0) if exactly else math.inf
    length = int(most if stop is None else stop) - begin if begin or stop is not None else -1
    content = read_file(path, "signal file", length, start=begin, least=least, most=most)
    if exactly and content and begin == 0 and offset == 24 and path.lower().endswith(".mat"):
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


def _checksums(samples: np.ndarray) -> NDArray[np.integer]:
    """Sum of each lead modulo 65536."""
    if samples.dtype == np.int16:
        # Sums that wrap at 16 bits are the checksum itself, and several times faster.
        sums: NDArray[np.integer] = np.add.reduce(samples.view(np.uint16), axis=1, dtype=np.uint16)
        return sums
    return np.asarray(samples.sum(axis=1, dtype=np.int64) & 0xFFFF)


def _verify(
    initial: NDArray[np.integer], sums: NDArray[np.integer], leads: list[LeadSpec], source: str
) -> None:
    """Compare the first value and the checksum of every lead with the header."""
    totals = (sums & 0xFFFF).tolist()
    for lead, first, total in zip(leads, initial.tolist(), totals, strict=True):
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
        _verify(stored[:, 0], _checksums(stored), leads, source)
    samples = stored.astype(_sample_type(leads))
    _mark_invalid(samples, stored, leads)
    return samples
