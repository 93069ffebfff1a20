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
from einthoven.cohorts.synthetic.noise import Noise, electrode_noise
from einthoven.cohorts.synthetic.rhythm import (
    ATRIAL,
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
from einthoven.cohorts.synthetic.waves import Array, joined, turn_frontal

DURATION = 10.0


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
    rate : float
        Hz.
    statements : tuple of str
        SCP codes.
    truth : Truth
        Intervals and beat times.
    noise : Noise
        What was added to `clean`.
    """

    signal: npt.NDArray[np.float64]
    clean: npt.NDArray[np.float64]
    rate: float
    statements: tuple[str, ...]
    truth: Truth
    noise: Noise


def simulate(
    statements: Collection[str],
    *,
    seed: int = 0,
    rate: float = 100.0,
    age: float = 60.0,
    sex: int = 0,
) -> SyntheticECG:
    """Simulate one 12-lead ECG with the given statements.

    Parameters
    ----------
    statements : collection of str
        SCP codes out of `statements_made()`; without a rhythm code the rhythm is SR.
    seed : int
        Decides on the patient and on the recording.
    rate : float
        Sampling rate, Hz.
    age : float
        Years.
    sex : int
        0 male, 1 female.

    Returns
    -------
    SyntheticECG
        Signal (12, 10 s x rate) in mV, with the truth about it.

    Raises
    ------
    CohortError
        For a code that cannot be made, or statements that exclude each other.
    """
    codes = consistent(statements)
    patient, recording = np.random.SeedSequence(seed).spawn(2)
    return record_ecg(patient, recording, statements=codes, rate=rate, age=age, sex=sex)


def record_ecg(
    patient: np.random.SeedSequence,
    recording: np.random.SeedSequence,
    *,
    statements: tuple[str, ...],
    rate: float,
    age: float,
    sex: int,
) -> SyntheticECG:
    """Simulate one recording of a patient; two recordings share everything that `patient` seeds.

    Parameters are those of `simulate`, with checked statements.
    """
    # Built anew each time: spawning from a SeedSequence changes it.
    root = np.random.SeedSequence(patient.entropy, spawn_key=patient.spawn_key)
    heart_rng, signs_rng, ectopy_rng = (np.random.default_rng(s) for s in root.spawn(3))
    heart = normal_heart(heart_rng, age=age, sex=sex)
    beats = _beats(heart, statements, signs_rng, ectopy_rng)
    rng = np.random.default_rng(recording)
    breath, cycle = rng.uniform(0.17, 0.32), 60.0 / rng.uniform(258.0, 330.0)
    events = rhythm(
        statements,
        pr=beats[PACED if "PACE" in statements else SINUS].pr,
        duration=DURATION,
        breath=breath,
        flutter=(cycle, rng.uniform(0.1, 0.4)),
        rng=rng,
    )
    time = np.arange(round(DURATION * rate)) / rate
    vector = _ventricles(events, beats, len(time), rate, breath)
    vector += _atria(events, beats, len(time), rate, breath)
    if "AFIB" in statements:
        vector += fibrillatory(time, rng)
    if "AFLT" in statements:
        vector += flutter_waves(time, cycle, rng)
    clean = heart.field @ vector
    noise = electrode_noise(len(time), rate, breath=breath, rng=rng)
    truth = _truth(events, beats, heart)
    # Electrocardiographs are AC-coupled: no lead has an offset.
    signal = clean + noise.leads
    signal -= signal.mean(axis=1, keepdims=True)
    return SyntheticECG(signal, clean, rate, statements, truth, noise)


def _beats(
    heart: Heart,
    statements: tuple[str, ...],
    signs_rng: np.random.Generator,
    ectopy_rng: np.random.Generator,
) -> dict[int, Beat]:
    sinus = beat_of(heart, statements, signs_rng)
    ventricular, atrial, paced = ectopy_rng.spawn(3)
    beats = {SINUS: sinus, ATRIAL: atrial_beat(sinus, atrial)}
    if {"PVC", "BIGU"} & set(statements):
        beats[VENTRICULAR] = ventricular_beat(heart, ventricular)
    if "PACE" in statements:
        beats[PACED] = paced_beat(heart, paced)
    return beats


def _sway(at: Array, breath: float) -> list[Array]:
    """Breathing turns and scales the heart a little: one (3, 3) matrix a beat."""
    swing = np.sin(2 * np.pi * breath * at)
    return [turn_frontal(2.5 * s) * (1.0 + 0.035 * s) for s in swing]


def _ventricles(
    events: Rhythm, beats: dict[int, Beat], samples: int, rate: float, breath: float
) -> Array:
    parts = []
    turns = _sway(events.qrs, breath)
    for onset, kind, rr, turn in zip(events.qrs, events.kind, events.qt_rr(), turns, strict=True):
        beat = beats[int(kind)]
        qrs = beat.qrs_duration
        recovery = beat.repolarisation().warped(stretch=float(beat.qt(rr)) - qrs, shift=qrs)
        whole = joined([beat.qrs, beat.fixed, recovery])
        parts.append(whole.turned(turn).warped(shift=onset))
    return joined(parts).sampled(samples, rate)


def _atria(
    events: Rhythm, beats: dict[int, Beat], samples: int, rate: float, breath: float
) -> Array:
    turns = _sway(events.p, breath)
    parts = [
        beats[int(kind)].p.turned(turn).warped(shift=onset)
        for onset, kind, turn in zip(events.p, events.p_kind, turns, strict=True)
    ]
    return joined(parts).sampled(samples, rate)


def _truth(events: Rhythm, beats: dict[int, Beat], heart: Heart) -> Truth:
    delay = {kind: beat.r_peak for kind, beat in beats.items()}
    peaks = np.array([delay[int(kind)] for kind in events.kind])
    inside = (events.qrs + peaks > 0) & (events.qrs + peaks < DURATION)
    r_times = (events.qrs + peaks)[inside]
    main = beats[PACED if PACED in events.kind else SINUS]
    mean_rr = float(np.diff(r_times).mean())
    return Truth(
        qrs_times=tuple(events.qrs[inside].tolist()),
        r_times=tuple(r_times.tolist()),
        beat_kinds=tuple(events.kind[inside].tolist()),
        heart_rate=60.0 / mean_rr,
        pr_ms=1000 * main.pr if len(events.p) else float("nan"),
        qrs_ms=1000 * main.qrs_duration,
        qt_ms=1000 * float(main.qt(events.mean_rr)),
        axis_degrees=float(axis_degrees(main.depolarisation.area(), heart.field)),
    )
