"""Rates of intervals that a file holds in whole microseconds, or in few decimals."""

from __future__ import annotations

import pytest

from einthoven.records.rates import roundest_rate


@pytest.mark.parametrize(
    ("microseconds", "rate"),
    [
        (2000, 500),
        (1000, 1000),
        (4000, 250),
        (1667, 600),
        (1666, 600),
        (1953, 512),
        (3906, 256),
        (7813, 128),
        (8000, 125),
        (2778, 360),
        (333, 3000),
        (100, 10000),
        (2001, 1e6 / 2001),
        (65000, 1e6 / 65000),
    ],
)
def test_whole_microseconds(microseconds: int, rate: float) -> None:
    assert roundest_rate(microseconds * 1e-6, 1e-6) == pytest.approx(rate, rel=1e-12)
