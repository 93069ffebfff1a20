"""When the heart beats: onsets of QRS and of P, and what the atria do in between."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from einthoven.cohorts.synthetic.waves import Array

SINUS, VENTRICULAR, ATRIAL, PACED = range(4)
Indices = npt.NDArray[np.int64]

# The rhythm runs beyond both ends of the recording; atrial ectopy pulls what follows forwards.
_BEFORE, _AFTER = 2.0, 4.0

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
    """Events of one recording, seconds from its first sample.

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


def _rate(code: str, rng: np.random.Generator) -> float:
    mean, spread, low, high = _RATES[code]
    return float(np.clip(rng.normal(mean, spread), low, high))


def _sinus_onsets(code: str, duration: float, breath: float, rng: np.random.Generator) -> Array:
    """QRS starts of a sinus rhythm with respiratory arrhythmia and a slow drift.

    Parameters
    ----------
    code : str
        SR, SBRAD, STACH, SARRH or PACE (whose intervals do not vary).
    duration : float
        Length of the recording, seconds.
    breath : float
        Respiratory rate, Hz.
    rng : numpy.random.Generator
        Source of chance.
    """
    mean = 60.0 / _rate(code, rng)
    depth = {"SARRH": rng.uniform(0.15, 0.22), "STACH": 0.006, "PACE": 0.0}.get(code)
    depth = rng.uniform(0.006, 0.03) if depth is None else depth
    noise = 0.0 if code == "PACE" else 0.006
    phase, drift = rng.uniform(0, 2 * np.pi, 2)
    beats = int((duration + _BEFORE + _AFTER) / mean * 1.4) + 4
    jitter = noise * rng.standard_normal(beats)
    onset, onsets = -_BEFORE - rng.uniform(0, mean), []
    for k in range(beats):
        onsets.append(onset)
        swing = depth * np.sin(2 * np.pi * breath * onset + phase)
        slow = min(depth, 0.02) * np.sin(2 * np.pi * 0.07 * onset + drift)
        onset += mean * (1.0 + swing + slow + jitter[k])
    return _cut(np.array(onsets), duration)


def _cut(onsets: Array, duration: float) -> Array:
    return onsets[onsets < duration + _AFTER]


def _fibrillation_onsets(duration: float, rng: np.random.Generator) -> Array:
    mean = 60.0 / _rate("AFIB", rng)
    spread = rng.uniform(0.18, 0.27)
    beats = int((duration + _BEFORE + _AFTER) / mean) + 6
    chance = rng.standard_normal(beats)
    chance = (chance - chance.mean()) / chance.std()  # few beats, but always irregular
    # The AV node conducts impulses at random, but not during its refractory period.
    rr = np.maximum(mean * (1 + spread * chance), 0.34 + 0.1 * rng.random(beats))
    return _cut(-_BEFORE - rng.uniform(0, mean) + np.cumsum(rr), duration)


def _flutter_onsets(cycle: float, phase: float, duration: float, rng: np.random.Generator) -> Array:
    steps = int((duration + _BEFORE + _AFTER) / cycle) + 8
    block = rng.choice([2, 3, 4, 0], p=[0.35, 0.15, 0.3, 0.2])
    ratio = rng.choice([2, 4], size=steps) if block == 0 else np.full(steps, block)
    count = np.cumsum(ratio)
    first = np.ceil(-_BEFORE / cycle)
    return _cut((first + phase + count - count[0]) * cycle, duration)


def _room(onsets: Array, duration: float) -> Indices:
    """Beats that can be replaced: their neighbours lie within the recording."""
    inside = (onsets[:-2] > 0.2) & (onsets[2:] < duration - 0.2)
    return np.flatnonzero(inside) + 1


def _apart(candidates: Indices, count: int, rng: np.random.Generator) -> Indices:
    """Up to `count` of the candidates, at least three beats from each other."""
    chosen: list[int] = []
    for index in rng.permutation(candidates):
        if len(chosen) < count and all(abs(index - other) > 2 for other in chosen):
            chosen.append(int(index))
    return np.array(sorted(chosen), dtype=np.int64)


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


def rhythm(
    statements: Collection[str],
    *,
    pr: float,
    duration: float,
    breath: float,
    flutter: tuple[float, float],
    rng: np.random.Generator,
) -> Rhythm:
    """Draw the rhythm of one recording.

    Parameters
    ----------
    statements : collection of str
        SCP codes; the rhythm and ectopy codes among them decide.
    pr : float
        PR interval of a conducted sinus beat, seconds.
    duration : float
        Length of the recording, seconds.
    breath : float
        Respiratory rate, Hz.
    flutter : tuple of float
        Length of a flutter cycle (s) and where in it (0..1) the conducted QRS starts.
    rng : numpy.random.Generator
        Source of chance.
    """
    atria = not {"AFIB", "AFLT"} & set(statements)
    if "AFIB" in statements:
        onsets = _fibrillation_onsets(duration, rng)
    elif "AFLT" in statements:
        onsets = _flutter_onsets(*flutter, duration, rng)
    else:
        code = next((c for c in _RATES if c in statements), "SR")
        onsets = _sinus_onsets(code, duration, breath, rng)
    mean_rr = float(np.diff(onsets).mean())
    if "PACE" in statements:
        # Half of the pacemakers follow the atria, the others pace without regard to them.
        atria = bool(rng.uniform() < 0.6)
        kinds = np.full(len(onsets), PACED)
        return _with_p(onsets, onsets, kinds, pr, mean_rr, atria)
    early, kinds = _ectopy(onsets, statements, duration, rng)
    return _with_p(onsets, early, kinds, pr, mean_rr, atria)


def _ectopy(
    onsets: Array, statements: Collection[str], duration: float, rng: np.random.Generator
) -> tuple[Array, Indices]:
    if "BIGU" in statements:
        kind = ATRIAL if "PAC" in statements else VENTRICULAR
        every_second = np.arange(1 + rng.integers(2), len(onsets) - 1, 2)
        return _premature(onsets, every_second, kind, rng)
    code, kind = ("PAC", ATRIAL) if "PAC" in statements else ("PVC", VENTRICULAR)
    if code not in statements:
        return onsets, np.full(len(onsets), SINUS)
    beats = _apart(_room(onsets, duration), int(rng.integers(1, 4)), rng)
    return _premature(onsets, beats, kind, rng)


def _with_p(
    planned: Array, onsets: Array, kinds: Indices, pr: float, mean_rr: float, atria: bool
) -> Rhythm:
    """P waves: before every conducted beat, and where the sinus node fires into a PVC."""
    # A ventricular beat does not reset the sinus node: its P stays where it was.
    sinus = np.where(kinds == VENTRICULAR, planned, onsets) - pr
    p_kind = np.where(kinds == ATRIAL, ATRIAL, SINUS)
    if not atria:
        sinus, p_kind = sinus[:0], p_kind[:0]
    return Rhythm(onsets, kinds, sinus, p_kind, mean_rr)


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
