"""Noise at a given signal-to-noise ratio, and offsets, to measure the robustness of a model.

Noise is added to the signal as it was recorded, before any preparation, and the sum is rounded to
whole microvolts, as a recorder would. The ratio is that of a record: 10 log10 of the variance of
the signal about each lead's mean over the mean square of the noise, both averaged over leads. A
record's noise depends on the seed, the kind of noise and the record's name alone, and at another
ratio it is the same noise at another amplitude.

====================  =============================================================================
baseline-wander       Gaussian noise of 0.05 to 0.5 Hz, drawn for each lead: breathing, movement.
powerline             a sine of 50 Hz; one phase a record, a normal amplitude for each lead.
muscle                Gaussian noise of 20 to 150 Hz, or up to half the rate, drawn for each lead.
white                 Gaussian noise of all frequencies, drawn for each lead.
====================  =============================================================================

At 100 Hz, PTB-XL's lower rate, a powerline lies exactly at half the rate and alternates from sample
to sample.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import PreparationError
from einthoven.evaluate.metrics import Floats

__all__ = ["NOISES", "add_noise", "add_offset"]

Noise = Callable[[np.random.Generator, tuple[int, int], float], Floats]

POWERLINE = 50.0  # Hz
_INT16 = np.iinfo(np.int16)


def add_noise(
    signals: NDArray[np.int16],
    *,
    rate: float,
    kind: str,
    snr: float,
    names: Sequence[str],
    seed: int = 0,
) -> NDArray[np.int16]:
    """Add noise to records of one length.

    Parameters
    ----------
    signals : array of int16, shape (records, leads, samples)
        Microvolts, at the rate they were recorded at.
    rate : float
        Hz.
    kind : str
        One of `NOISES`.
    snr : float
        Signal-to-noise ratio of every record, dB.
    names : sequence of str
        Names of the records.
    seed : int

    Returns
    -------
    array of int16, same shape as `signals`
        Flat records do not change, as the ratio is not defined for them.

    Raises
    ------
    PreparationError
        If the kind is unknown, the ratio is not finite, or the records are too short or of too low
        a rate for this noise.
    """
    if kind not in NOISES:
        raise PreparationError(
            f"noise {kind!r} is unknown", remedy=f"use one of {', '.join(NOISES)}"
        )
    if not np.isfinite(snr):
        raise PreparationError(f"snr = {snr!r} dB is not finite", remedy="use a ratio such as 10")
    noisy = np.empty_like(signals)
    for place, name in enumerate(names):
        key = [seed, zlib.crc32(kind.encode()), zlib.crc32(str(name).encode())]
        generator = np.random.default_rng(np.random.SeedSequence(key))
        clean = signals[place].astype(np.float64)
        noise = NOISES[kind](generator, (clean.shape[0], clean.shape[1]), rate)
        scale = np.sqrt(clean.var(axis=1).mean() / np.square(noise).mean() / 10 ** (snr / 10))
        noisy[place] = np.clip(np.rint(clean + scale * noise), _INT16.min, _INT16.max)
    return noisy


def add_offset(signals: NDArray[np.int16], offset: float) -> NDArray[np.int16]:
    """Add a constant in mV to every lead, as a recorder with a wrong zero; clipped to int16."""
    shifted = signals.astype(np.int32) + round(1000 * offset)
    return np.clip(shifted, _INT16.min, _INT16.max).astype(signals.dtype)


def _band(low: float, high: float) -> Noise:
    def draw(generator: np.random.Generator, shape: tuple[int, int], rate: float) -> Floats:
        frequency = np.fft.rfftfreq(shape[1], 1 / rate)
        inside = (frequency >= low) & (frequency <= high)
        if not inside.any():
            raise PreparationError(
                f"{shape[1]} samples at {rate:g} Hz hold no frequency from {low:g} to {high:g} Hz",
                remedy="leave this noise out for such records",
            )
        white = np.fft.rfft(generator.standard_normal(shape))
        return np.fft.irfft(white * inside, n=shape[1])

    return draw


def _powerline(generator: np.random.Generator, shape: tuple[int, int], rate: float) -> Floats:
    if rate < 2 * POWERLINE:
        raise PreparationError(
            f"{POWERLINE:g} Hz lies above half of the rate {rate:g} Hz",
            remedy="leave the powerline out for such records",
        )
    # A phase near 0 would leave little but rounding at exactly twice the powerline's rate.
    phase = generator.uniform(0.25, 0.75) * np.pi
    wave = np.sin(2 * np.pi * POWERLINE / rate * np.arange(shape[1]) + phase)
    return np.asarray(generator.standard_normal(shape[0])[:, None] * wave)


def _white(generator: np.random.Generator, shape: tuple[int, int], rate: float) -> Floats:
    return generator.standard_normal(shape)


NOISES: Mapping[str, Noise] = MappingProxyType(
    {
        "baseline-wander": _band(0.05, 0.5),
        "powerline": _powerline,
        "muscle": _band(20.0, 150.0),
        "white": _white,
    }
)
"""Kinds of noise: (generator, (leads, samples), rate) to noise of any amplitude."""
