"""Quality of a recording: named findings on its leads, amplitude, unit, signal and noise.

The limits come from PTB-XL's folds 1 to 8; `studies/quality` measures on fold 10 how many faults
they find, and in how many recordings as published they find one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, compress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from einthoven.errors import PreparationError, RecordError
from einthoven.records.beats import FAULTS, fault_of
from einthoven.records.calibration import calibration_start, without_calibration
from einthoven.records.electrodes import LEADS, exchange_of, independent_leads
from einthoven.records.formats import EXCERPT, part_of_record, stretch_starts
from einthoven.records.limb_leads import contradiction
from einthoven.records.metadata import lead_faults
from einthoven.records.record import MILLIVOLTS, Record

Level = Literal["note", "doubt", "unusable"]
LEVELS: tuple[Level, ...] = ("unusable", "doubt", "note")
"""Levels of findings, the gravest first."""
_LEADS_UNLIKE_NAMES = (
    *("flat", "no-signal", "lead-off", "dropouts", "identical-leads", "limb-leads", "unit"),
)

# Usual range of a lead, mV; 0.05 % of PTB-XL's recordings are below, and 0.05 % above.
_SMALL, _LARGE = 0.4, 2.8
_SMALL_COHORT, _LARGE_COHORT = 0.35, 2.6  # mV, of the median of a cohort's usual ranges
_MICROVOLTS, _VOLTS = 50.0, 0.01  # usual ranges that no gain explains: another unit
_COHORT = 16  # records from which on the closer limits hold
_BEYOND = 5.0  # mV from a lead's median
_OFFSET = 0.3  # mV; 148 of PTB-XL's 21,799 records have a lead whose median is further from zero
_RESOLUTION = 0.0011  # mV; smaller steps are no signal
_NO_SIGNAL, _LEAD_OFF = 0.5, 1.0  # s without a step in all leads, and in a single one, at once or
# in 10 s added up, of stretches from so many seconds on; PTB-XL has up to 0.12 and 0.52 s
_NO_SIGNAL_PART, _LEAD_OFF_PART = 0.05, 0.3
_NO_SIGNAL_SHARE = 0.25  # of the recording, from which on it is unusable
_QUIET = 2.0  # s; standard deviations of noise over so long, mV, in all leads and in a single one,
_QUIET_MV, _QUIET_LEAD_MV = 0.06, 0.012  # and
_QUIET_SHARE = 0.3  # of the largest: none of PTB-XL's folds 1 to 8 has less in all leads
_UNRELATED_LEAD = 0.045  # share of a lead's variance that the others explain; 0.2 in a noisy lead
# Standard deviation of a lead's difference from the nearest multiple of another, mV, and its share
# of the lead's own; the least in PTB-XL are 0.006 and 0.019.
_SAME_MV, _SAME_SHARE = 0.004, 0.05
_LOST = 3  # zeros, or 6 ms, from which on 0.05 mV on both sides make a dropout; below, 0.1 mV
_FAR, _FAR_LONG = 0.1, 0.05  # of the same sign
_FINE = 0.005  # mV, a resolution up to which PTB-XL has no more than 5 such in a lead, 10 in all
_RAIL_SHARE = 0.004  # of the recording at a lead's extreme, in stretches of
_RAIL_SAMPLES = 3
_CONTRADICTION = 0.05  # share of the limb leads that Einthoven's law leaves unexplained
_CONTRADICTION_MV = 0.05
_UNRELATED = 0.6  # the same share, of leads with wrong names
_WANDER, _NOISE = (1.0, 1.0), (0.025, 0.05)  # mV in a lead for a note, in half of them for a doubt
_MAINS = (50.0, 60.0)  # Hz
_HUM_MV, _HUM_RATIO = 0.02, 5.0
_LEADS_WORD = r"(?:lead|electrode)(?:\(s\)|s)?"
_STATED = re.compile(  # phrases of the statements of GE, Mortara and Philips on the tracing itself
    r"(?:poor|bad|low|insufficient) (?:data |signal |tracing )?quality"
    r"|data quality may affect interpretation"
    rf"|(?:\w+ )?{_LEADS_WORD} (?:reversal|reversed|interchange|misplacement)"
    rf"|(?:{_LEADS_WORD} )?unsuitable for analysis"
    rf"|(?:(?:baseline|muscle|movement|motion) art[ei]fact|art[ei]fact in {_LEADS_WORD})"
    rf"|baseline wander|missing {_LEADS_WORD}|{_LEADS_WORD} off\b",
    re.IGNORECASE,
)
STRETCHES = 10
"""Stretches of a long recording that are examined."""
_SECONDS = 2.0  # least stretch that tells 50 Hz from its neighbours


@dataclass(frozen=True)
class Finding:
    """A finding on a recording.

    Attributes
    ----------
    name : str
        `missing`, `flat`, `no-signal`, `lead-off`, `dropouts`, `clipping`, `identical-leads`,
        `unit`, `amplitude`, `artefact`, `limb-leads`, `offset`, `baseline-wander`, `noise`,
        `mains-hum`, `calibration-pulse`, `beats`, `electrodes` or `device-quality`; of other names
        in `einthoven.doctor`.
    level : {"note", "doubt", "unusable"}
        A note leaves predictions as they are, a doubt is stated with them, and an unusable
        recording has no calls.
    text : str
        Description, with numbers.
    leads : tuple of str
        Leads concerned; empty if it is the recording as a whole.
    """

    name: str
    level: Level
    text: str
    leads: tuple[str, ...] = ()


def findings(record: Record) -> tuple[Finding, ...]:
    """Find what is unusual about a recording in millivolts, the gravest first.

    One that is longer than 10 minutes is examined in ten stretches of a minute.
    """
    if record.duration <= EXCERPT:
        return _findings(record)
    starts = stretch_starts(record.duration, STRETCHES)
    parts = (part_of_record(record, start, start + EXCERPT / STRETCHES) for start in starts)
    return of_stretches(starts, [_findings(part) for part in parts])


def of_stretches(
    starts: Sequence[float], stretches: Sequence[tuple[Finding, ...]]
) -> tuple[Finding, ...]:
    """Findings on a recording, from those on stretches of it that begin at `starts` (s).

    What makes only some of the stretches unusable is a doubt about the recording.
    """
    groups: dict[tuple[Level, str], dict[float, list[Finding]]] = {}
    for start, results in zip(starts, stretches, strict=True):
        for finding in results:
            group = groups.setdefault((finding.level, finding.name), {})
            group.setdefault(start, []).append(finding)
    joined = []
    for (level, name), group in groups.items():
        every = [finding for each in group.values() for finding in each]
        text = (
            f"in {len(group)} of {len(stretches)} stretches, the first from "
            f"{next(iter(group)):.10g} s: {every[0].text}"
        )
        leads = tuple(dict.fromkeys(chain.from_iterable(finding.leads for finding in every)))
        if level == "unusable" and len(group) < len(stretches):
            joined.append(Finding(name, "doubt", f"unusable: {text}", leads))
        else:
            joined.append(Finding(name, level, text, leads))
    return by_level(joined)


def _findings(record: Record) -> tuple[Finding, ...]:
    results = [*_calibration(record), *_device_quality(record)]
    record = without_calibration(record)
    x = independent_leads(record)
    results += [*_gaps(record), *_flat(record), *_identical(record, x), *_limb_leads(record)]
    amplitude = amplitude_of(record)
    if amplitude is not None:
        results += _amplitude(amplitude)
        if amplitude.unit == "mV":  # in another unit, the limits in mV are without meaning
            results += _stretches(record, x, in_parts=amplitude.is_plausible)
        if amplitude.is_plausible:
            results += [
                *_dropouts(record),
                *_clipping(record, amplitude),
                *_artefacts(record, amplitude),
            ]
    if not any(finding.name in _LEADS_UNLIKE_NAMES for finding in results):
        results += list(_electrodes(x)) or _beats(record, x)
    return by_level(results)


def by_level(results: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings, the gravest first."""
    return tuple(sorted(results, key=lambda finding: LEVELS.index(finding.level)))


