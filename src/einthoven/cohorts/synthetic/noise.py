"""Noise at the electrodes: baseline wander, muscle, amplifier noise, a loose electrode.

Noise arises at the nine electrodes, so that the recorded leads still obey Einthoven's law.
"""

from __future__ import annotations

import numpy as np

from einthoven.cohorts.synthetic.waves import ELECTRODES, Array, electrode_matrix


def electrode_noise(
    samples: int, rate: float, *, breath: float, rng: np.random.Generator
) -> tuple[Array, bool, str]:
    """Draw the noise of one recording with a respiratory rate of `breath` Hz.

    Mains hum of 50 Hz is added only where the sampling rate can carry it.

    Returns
    -------
    leads : numpy.ndarray
        (12, samples) mV.
    drifting : bool
        Whether the baseline wanders visibly.
    loose : str
        The electrode that moved, or an empty string.
    """
    time = np.arange(samples) / rate
    drifting = bool(rng.uniform() < 0.08)
    wander = _wander(time, breath, rng) * (3.0 if drifting else 1.0)
    noise = wander + _muscle(time, rate, rng)
    if rate > 110:
        size = 0.004 * rng.random((len(ELECTRODES), 1))
        noise += size * np.sin(2 * np.pi * 50.0 * time + rng.uniform(0, 6.28))
    loose = ""
    if rng.uniform() < 0.04:
        which = int(rng.integers(3, len(ELECTRODES)))
        noise[which] += _motion(time, rng)
        loose = ELECTRODES[which]
    return electrode_matrix() @ noise, drifting, loose


def _wander(time: Array, breath: float, rng: np.random.Generator) -> Array:
    """Respiration and slow electrode drift, about 20 uV an electrode."""
    count = len(ELECTRODES)
    size = 0.014 * np.exp(0.5 * rng.standard_normal((count, 4)))
    frequency = np.array([breath, breath * 2, 0.05, 0.13]) * [1, 1, *rng.uniform(0.7, 1.4, 2)]
    phase = rng.uniform(0, 2 * np.pi, (count, 4))
    # Breathing moves all electrodes together, up to a little.
    phase[:, :2] = phase[:1, :2] + 0.5 * rng.standard_normal((count, 2))
    size *= [1.2, 0.3, 1.6, 0.8]
    turns = 2 * np.pi * frequency[:, None] * time + phase[..., None]
    return np.asarray((size[..., None] * np.sin(turns)).sum(axis=1))


def _muscle(time: Array, rate: float, rng: np.random.Generator) -> Array:
    """Muscle noise (upper band, coming and going) and a little white noise."""
    white = rng.standard_normal((len(ELECTRODES), len(time) + 1))
    # A first difference leaves the upper half of the band; the rate sets how much noise fits.
    muscle = (white[:, 1:] - 0.6 * white[:, :-1]) / 1.17
    size = np.exp(rng.normal(np.log(0.0045), 0.5))
    swell = 1 + 0.6 * np.sin(2 * np.pi * rng.uniform(0.05, 0.3) * time + rng.uniform(0, 6.28))
    return np.asarray((0.0025 + size * swell) * muscle * np.sqrt(rate / 100.0))


def _motion(time: Array, rng: np.random.Generator) -> Array:
    """Displacement of an electrode that decays."""
    since = time - rng.uniform(1.0, time[-1] - 1.0)
    jump = rng.uniform(0.3, 0.8) * rng.choice([-1.0, 1.0])
    rise = np.clip(since / 0.08, 0.0, 1.0)
    return np.asarray(jump * rise * np.exp(-np.clip(since, 0.0, None) / rng.uniform(0.3, 0.9)))
