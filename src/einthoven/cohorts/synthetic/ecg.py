"""One simulated ECG: heart, rhythm and electrodes, with their ground truth."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from einthoven.cohorts.synthetic.heart import (
    Beat,
    Heart,
    atrial_beat,
    axis_degrees,
    normal_heart,
    paced_beat,
    ventricular_beat,
)
from einthoven.cohorts.synthetic.noise import electrode_noise
from einthoven.cohorts.synthetic.rhythm import (
    ATRIAL,
    DURATION,
    PACED,
    SINUS,
    VENTRICULAR,
    Rhythm,
    fibrillatory,
    flutter_waves,
    rhythm,
)
from einthoven.cohorts.synthetic.signs import beat_of
from einthoven.cohorts.synthetic.statements import consistent
from einthoven.cohorts.synthetic.waves import Array, Waves, joined, turn_frontal


@dataclass(frozen=True)
class Truth:
    """Ground truth of a simulated ECG.

    Attributes
    ----------
    qrs_times : tuple of float
        Start of QRS of each beat whose R peak lies within the recording, seconds.
    r_times : tuple of float
        Their R peaks (largest QRS vector), seconds.
    beat_kinds : tuple of int
        One a beat: 0 conducted, 1 ventricular ectopic, 2 atrial ectopic, 3 paced.
    heart_rate : float
        Beats a minute from the mean RR interval.
    pr_ms : float
        PR interval of a conducted beat; NaN without P waves.
    qrs_ms, qt_ms : float
        Intervals of the dominant beat; QT at the mean RR interval.
    axis_degrees : float
        Frontal QRS axis of the dominant beat, from net areas.
    """

    qrs_times: tuple[float, ...]
    r_times: tuple[float, ...]
    beat_kinds: tuple[int, ...]
    heart_rate: float
    pr_ms: float
    qrs_ms: float
    qt_ms: float
    axis_degrees: float


@dataclass(frozen=True, eq=False)
class SyntheticECG:
    """A simulated 10 s, 12-lead ECG.

    Attributes
    ----------
    signal : numpy.ndarray
        (12, samples) mV, leads in the standard order, as an electrocardiograph would record it.
    clean : numpy.ndarray
        The same without noise, and with the heart's zero as zero.
    statements : tuple of str
        SCP codes.
    truth : Truth
        Intervals and beat times.
    drifting : bool
        Whether the baseline of `signal` wanders visibly.
    loose : str
        The electrode that moved, or an empty string.
    """

    signal: npt.NDArray[np.float64]
    clean: npt.NDArray[np.float64]
    statements: tuple[str, ...]
    truth: Truth
    drifting: bool
    loose: str


def simulate(
    statements: Collection[str],
    patient: np.random.SeedSequence,
    recording: np.random.SeedSequence,
    *,
    rate: float = 100.0,
    age: float = 60.0,
    sex: int = 0,
) -> SyntheticECG:
    """Simulate one 12-lead ECG with the given statements.

    Parameters
    ----------
    statements : collection of str
        SCP codes out of `statements_made()`; without a rhythm code the rhythm is SR.
    patient : numpy.random.SeedSequence
        Seed of everything that two recordings of a patient share.
    recording : numpy.random.SeedSequence
        Seed of the rhythm and of the noise.
    rate : float
        Sampling rate, Hz.
    age : float
        Years.
    sex : int
        0 male, 1 female.

    Returns
    -------
    SyntheticECG
        Signal of shape (12, 10 s x rate), with its ground truth.

    Raises
    ------
    CohortError
        For a code that cannot be made, or statements that exclude each other.
    """
    codes = consistent(statements)
    # Built anew each time: spawning from a SeedSequence changes it.
    root = np.random.SeedSequence(patient.entropy, spawn_key=patient.spawn_key)
    heart_rng, signs_rng, ectopy_rng = (np.random.default_rng(s) for s in root.spawn(3))
    heart = normal_heart(heart_rng, age=age, sex=sex)
    sinus = beat_of(heart, codes, signs_rng)
    ventricular, atrial, paced = ectopy_rng.spawn(3)
    beats = {
        SINUS: sinus,
        ATRIAL: atrial_beat(sinus, atrial),
        VENTRICULAR: ventricular_beat(heart, ventricular),
        PACED: paced_beat(heart, paced),
    }
    rng = np.random.default_rng(recording)
    breath, cycle = rng.uniform(0.17, 0.32), 60.0 / rng.uniform(258.0, 330.0)
    main = beats[PACED if "PACE" in codes else SINUS]
    events = rhythm(codes, pr=main.pr, breath=breath, flutter_cycle=cycle, rng=rng)
    time = np.arange(round(DURATION * rate)) / rate
    ventricles = [
        beats[kind].ventricular(rr)
        for kind, rr in zip(events.kind.tolist(), events.qt_rr().tolist(), strict=True)
    ]
    atria = [beats[kind].p for kind in events.p_kind.tolist()]
    vector = _placed(ventricles, events.qrs, breath).sampled(len(time), rate)
    vector += _placed(atria, events.p, breath).sampled(len(time), rate)
    if "AFIB" in codes:
        vector += fibrillatory(time, rng)
    if "AFLT" in codes:
        vector += flutter_waves(time, cycle, rng)
    clean = heart.field @ vector
    noise, drifting, loose = electrode_noise(len(time), rate, breath=breath, rng=rng)
    # Electrocardiographs are AC-coupled: no lead has an offset.
    signal = clean + noise
    signal -= signal.mean(axis=1, keepdims=True)
    truth = _truth(events, beats, main, heart)
    return SyntheticECG(signal, clean, codes, truth, drifting, loose)


def _placed(parts: list[Waves], onsets: Array, breath: float) -> Waves:
    """Waves at their onsets; breathing turns and scales the heart a little."""
    swings = np.sin(2 * np.pi * breath * onsets)
    return joined(
        [
            part.turned(turn_frontal(2.5 * swing) * (1.0 + 0.035 * swing)).warped(shift=onset)
            for part, onset, swing in zip(parts, onsets, swings, strict=True)
        ]
    )


def _truth(events: Rhythm, beats: dict[int, Beat], main: Beat, heart: Heart) -> Truth:
    r_peaks = {kind: beats[kind].r_peak for kind in set(events.kind.tolist())}
    peaks = events.qrs + np.array([r_peaks[kind] for kind in events.kind.tolist()])
    inside = (peaks > 0) & (peaks < DURATION)
    r_times = peaks[inside]
    return Truth(
        qrs_times=tuple(events.qrs[inside].tolist()),
        r_times=tuple(r_times.tolist()),
        beat_kinds=tuple(events.kind[inside].tolist()),
        heart_rate=60.0 / float(np.diff(r_times).mean()),
        pr_ms=1000 * main.pr if len(events.p) else float("nan"),
        qrs_ms=1000 * main.qrs_duration,
        qt_ms=1000 * main.qt(events.mean_rr),
        axis_degrees=float(axis_degrees(main.depolarisation.area(), heart.field)),
    )
