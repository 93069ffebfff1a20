"""Calibration pulses at the end of a recording."""

from __future__ import annotations

import numpy as np
import pytest

from einthoven.records import STANDARD_LEADS, Record
from einthoven.records.calibration import calibration_start, without_calibration
from einthoven.records.limb_leads import repair_leads
from einthoven.records.quality import findings


def pulsed(leads: int = 12, rate: int = 500, seconds: float = 0.2) -> np.ndarray:
    """Three seconds and a half of limb leads that fit, then zeros, a pulse, zeros."""
    rng = np.random.default_rng(3)
    one, two = rng.normal(0, 0.5, (2, 4 * rate))
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    signal = np.concatenate([limb, one + two + rng.normal(0, 0.3, (6, 4 * rate))])[:leads]
    signal[:, -rate // 2 :] = 0
    start = signal.shape[1] - int(0.35 * rate)
    signal[:, start : start + int(seconds * rate)] = 1
    signal[:, -rate // 2 :] += rng.choice([-0.01, 0, 0.01], (leads, rate // 2))
    return signal


def record_of(signal: np.ndarray, rate: int = 500) -> Record:
    return Record.from_array(signal, rate=rate, leads=STANDARD_LEADS[: len(signal)])


@pytest.mark.parametrize("rate", [100, 250, 500])
def test_a_pulse_is_left_out(rate: int) -> None:
    record = record_of(pulsed(rate=rate), rate)
    assert calibration_start(record) == 3.5 * rate
    cut = without_calibration(record)
    np.testing.assert_array_equal(cut.signal, record.signal[:, : int(3.5 * rate)])
    assert without_calibration(cut) is cut
    np.testing.assert_array_equal(repair_leads(record).signal, cut.signal)


def test_it_is_a_note_and_nothing_else() -> None:
    names = [finding.name for finding in findings(record_of(pulsed()))]
    assert "calibration-pulse" in names
    assert not {"limb-leads", "clipping", "lead-off"} & set(names)


def changed(row: int, place: slice, value: float) -> np.ndarray:
    signal = pulsed()
    signal[row, place] = value
    return signal


@pytest.mark.parametrize(
    "signal",
    [
        pulsed(leads=2),
        pulsed(seconds=0.05),
        pulsed()[:, :-200],  # without the pulse
        pulsed()[:, ::-1],
        changed(3, slice(-1, None), 0.02),
        changed(3, slice(-120, -118), 0.5),
        changed(3, slice(-260, -175), 0.02),
        changed(3, slice(-175, None), np.nan),
    ],
)
def test_anything_else_stays(signal: np.ndarray) -> None:
    record = record_of(np.ascontiguousarray(signal))
    assert without_calibration(record) is record
