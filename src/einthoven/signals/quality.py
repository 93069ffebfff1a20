"""What can be told of a recording without knowing the heart: its size, its unit, the mains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import PreparationError
from einthoven.records.record import Record

__all__ = ["Hum", "Size", "doubts", "mains_hum", "offset_text", "offsets", "refuse_flat", "size_of"]

LARGEST = 5.0  # mV from a lead's median; a QRS above this is nearly always a wrong gain
SMALLEST = 0.05  # mV of range in all leads together
_MICROVOLTS, _VOLTS = 50.0, 0.01  # mV of a lead's usual range, which is about one
_HUM_MV, _HUM_RATIO = 0.02, 5.0
_OFFSET = 0.3  # mV; 148 of PTB-XL's 21,799 records have a lead whose median is further from zero
_SECONDS = 2.0  # least stretch that tells 50 Hz from its neighbours


@dataclass(frozen=True)
class Size:
    """How large a recording is.

    Attributes
    ----------
    low, high : float
        Extremes of all leads, mV.
    usual : float
        Median over leads of the range that holds 98 % of a lead's samples, mV.
    beyond : tuple of str
        Leads that go further than 5 mV from their median.
    """

    low: float
    high: float
    usual: float
    beyond: tuple[str, ...]

    @property
    def unit(self) -> str:
        """The unit that the values look as if they were in: mV, uV, V, or ? in between."""
        if self.usual >= _MICROVOLTS:
            return "uV"
        if self.usual <= _VOLTS:
            return "V"
        plausible = self.high - self.low <= 2 * LARGEST and self.high - self.low >= SMALLEST
        return "mV" if plausible else "?"


def size_of(record: Record) -> Size | None:
    """Measure a recording; None where it has no values, or only flat leads."""
    leads = {}
    for lead, signal in zip(record.leads, record.signal, strict=True):
        values = signal[np.isfinite(signal)].astype(np.float64)
        if len(values) and np.ptp(values) > 0:
            leads[lead] = values
    if not leads:
        return None
    ranges = [np.diff(np.quantile(values, (0.01, 0.99)))[0] for values in leads.values()]
    beyond = [x for x, v in leads.items() if np.abs(v - np.median(v)).max() > LARGEST]
    return Size(
        low=float(min(values.min() for values in leads.values())),
        high=float(max(values.max() for values in leads.values())),
        usual=float(np.median(ranges)),
        beyond=tuple(beyond),
    )


def doubts(record: Record, size: Size | None = None) -> list[str]:
    """What is odd about a recording's values, a sentence each: flat leads, size, unit.

    Parameters
    ----------
    record : Record
    size : Size, optional
        What `size_of` says, where it is known already.
    """
    said = []
    for lead, signal in zip(record.leads, record.signal, strict=True):
        finite = signal[np.isfinite(signal)]
        if len(finite) < len(signal):
            said.append(f"{lead} has {len(signal) - len(finite)} samples that are not numbers")
        if len(finite) and np.ptp(finite) == 0:
            said.append(f"{lead} is flat")
    size = size or size_of(record)
    if size is None:
        return said
    looks = {"uV": "microvolts", "V": "volts"}.get(size.unit)
    if looks or size.unit == "?":
        said.append(
            f"a range of {size.high - size.low:.3g} mV is unusual; check gain and units of the "
            "header"
            + (f": the values look like {looks} that are called millivolts" if looks else "")
        )
    elif size.beyond:
        said.append(f"{' '.join(size.beyond)} further than 5 mV from the median: artefacts?")
    return said


def offsets(record: Record, size: Size | None = None) -> dict[str, float]:
    """Leads that rest away from zero, as where an amplifier's offset was left in.

    Parameters
    ----------
    record : Record
    size : Size, optional
        What `size_of` says, where it is known already.

    Returns
    -------
    dict of str to float
        Medians that are 0.3 mV or more from zero, mV, by lead. Nothing of flat leads, nor where
        the values do not look like millivolts.
    """
    size = size or size_of(record)
    found: dict[str, float] = {}
    if size is None or size.unit != "mV":
        return found
    for lead, signal in zip(record.leads, record.signal, strict=True):
        finite = signal[np.isfinite(signal)]
        if len(finite) and np.ptp(finite) > 0 and abs(rest := float(np.median(finite))) >= _OFFSET:
            found[lead] = rest
    return found


def offset_text(away: Mapping[str, float]) -> str:
    """`V1 V2 at rest up to 0.52 mV from zero`, of what `offsets` found."""
    return f"{' '.join(away)} at rest up to {max(map(abs, away.values())):.2f} mV from zero"


def refuse_flat(record: Record) -> None:
    """Refuse a recording without a signal: networks answer it with confidence all the same.

    Raises
    ------
    PreparationError
        When every lead is constant.
    """
    signals = record.signal
    if not (signals != signals[:, :1]).any():
        raise PreparationError(
            f"{record.source or record.name}: every lead is constant",
            remedy="Leave out the record; there is no signal in it.",
        )


@dataclass(frozen=True)
class Hum:
    """The mains in a recording.

    Attributes
    ----------
    frequency : float
        50 or 60 Hz.
    leads : dict of str to float
        Its amplitude in each lead where it can be seen, mV.
    """

    frequency: float
    leads: dict[str, float]


def mains_hum(record: Record) -> Hum | None:
    """Find 50 or 60 Hz in a recording: a line that stands out of its neighbours in the spectrum.

    Seen is a sine of 0.02 mV or more that is five times what its neighbours are. Leads with values
    that are not numbers are left out, and so are recordings below 2 s, or of a rate at which the
    line cannot be seen.
    """
    found = [_hum(record, frequency) for frequency in (50.0, 60.0)]
    seen = [hum for hum in found if hum.leads]
    return max(seen, key=lambda hum: max(hum.leads.values()), default=None)


def _hum(record: Record, frequency: float) -> Hum:
    samples = record.signal.shape[1]
    if record.rate < 2 * frequency + 12 or samples < _SECONDS * record.rate:
        return Hum(frequency, {})
    frequencies = np.fft.rfftfreq(samples, 1 / record.rate)
    away = np.abs(frequencies - frequency)
    line, around = away <= 0.5, (away >= 2) & (away <= 6)
    leads = {}
    for lead, signal in zip(record.leads, record.signal, strict=True):
        if np.isfinite(signal).all():
            sizes = _sines(signal.astype(np.float64))
            size = float(sizes[line].max())
            if size >= max(_HUM_MV, _HUM_RATIO * float(np.median(sizes[around]))):
                leads[lead] = size
    return Hum(frequency, leads)


def _sines(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Amplitude of the sine that every frequency would be on its own."""
    window = np.hanning(len(signal))
    spectrum = np.fft.rfft((signal - signal.mean()) * window)
    return np.asarray(np.abs(spectrum) * (2 / window.sum()), dtype=np.float64)