def warnings(results: Iterable[Finding]) -> list[str]:
    """Texts of the findings that are more than notes; those of an unusable recording say so."""
    prefixes = {"unusable": "unusable, no calls: ", "doubt": ""}
    return [prefixes[x.level] + x.text for x in results if x.level != "note"]


# ---------------------------------------------------------------------- samples and leads


def _calibration(record: Record) -> Iterator[Finding]:
    start = calibration_start(record)
    if start is not None:
        text = f"calibration pulse from {start / record.rate:.4g} s on: left out"
        yield Finding("calibration-pulse", "note", text)


def _device_quality(record: Record) -> Iterator[Finding]:
    """What the device states about its leads, and in English about the tracing as a whole."""
    stated = lead_faults(record.metadata.get("lead_quality", ""))
    levels: dict[Level, dict[str, list[str]]] = {"doubt": {}, "note": {}}
    for lead, fault, is_mild in stated:
        if lead in record.leads:
            levels["note" if is_mild else "doubt"].setdefault(fault, []).append(lead)
    for level, faults in levels.items():
        if faults:
            text = "; ".join(f"{' '.join(leads)}: {fault}" for fault, leads in faults.items())
            leads = tuple(dict.fromkeys(chain.from_iterable(faults.values())))
            yield Finding("device-quality", level, f"{text}, as the device states", leads)
    phrases = {x[0].lower(): x[0] for x in _STATED.finditer(record.metadata.get("statements", ""))}
    if phrases:
        text = f"{', '.join(phrases.values())}, as the device states"
        yield Finding("device-quality", "doubt", text)


