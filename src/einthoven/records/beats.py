"""The average beat: inverted in all leads, reversed in time, or of another sampling rate.

For each of these, a logistic regression tells recordings with it from those without, by the course
of the eight independent leads around the steepest deflections, and by their spectrum and rhythm.
`beats.json` holds the coefficients, fitted to PTB-XL's folds 1 to 8 by `studies/quality`. All of
its patients are adults at rest: an infant's beats look like those of twice the sampling rate.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from einthoven.records.electrodes import steady_rate

FAULTS = {
    "inverted": "all leads seem to be inverted",
    "reversed": "time seems to run backwards",
    "fast": "the beats look too short and too fast: is the sampling rate half of what is declared?",
    "slow": "the beats look too long and too slow: is the sampling rate twice what is declared?",
}
RATE = 100.0  # Hz, to which leads are brought
_LEAST, _MOST = 4.0, 30.0  # s that are looked at
_LAGS = np.array([0, 1, 2, 3, 4, 6, 8, 12, 16, 20, 24, 32, 40])
_LAGS = np.concatenate([-_LAGS[:0:-1], _LAGS])  # samples around a steep deflection, forwards last
_SHIFTS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40])  # samples, of the autocorrelation
_BANDS = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 18.0, 25.0, 35.0)  # Hz, the lower limits
_SHORTEST, _LONGEST = 30, 180  # samples between beats


def fault_of(x: NDArray[np.float64], rate: float) -> str | None:
    """Find what the average beat looks like: one of `FAULTS`, or None.

    None as well below 4 s; of a long recording, the first 30 s are looked at.

    Parameters
    ----------
    x : ndarray, shape (8, samples)
        Result of `electrodes.independent_leads`.
    rate : float
        Sampling rate of the recording, Hz, as declared.
    """
    x = at_100_hz(x, rate)[:, : round(_MOST * RATE)]
    if x.shape[1] < _LEAST * RATE:
        return None
    weights = coefficients()
    scores = weights[:, :-1] @ features(x) + weights[:, -1]
    best = int(scores.argmax())
    return list(FAULTS)[best] if scores[best] >= 0 else None


def at_100_hz(x: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Interpolate `independent_leads` of a recording with a sampling rate linearly to 100 Hz."""
    rate = steady_rate(rate)
    if rate == RATE:
        return x
    times = np.arange(int((x.shape[1] - 1) * RATE / rate) + 1) * (rate / RATE)
    before = np.minimum(times.astype(np.intp), max(x.shape[1] - 2, 0))
    after = np.minimum(before + 1, x.shape[1] - 1)
    result: NDArray[np.float64] = x[:, before] + (times - before) * (x[:, after] - x[:, before])
    return result


def features(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features of eight leads at 100 Hz, shape (8, samples).

    The mean of each lead around steep deflections, its root mean square over leads, the
    autocorrelation, the spectrum, and the interval between beats with its regularity.
    """
    x = x / (x.std(axis=1, keepdims=True) + 1e-9)
    samples, margin = x.shape[1], int(_LAGS[-1])
    steepness = np.zeros(samples)
    steepness[1:-1] = ((x[:, 2:] - x[:, :-2]) ** 2).sum(axis=0)
    large = np.partition(steepness, round(0.98 * samples))[round(0.98 * samples)] + 1e-9
    weight = np.minimum(steepness / large, 1) ** 2
    inner = weight[margin:-margin] / (weight[margin:-margin].sum() + 1e-9)
    windows = sliding_window_view(x, samples - 2 * margin, axis=1)[:, margin + _LAGS]
    beat = windows @ inner  # (leads, lags)

    length = 1 << (samples + _LONGEST).bit_length()
    power = (np.abs(np.fft.rfft(x, length)) ** 2).sum(axis=0)
    alike = np.fft.irfft(power)
    alike = alike[_SHIFTS] / (alike[0] + 1e-9)
    edges = np.searchsorted(np.fft.rfftfreq(length, 1 / RATE), _BANDS)
    bands = np.add.reduceat(power, edges)
    rhythm = np.fft.irfft(np.abs(np.fft.rfft(weight - weight.mean(), length)) ** 2)
    interval = _SHORTEST + int(rhythm[_SHORTEST:_LONGEST].argmax())
    return np.concatenate(
        [
            beat.ravel(),
            np.log(np.sqrt((beat**2).mean(axis=0)) + 0.02),
            alike,
            np.log(bands / (bands.sum() + 1e-9) + 1e-6),
            [np.log(interval), rhythm[interval] / (rhythm[0] + 1e-9), (weight > 0.3).mean()],
        ]
    )


@cache
def coefficients() -> NDArray[np.float64]:
    """Weights of the features and a constant for each of `FAULTS`; a sum >= 0 indicates it."""
    text = files("einthoven.records").joinpath("beats.json").read_text(encoding="utf-8")
    table = json.loads(text)
    return np.array([table[name] for name in FAULTS])
