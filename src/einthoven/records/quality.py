"""Quality of a recording: amplitude, unit, offsets, flat leads and mains hum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import PreparationError, RecordError
from einthoven.records.record import MILLIVOLTS, Record

LARGEST = 5.0  # mV from a lead's median; a QRS above this is nearly always a wrong gain
SMALLEST = 0.05  # mV of range in all leads together
_MICROVOLTS, _VOLTS = 50.0, 0.01  # mV of a lead's usual range, which is about one
_HUM_MV, _HUM_RATIO = 0.02, 5.0
_OFFSET = 0.3  # mV; 148 of PTB-XL's 21,799 records have a lead whose median is further from zero
_SECONDS = 2.0  # least stretch that tells 50 Hz from its neighbours


@dataclass(frozen=True)
class Amplitude:
    """Amplitude of a recording.

    Attributes
    ----------
    low, high : float
        Extremes of all leads, mV.
    usual : float
        Median over leads of the range that holds 98 % of a lead's samples, mV.
    beyond : tuple of str
        Leads with values further than 5 mV from their median.
    """

    low: float
    high: float
    usual: float
    beyond: tuple[str, ...]

    @property
    def unit(self) -> str:
        """Most plausible unit of the values: mV, uV, V, or ? if none is."""
        if self.usual >= _MICROVOLTS:
            return "uV"
        if self.usual <= _VOLTS:
            return "V"
        plausible = self.high - self.low <= 2 * LARGEST and self.high - self.low >= SMALLEST
        return "mV" if plausible else "?"


def amplitude_of(record: Record) -> Amplitude | None:
    """Measure the amplitude of a recording; None if it has no values or only flat leads."""
    leads = {lead: values.astype(np.float64) for lead, values in _varying(record)}
    if not leads:
        return None
    ranges = [np.diff(np.quantile(values, (0.01, 0.99)))[0] for values in leads.values()]
    beyond = [x for x, v in leads.items() if np.abs(v - np.median(v)).max() > LARGEST]
    return Amplitude(
        low=float(min(values.min() for values in leads.values())),
        high=float(max(values.max() for values in leads.values())),
        usual=float(np.median(ranges)),
        beyond=tuple(beyond),
    )


def _varying(record: Record) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Leads that are not flat, with their finite values."""
    for lead, signal in zip(record.leads, record.signal, strict=True):
        values = signal[np.isfinite(signal)]
        if len(values) and np.ptp(values) > 0:
            yield lead, values


def quality_warnings(record: Record, amplitude: Amplitude | None = None) -> list[str]:
    """Warnings about flat leads, amplitude and unit of a recording, one phrase each.

    `amplitude` is the result of `amplitude_of`, if there is one already.
    """
    messages = []
    for lead, signal in zip(record.leads, record.signal, strict=True):
        finite = signal[np.isfinite(signal)]
        if len(finite) < len(signal):
            messages.append(f"{lead} has {len(signal) - len(finite)} missing samples")
        if len(finite) and np.ptp(finite) == 0:
            messages.append(f"{lead} is flat")
    amplitude = amplitude or amplitude_of(record)
    if amplitude is None:
        return messages
    unit = {"uV": "microvolts", "V": "volts"}.get(amplitude.unit)
    if unit or amplitude.unit == "?":
        messages.append(
            f"a range of {amplitude.high - amplitude.low:.3g} mV is unusual; check gain and units "
            "of the header"
            + (f": the values look like {unit} that are declared as millivolts" if unit else "")
        )
    elif amplitude.beyond:
        leads = " ".join(amplitude.beyond)
        messages.append(f"{leads} further than 5 mV from the median: artefacts?")
    return messages


def offsets(record: Record, amplitude: Amplitude | None = None) -> dict[str, float]:
    """Medians that are 0.3 mV or more from zero, as an amplifier's offset makes them, mV, by lead.

    Flat leads are left out; the result is empty if the values do not look like millivolts.
    `amplitude` is the result of `amplitude_of`, if there is one already.
    """
    amplitude = amplitude or amplitude_of(record)
    if amplitude is None or amplitude.unit != "mV":
        return {}
    medians = {lead: float(np.median(values)) for lead, values in _varying(record)}
    return {lead: median for lead, median in medians.items() if abs(median) >= _OFFSET}


