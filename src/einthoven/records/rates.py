"""Sampling rates of files that hold a rounded interval between samples."""

from __future__ import annotations


def roundest_rate(interval: float, resolution: float) -> float:
    """Samples a second of an interval in seconds that was rounded or cut off.

    The roundest rate is taken whose interval is less than the resolution away: 1,667 us in whole
    microseconds are 600 Hz. Without such a rate it is that of the interval as it stands.
    """
    for step in (500, 100, 50, 25, 10, 1):
        rate = round(1 / interval / step) * step
        if rate and abs(1 / rate - interval) < resolution * (1 - 1e-9):
            return float(rate)
    return 1 / interval
