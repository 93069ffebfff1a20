"""When the heart beats: onsets of QRS and of P, and what the atria do in between.

Times are seconds from the first sample of the recording; `rng` is the recording's own stream.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from einthoven.cohorts.synthetic.waves import Array

DURATION = 10.0
SINUS, VENTRICULAR, ATRIAL, PACED = range(4)
Indices = npt.NDArray[np.int64]

# The rhythm runs beyond both ends of the recording; atrial ectopy pulls what follows forwards.
_BEFORE, _AFTER = 2.0, 4.0
_LENGTH = DURATION + _BEFORE + _AFTER

# Heart rates, beats a minute: mean, standard deviation, lowest, highest.
_RATES = {
    "SR": (74.0, 9.0, 62.0, 96.0),
    "SBRAD": (52.0, 3.5, 44.0, 57.0),
    "STACH": (113.0, 8.0, 104.0, 134.0),
    "SARRH": (70.0, 7.0, 62.0, 84.0),
    "AFIB": (92.0, 20.0, 62.0, 138.0),
    "PACE": (68.0, 5.0, 60.0, 80.0),
}


@dataclass(frozen=True, eq=False)
class Rhythm:
    """Events of one recording.

    Attributes
    ----------
    qrs : numpy.ndarray
        Starts of QRS, ascending, also somewhat before and after the recording.
    kind : numpy.ndarray
        SINUS, VENTRICULAR, ATRIAL or PACED, one a beat.
    p, p_kind : numpy.ndarray
        Starts of P waves and whose shape they have (SINUS or ATRIAL).
    mean_rr : float
        Seconds; what the QT interval has adapted to.
    """

    qrs: Array
    kind: Indices
    p: Array
    p_kind: Indices
    mean_rr: float

    def qt_rr(self) -> Array:
        """RR interval that determines each beat's QT: mostly the mean, partly the last one."""
        last = np.diff(self.qrs, prepend=self.qrs[0] - self.mean_rr)
        return 0.8 * self.mean_rr + 0.2 * np.clip(last, 0.3, 1.6)


def rhythm(
    statements: Collection[str],
    *,
    pr: float,
    breath: float,
    flutter_cycle: float,
    rng: np.random.Generator,
) -> Rhythm:
    """Draw the rhythm of one recording from the rhythm and ectopy codes among its statements.

    `pr` is the PR interval of a conducted sinus beat (s), `breath` the respiratory rate (Hz),
    `flutter_cycle` is in seconds.
    """
    phase = rng.uniform(0.1, 0.4)
    if "AFIB" in statements:
        planned = _fibrillation_onsets(rng)
    elif "AFLT" in statements:
        planned = _flutter_onsets(flutter_cycle, phase, rng)
    else:
        code = next((code for code in _RATES if code in statements), "SR")
        planned = _sinus_onsets(code, breath, rng)
    planned = planned[planned < DURATION + _AFTER]
    onsets, kind = planned, np.full(len(planned), SINUS)
    p_waves = "AFIB" not in statements and "AFLT" not in statements
    if "PACE" in statements:
        # Half of the pacemakers follow the atria, the others pace without regard to them.
        p_waves = bool(rng.uniform() < 0.6)
        kind = np.full(len(planned), PACED)
    elif {"BIGU", "PAC", "PVC"}.intersection(statements):
        ectopic = ATRIAL if "PAC" in statements else VENTRICULAR
        if "BIGU" in statements:
            beats = np.arange(1 + rng.integers(2), len(planned) - 1, 2)
        else:
            beats = _separate_beats(planned, int(rng.integers(1, 4)), rng)
        onsets, kind = _premature(planned, beats, ectopic, rng)
    # A ventricular beat does not reset the sinus node: its P stays where it was.
    p = np.where(kind == VENTRICULAR, planned, onsets) - pr
    p_kind = np.where(kind == ATRIAL, ATRIAL, SINUS)
    if not p_waves:
        p, p_kind = p[:0], p_kind[:0]
    return Rhythm(onsets, kind, p, p_kind, float(np.diff(planned).mean()))


def _mean_rr(code: str, rng: np.random.Generator) -> float:
    mean, spread, low, high = _RATES[code]
    return 60.0 / float(np.clip(rng.normal(mean, spread), low, high))


def _sinus_onsets(code: str, breath: float, rng: np.random.Generator) -> Array:
    """QRS starts with respiratory arrhythmia and a slow drift; those of a pacemaker do not vary."""
    mean = _mean_rr(code, rng)
    depth = {"SARRH": rng.uniform(0.15, 0.22), "STACH": 0.006, "PACE": 0.0}.get(code)
    depth = rng.uniform(0.006, 0.03) if depth is None else depth
    noise = 0.0 if code == "PACE" else 0.006
    phase, drift = rng.uniform(0, 2 * np.pi, 2)
    beats = int(_LENGTH / mean * 1.4) + 4
    jitter = noise * rng.standard_normal(beats)
    onset, onsets = -_BEFORE - rng.uniform(0, mean), []
    for k in range(beats):
        onsets.append(onset)
        swing = depth * np.sin(2 * np.pi * breath * onset + phase)
        slow = min(depth, 0.02) * np.sin(2 * np.pi * 0.07 * onset + drift)
        onset += mean * (1.0 + swing + slow + jitter[k])
    return np.array(onsets)