def offset_text(offsets: Mapping[str, float]) -> str:
    """Describe the result of `offsets`: `V1 V2 at rest up to 0.52 mV from zero`."""
    return f"{' '.join(offsets)} at rest up to {max(map(abs, offsets.values())):.2f} mV from zero"


def flat_leads(record: Record) -> tuple[str, ...]:
    """Leads that are constant over the whole record, as those that a file pads with zeros."""
    flat = (record.signal == record.signal[:, :1]).all(axis=1)
    return tuple(lead for lead, constant in zip(record.leads, flat, strict=True) if constant)


def refuse_flat(record: Record) -> None:
    """Refuse a recording without a signal, for which networks would give confident predictions.

    Raises
    ------
    PreparationError
        If every lead is constant.
    """
    if len(flat_leads(record)) == len(record.leads):
        raise PreparationError(
            f"{record.source or record.name}: every lead is constant",
            remedy="leave out the record; there is no signal in it",
        )


def refuse_unit(record: Record, unit: str = "mV") -> None:
    """Refuse a recording whose values suit another unit than the one that was stated.

    Raises
    ------
    RecordError
        If the range of most leads is 50 mV or more, or 0.01 mV or less.
    """
    amplitude = amplitude_of(record)
    if amplitude is None or _VOLTS < amplitude.usual < _MICROVOLTS:
        return
    ranges = {other: amplitude.usual * MILLIVOLTS[other] / MILLIVOLTS[unit] for other in MILLIVOLTS}
    fitting = [other for other, range in ranges.items() if _VOLTS < range < _MICROVOLTS]
    raise RecordError(
        record.source or record.name,
        "unit",
        unit,
        f"the usual range of a lead is {amplitude.usual:.3g} mV, that of an ECG about 1 mV"
        + (f"; the values look like {fitting[0]}" if fitting else ""),
        remedy="state the unit of the values: " + " or ".join(MILLIVOLTS),
    )


@dataclass(frozen=True)
class Hum:
    """Mains hum in a recording.

    Attributes
    ----------
    frequency : float
        50 or 60 Hz.
    leads : dict of str to float
        Its amplitude in each lead in which it is visible, mV.
    """

    frequency: float
    leads: dict[str, float]


def mains_hum(record: Record) -> Hum | None:
    """Find 50 or 60 Hz in a recording, as a line above its neighbours in the spectrum.

    A visible sine has 0.02 mV or more and five times the amplitude of its neighbours. Leads with
    missing values are left out, and so are recordings below 2 s or of too low a rate.
    """
    hums = [_hum(record, frequency) for frequency in (50.0, 60.0)]
    visible = [hum for hum in hums if hum.leads]
    return max(visible, key=lambda hum: max(hum.leads.values()), default=None)


def _hum(record: Record, frequency: float) -> Hum:
    samples = record.signal.shape[1]
    if record.rate < 2 * frequency + 12 or samples < _SECONDS * record.rate:
        return Hum(frequency, {})
    distance = np.abs(np.fft.rfftfreq(samples, 1 / record.rate) - frequency)
    line, around = distance <= 0.5, (distance >= 2) & (distance <= 6)
    window = np.hanning(samples)
    leads = {}
    for lead, signal in zip(record.leads, record.signal.astype(np.float64), strict=True):
        if np.isfinite(signal).all():
            # Amplitude of a single sine at every frequency.
            sines = np.abs(np.fft.rfft((signal - signal.mean()) * window)) * (2 / window.sum())
            amplitude = float(sines[line].max())
            if amplitude >= max(_HUM_MV, _HUM_RATIO * float(np.median(sines[around]))):
                leads[lead] = amplitude
    return Hum(frequency, leads)
