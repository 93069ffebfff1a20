"""What every room's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of fixtures and real data beside the repository; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the shared folder of real data and golden outputs is not on this machine")
    return SHARED
