"""Calibration pulses: Philips carts end every recording with one, the same in all leads.

It is 1 mV for 0.2 s between stretches of zeros, and comes with the samples into files of other
formats. Taken for an ECG it contradicts Einthoven's law and looks like clipping.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from einthoven.records.record import Record

_MILLIVOLT, _TOLERANCE = 1.0, 0.011  # mV; conversion to another format adds two counts
_LEADS = 3  # least number that makes it a pulse in all leads at once
_LAST = 1.0  # s at the end of a recording in which it lies
_PULSE, _ZEROS = 0.1, 0.02  # s, the least


def calibration_start(record: Record) -> int | None:
    """First sample of the zeros in front of a calibration pulse at the end; None without one."""
    first = max(record.signal.shape[1] - round(_LAST * record.rate), 0)
    last = record.signal[:, first:]
    high = np.flatnonzero((np.abs(last - _MILLIVOLT) < _TOLERANCE).all(axis=0))
    if len(last) < _LEADS or len(high) < _PULSE * record.rate:
        return None
    zero = (np.abs(last) < _TOLERANCE).all(axis=0)
    other = np.flatnonzero(~zero[: high[0]])
    start = int(other[-1]) + 1 if len(other) else 0
    is_pulse = len(high) == high[-1] - high[0] + 1 and zero[high[-1] + 1 :].all()
    return first + start if is_pulse and high[0] - start >= _ZEROS * record.rate else None


def without_calibration(record: Record) -> Record:
    """Leave out a calibration pulse at the end of a recording, and the zeros around it.

    Returns
    -------
    Record
        The record itself if it has none.
    """
    start = calibration_start(record)
    if not start:
        return record
    signal = record.signal[:, :start].copy()
    signal.flags.writeable = False
    return replace(record, signal=signal)
