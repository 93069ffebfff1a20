"""Encoder of small ISHNE Holter files, for tests."""

from __future__ import annotations

import struct
from binascii import crc_hqx
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def ishne_bytes(
    counts: np.ndarray,
    *,
    rate: int = 200,
    codes: Sequence[int] = (5, 6, 11),
    qualities: Sequence[int] = (1, 1, 1),
    nanovolts: int = 2500,
    samples: int | None = None,
    block: bytes = b"",
) -> bytes:
    """File of counts (leads, samples); `samples` is what its header announces."""
    leads = len(counts)
    header = struct.pack("<4ih", len(block), samples or counts.shape[1], 522, 522 + len(block), 1)
    header += struct.pack("<40s40s20s", b"Ada", b"Lovelace", b"P-17")
    header += struct.pack("<2h", 2, 0)
    header += struct.pack("<12h", 10, 12, 1950, 9, 12, 2020, 10, 12, 2020, 8, 30, 15)
    header += struct.pack("<h12h", leads, *codes, *[0] * (12 - len(codes)))
    header += struct.pack("<12h", *qualities, *[-9] * (12 - len(qualities)))
    header += struct.pack("<12h", *[nanovolts] * 12)
    header += struct.pack("<h40sh", 0, b"digital", rate) + bytes(80 + 80 + 88)
    header += block
    assert len(header) == 512 + len(block)
    checksum = struct.pack("<H", crc_hqx(header, 0xFFFF))
    return b"ISHNE1.0" + checksum + header + counts.T.astype("<i2").tobytes()


def sound_ishne(folder: Path) -> Path:
    """Sound file of three leads, 200 samples at 200 Hz."""
    path = folder / "sound.ecg"
    path.write_bytes(ishne_bytes(np.random.default_rng(3).integers(-900, 900, (3, 200))))
    return path