def _gaps(record: Record) -> Iterator[Finding]:
    missing = ~np.isfinite(record.signal)
    if missing.any():
        rows = missing.any(axis=1)
        share = missing.mean(axis=1).max()
        text = f"{missing.sum(axis=1).max()} missing samples ({share:.0%} of the recording)"
        yield _of_leads("missing", "doubt", record, rows, text)


def _flat(record: Record) -> Iterator[Finding]:
    rows = _rows(record, flat_leads(record))
    if rows.any():
        level: Level = "unusable" if rows.all() else "doubt"
        yield _of_leads("flat", level, record, rows, "constant throughout")


def _stretches(
    record: Record, independent: NDArray[np.float64] | None, *, in_parts: bool
) -> Iterator[Finding]:
    """Stretches without a signal or beats, of leads that have them: loose electrodes, or padding.

    `independent` is the result of `independent_leads`; `in_parts` adds short stretches up, which a
    recording of too small values has between its beats.
    """
    parts = (_NO_SIGNAL_PART, _LEAD_OFF_PART) if in_parts else (_NO_SIGNAL, _LEAD_OFF)
    whole = _rows(record, flat_leads(record))
    still = np.abs(np.diff(record.signal, axis=1)) <= _RESOLUTION
    common = np.asarray(still[~whole].all(axis=0))
    stretches = _constant(common, record, _NO_SIGNAL, parts[0])
    constant = _total(stretches) / record.rate
    quiet = _quiet_seconds(record)
    if lost := max(constant, quiet.common):
        is_large = lost >= _NO_SIGNAL_SHARE * record.duration
        yield Finding(
            "no-signal",
            "unusable" if is_large else "doubt",
            f"no {'beats' if quiet.common > constant else 'signal'} in any lead for {lost:.3g} of "
            f"{record.duration:.3g} s: padding, electrodes that came off, or a pause",
        )
    for start, stop in stretches:
        still[:, start:stop] = False
    still[whole] = False
    seconds = np.array(
        [_total(_constant(row, record, _LEAD_OFF, parts[1])) / record.rate for row in still]
    )
    off = seconds > 0
    unrelated = _rows(record, _unrelated(independent)) & ~off
    without = (quiet.single > 0) & ~off & ~unrelated
    for rows, text in (
        (off, f"constant for up to {seconds.max():.3g} s"),
        (unrelated, "nothing of the other leads' beats"),
        (without, f"without beats for up to {quiet.single.max():.3g} s"),
    ):
        if rows.any():
            yield _of_leads("lead-off", "doubt", record, rows, text)


def _constant(
    still: NDArray[np.bool_], record: Record, seconds: float, part: float
) -> list[tuple[int, int]]:
    """Beginning and end of the runs of steps without a change that matter.

    They are those of `seconds` or longer; or of `part` or longer, if they add up to `seconds` in
    ten seconds of the recording.
    """
    runs = _runs(still, part * record.rate)
    least = seconds * record.rate
    if _total(runs) >= least * max(1.0, record.duration / 10):
        return runs
    return [(start, stop) for start, stop in runs if stop - start >= least]


def _total(runs: Iterable[tuple[int, int]]) -> int:
    """Samples of runs of steps, each of which has one sample more than steps."""
    return sum(stop - start + 1 for start, stop in runs)


@dataclass(frozen=True)
class _Quiet:
    """Seconds in which only noise is left: in all leads at once, and in each lead besides."""

    common: float
    single: NDArray[np.float64]


