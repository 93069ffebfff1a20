"""Digital steps: the size of a count, for files that store whole numbers of 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import RecordError
from einthoven.records.record import Record

LARGEST = 32767
"""Largest count; -32768 marks a missing sample."""
_DEFAULT = 1.0  # microvolts, of values that were rounded to it, and of zeros
_FINEST = 0.1  # microvolts, for values that are multiples of no step
_FLOAT32 = (3e-7, 1e-6)  # relative, and mV: what float32 loses, also in computed leads
_ADVANCE = 1.5
_DIGITS = range(2, 10)
_BLOCK = 1 << 16  # samples of each lead that are computed with at once


class Step(NamedTuple):
    """Size of a count.

    Attributes
    ----------
    microvolts : float
    is_exact : bool
        Whether every sample is a multiple of it, within the precision of float32.
    """

    microvolts: float
    is_exact: bool


def step_of(signal_mv: NDArray[np.float32]) -> Step:
    """Step in which a signal was digitised; a fine one that holds its amplitude if there is none.

    Parameters
    ----------
    signal_mv : np.ndarray
        Millivolts of any shape; NaN marks missing samples.
    """
    parts = [np.unique(np.abs(part[np.isfinite(part)])) for part in blocks(signal_mv)]
    values = np.unique(np.concatenate(parts)).astype(np.float64) * 1000
    values = values[values > 0]
    if not values.size:
        return Step(_DEFAULT, is_exact=True)
    estimate = _estimate(values)
    for step in (*(float(f"{estimate:.{digits}g}") for digits in _DIGITS), _DEFAULT):
        if values[-1] <= LARGEST * step and _is_exact(signal_mv, step):
            return Step(step, is_exact=True)
    exponent = np.floor(np.log10(max(values[-1] / LARGEST, _FINEST)))
    steps = (float(f"{mantissa}e{exponent:.0f}") for mantissa in (1, 2, 5, 10))
    step = next(step for step in steps if step >= _FINEST and values[-1] <= LARGEST * step)
    return Step(step, is_exact=_is_exact(signal_mv, step))


def blocks(signal: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views of a signal along its last axis, so that computing with a long one takes few bytes."""
    for start in range(0, signal.shape[-1], _BLOCK):
        yield signal[..., start : start + _BLOCK]


def counts_of(signal_mv: NDArray[np.float32], microvolts: float) -> NDArray[np.float64]:
    """Counts of a step as whole float64 numbers; NaN where samples are missing."""
    counts: NDArray[np.float64] = np.rint(signal_mv.astype(np.float64) * (1000 / microvolts))
    return counts


def check_written(record: Record, back: Record, step: Step | None) -> None:
    """Compare a record with what was read back from its file.

    Raises
    ------
    RecordError
        If rate or leads differ, or samples by more than half a step (not at all with an exact step,
        or without one).
    """
    relative, absolute = _FLOAT32
    if step is not None and not step.is_exact:
        absolute += step.microvolts * 0.5e-3
    same = record.signal.shape == back.signal.shape and all(
        np.allclose(read, written, relative, absolute, equal_nan=True)
        for read, written in zip(blocks(back.signal), blocks(record.signal), strict=True)
    )
    if not same or record.leads != back.leads or not np.isclose(record.rate, back.rate, rtol=1e-9):
        raise RecordError(
            back.source,
            "signal",
            None,
            "differs from that of the record when it is read again",
            remedy="write another format, and report this record",
        )


def _estimate(values: NDArray[np.float64]) -> float:
    """Common divisor of sorted values that float32 has rounded.

    It begins with the smallest difference, and is refined by ever larger values.
    """
    gaps = np.diff(values, prepend=0.0)
    estimate = float(gaps[gaps > _FINEST / 2].min(initial=values[-1]))
    for value in values:
        if value >= _ADVANCE * estimate:
            count = np.rint(value / estimate)
            estimate = float(value / count) if count <= LARGEST else estimate
    return estimate


def _is_exact(signal_mv: NDArray[np.float32], microvolts: float) -> bool:
    return all(
        np.allclose(
            counts_of(part, microvolts) * (microvolts * 1e-3), part, *_FLOAT32, equal_nan=True
        )
        for part in blocks(signal_mv)
    )
