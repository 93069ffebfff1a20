"""R peaks and windows of beats, against the truth of simulated ECGs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from einthoven.cohorts.synthetic import simulate
from einthoven.explain.beats import r_peaks, segment_of, segments
from einthoven.records.record import STANDARD_LEADS, Record


def record(signal: np.ndarray, rate: float) -> Record:
    signal = np.ascontiguousarray(signal, dtype=np.float32)
    return Record.create(signal, rate, leads=STANDARD_LEADS[: len(signal)], name="simulated")


@pytest.mark.parametrize("codes", [["NORM"], ["AFIB"], ["PVC"], ["CLBBB"], ["STACH"], ["SBRAD"]])
@pytest.mark.parametrize("rate", [100.0, 500.0])
def test_peaks_are_those_of_the_simulated_heart(codes: list[str], rate: float) -> None:
    found = true = matched = 0
    for seed in range(4):
        seeds = (np.random.SeedSequence(seed, spawn_key=(part,)) for part in (0, 1))
        ecg = simulate(codes, *seeds, rate=rate)
        peaks, times = r_peaks(record(ecg.signal, rate)), np.array(ecg.truth.r_times)
        near = np.abs(peaks[:, None] - times) < 0.08
        found, true, matched = found + len(peaks), true + len(times), matched + near.any(0).sum()
    assert matched >= 0.95 * true
    assert found <= 1.05 * true


def test_windows_are_a_partition_with_stated_widths() -> None:
    seeds = (np.random.SeedSequence(0, spawn_key=(part,)) for part in (0, 1))
    ecg = record(simulate(["NORM"], *seeds, rate=500.0).signal, 500.0)
    parts, peaks = segments(ecg), r_peaks(ecg)
    assert parts[0].start == 0
    assert parts[-1].end == ecg.duration
    assert all(one.end == other.start for one, other in pairwise(parts))
    (qrs,) = (part for part in parts if part.wave == "QRS" and part.beat == 3)
    assert (qrs.start, qrs.end) == pytest.approx((peaks[2] - 0.06, peaks[2] + 0.08))
    place = segment_of(parts, np.array([peaks[2], -1.0, 99.0]))
    assert [parts[i] for i in place] == [qrs, parts[0], parts[-1]]


def test_a_flat_record_has_no_beats() -> None:
    flat = record(np.zeros((2, 1000)), 100.0)
    assert len(r_peaks(flat)) == 0
    assert [part.wave for part in segments(flat)] == ["TP"]


def test_a_record_that_becomes_flat_has_peaks_before_only() -> None:
    signal = np.zeros((3, 1000))
    signal[:, 100:400] = np.random.default_rng(0).standard_normal((3, 300))
    with np.errstate(all="raise"):
        peaks = r_peaks(record(signal, 100.0))
    assert len(peaks)
    assert 0.9 < peaks.min() < peaks.max() < 4.1