def _quiet_seconds(record: Record) -> _Quiet:
    """Measure noise in place of beats, by the standard deviations of overlapping stretches."""
    half = max(1, round(_QUIET * record.rate / 2))
    count = record.signal.shape[1] // half
    single = np.zeros(len(record.leads))
    if count < 3:
        return _Quiet(0.0, single)
    blocks = np.nan_to_num(record.signal[:, : count * half]).reshape(-1, count, half)
    blocks = blocks - blocks.mean(axis=(1, 2), keepdims=True)
    mean = blocks.mean(axis=2)
    square = np.einsum("lbs,lbs->lb", blocks, blocks) / half
    variance = (square[:, 1:] + square[:, :-1]) / 2 - ((mean[:, 1:] + mean[:, :-1]) / 2) ** 2
    deviations = np.sqrt(np.maximum(variance, 0))  # (leads, stretches)
    largest = deviations.max(axis=0)
    common = (largest < _QUIET_MV) & (largest < _QUIET_SHARE * largest.max())
    usual = deviations.max(axis=1, keepdims=True)
    alone = (deviations < _QUIET_LEAD_MV) & (deviations < _QUIET_SHARE * usual) & ~common
    for row in np.flatnonzero(alone.any(axis=1)):
        single[row] = _seconds(alone[row]) * half / record.rate
    return _Quiet(_seconds(common) * half / record.rate, single)


def _seconds(stretches: NDArray[np.bool_]) -> int:
    """Halves of stretches that overlap by one half."""
    return int((np.append(stretches, False) | np.append(False, stretches)).sum())


def _unrelated(x: NDArray[np.float64] | None) -> list[str]:
    """Chest leads that the others do not explain; `x` is the result of `independent_leads`.

    A limb lead has no electrode of its own, and is left to `electrodes`.
    """
    if x is None:
        return []
    inverse = np.linalg.inv(np.corrcoef(x) + 1e-6 * np.eye(len(x)))
    explained = 1 - 1 / np.diag(inverse)
    return [lead for lead in compress(LEADS, explained < _UNRELATED_LEAD) if lead[0] == "V"]


def _dropouts(record: Record) -> Iterator[Finding]:
    """Samples that were lost and are zero, between values that are far from it."""
    x = np.pad(record.signal, ((0, 0), (1, 1)), constant_values=np.nan).ravel()
    runs = np.flatnonzero(np.diff(x == 0)).reshape(-1, 2)  # the sample before, and the last zero
    if not len(runs):
        return
    lost = runs[:, 1] - runs[:, 0]
    before, after = x[runs[:, 0]], x[runs[:, 1] + 1]
    nearer = np.minimum(np.abs(before), np.abs(after))
    least = max(_LOST, 0.006 * record.rate)
    short = (lost < least) & (nearer >= _FAR) & ((before > 0) == (after > 0))
    long = (lost >= least) & (nearer >= _FAR_LONG)
    rows = runs[:, 0] // (record.signal.shape[1] + 2)
    counts = np.bincount(rows[short], minlength=len(record.leads))
    # A coarser resolution has more zeros, and so has a longer recording.
    resolution = float(np.fmin.reduce(np.abs(x[x != 0])))
    limit = max(1.0, resolution / _FINE) * max(1.0, record.duration / 10)
    if counts.max() >= 5 * limit or counts.sum() >= 12 * limit or long.sum() >= 2 * limit:
        samples = np.bincount(rows, lost * (short | long), minlength=len(record.leads))
        text = f"values between others replaced by zeros, at {samples.max():.0f} samples or more"
        concerned = samples >= max(1, samples.max() / 5)
        yield _of_leads("dropouts", "doubt", record, concerned, text)


def _runs(mask: NDArray[np.bool_], least: float) -> list[tuple[int, int]]:
    """Beginning and end of the runs of True with a least length."""
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    return [(int(a), int(b)) for a, b in edges[edges[:, 1] - edges[:, 0] >= least]]


def _identical(record: Record, independent: NDArray[np.float64] | None) -> Iterator[Finding]:
    """Leads with the same samples; with all independent leads, also multiples but for noise."""
    leads, x = _varying(record)
    rows = [row.tobytes() for row in x]
    repeated = tuple(lead for lead, row in zip(leads, rows, strict=True) if rows.count(row) > 1)
    if repeated:
        text = f"{' '.join(repeated)} hold the same samples"
        yield Finding("identical-leads", "unusable", text, repeated)
    elif independent is not None and (copies := _copies(independent)):
        text = (
            f"{' '.join(copies)} differ from a multiple of another by less than "
            f"{_SAME_MV * 1000:g} uV, as copies do"
        )
        yield Finding("identical-leads", "doubt", text, copies)


