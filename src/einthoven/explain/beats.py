"""Beats of a recording, and their P, QRS and ST-T windows.

R peaks are the largest deflections of all leads together at 8 to 25 Hz. The windows have fixed
widths around them, because an attribution is spread over tens of milliseconds anyway:

    P      from 250 ms before the R peak, but not before 65 % of the preceding RR interval
    QRS    60 ms before to 80 ms after the R peak
    ST-T   up to 450 ms after the R peak, but not into the next P window
    TP     the remainder

A QRS complex of more than 140 ms reaches beyond its window, and a P window holds no P wave where
there is none, as in atrial fibrillation.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sps
from scipy.ndimage import uniform_filter1d

from einthoven.records.record import Record

Wave = Literal["P", "QRS", "ST-T", "TP"]
WAVES: tuple[Wave, ...] = ("P", "QRS", "ST-T", "TP")
"""Windows of a beat, in their order; TP is the remainder up to the next beat."""

_BAND = (8.0, 25.0)  # Hz
_P_START, _QRS_START, _QRS_END, _T_END = -0.25, -0.06, 0.08, 0.45  # s from the R peak
_P_SHARE = 0.65  # of the preceding RR interval, before which no P window begins
_REFRACTORY = 0.25  # s
_HEIGHT = 0.3  # of the usual peak, from which on a deflection is a beat
_SMOOTHING = 0.08  # s
_T_WAVE, _T_HEIGHT = 0.4, 0.6  # s after a beat, and of its height, below which a peak is a T wave


class Segment(NamedTuple):
    """A window of a beat.

    `beat` counts from 1; 0 is what precedes the first beat. `start` and `end` are in s from the
    start of the record.
    """

    wave: Wave
    beat: int
    start: float
    end: float


def r_peaks(record: Record) -> NDArray[np.float64]:
    """Times of the R peaks in s, ascending; empty without any, or below 1 s."""
    rate, band = record.rate, band_pass(record.rate)
    if record.duration < 1 or band is None:
        return np.zeros(0)
    x = np.nan_to_num(record.signal.astype(np.float64))
    energy = (sps.sosfiltfilt(band, x - x[:, :1], axis=1) ** 2).sum(axis=0)
    # A running sum leaves values around zero, of both signs, behind a stretch of high energy.
    smooth = uniform_filter1d(energy, max(1, round(_SMOOTHING * rate)))
    envelope = np.sqrt(np.maximum(smooth, 0))
    distance = max(1, round(_REFRACTORY * rate))
    places, _ = sps.find_peaks(np.pad(envelope, 1), distance=distance)
    if not len(places):
        return np.zeros(0)
    heights = envelope[places - 1]
    # The highest peaks of as many as there are seconds: usual beats, and few of what lies between.
    usual = np.median(np.sort(heights)[-max(1, round(record.duration)) :])
    peaks = places[heights >= max(_HEIGHT * usual, 1e-9)] - 1
    peaks = _without_t_waves(peaks, envelope[peaks], rate)
    half = max(1, round(0.06 * rate))
    sharp = np.sqrt(energy)
    windows = [(max(0, place - half), place + half + 1) for place in peaks]
    return np.array([(a + int(sharp[a:b].argmax())) / rate for a, b in windows])


def band_pass(rate: float) -> NDArray[np.float64] | None:
    """Second-order sections of the filter for QRS complexes, `(sections, 6)`; None up to 50 Hz."""
    if rate <= 2 * _BAND[1]:
        return None
    sections: NDArray[np.float64] = sps.butter(2, _BAND, "bandpass", fs=rate, output="sos")
    return sections


def _without_t_waves(
    places: NDArray[np.intp], heights: NDArray[np.float64], rate: float
) -> NDArray[np.intp]:
    """Leave out what follows a much higher peak so closely that it is its T wave."""
    beats: list[int] = []
    for i, place in enumerate(places):
        is_close = bool(beats) and place - places[beats[-1]] < _T_WAVE * rate
        if not (is_close and heights[i] < _T_HEIGHT * heights[beats[-1]]):
            beats.append(i)
    return places[beats]


def segments(record: Record) -> tuple[Segment, ...]:
    """Windows of all beats, in order: a partition of the record.

    A record without beats is one TP window.
    """
    peaks, end = r_peaks(record), record.duration
    bounds: list[tuple[Wave, int, float]] = [("TP", 0, 0.0)]
    for place, peak in enumerate(peaks):
        beat = place + 1
        before = peaks[place - 1] if place else -np.inf
        p_start = _p_start(before, peak)
        bounds += [("P", beat, p_start), ("QRS", beat, peak + _QRS_START)]
        bounds += [("ST-T", beat, peak + _QRS_END)]
        following = _p_start(peak, peaks[beat]) if beat < len(peaks) else np.inf
        if peak + _T_END < following:
            bounds += [("TP", beat, peak + _T_END)]
    starts = np.clip([start for *_, start in bounds], 0.0, end)
    ends = np.append(starts[1:], end)
    parts = zip(bounds, starts.tolist(), ends.tolist(), strict=True)
    return tuple(Segment(wave, beat, a, b) for (wave, beat, _), a, b in parts if b > a)


def _p_start(before: float, peak: float) -> float:
    interval = peak - before
    latest = before + _P_SHARE * interval if np.isfinite(interval) else -np.inf
    return float(min(max(peak + _P_START, latest), peak + _QRS_START))


def segment_of(parts: tuple[Segment, ...], times: NDArray[np.float64]) -> NDArray[np.intp]:
    """Number of the segment of each time in s; times outside the record have the nearest."""
    starts = np.array([part.start for part in parts])
    return np.clip(np.searchsorted(starts, times, side="right") - 1, 0, len(parts) - 1)
