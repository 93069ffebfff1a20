"""Each statement's sign, measured in the signal as a cardiologist would, against its absence."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from einthoven.cohorts.synthetic import SyntheticECG, simulate, statements_made
from einthoven.cohorts.synthetic.ecg import record_ecg
from einthoven.errors import CohortError
from einthoven.records.record import STANDARD_LEADS

RATE = 500.0
SEEDS = range(12)
LEAD = {name: row for row, name in enumerate(STANDARD_LEADS)}


@cache
def ecg(codes: str, seed: int) -> SyntheticECG:
    return simulate(codes.split(), seed=seed, rate=RATE)


def beat(codes: str, seed: int) -> tuple[np.ndarray, int]:
    """A conducted beat of the clean signal, (12, samples) mV, and where its QRS starts there."""
    e = ecg(codes, seed)
    starts = zip(e.truth.qrs_times, e.truth.beat_kinds, strict=True)
    onset = round(RATE * next(t for t, kind in starts if t > 1.2 and kind in (0, 3)))
    before = round(0.4 * RATE)
    piece = e.clean[:, onset - before : onset + round(0.5 * RATE)]
    return piece - piece[:, [before - 1]], before


def at(piece: np.ndarray, lead: str, start: int, begin: float, end: float) -> np.ndarray:
    """Samples of a lead between two times (ms) after the start of QRS."""
    return piece[LEAD[lead], start + round(begin * RATE / 1e3) : start + round(end * RATE / 1e3)]


def st_level(codes: str, seed: int, lead: str) -> float:
    piece, start = beat(codes, seed)
    j = ecg(codes, seed).truth.qrs_ms
    return float(at(piece, lead, start, j + 30, j + 55).mean())


def t_wave(codes: str, seed: int, lead: str) -> float:
    """The largest deflection in the last half of the QT interval, with its sign."""
    piece, start = beat(codes, seed)
    qt = ecg(codes, seed).truth.qt_ms
    part = at(piece, lead, start, 0.55 * qt, 0.98 * qt)
    return float(part[np.argmax(np.abs(part))])


def qrs(codes: str, seed: int, lead: str, begin: float = 0.0, end: float = 0.0) -> np.ndarray:
    piece, start = beat(codes, seed)
    return at(piece, lead, start, begin, end or ecg(codes, seed).truth.qrs_ms)


def intervals(codes: str, seed: int) -> np.ndarray:
    return np.diff(ecg(codes, seed).truth.r_times)


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
def test_rates(seed: int) -> None:
    assert 60 <= ecg("NORM", seed).truth.heart_rate <= 100
    assert ecg("SBRAD", seed).truth.heart_rate < 60
    assert ecg("STACH", seed).truth.heart_rate > 100
    assert ecg("AFIB", seed).truth.heart_rate == pytest.approx(
        60 / intervals("AFIB", seed).mean(), rel=1e-9
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_irregularity(seed: int) -> None:
    spread = {c: np.std(intervals(c, seed)) / np.mean(intervals(c, seed)) for c in
              ("SR", "AFIB", "SARRH", "PACE")}  # fmt: skip
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


def between_beats(codes: str, seed: int, lead: str, low: float, high: float) -> float:
    """Share of a band (Hz) in a lead after the average beat has been taken away."""
    e = ecg(codes, seed)
    x = e.clean[LEAD[lead]].copy()
    peaks = [round(t * RATE) for t in e.truth.r_times if 0.2 < t < 9.6]
    mean = np.mean([x[p - 60 : p + 180] for p in peaks], axis=0)
    for p in peaks:
        x[p - 60 : p + 180] -= mean
    power = np.abs(np.fft.rfft(x * np.hanning(len(x)))) ** 2
    frequency = np.fft.rfftfreq(len(x), 1 / RATE)
    return float(power[(frequency >= low) & (frequency <= high)].sum() / len(x) ** 2)


def test_fibrillatory_waves_in_v1() -> None:
    fibrillation = [between_beats("AFIB", seed, "V1", 4, 9) for seed in SEEDS]
    sinus = [between_beats("SR", seed, "V1", 4, 9) for seed in SEEDS]
    assert min(fibrillation) > 5 * np.median(sinus)
    small = [between_beats("AFIB", seed, "I", 4, 9) for seed in SEEDS]
    assert np.median(small) < 0.3 * np.median(fibrillation)


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


def test_paced_beats_are_wide_and_come_after_a_spike() -> None:
    for seed in SEEDS:
        e = ecg("PACE", seed)
        assert set(e.truth.beat_kinds) == {3}
        assert e.truth.qrs_ms > 130
        assert -90 < e.truth.axis_degrees < -55
        r = [round(t * RATE) for t in e.truth.r_times if 0.2 < t < 9.8]
        assert all(e.clean[LEAD["V1"], k - 20 : k + 20].mean() < -0.3 for k in r)
        steep = np.abs(np.diff(e.clean[LEAD["III"]]))
        spikes = np.flatnonzero(steep > 0.75 * steep.max())
        onsets = np.array(e.truth.r_times)
        assert all(np.min(np.abs(onsets - s / RATE)) < 0.15 for s in spikes if 0.3 < s / RATE < 9.7)


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


def wide(e: SyntheticECG, time: float) -> float:
    """Area of the absolute QRS-T vector over its height: long for wide beats."""
    piece = np.abs(e.clean[:, round((time - 0.1) * RATE) : round((time + 0.12) * RATE)]).sum(axis=0)
    return float(piece.sum() / piece.max() / RATE)


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


def test_intervals_of_a_normal_ecg_are_normal() -> None:
    for seed in SEEDS:
        truth = ecg("NORM", seed).truth
        assert 120 <= truth.pr_ms <= 200
        assert 70 <= truth.qrs_ms < 110
        assert -30 <= truth.axis_degrees <= 95
        corrected = truth.qt_ms / (60 / truth.heart_rate) ** (1 / 3)
        assert 360 < corrected < 455
        for lead in ("I", "II", "V4", "V5", "V6"):
            assert t_wave("NORM", seed, lead) > 0.03
            assert abs(st_level("NORM", seed, lead)) < 0.1
        voltage = max(np.ptp(qrs("NORM", seed, lead)) for lead in STANDARD_LEADS[:6])
        assert 0.5 < voltage < 2.2


def test_pr_interval() -> None:
    for seed in SEEDS:
        assert ecg("1AVB", seed).truth.pr_ms > 200
        assert ecg("WPW", seed).truth.pr_ms < 120
        for codes in ("1AVB", "NORM"):
            piece, start = beat(codes, seed)
            # P's top in II, in the quiet before QRS.
            pr = ecg(codes, seed).truth.pr_ms
            before = at(piece, "II", start, -pr, -20)
            top = pr - 1000 * np.argmax(before) / RATE
            assert before.max() > 0.05
            assert top == pytest.approx(pr - 50, abs=30)


def test_left_bundle_branch_block() -> None:
    for seed in SEEDS:
        assert 120 <= ecg("CLBBB", seed).truth.qrs_ms <= 165
        assert qrs("CLBBB", seed, "V1").max() < 0.15
        assert qrs("CLBBB", seed, "V1").min() < -0.6
        for lead in ("I", "V6"):
            assert qrs("CLBBB", seed, lead).min() > -0.1  # no q, no s
            # Broad: half of the height for more than 60 ms.
            part = qrs("CLBBB", seed, lead)
            assert 1000 / RATE * (part > part.max() / 2).sum() > 60
            assert t_wave("CLBBB", seed, lead) < 0
        assert t_wave("CLBBB", seed, "V1") > 0.1


@pytest.mark.parametrize(("code", "low", "high"), [("CRBBB", 120, 155), ("IRBBB", 99, 120)])
def test_right_bundle_branch_block(code: str, low: float, high: float) -> None:
    for seed in SEEDS:
        width = ecg(code, seed).truth.qrs_ms
        assert low <= width <= high
        late = qrs(code, seed, "V1", 60)
        assert late.max() > 0.1
        assert late.max() > qrs(code, seed, "V1", 0, 40).max()  # R' above r
        assert qrs(code, seed, "V1", 30, 70).min() < 0.05
        assert qrs(code, seed, "I", 60).min() < -0.05
        assert qrs(code, seed, "V6", 60).min() < -0.05
        if code == "CRBBB":
            assert t_wave(code, seed, "V1") < 0


def test_left_anterior_fascicular_block() -> None:
    for seed in SEEDS:
        assert -75 <= ecg("LAFB", seed).truth.axis_degrees <= -45
        for lead in ("II", "III", "aVF"):  # rS
            part = qrs("LAFB", seed, lead)
            assert part.min() < -part.max()
            assert np.argmax(part) < np.argmin(part)
        for lead in ("I", "aVL"):  # qR
            part = qrs("LAFB", seed, lead)
            assert np.argmin(part[: np.argmax(part)]) < np.argmax(part)
            assert part[: np.argmax(part)].min() < -0.02
            assert part.max() > 0.3


def test_measured_axis_is_the_true_one() -> None:
    for codes in ("NORM", "LAFB", "LVH", "IMI"):
        for seed in SEEDS:
            one = qrs(codes, seed, "I").sum()
            foot = qrs(codes, seed, "aVF").sum() * 2 / np.sqrt(3)
            measured = np.rad2deg(np.arctan2(foot, one))
            assert measured == pytest.approx(ecg(codes, seed).truth.axis_degrees, abs=20)


def test_preexcitation_starts_slowly_and_lasts_long() -> None:
    for seed in SEEDS:
        assert 108 <= ecg("WPW", seed).truth.qrs_ms <= 145

        def early_share(codes: str, seed: int = seed) -> float:
            piece, start = beat(codes, seed)
            size = np.linalg.norm(piece[[0, 1, 6, 7, 8, 9, 10, 11]], axis=0)
            part = size[start : start + round(0.14 * RATE)]
            return float(np.argmax(part) / RATE)

        assert early_share("WPW") > early_share("NORM") + 0.015


# Voltage ----------------------------------------------------------------------------------------


def sokolow(codes: str, seed: int) -> float:
    lateral = max(qrs(codes, seed, "V5").max(), qrs(codes, seed, "V6").max())
    return float(lateral - qrs(codes, seed, "V1").min())


def test_voltages() -> None:
    for seed in SEEDS:
        limbs = ecg("LVOLT", seed).clean[:6]
        assert np.ptp(limbs, axis=1).max() < 0.5
        assert sokolow("NORM", seed) < 3.3
        assert sokolow("LVH", seed) > 3.5
        assert sokolow("HVOLT", seed) > 3.5
        # Strain tells hypertrophy from a slim chest.
        assert t_wave("LVH", seed, "V6") < 0 < t_wave("HVOLT", seed, "V6")
        assert st_level("LVH", seed, "V6") < 0 < st_level("HVOLT", seed, "V6") + 0.02


# Infarction -------------------------------------------------------------------------------------


def q_depth(codes: str, seed: int, lead: str) -> float:
    """Depth of the negative deflection before R, mV."""
    part = qrs(codes, seed, lead)
    return float(-part[: max(1, np.argmax(part))].min())


def test_inferior_infarction() -> None:
    for seed in SEEDS:
        for lead in ("III", "aVF"):
            assert q_depth("IMI", seed, lead) > 0.1
            early = qrs("IMI", seed, lead, 0, 60)
            assert 1000 / RATE * (early < -0.02).sum() > 22
        assert q_depth("IMI", seed, "III") > q_depth("NORM", seed, "III")
        assert "QWAVE" in ecg("IMI", seed).statements


def test_anteroseptal_infarction() -> None:
    for seed in SEEDS:
        for lead in ("V1", "V2", "V3"):
            part = qrs("ASMI", seed, lead)
            assert part.max() < 0.15
            assert part.min() < -0.35
        assert qrs("ASMI", seed, "V6").max() > 0.25


def test_anterior_infarction() -> None:
    for seed in SEEDS:
        for lead in ("V3", "V4"):
            assert qrs("AMI", seed, lead, 0, 60).min() < -0.15
            assert qrs("AMI", seed, lead).max() < qrs("NORM", seed, lead).max()
        assert q_depth("AMI", seed, "V5") > 0.1


def test_lateral_q_waves() -> None:
    for seed in SEEDS:
        for lead in ("V5", "V6"):
            assert q_depth("QWAVE", seed, lead) > q_depth("NORM", seed, lead) + 0.1


def test_fragmented_qrs_has_more_peaks() -> None:
    def turns(codes: str, seed: int) -> int:
        leads = (qrs(codes, seed, lead) for lead in ("I", "II", "aVF", "V4", "V5", "V6"))
        return sum(int((np.diff(np.sign(np.diff(part))) != 0).sum()) for part in leads)

    more = [turns("ABQRS", seed) - turns("NORM", seed) for seed in SEEDS]
    assert min(more) >= 2
    assert all(ecg("ABQRS", seed).truth.qrs_ms < 120 for seed in SEEDS)


# Repolarisation ---------------------------------------------------------------------------------


def test_st_depression() -> None:
    for seed in SEEDS:
        assert st_level("STD_", seed, "V5") < -0.07
        assert st_level("STD_", seed, "II") < -0.06
        assert t_wave("STD_", seed, "V5") > 0.03
        assert st_level("ISC_", seed, "V5") < -0.05
        assert t_wave("ISC_", seed, "V5") < 0.7 * t_wave("NORM", seed, "V5")
        assert st_level("ISCAL", seed, "V5") < -0.05


def test_t_waves() -> None:
    for seed in SEEDS:
        for lead in ("I", "V4", "V5", "V6"):
            assert t_wave("ISCAL", seed, lead) < -0.05
        for lead in ("V2", "V3", "V4"):
            assert t_wave("INVT", seed, lead) < -0.1
        assert abs(st_level("INVT", seed, "V4")) < 0.06
        for lead in ("I", "II", "V4", "V5", "V6"):
            assert abs(t_wave("NDT", seed, lead)) < 0.45 * t_wave("NORM", seed, lead)


def test_long_qt() -> None:
    for seed in SEEDS:
        truth = ecg("LNGQT", seed).truth
        assert truth.qt_ms / (60 / truth.heart_rate) ** (1 / 3) > 475
        piece, start = beat("LNGQT", seed)
        # T still runs where a normal one has ended.
        still = np.abs(at(piece, "V3", start, 400, 430)).mean()
        assert still > 0.05


def test_left_atrial_enlargement() -> None:
    def terminal(codes: str, seed: int) -> float:
        piece, start = beat(codes, seed)
        return float(at(piece, "V1", start, -ecg(codes, seed).truth.pr_ms, -10).min())

    for seed in SEEDS:
        assert terminal("LAO/LAE", seed) < -0.09
        assert terminal("LAO/LAE", seed) < terminal("NORM", seed) - 0.03


# The whole --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", statements_made())
def test_clean_signals_obey_einthoven_and_stay_in_range(code: str) -> None:
    e = simulate([code], seed=21)
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
    def recording(patient: int, visit: int, code: str = "IMI") -> SyntheticECG:
        seeds = (np.random.SeedSequence(1, spawn_key=(k,)) for k in (patient, 100 + visit))
        return record_ecg(*seeds, statements=(code, "SR"), rate=100, age=60, sex=0)

    first, second, other = recording(1, 1), recording(1, 2), recording(2, 1)
    assert first.truth.axis_degrees == second.truth.axis_degrees != other.truth.axis_degrees
    assert first.truth.qrs_ms == second.truth.qrs_ms != other.truth.qrs_ms
    assert first.truth.r_times != second.truth.r_times


def test_simulate_is_a_function_of_its_seed() -> None:
    assert np.array_equal(simulate(["AFIB"], seed=4).signal, simulate(["AFIB"], seed=4).signal)
    assert not np.array_equal(simulate(["AFIB"], seed=4).signal, simulate(["AFIB"], seed=5).signal)


@pytest.mark.parametrize(
    ("codes", "match"),
    [
        (["XYZ"], "'XYZ' cannot be simulated"),
        (["2AVB"], "'2AVB' cannot be simulated"),
        (["CLBBB", "CRBBB"], "CLBBB and CRBBB"),
        (["SR", "AFIB"], "SR and AFIB|AFIB and SR"),
        (["NORM", "IMI"], "NORM and IMI"),
        (["AFIB", "1AVB"], "AFIB and 1AVB"),
        (["LVOLT", "HVOLT"], "HVOLT and LVOLT"),
    ],
)
def test_contradicting_statements_are_refused(codes: list[str], match: str) -> None:
    with pytest.raises(CohortError, match=match):
        simulate(codes)


def test_statements_that_follow_are_added() -> None:
    assert simulate(["LAFB", "ASMI"]).statements == ("ASMI", "LAFB", "QWAVE", "SR")
    assert simulate(["BIGU"]).statements == ("PVC", "SR", "BIGU")