def _copies(x: NDArray[np.float64]) -> tuple[str, ...]:
    """Leads that are a multiple of another, with noise; `x` is that of `independent_leads`."""
    x = x - x.mean(axis=1, keepdims=True)
    gram = x @ x.T / x.shape[1]
    sizes = np.diag(gram)
    remainder = sizes - gram**2 / np.maximum(sizes, _SAME_MV**2)[:, None]  # of a column's lead
    same = remainder < np.minimum(_SAME_MV**2, _SAME_SHARE**2 * sizes)
    same[:2, :2] = False  # I and II are multiples if a limb lead has no signal
    np.fill_diagonal(same, False)
    return tuple(compress(LEADS, (same | same.T).any(axis=1)))


def _limb_leads(record: Record) -> Iterator[Finding]:
    gap = contradiction(record)
    if gap is None or gap.share < _CONTRADICTION or gap.millivolts < _CONTRADICTION_MV:
        return
    text = f"the limb leads do not fit each other, by up to {gap.millivolts:.2f} mV"
    if len(gap.explained) == 2:
        text += f"; they would if {' and '.join(gap.explained)} were exchanged"
    elif gap.explained:
        text += f"; they would if {gap.explained[0]} were inverted"
    else:
        text += ": exchanged, or filtered or scaled apart"
    level: Level = "unusable" if gap.explained or gap.share >= _UNRELATED else "doubt"
    yield Finding("limb-leads", level, text, gap.explained)


def _beats(record: Record, independent: NDArray[np.float64] | None) -> Iterator[Finding]:
    if independent is not None and (fault := fault_of(independent, record.rate)):
        yield Finding("beats", "doubt", FAULTS[fault])


def _electrodes(independent: NDArray[np.float64] | None) -> Iterator[Finding]:
    if independent is not None and (exchange := exchange_of(independent)):
        yield Finding("electrodes", "doubt", exchange.text, exchange.leads)


def _rows(record: Record, leads: Sequence[str]) -> NDArray[np.bool_]:
    """Mask of some of a recording's leads."""
    return np.array([lead in leads for lead in record.leads])


def _of_leads(
    name: str, level: Level, record: Record, rows: NDArray[np.bool_], text: str
) -> Finding:
    leads = tuple(lead for lead, row in zip(record.leads, rows, strict=True) if row)
    return Finding(name, level, f"{' '.join(leads)}: {text}", leads)


# ---------------------------------------------------------------------- amplitude and unit


@dataclass(frozen=True)
class Amplitude:
    """Amplitude of a recording.

    Attributes
    ----------
    low, high : float
        Extremes of all leads, mV.
    usual : float
        Geometric mean over leads of the range that holds 98 % of a lead's samples, without its
        moving average over 1 s, mV. It is 0.93 in the median of PTB-XL.
    beyond : tuple of str
        Leads with values further than 5 mV from their median.
    medians : dict of str to float
        Median of each lead that is not flat, mV.
    """

    low: float
    high: float
    usual: float
    beyond: tuple[str, ...] = ()
    medians: dict[str, float] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """Unit that the values look like: mV, uV or V."""
        if self.usual >= _MICROVOLTS:
            return "uV"
        return "V" if self.usual <= _VOLTS else "mV"

    @property
    def is_plausible(self) -> bool:
        """Whether the usual range is that of an ECG; 0.1 % of PTB-XL's recordings are outside."""
        return _SMALL <= self.usual <= _LARGE


def amplitude_of(record: Record) -> Amplitude | None:
    """Measure the amplitude of a recording; None if it has no values or only flat leads."""
    leads, x = _varying(record)
    if not leads:
        return None
    low, median, high = x.min(axis=1), _median(x), x.max(axis=1)
    second = max(1, min(round(record.rate), x.shape[1]))  # of an absurd rate, at most the whole
    steady = x - uniform_filter1d(x, second, axis=1, mode="nearest")
    ranges = np.subtract(*np.quantile(np.sort(steady), (0.99, 0.01), axis=1))
    beyond = np.maximum(high - median, median - low) > _BEYOND
    return Amplitude(
        low=float(low.min()),
        high=float(high.max()),
        usual=float(np.exp(np.log(ranges + 1e-9).mean())),
        beyond=tuple(compress(leads, beyond)),
        medians=dict(zip(leads, median.tolist(), strict=True)),
    )