def _fibrillation_onsets(rng: np.random.Generator) -> Array:
    mean = _mean_rr("AFIB", rng)
    spread = rng.uniform(0.18, 0.27)
    beats = int(_LENGTH / mean) + 6
    chance = rng.standard_normal(beats)
    chance = (chance - chance.mean()) / chance.std()  # few beats, but always irregular
    # The AV node conducts impulses at random, but not during its refractory period.
    rr = np.maximum(mean * (1 + spread * chance), 0.34 + 0.1 * rng.random(beats))
    return np.asarray(-_BEFORE - rng.uniform(0, mean) + np.cumsum(rr))


def _flutter_onsets(cycle: float, phase: float, rng: np.random.Generator) -> Array:
    """QRS starts at a `phase` (0..1) of every second, third or fourth cycle."""
    steps = int(_LENGTH / cycle) + 8
    block = rng.choice([2, 3, 4, 0], p=[0.35, 0.15, 0.3, 0.2])
    ratio = rng.choice([2, 4], size=steps) if block == 0 else np.full(steps, block)
    count = np.cumsum(ratio)
    return np.asarray((np.ceil(-_BEFORE / cycle) + phase + count - count[0]) * cycle)


def _separate_beats(onsets: Array, count: int, rng: np.random.Generator) -> Indices:
    """Up to `count` beats with both neighbours in the recording, three beats from each other."""
    inside = (onsets[:-2] > 0.2) & (onsets[2:] < DURATION - 0.2)
    beats: list[int] = []
    for index in rng.permutation(np.flatnonzero(inside) + 1):
        if len(beats) < count and all(abs(index - other) > 2 for other in beats):
            beats.append(int(index))
    return np.array(sorted(beats), dtype=np.int64)


def _premature(
    onsets: Array, beats: Indices, kind: int, rng: np.random.Generator
) -> tuple[Array, Indices]:
    """Make some beats come early: a ventricular one leaves the sinus node alone (full
    compensatory pause), an atrial one resets it (shorter pause)."""
    early, kinds = onsets.copy(), np.full(len(onsets), SINUS)
    low, high = (0.54, 0.66) if kind == VENTRICULAR else (0.60, 0.74)
    coupling = rng.uniform(low, high)
    for index in beats:
        before = early[index - 1]
        rr = onsets[index] - onsets[index - 1]
        planned = early[index]
        early[index] = before + max(coupling * rr * rng.uniform(0.98, 1.02), 0.32)
        kinds[index] = kind
        if kind == ATRIAL:
            early[index + 1 :] += early[index] + 1.06 * rr - (planned + rr)
    return early, kinds


def fibrillatory(time: Array, rng: np.random.Generator) -> Array:
    """Fibrillatory waves, 4-9 Hz, largest in V1 and II: a heart vector, (3, samples) mV."""
    towards = np.array([[-0.42, 0.24, -0.80], [0.10, 0.70, 0.15]])
    size = np.exp(rng.normal(np.log(0.075), 0.3))
    out = np.zeros((3, len(time)))
    base = rng.uniform(5.0, 7.6)
    for axis, weight in zip(towards, (1.0, 0.7), strict=True):
        wander = _slow(time, (0.3, 0.7, 1.3), rng)
        phase = 2 * np.pi * base * rng.uniform(0.92, 1.08) * time + 2.2 * wander
        shape = np.sin(phase) + 0.4 * np.sin(2 * phase + rng.uniform(0, 6))
        out += weight * size * (1 + 0.45 * _slow(time, (0.4, 0.9), rng)) * shape * axis[:, None]
    return out


def _slow(time: Array, frequencies: tuple[float, ...], rng: np.random.Generator) -> Array:
    """A smooth random function of time, about -1..1."""
    phases = rng.uniform(0, 2 * np.pi, len(frequencies))
    parts = [
        np.sin(2 * np.pi * f * rng.uniform(0.8, 1.2) * time + p)
        for f, p in zip(frequencies, phases, strict=True)
    ]
    return np.asarray(np.sum(parts, axis=0) / np.sqrt(len(frequencies)))


def flutter_waves(time: Array, cycle: float, rng: np.random.Generator) -> Array:
    """Flutter waves: a saw with a slow fall and a steep rise in the inferior leads, upright
    bumps in V1: a heart vector, (3, samples) mV."""
    turn = 2 * np.pi * time / cycle
    # A saw-tooth without its sharpest corner.
    saw = sum(np.sin(k * turn) / k * np.sinc(k / 6.0) for k in range(1, 6))
    bump = np.cos(turn - 0.9) + 0.3 * np.cos(2 * turn - 1.6)
    inferior, anterior = rng.uniform(0.095, 0.15), rng.uniform(0.05, 0.10)
    axis = np.array([-0.05, 1.0, 0.1])[:, None], np.array([-0.4, 0.0, -0.85])[:, None]
    return np.asarray(inferior * saw * axis[0] + anterior * bump * axis[1])
