"""A small record made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

LEADS = ("I", "II", "V1")


@pytest.fixture
def samples() -> np.ndarray:
    """Digital values of the hand-made record, int16 (3, 50)."""
    return np.random.default_rng(7).integers(-3000, 3000, (3, 50)).astype(np.int16)


@pytest.fixture
def record(tmp_path: Path, samples: np.ndarray) -> Path:
    """A sound record without einthoven's own writer: 3 leads, 100 Hz, 50 samples."""
    lines = ["demo 3 100 50"]
    for lead, row in zip(LEADS, samples.tolist(), strict=True):
        lines.append(f"demo.dat 16 1000(0)/mV 16 0 {row[0]} {sum(row) % 65536} 0 {lead}")
    (tmp_path / "demo.hea").write_text("\n".join([*lines, "#Age: 85", "#Sex: F"]) + "\n")
    (tmp_path / "demo.dat").write_bytes(samples.T.astype("<i2").tobytes())
    return tmp_path / "demo.hea"


@pytest.fixture
def edit(record: Path) -> Callable[[str, str], Path]:
    """Replace text that must be there in the header of the sound record."""

    def replace(old: str, new: str) -> Path:
        text = record.read_text()
        assert old in text
        record.write_text(text.replace(old, new, 1))
        return record

    return replace