def _median(x: NDArray[Any]) -> NDArray[Any]:
    """Median along the last axis, without NaN: sorting takes a fifth of the time of np.median."""
    x, middle = np.sort(x), x.shape[-1] // 2
    return np.asarray((x[..., middle] + x[..., (x.shape[-1] - 1) // 2]) / 2)


def _varying(record: Record) -> tuple[list[str], NDArray[np.float64]]:
    """Leads that are not flat, and their values, with a lead's median for the missing ones."""
    x = record.signal.astype(np.float64)
    missing = np.isnan(x)
    if missing.any():
        rows = ~missing.all(axis=1)
        x[rows] = np.where(missing[rows], np.nanmedian(x[rows], axis=1)[:, None], x[rows])
        x[~rows] = 0
    rows = np.ptp(x, axis=1) > 0
    return list(compress(record.leads, rows)), x[rows]


def _amplitude(amplitude: Amplitude) -> Iterator[Finding]:
    if not amplitude.is_plausible:
        yield _wrong_size(amplitude, "a lead")


def _wrong_size(amplitude: Amplitude, lead: str) -> Finding:
    text = (
        f"{lead} has a usual range of {amplitude.usual:.3g} mV, and about 1 mV in an ECG: check "
        "gain and units"
    )
    units = {"uV": "microvolts", "V": "volts"}
    if amplitude.unit not in units:
        return Finding("amplitude", "doubt", text)
    text += f"; the values look like {units[amplitude.unit]} that are declared as millivolts"
    return Finding("unit", "unusable", text)


def cohort_amplitude(records: Iterable[Record]) -> Finding | None:
    """Judge the amplitude of a cohort by some of its records: a gain or unit wrong in all of them.

    The median of several records varies less than a single one, so that the limits are closer.
    None if it is plausible, or no record varies.
    """
    amplitudes = [size for record in records if (size := amplitude_of(record)) is not None]
    if not amplitudes:
        return None
    usual = float(np.median([size.usual for size in amplitudes]))
    low, high = (_SMALL, _LARGE) if len(amplitudes) < _COHORT else (_SMALL_COHORT, _LARGE_COHORT)
    if low <= usual <= high:
        return None
    lead = f"a lead of {len(amplitudes)} records, in their median,"
    return _wrong_size(Amplitude(-usual, usual, usual), lead)


def _clipping(record: Record, amplitude: Amplitude) -> Iterator[Finding]:
    """Leads that stay at their extreme, as at the limit of an amplifier or of a file's numbers."""
    leads, x = _varying(record)
    x -= np.array([[amplitude.medians[lead]] for lead in leads])
    largest = np.abs(x).max(axis=1, keepdims=True)
    least = _RAIL_SHARE * x.shape[1]
    clipped: dict[str, float] = {}
    for extreme in (x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)):
        at_rail = (np.abs(x - extreme) <= _RESOLUTION / 2) & (np.abs(extreme) >= 0.5 * largest)
        for row in np.flatnonzero(at_rail.sum(axis=1) >= least):
            samples = sum(stop - start for start, stop in _runs(at_rail[row], _RAIL_SAMPLES))
            if samples >= least:
                clipped[leads[row]] = samples / record.rate
    if clipped:
        names = tuple(lead for lead in leads if lead in clipped)
        text = f"{' '.join(names)}: at an extreme for {max(clipped.values()):.2g} s in all, cut off"
        yield Finding("clipping", "doubt", text, names)


def offsets(record: Record, amplitude: Amplitude | None = None) -> dict[str, float]:
    """Medians that are 0.3 mV or more from zero, as an amplifier's offset makes them, mV, by lead.

    Flat leads are left out; the result is empty if the values do not look like millivolts.
    `amplitude` is the result of `amplitude_of`, if there is one already.
    """
    amplitude = amplitude or amplitude_of(record)
    if amplitude is None or not amplitude.is_plausible:
        return {}
    return {lead: median for lead, median in amplitude.medians.items() if abs(median) >= _OFFSET}


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
        If the usual range of a lead is 50 mV or more, or 0.01 mV or less.
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


# ---------------------------------------------------------------------- artefacts


def _artefacts(record: Record, amplitude: Amplitude) -> Iterator[Finding]:
    if amplitude.beyond:
        leads = " ".join(amplitude.beyond)
        text = f"{leads}: further than {_BEYOND:g} mV from the median"
        yield Finding("artefact", "doubt", text, amplitude.beyond)
    if away := offsets(record, amplitude):
        largest = max(map(abs, away.values()))
        text = f"{' '.join(away)}: at rest up to {largest:.2f} mV from zero (offset)"
        yield Finding("offset", "note", text, tuple(away))
    yield from _common("baseline-wander", record, baseline_wander(record), _WANDER)
    yield from _common("noise", record, noise(record), _NOISE)
    if hum := mains_hum(record):
        largest = max(hum.leads.values())
        text = f"{' '.join(hum.leads)}: {hum.frequency:g} Hz mains hum, up to {largest:.2f} mV"
        yield Finding("mains-hum", "note", text, tuple(hum.leads))


def _common(
    name: str, record: Record, size: NDArray[np.float64], limits: tuple[float, float]
) -> Iterator[Finding]:
    """A note about the leads with a disturbance, or a doubt if it is large in half of the leads."""
    noted, doubted = limits
    if (rows := size >= noted).any():
        level: Level = "doubt" if (size >= doubted).mean() >= 0.5 else "note"
        text = f"{name.replace('-', ' ')} of up to {size.max():.2g} mV"
        yield _of_leads(name, level, record, rows, text)


def baseline_wander(record: Record) -> NDArray[np.float64]:
    """Range of the medians of seconds within ten of them in each lead, mV; 0 below three seconds.

    It is the median over a longer recording's stretches of ten seconds.
    """
    second = max(1, round(record.rate))
    count = record.signal.shape[1] // second
    if count < 3:
        return np.zeros(len(record.leads))
    blocks = np.nan_to_num(record.signal[:, : count * second]).reshape(-1, count, second)
    medians = _median(blocks)
    length = min(count, 10)
    stretches = medians[:, : count // length * length].reshape(len(blocks), -1, length)
    return np.asarray(np.median(np.ptp(stretches, axis=2), axis=1), dtype=np.float64)


def noise(record: Record) -> NDArray[np.float64]:
    """Standard deviation of noise above some 25 Hz in each lead, mV.

    It is estimated from the median distance of a sample from the mean of those 10 ms before and
    after, which the QRS complexes hardly change.
    """
    step = max(1, round(0.01 * record.rate))
    x = np.nan_to_num(record.signal)
    if x.shape[1] <= 2 * step:
        return np.zeros(len(x))
    middle = x[:, step:-step] - (x[:, : -2 * step] + x[:, 2 * step :]) / 2
    # 0.6745 is the median of |z| for a normal z; the variances of the three samples add up to 1.5.
    deviations = _median(np.abs(middle)) / (0.6745 * np.sqrt(1.5))
    return np.asarray(deviations, dtype=np.float64)


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
    samples = record.signal.shape[1]
    if record.rate < 2 * _MAINS[0] + 12 or samples < _SECONDS * record.rate:
        return None
    rows = np.isfinite(record.signal).all(axis=1)
    leads, x = list(compress(record.leads, rows)), record.signal[rows].astype(np.float64)
    window = np.hanning(samples)
    # Amplitude of a single sine at every frequency.
    sines = np.abs(np.fft.rfft((x - x.mean(axis=1, keepdims=True)) * window)) * (2 / window.sum())
    hums = [_hum(record.rate, frequency, leads, sines) for frequency in _MAINS]
    visible = [hum for hum in hums if hum.leads]
    return max(visible, key=lambda hum: max(hum.leads.values()), default=None)


def _hum(rate: float, frequency: float, leads: Sequence[str], sines: NDArray[np.float64]) -> Hum:
    if rate < 2 * frequency + 12 or not leads:
        return Hum(frequency, {})
    distance = np.abs(np.linspace(0, rate / 2, sines.shape[1]) - frequency)
    amplitude = sines[:, distance <= 0.5].max(axis=1)
    around = np.median(sines[:, (distance >= 2) & (distance <= 6)], axis=1)
    visible = amplitude >= np.maximum(_HUM_MV, _HUM_RATIO * around)
    return Hum(frequency, dict(compress(zip(leads, amplitude.tolist(), strict=True), visible)))
