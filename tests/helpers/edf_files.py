"""Encoder of small EDF and BDF files, for tests; unlike libraries it also writes what is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Channel:
    """A channel of counts, as many as its data records hold together."""

    label: str
    counts: np.ndarray
    unit: str = "uV"
    physical: tuple[float | str, float | str] = (-3276.8, 3276.7)
    digital: tuple[float, float] = (-32768, 32767)


def edf_bytes(
    channels: Sequence[Channel],
    *,
    records: int = 4,
    announced: int | None = None,
    seconds: float | str = 1,
    onsets: Sequence[float] | None = None,
    patient: str = "P-17 F 09-MAR-1950 Lovelace",
    recording: str = "Startdate 12-DEC-2020 X X Cart_3000",
    reserved: str = "",
    bits: int = 16,
) -> bytes:
    """File whose channels are cut into data records.

    `announced` is the number of data records in the header; `onsets` are seconds of each, written
    as an annotation.
    """
    width = bits // 8
    blocks = [channel.counts.reshape(records, -1) for channel in channels]
    contents = [_little_endian(block, width) for block in blocks]
    labels = [channel.label for channel in channels]
    ranges = [(channel.unit, *channel.physical, *channel.digital) for channel in channels]
    if onsets is not None:
        texts = [f"+{onset:.15g}\x14\x14\0".encode() for onset in onsets]
        contents.append(np.array([list(text.ljust(10 * width, b"\0")) for text in texts], np.uint8))
        labels.append("BDF Annotations" if bits == 24 else "EDF Annotations")
        ranges.append(("", -1, 1, -32768, 32767))
    samples = [content.shape[1] // width for content in contents]
    fields: list[tuple[object, int]] = [
        ("\xffBIOSEMI" if bits == 24 else "0", 8),
        (patient, 80),
        (recording, 80),
        ("12.12.20", 8),
        ("08.30.15", 8),
        (256 * (len(labels) + 1), 8),
        (reserved, 44),
        (records if announced is None else announced, 8),
        (seconds, 8),
        (len(labels), 4),
        *((label, 16) for label in labels),
        *(("electrodes", 80) for _ in labels),
        *((each[column], 8) for column in range(5) for each in ranges),
        *(("HP:0.05Hz LP:150Hz", 80) for _ in labels),
        *((each, 8) for each in samples),
        *(("", 32) for _ in labels),
    ]
    header = "".join(str(value).ljust(length)[:length] for value, length in fields)
    return header.encode("latin-1") + np.concatenate(contents, axis=1).tobytes()


def _little_endian(counts: np.ndarray, width: int) -> np.ndarray:
    octets = np.ascontiguousarray(counts, "<i4").view(np.uint8).reshape(*counts.shape, 4)
    return octets[..., :width].reshape(len(counts), -1)


def _sound(path: Path, bits: int) -> Path:
    counts = np.random.default_rng(bits).integers(-9000, 9000, (3, 200))
    channels = [
        Channel(label, row)
        for label, row in zip(["ECG I", "ECG II", "EEG Cz"], counts, strict=True)
    ]
    path.write_bytes(edf_bytes(channels, bits=bits))
    return path


def sound_edf(folder: Path) -> Path:
    """Sound EDF file of two leads, 200 samples at 50 Hz."""
    return _sound(folder / "sound.edf", 16)


def sound_bdf(folder: Path) -> Path:
    """Sound BDF file of two leads, 200 samples at 50 Hz."""
    return _sound(folder / "sound.bdf", 24)
