"""Faults of the average beat are found, at any sampling rate, and sound records have none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import resample_poly

from einthoven.cohorts.synthetic import sample_record
from einthoven.records.beats import FAULTS, coefficients, fault_of, features
from einthoven.records.electrodes import independent_leads
from einthoven.records.quality import findings
from einthoven.records.record import Record


@pytest.fixture(scope="module")
def sound() -> Record:
    return sample_record()


def found(record: Record) -> str | None:
    x = independent_leads(record)
    assert x is not None
    return fault_of(x, record.rate)


def resampled(record: Record, rate: int) -> Record:
    signal = resample_poly(record.signal, rate, round(record.rate), axis=1)
    return replace(record, signal=signal.astype(np.float32), rate=float(rate))


@pytest.mark.parametrize("rate", [100, 180, 250, 400, 500, 1000])
@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_each_fault_at_each_rate(sound: Record, rate: int, fault: str | None) -> None:
    record = resampled(sound, rate)
    if fault == "inverted":
        record = replace(record, signal=-record.signal)
    elif fault == "reversed":
        record = replace(record, signal=np.ascontiguousarray(record.signal[:, ::-1]))
    elif fault is not None:
        record = replace(record, rate=rate * {"fast": 2.0, "slow": 0.5}[fault])
    assert found(record) == fault


def test_it_is_one_doubt(sound: Record) -> None:
    results = findings(replace(sound, signal=-sound.signal))
    assert [(x.name, x.level) for x in results] == [("beats", "doubt")]


def test_short_recordings_are_not_judged(sound: Record) -> None:
    signal = -sound.signal[:, : round(3.9 * sound.rate)]
    assert found(replace(sound, signal=signal)) is None


def test_only_the_first_half_minute_counts(sound: Record) -> None:
    signal = np.concatenate([sound.signal] * 3 + [-sound.signal] * 9, axis=1)
    assert found(replace(sound, signal=signal)) is None


def test_features_do_not_depend_on_the_size() -> None:
    x = np.random.default_rng(0).normal(size=(8, 1000))
    values = features(x)
    assert coefficients().shape == (len(FAULTS), len(values) + 1)
    np.testing.assert_allclose(features(3 * x), values, rtol=1e-4)
    assert np.isfinite(features(np.zeros((8, 1000)))).all()
