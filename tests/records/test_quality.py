"""Amplitude, mains hum and offsets are found where they are, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from einthoven.records.quality import amplitude_of, mains_hum, offsets
from einthoven.records.record import Record

LEADS = ("I", "II", "V1")


def _record(signal: np.ndarray, rate: float = 500.0) -> Record:
    return Record.create(signal.astype(np.float32), rate, leads=LEADS[: len(signal)], name="r")


def _beats(samples: int = 5000, rate: float = 500.0) -> np.ndarray:
    """1 mV beats with noise of 10 microvolts."""
    time = np.arange(samples) / rate
    beats = np.exp(-(((time * 1.2) % 1 - 0.5) ** 2) / 2e-4)
    return beats + 0.01 * np.random.default_rng(0).standard_normal((3, samples))


@pytest.mark.parametrize("mains", [50, 60])
@pytest.mark.parametrize("rate", [250.0, 500.0, 1000.0])
def test_the_mains_are_found_with_their_size(mains: int, rate: float) -> None:
    signal = _beats(int(10 * rate), rate)
    assert mains_hum(_record(signal, rate)) is None
    signal[1] += 0.08 * np.sin(2 * np.pi * (mains + 0.1) * np.arange(signal.shape[1]) / rate)
    hum = mains_hum(_record(signal, rate))
    assert hum is not None
    assert hum.frequency == mains
    assert hum.leads.keys() == {"II"}
    assert hum.leads["II"] == pytest.approx(0.08, rel=0.2)


def test_broad_noise_and_small_lines_are_not_mains_hum() -> None:
    signal = _beats()
    loud = signal + 0.3 * np.random.default_rng(1).standard_normal(signal.shape)
    assert mains_hum(_record(loud)) is None
    assert mains_hum(_record(signal + 0.01 * np.sin(np.arange(5000) * 0.2 * np.pi))) is None


def test_hum_is_not_searched_for_in_unsuitable_recordings() -> None:
    hum = np.sin(2 * np.pi * 50 * np.arange(1000) / 500)
    broken = _beats(1000) + 0.1 * hum
    broken[0, 5] = np.nan
    result = mains_hum(_record(broken))
    assert result is not None
    assert result.leads.keys() == {"II", "V1"}
    assert mains_hum(_record(broken[:, :900])) is None  # below 2 s
    assert mains_hum(_record(_beats(1000, 100), 100.0)) is None


@pytest.mark.parametrize(("factor", "unit"), [(1, "mV"), (1000, "uV"), (1e-3, "V"), (20, "?")])
def test_units_by_size(factor: float, unit: str) -> None:
    amplitude = amplitude_of(_record(factor * _beats()))
    assert amplitude is not None
    assert amplitude.unit == unit


def test_extreme_leads_and_flat_records() -> None:
    signal = _beats()
    signal[2, 10] = -6.0
    amplitude = amplitude_of(_record(signal))
    assert amplitude is not None
    assert (amplitude.beyond, amplitude.unit) == (("V1",), "mV")
    assert amplitude_of(_record(np.full((3, 100), 0.3))) is None
    assert amplitude_of(_record(np.full((3, 100), np.nan))) is None


def test_leads_with_an_offset() -> None:
    signal = _beats()
    assert offsets(_record(signal)) == {}
    signal[0] += 0.28
    signal[1] -= 0.5
    signal[2] = 0.7  # flat, which is another warning
    away = offsets(_record(signal))
    assert away == {"II": pytest.approx(-0.5, abs=0.02)}
    assert offsets(_record(1000 * signal)) == {}  # another doubt comes first
