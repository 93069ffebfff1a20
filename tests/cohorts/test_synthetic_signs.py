"""Each statement's sign, measured in the signal as a cardiologist would, against its absence."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import inf

import numpy as np
import pytest

from einthoven.cohorts.synthetic import SyntheticECG, simulate, statements_made
from einthoven.errors import CohortError
from einthoven.records.record import STANDARD_LEADS

RATE = 500.0
SEEDS = range(12)
LEAD = {name: row for row, name in enumerate(STANDARD_LEADS)}


def simulated(codes: str, seed: int, rate: float = 100.0) -> SyntheticECG:
    return simulate(codes.split(), *np.random.SeedSequence(seed).spawn(2), rate=rate)


@cache
def ecg(codes: str, seed: int) -> SyntheticECG:
    return simulated(codes, seed, RATE)


def beat(codes: str, seed: int) -> tuple[np.ndarray, int]:
    """A conducted beat of the clean signal, (12, samples) mV, and where its QRS starts there."""
    e = ecg(codes, seed)
    starts = zip(e.truth.qrs_times, e.truth.beat_kinds, strict=True)
    onset = round(RATE * next(t for t, kind in starts if t > 1.2 and kind in (0, 3)))
    before = round(0.4 * RATE)
    piece = e.clean[:, onset - before : onset + round(0.5 * RATE)]
    return piece - piece[:, [before - 1]], before


def between(codes: str, seed: int, lead: str, begin: float, end: float) -> np.ndarray:
    """Samples of a lead between two times (ms) after the start of QRS."""
    piece, start = beat(codes, seed)
    return piece[LEAD[lead], start + round(begin * RATE / 1e3) : start + round(end * RATE / 1e3)]


def qrs(codes: str, seed: int, lead: str, begin: float = 0.0, end: float = 0.0) -> np.ndarray:
    return between(codes, seed, lead, begin, end or ecg(codes, seed).truth.qrs_ms)


def intervals(codes: str, seed: int) -> np.ndarray:
    return np.diff(ecg(codes, seed).truth.r_times)


def q_depth(codes: str, seed: int, lead: str) -> float:
    """Depth of the negative deflection before R, mV."""
    part = qrs(codes, seed, lead)
    return float(-part[: max(1, np.argmax(part))].min())


def st_level(codes: str, seed: int, lead: str) -> float:
    j = ecg(codes, seed).truth.qrs_ms
    return float(between(codes, seed, lead, j + 30, j + 55).mean())


def t_wave(codes: str, seed: int, lead: str) -> float:
    """The largest deflection in the last half of the QT interval, with its sign."""
    qt = ecg(codes, seed).truth.qt_ms
    part = between(codes, seed, lead, 0.55 * qt, 0.98 * qt)
    return float(part[np.argmax(np.abs(part))])


def corrected_qt(codes: str, seed: int, _: str) -> float:
    truth = ecg(codes, seed).truth
    return truth.qt_ms / (60 / truth.heart_rate) ** (1 / 3)


def sokolow(codes: str, seed: int, _: str) -> float:
    r = max(qrs(codes, seed, "V5").max(), qrs(codes, seed, "V6").max())
    return float(r - qrs(codes, seed, "V1").min())


# Voltages in mV; other names are those of the truth: intervals (ms), rate (1/min), axis (degrees).
MEASUREMENTS: dict[str, Callable[[str, int, str], float]] = {
    "top": lambda codes, seed, lead: qrs(codes, seed, lead).max(),
    "nadir": lambda codes, seed, lead: qrs(codes, seed, lead).min(),
    "late top": lambda codes, seed, lead: qrs(codes, seed, lead, 60).max(),
    "late nadir": lambda codes, seed, lead: qrs(codes, seed, lead, 60).min(),
    "q": q_depth,
    "st": st_level,
    "t": t_wave,
    "qtc": corrected_qt,
    "sokolow": sokolow,
    "limb leads": lambda codes, seed, _: np.ptp(ecg(codes, seed).clean[:6], axis=1).max(),
    "p": lambda codes, seed, lead: between(
        codes, seed, lead, -ecg(codes, seed).truth.pr_ms, -10
    ).min(),
}


def measured(name: str, codes: str, seed: int, lead: str) -> float:
    if name in MEASUREMENTS:
        return MEASUREMENTS[name](codes, seed, lead)
    return float(getattr(ecg(codes, seed).truth, name))


# codes, measurement, leads, lowest and highest value
SIGNS = [
    ("NORM", "heart_rate", "", 60, 100),
    ("SBRAD", "heart_rate", "", 0, 60),
    ("STACH", "heart_rate", "", 100, inf),
    ("NORM", "pr_ms", "", 120, 200),
    ("1AVB", "pr_ms", "", 200, inf),
    ("WPW", "pr_ms", "", 0, 120),
    ("NORM", "qrs_ms", "", 70, 110),
    ("CLBBB", "qrs_ms", "", 120, 165),
    ("CRBBB", "qrs_ms", "", 120, 155),
    ("IRBBB", "qrs_ms", "", 99, 120),
    ("WPW", "qrs_ms", "", 108, 145),
    ("ABQRS", "qrs_ms", "", 0, 120),
    ("PACE", "qrs_ms", "", 130, inf),
    ("NORM", "axis_degrees", "", -30, 95),
    ("LAFB", "axis_degrees", "", -75, -45),
    ("PACE", "axis_degrees", "", -90, -55),
    ("NORM", "qtc", "", 360, 455),
    ("LNGQT", "qtc", "", 475, inf),
    ("NORM", "t", "I II V4 V5 V6", 0.03, inf),
    ("NORM", "st", "I II V4 V5 V6", -0.1, 0.1),
    ("NORM", "limb leads", "", 0.5, 2.2),
    ("LVOLT", "limb leads", "", 0, 0.5),
    ("NORM", "sokolow", "", 0, 3.3),
    ("LVH", "sokolow", "", 3.5, inf),
    ("HVOLT", "sokolow", "", 3.5, inf),
    ("LVH", "t", "V6", -inf, 0),  # strain tells hypertrophy from a slim chest
    ("HVOLT", "t", "V6", 0, inf),
    ("LVH", "st", "V6", -inf, 0),
    ("HVOLT", "st", "V6", -0.02, inf),
    ("CLBBB", "top", "V1", -inf, 0.15),
    ("CLBBB", "nadir", "V1", -inf, -0.6),
    ("CLBBB", "nadir", "I V6", -0.1, inf),  # no q, no s
    ("CLBBB", "t", "I V6", -inf, 0),
    ("CLBBB", "t", "V1", 0.1, inf),
    ("CRBBB", "late top", "V1", 0.1, inf),
    ("IRBBB", "late top", "V1", 0.1, inf),
    ("CRBBB", "late nadir", "I V6", -inf, -0.05),
    ("IRBBB", "late nadir", "I V6", -inf, -0.05),
    ("CRBBB", "t", "V1", -inf, 0),
    ("LAFB", "q", "I aVL", 0.02, inf),
    ("LAFB", "top", "I aVL", 0.3, inf),
    ("IMI", "q", "III aVF", 0.1, inf),
    ("ASMI", "top", "V1 V2 V3", -inf, 0.15),
    ("ASMI", "nadir", "V1 V2 V3", -inf, -0.35),
    ("ASMI", "top", "V6", 0.25, inf),
    ("AMI", "nadir", "V3 V4", -inf, -0.15),
    ("AMI", "q", "V5", 0.1, inf),
    ("STD_", "st", "V5", -inf, -0.07),
    ("STD_", "st", "II", -inf, -0.06),
    ("STD_", "t", "V5", 0.03, inf),
    ("ISC_", "st", "V5", -inf, -0.05),
    ("ISCAL", "st", "V5", -inf, -0.05),
    ("ISCAL", "t", "I V4 V5 V6", -inf, -0.05),
    ("INVT", "t", "V2 V3 V4", -inf, -0.1),
    ("INVT", "st", "V4", -0.06, 0.06),
    ("LAO/LAE", "p", "V1", -inf, -0.09),
]


@pytest.mark.parametrize(("codes", "measurement", "leads", "low", "high"), SIGNS)
def test_sign(codes: str, measurement: str, leads: str, low: float, high: float) -> None:
    for seed in SEEDS:
        for lead in leads.split() or [""]:
            assert low <= measured(measurement, codes, seed, lead) <= high


# Difference from a normal ECG of the same heart: codes, measurement, leads, least and most
CHANGES = [
    ("IMI", "q", "III", 0, inf),
    ("AMI", "top", "V3 V4", -inf, 0),
    ("QWAVE", "q", "V5 V6", 0.1, inf),
    ("LAO/LAE", "p", "V1", -inf, -0.03),
]


@pytest.mark.parametrize(("codes", "measurement", "leads", "low", "high"), CHANGES)
def test_change(codes: str, measurement: str, leads: str, low: float, high: float) -> None:
    for seed in SEEDS:
        for lead in leads.split():
            normal = measured(measurement, "NORM", seed, lead)
            assert low < measured(measurement, codes, seed, lead) - normal < high


# Rhythm -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_r_times_are_where_the_signal_is_steepest(seed: int) -> None:
    for codes in ("NORM", "AFIB", "CRBBB"):
        e = ecg(codes, seed)
        speed = np.convolve(np.abs(np.diff(e.clean, axis=1)).sum(axis=0), np.ones(30), "same")
        for time in e.truth.r_times:
            if 0.3 < time < 9.7:
                here = round(time * RATE)
                near = np.argmax(speed[here - 100 : here + 100]) - 100
                assert abs(near) < 0.06 * RATE


@pytest.mark.parametrize("seed", SEEDS)
def test_irregularity(seed: int) -> None:
    spread = {
        code: np.std(intervals(code, seed)) / np.mean(intervals(code, seed))
        for code in ("SR", "AFIB", "PACE")
    }
    assert spread["SR"] < 0.05
    assert spread["PACE"] < 0.005
    assert spread["AFIB"] > 0.10
    assert np.ptp(intervals("SARRH", seed)) > 0.12


def p_height(codes: str, seed: int) -> float:
    """Lead II: the deflection that recurs before every QRS."""
    e = ecg(codes, seed)
    peaks = [round(t * RATE) for t in e.truth.r_times if 0.5 < t < 9.5]
    before = np.mean([e.clean[1, p - 130 : p - 45] for p in peaks], axis=0)
    return float(before.max() - before[:10].mean())


def test_p_waves_are_there_in_sinus_rhythm_only() -> None:
    sinus = [p_height("SR", seed) for seed in SEEDS]
    fibrillation = [p_height("AFIB", seed) for seed in SEEDS]
    assert min(sinus) > 0.05
    assert np.median(fibrillation) < 0.5 * np.median(sinus)
    assert all(np.isnan(ecg("AFIB", seed).truth.pr_ms) for seed in SEEDS)


def test_flutter_waves_in_the_inferior_leads() -> None:
    for seed in SEEDS:
        e = ecg("AFLT", seed)
        middle = slice(round(2 * RATE), round(8 * RATE))
        x = e.clean[LEAD["III"], middle] - e.clean[LEAD["III"], middle].mean()
        lags = np.arange(round(RATE / 5.6), round(RATE / 4.2))
        match = [np.corrcoef(x[: -lag or None], x[lag:])[0, 1] for lag in lags]
        # It repeats every flutter cycle, faster than the ventricles beat.
        assert max(match) > 0.15
        assert np.median(intervals("AFLT", seed)) > 1.9 * lags[np.argmax(match)] / RATE
        assert np.isnan(e.truth.pr_ms)


def wide(e: SyntheticECG, time: float) -> float:
    """Area of the absolute QRS-T vector over its height: long for wide beats."""
    piece = np.abs(e.clean[:, round((time - 0.1) * RATE) : round((time + 0.12) * RATE)]).sum(axis=0)
    return float(piece.sum() / piece.max() / RATE)


def test_ventricular_beats_come_early_wide_and_pause_fully() -> None:
    for seed in SEEDS:
        e = ecg("PVC", seed)
        kinds, times = np.array(e.truth.beat_kinds), np.array(e.truth.r_times)
        usual = np.median(np.diff(times))
        assert 1 in kinds[1:-1]
        for k in np.flatnonzero(kinds == 1):
            assert times[k] - times[k - 1] < 0.82 * usual
            assert times[k + 1] - times[k - 1] == pytest.approx(2 * usual, rel=0.12)
            sinus, early = (wide(e, times[j]) for j in (k - 1, k))
            assert early > 1.3 * sinus


def test_atrial_beats_come_early_narrow_and_reset_the_sinus_node() -> None:
    for seed in SEEDS:
        e = ecg("PAC", seed)
        kinds, times = np.array(e.truth.beat_kinds), np.array(e.truth.r_times)
        usual = np.median(np.diff(times))
        early = np.flatnonzero(kinds == 2)
        assert len(early) >= 1
        for k in early:
            assert times[k] - times[k - 1] < 0.85 * usual
            assert times[k + 1] - times[k - 1] < 1.95 * usual
            assert wide(e, times[k]) < 1.25 * wide(e, times[k - 1])


@pytest.mark.parametrize(("codes", "kind"), [("BIGU", 1), ("BIGU PAC", 2)])
def test_every_second_beat_of_a_bigeminy_is_early(codes: str, kind: int) -> None:
    for seed in SEEDS:
        kinds = np.array(ecg(codes, seed).truth.beat_kinds)
        assert set(kinds.tolist()) == {0, kind}
        assert np.all(np.diff(kinds) != 0)
        rr = intervals(codes, seed)
        assert abs(rr[::2].mean() - rr[1::2].mean()) > 0.25 * rr.mean()


# Conduction -------------------------------------------------------------------------------------


def test_fragmented_qrs_has_more_peaks() -> None:
    def turns(codes: str, seed: int) -> int:
        leads = (qrs(codes, seed, lead) for lead in ("I", "II", "aVF", "V4", "V5", "V6"))
        return sum(int((np.diff(np.sign(np.diff(part))) != 0).sum()) for part in leads)

    more = [turns("ABQRS", seed) - turns("NORM", seed) for seed in SEEDS]
    assert min(more) >= 2


# The whole --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", statements_made())
def test_clean_signals_obey_einthoven_and_stay_in_range(code: str) -> None:
    e = simulated(code, 21)
    assert code in e.statements
    for x in (e.clean, e.signal):
        one, two, three, avr, avl, avf = x[:6]
        np.testing.assert_allclose(three, two - one, atol=1e-12)
        np.testing.assert_allclose(avr + avl + avf, 0, atol=1e-12)
        assert x.shape == (12, 1000)
        assert np.isfinite(x).all()
        assert np.abs(x).max() < 6
    noise = np.diff(e.signal - e.clean, axis=1).std() / np.sqrt(2)
    assert 0.001 < noise < 0.06


def test_a_patients_recordings_share_the_heart() -> None:
    def recording(patient: int, visit: int) -> SyntheticECG:
        seeds = (np.random.SeedSequence(1, spawn_key=(k,)) for k in (patient, 100 + visit))
        return simulate(["IMI"], *seeds)

    first, second, other = recording(1, 1), recording(1, 2), recording(2, 1)
    assert first.truth.axis_degrees == second.truth.axis_degrees != other.truth.axis_degrees
    assert first.truth.qrs_ms == second.truth.qrs_ms != other.truth.qrs_ms
    assert first.truth.r_times != second.truth.r_times
    assert np.array_equal(first.signal, recording(1, 1).signal)


@pytest.mark.parametrize(
    ("codes", "match"),
    [
        ("XYZ", "'XYZ'"),
        ("2AVB", "'2AVB'"),
        ("CLBBB CRBBB", "CLBBB .*CRBBB"),
        ("SR AFIB", "SR .*AFIB|AFIB .*SR"),
        ("NORM IMI", "NORM .*IMI"),
        ("AFIB 1AVB", "AFIB .*1AVB"),
        ("LVOLT HVOLT", "HVOLT .*LVOLT"),
    ],
)
def test_contradicting_statements_are_refused(codes: str, match: str) -> None:
    with pytest.raises(CohortError, match=match):
        simulated(codes, 0)


def test_statements_that_follow_are_added() -> None:
    assert simulated("LAFB ASMI", 0).statements == ("ASMI", "LAFB", "QWAVE", "SR")
    assert simulated("BIGU", 0).statements == ("PVC", "SR", "BIGU")
