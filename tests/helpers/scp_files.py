"""Encoder of small SCP-ECG files, for tests, with every compression of the standard."""

from __future__ import annotations

import struct
from binascii import crc_hqx
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

DEFAULT_TABLE = struct.pack("<H", 19999)
Coding = Callable[[int], str]


def default_code(value: int) -> str:
    """Bits of a sample in the table of the standard."""
    if abs(value) <= 8:
        return "1" * abs(value) + "0" + ("" if value == 0 else "01"[value < 0])
    if -128 <= value < 128:
        return "1111111110" + format(value & 0xFF, "08b")
    return "1111111111" + format(value & 0xFFFF, "016b")


def coded(values: Sequence[int], code: Coding | None = default_code) -> bytes:
    """Content of one lead, as codes or as integers of 16 bits."""
    if code is None:
        return np.asarray(values).astype("<i2").tobytes()
    bits = "".join(map(code, values))
    bits += "0" * (-len(bits) % 16)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def subtracted(values: np.ndarray, differences: int) -> list[int]:
    """Values of which the former ones were subtracted; the first ones stay as they are."""
    kept = values[:differences]
    return [*kept.tolist(), *np.diff(values, n=differences).tolist()]


def waveforms(
    leads: Sequence[np.ndarray],
    *,
    unit: int = 2500,
    interval: int = 2000,
    differences: int = 2,
    bimodal: int = 0,
    code: Coding | None = default_code,
) -> bytes:
    """Body of section 5 or 6."""
    contents = [coded(subtracted(lead, differences), code) for lead in leads]
    head = struct.pack("<HHBB", unit, interval, differences, bimodal)
    return head + struct.pack(f"<{len(leads)}H", *map(len, contents)) + b"".join(contents)


def leads_body(
    leads: Sequence[int], ranges: Sequence[tuple[int, int]], *, subtraction: bool = False
) -> bytes:
    """Body of section 3: numbers of leads, and their first and last samples from 1."""
    head = struct.pack("<BB", len(leads), 4 | subtraction)
    rows = zip(leads, ranges, strict=True)
    return head + b"".join(struct.pack("<IIB", *samples, lead) for lead, samples in rows)


def tag(number: int, value: bytes) -> bytes:
    """Tag of section 1."""
    return struct.pack("<BH", number, len(value)) + value


PATIENT = tag(0, b"Lovelace\0") + tag(2, b"P-17\0")


def section(number: int, body: bytes, protocol: int = 20) -> bytes:
    """Section with its header; its length is even."""
    body += bytes(len(body) % 2)
    mark = b"SCPECG" if number == 0 else bytes(6)
    header = struct.pack("<HIBB", number, 16 + len(body), protocol, protocol) + mark
    return struct.pack("<H", crc_hqx(header + body, 0xFFFF)) + header + body


def with_checksum(record: bytes) -> bytes:
    """Record, from its length on, behind its checksum."""
    return struct.pack("<H", crc_hqx(record, 0xFFFF)) + record


def scp_bytes(bodies: Mapping[int, bytes], protocol: int = 20) -> bytes:
    """File of sections 1 to 11."""
    place = 7 + 16 + 12 * 10
    pointers = struct.pack("<HII", 0, 16 + 120, 7)
    contents = b""
    for number in range(1, 12):
        content = section(number, bodies[number], protocol) if number in bodies else b""
        pointers += struct.pack("<HII", number, len(content), place if content else 0)
        contents += content
        place += len(content)
    record = section(0, pointers, protocol) + contents
    return with_checksum(struct.pack("<I", 6 + len(record)) + record)


def simple_bodies(
    counts: np.ndarray, leads: Sequence[int] = (1, 2, 3), **options: int
) -> dict[int, bytes]:
    """Sections of counts (leads, samples), coded by the standard's table."""
    ranges = [(1, counts.shape[1])] * len(leads)
    return {
        1: PATIENT + tag(255, b""),
        2: DEFAULT_TABLE,
        3: leads_body(leads, ranges),
        6: waveforms(list(counts), **options),
    }


def compressed_bodies(
    counts: np.ndarray,
    reference: np.ndarray,
    beats: Sequence[tuple[int, int, int]],
    *,
    fiducial: int,
    zones: Sequence[tuple[int, int]] | None = None,
    decimation: int = 1,
    interval: int = 2000,
    kinds: Sequence[int] | None = None,
) -> dict[int, bytes]:
    """Sections of a recording without the reference beat, decimated between protected zones.

    `beats` are the first sample, the fiducial point and the last sample of each, from 1, and
    `zones` the first and last samples; `fiducial` is that of the reference beat.
    """
    kinds = kinds or [0] * len(beats)
    residual = counts.copy()
    for kind, (first, middle, last) in zip(kinds, beats, strict=True):
        if kind == 0:
            begin = first - middle + fiducial - 1
            residual[:, first - 1 : last] -= reference[:, begin : begin + last - first + 1]
    stored = [decimated(row, zones or [], decimation) for row in residual]
    rows = zip(kinds, beats, strict=True)
    places = b"".join(struct.pack("<HIII", kind, *beat) for kind, beat in rows)
    places += b"".join(struct.pack("<II", *zone) for zone in zones or [])
    length = reference.shape[1] * interval // 1000
    bimodal = {"bimodal": 1, "interval": decimation * interval} if decimation > 1 else {}
    ranges = [(1, counts.shape[1])] * len(counts)
    return {
        1: PATIENT + tag(255, b""),
        2: DEFAULT_TABLE,
        3: leads_body(range(1, len(counts) + 1), ranges, subtraction=True),
        4: struct.pack("<HHH", length, fiducial, len(beats)) + places,
        5: waveforms(list(reference), unit=5000, interval=interval),
        6: waveforms(stored, **{"unit": 5000, "interval": interval, **bimodal}),
    }


def decimated(values: np.ndarray, zones: Sequence[tuple[int, int]], decimation: int) -> np.ndarray:
    """Means of `decimation` samples between zones (from 1); what is left over stays."""
    parts = []
    position = 0
    for first, last in [*zones, (len(values) + 1, len(values))]:
        between = values[position : first - 1]
        whole = len(between) // decimation * decimation
        means = between[:whole].reshape(-1, decimation).mean(axis=1).round().astype(int)
        parts += [means, between[whole:], values[first - 1 : last]]
        position = last
    return np.concatenate(parts)


def sound_scp(folder: Path) -> Path:
    """Sound file of three leads, 300 samples at 500 Hz."""
    counts = np.cumsum(np.random.default_rng(4).integers(-30, 31, (3, 300)), axis=1)
    path = folder / "sound.scp"
    path.write_bytes(scp_bytes(simple_bodies(counts)))
    return path
