"""Findings are made where there is a fault, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from einthoven.cohorts.synthetic import sample_record
from einthoven.records.quality import (
    amplitude_of,
    cohort_amplitude,
    findings,
    mains_hum,
    offsets,
    warnings,
)
from einthoven.records.record import STANDARD_LEADS, Record

LEADS = ("I", "II", "V1")


def _record(signal: np.ndarray, rate: float = 500.0) -> Record:
    return Record.create(signal.astype(np.float32), rate, leads=LEADS[: len(signal)], name="r")


def _beats(samples: int = 5000, rate: float = 500.0) -> np.ndarray:
    """1 mV beats with noise of 10 microvolts."""
    time = np.arange(samples) / rate
    beats = np.exp(-(((time * 1.2) % 1 - 0.5) ** 2) / 2e-4)
    return beats + 0.01 * np.random.default_rng(0).standard_normal((3, samples))


@pytest.mark.parametrize("mains", [50, 60])
@pytest.mark.parametrize("rate", [250.0, 500.0, 1000.0])
def test_the_mains_are_found_with_their_size(mains: int, rate: float) -> None:
    signal = _beats(int(10 * rate), rate)
    assert mains_hum(_record(signal, rate)) is None
    signal[1] += 0.08 * np.sin(2 * np.pi * (mains + 0.1) * np.arange(signal.shape[1]) / rate)
    hum = mains_hum(_record(signal, rate))
    assert hum is not None
    assert hum.frequency == mains
    assert hum.leads.keys() == {"II"}
    assert hum.leads["II"] == pytest.approx(0.08, rel=0.2)


def test_broad_noise_and_small_lines_are_not_mains_hum() -> None:
    signal = _beats()
    loud = signal + 0.3 * np.random.default_rng(1).standard_normal(signal.shape)
    assert mains_hum(_record(loud)) is None
    assert mains_hum(_record(signal + 0.01 * np.sin(np.arange(5000) * 0.2 * np.pi))) is None


def test_hum_is_not_searched_for_in_unsuitable_recordings() -> None:
    hum = np.sin(2 * np.pi * 50 * np.arange(1000) / 500)
    broken = _beats(1000) + 0.1 * hum
    broken[0, 5] = np.nan
    result = mains_hum(_record(broken))
    assert result is not None
    assert result.leads.keys() == {"II", "V1"}
    assert mains_hum(_record(broken[:, :900])) is None  # below 2 s
    assert mains_hum(_record(_beats(1000, 100), 100.0)) is None


@pytest.mark.parametrize(("factor", "unit"), [(1, "mV"), (1000, "uV"), (1e-3, "V"), (20, "mV")])
def test_units_by_size(factor: float, unit: str) -> None:
    amplitude = amplitude_of(_record(factor * _beats()))
    assert amplitude is not None
    assert amplitude.unit == unit
    assert amplitude.is_plausible == (factor == 1)


def test_extreme_leads_and_flat_records() -> None:
    signal = _beats()
    signal[2, 10] = -6.0
    amplitude = amplitude_of(_record(signal))
    assert amplitude is not None
    assert (amplitude.beyond, amplitude.unit) == (("V1",), "mV")
    assert amplitude_of(_record(np.full((3, 100), 0.3))) is None
    assert amplitude_of(_record(np.full((3, 100), np.nan))) is None


def test_leads_with_an_offset() -> None:
    signal = _beats()
    assert offsets(_record(signal)) == {}
    signal[0] += 0.28
    signal[1] -= 0.5
    signal[2] = 0.7  # flat, which is another warning
    away = offsets(_record(signal))
    assert away == {"II": pytest.approx(-0.5, abs=0.02)}
    assert offsets(_record(1000 * signal)) == {}  # another doubt comes first


# ---------------------------------------------------------------------- findings


@pytest.fixture(scope="module")
def sound() -> Record:
    """Twelve leads, 10 s, without a finding."""
    record = sample_record()
    assert findings(record) == ()
    return record


def changed(record: Record, change: Callable[[np.ndarray, int], None]) -> Record:
    """Change a copy of the signal; `change` is called with it and the samples in a second."""
    signal = record.signal.copy()
    change(signal, round(record.rate))
    return replace(record, signal=signal)


def half(x: np.ndarray, second: int) -> None:
    x[:, 5 * second :] = 0


def a_second(x: np.ndarray, second: int) -> None:
    x[:, -second:] = x[:, -second - 1 : -second]


def padded_ends(x: np.ndarray, second: int) -> None:
    x[:, : 2 * second] = 0
    x[:, 8 * second :] = 0


def loose(x: np.ndarray, second: int) -> None:
    x[7, : 3 * second] = 0.1


def held(part: float, times: int, rows: slice = slice(None)) -> Callable[[np.ndarray, int], None]:
    """Values held for a part of a second, again and again."""

    def change(x: np.ndarray, second: int) -> None:
        length, step = round(part * second), x.shape[1] // times
        for start in range(step - length, x.shape[1], step):
            x[rows, start : start + length] = x[rows, start : start + 1]

    return change


def flat(x: np.ndarray, second: int) -> None:
    x[[7, 8]] = 0.1


def all_flat(x: np.ndarray, second: int) -> None:
    x[:] = 0


def noise_for(seconds: int) -> Callable[[np.ndarray, int], None]:
    def change(x: np.ndarray, second: int) -> None:
        x[:, -seconds * second :] = _noise((12, seconds * second), 0.005)

    return change


def quiet_lead(x: np.ndarray, second: int) -> None:
    x[7, : 5 * second] = _noise(5 * second, 0.005)


def only_mains(x: np.ndarray, second: int) -> None:
    x[7] = 0.1 * np.sin(2 * np.pi * 50 * np.arange(x.shape[1]) / second + 1)


def zeroed(share: float, block: int, rows: slice = slice(None)) -> Callable[..., None]:
    """Zeros in blocks of samples, at other places in each lead."""

    def change(x: np.ndarray, second: int) -> None:
        lost = np.random.default_rng(0).random((12, x.shape[1] // block + 1)) < share
        x[rows] = np.where(np.repeat(lost, block, axis=1)[rows, : x.shape[1]], 0, x[rows])

    return change


def zeroed_at_once(x: np.ndarray, second: int) -> None:
    x[:, np.random.default_rng(0).random(x.shape[1]) < 0.05] = 0


def nearly_copied(x: np.ndarray, second: int) -> None:
    x[8] = x[7] + _noise(x.shape[1], 0.001)


def multiple(x: np.ndarray, second: int) -> None:
    x[10] = np.round(-0.7 * x[8], 3)


def _noise(shape: int | tuple[int, ...], size: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, size, shape).astype(np.float32)


def rail(x: np.ndarray, second: int) -> None:
    np.clip(x[9], -9, 0.4 * x[9].max(), out=x[9])


def copied(x: np.ndarray, second: int) -> None:
    x[10] = x[9]


def volts(x: np.ndarray, second: int) -> None:
    x /= 1000


def microvolts(x: np.ndarray, second: int) -> None:
    x *= 1000


def tenfold(x: np.ndarray, second: int) -> None:
    x *= 10


def a_tenth(x: np.ndarray, second: int) -> None:
    x /= 10


def spike(x: np.ndarray, second: int) -> None:
    x[6, second : second + 3] += 8


def missing(x: np.ndarray, second: int) -> None:
    x[3:5, :second] = np.nan


def wander(x: np.ndarray, second: int) -> None:
    x[6:8] += np.sin(0.2 * np.pi * np.arange(x.shape[1]) / second).astype(np.float32)


def noisy(x: np.ndarray, second: int) -> None:
    x += np.random.default_rng(0).normal(0, 0.1, x.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "name", "level", "leads"),
    [
        (half, "no-signal", "unusable", ()),
        (padded_ends, "no-signal", "unusable", ()),
        (a_second, "no-signal", "doubt", ()),
        (loose, "lead-off", "doubt", ("V2",)),
        (held(0.48, 10), "no-signal", "unusable", ()),
        (held(0.1, 8), "no-signal", "doubt", ()),
        (held(0.4, 3, slice(7, 8)), "lead-off", "doubt", ("V2",)),
        (flat, "flat", "doubt", ("V2", "V3")),
        (all_flat, "flat", "unusable", STANDARD_LEADS),
        (noise_for(5), "no-signal", "unusable", ()),
        (noise_for(2), "no-signal", "doubt", ()),
        (quiet_lead, "lead-off", "doubt", ("V2",)),
        (nearly_copied, "identical-leads", "doubt", ("V2", "V3")),
        (multiple, "identical-leads", "doubt", ("V3", "V5")),
        (rail, "clipping", "doubt", ("V4",)),
        (copied, "identical-leads", "unusable", ("V4", "V5")),
        (volts, "unit", "unusable", ()),
        (microvolts, "unit", "unusable", ()),
        (tenfold, "amplitude", "doubt", ()),
        (a_tenth, "amplitude", "doubt", ()),
        (spike, "artefact", "doubt", ("V1",)),
        (missing, "missing", "doubt", ("aVR", "aVL")),
        (wander, "baseline-wander", "note", ("V1", "V2")),
    ],
)
def test_each_fault_is_found_and_nothing_else(
    sound: Record,
    change: Callable[[np.ndarray, int], None],
    name: str,
    level: str,
    leads: tuple[str, ...],
) -> None:
    (finding,) = findings(changed(sound, change))
    assert (finding.name, finding.level, finding.leads) == (name, level, leads)
    assert all(lead in finding.text for lead in leads)
    assert len(warnings([finding])) == (level != "note")


def test_a_loose_lead_is_found_in_coarse_samples_at_a_high_rate(sound: Record) -> None:
    """All leads stand still for moments there, which do not end the stretch of one."""
    signal = np.repeat(sound.signal, 4, axis=1)
    signal = (np.round(signal / 0.005) * 0.005).astype(np.float32)
    signal[7, : 3 * 4 * round(sound.rate)] = 0
    results = findings(replace(sound, signal=signal, rate=4 * sound.rate))
    assert [(x.name, x.leads) for x in results if x.level != "note"] == [("lead-off", ("V2",))]


@pytest.mark.parametrize(
    ("change", "others"),
    [
        (zeroed(0.05, 1), {"limb-leads"}),  # at other times in each lead
        (zeroed(0.2, 1), {"limb-leads"}),
        (zeroed(0.05, 25), {"limb-leads"}),
        (zeroed(0.2, 50), {"limb-leads"}),
        (zeroed(0.1, 1, slice(7, 8)), set()),
        (zeroed_at_once, set()),
    ],
)
def test_lost_samples(
    sound: Record, change: Callable[[np.ndarray, int], None], others: set[str]
) -> None:
    results = findings(changed(sound, change))
    assert {x.name for x in results if x.level != "note"} - {"noise"} == {"dropouts"} | others
    (lost,) = (x for x in results if x.name == "dropouts")
    assert lost.level == "doubt"
    assert "V2" in lost.leads


@pytest.mark.parametrize("step", [0.01, 0.02])
def test_zeros_of_a_coarse_resolution_are_no_dropouts(sound: Record, step: float) -> None:
    coarse = replace(sound, signal=(np.round(sound.signal / step) * step).astype(np.float32))
    assert all(x.name != "dropouts" for x in findings(coarse))


def test_a_pause_of_a_second_is_a_signal(sound: Record) -> None:
    def pause(x: np.ndarray, second: int) -> None:
        x[:, 4 * second : 5 * second] = _noise((12, second), 0.005)

    assert findings(changed(sound, pause)) == ()


def test_a_lead_of_nothing_but_mains_is_off(sound: Record) -> None:
    results = findings(changed(sound, only_mains))
    assert [(x.name, x.leads) for x in results if x.level != "note"] == [("lead-off", ("V2",))]


def test_noise_in_all_leads_is_a_doubt_and_the_gravest_finding_is_first(sound: Record) -> None:
    noise = next(x for x in findings(changed(sound, noisy)) if x.name == "noise")
    assert (noise.level, len(noise.leads)) == ("doubt", 12)
    several = changed(changed(changed(sound, wander), half), loose)
    levels = [finding.level for finding in findings(several)]
    assert levels == sorted(levels, key=["unusable", "doubt", "note"].index)
    assert len(set(levels)) == 3


@pytest.mark.parametrize(
    ("one", "other"), [("aVR", "aVL"), ("I", "II"), ("II", "III"), ("I", "aVF"), ("aVL", "aVF")]
)
def test_exchanged_limb_leads_are_named(sound: Record, one: str, other: str) -> None:
    rows = [STANDARD_LEADS.index(one), STANDARD_LEADS.index(other)]
    signal = sound.signal.copy()
    signal[rows] = signal[rows[::-1]]
    exchanged = replace(sound, signal=signal)
    (finding,) = findings(exchanged)
    assert (finding.name, finding.level) == ("limb-leads", "unusable")
    assert set(finding.leads) == {one, other}
    assert findings(exchanged.select(("V1", one, other))) == ()  # two limb leads fit always


def test_inverted_and_rescaled_limb_leads(sound: Record) -> None:
    signal = sound.signal.copy()
    signal[2] *= -1
    (finding,) = findings(replace(sound, signal=signal))
    assert (finding.name, finding.leads) == ("limb-leads", ("III",))
    signal[2] *= -0.5
    (finding,) = findings(replace(sound, signal=signal))
    assert (finding.name, finding.level, finding.leads) == ("limb-leads", "doubt", ())
    offset = sound.signal + np.linspace(0, 0.1, 12, dtype=np.float32)[:, None]
    assert findings(replace(sound, signal=offset)) == ()


def test_a_cohort_is_judged_by_the_median_of_its_records(sound: Record) -> None:
    def scaled(factor: float, count: int = 20) -> list[Record]:
        return [replace(sound, signal=sound.signal * np.float32(factor))] * count

    assert cohort_amplitude([]) is None
    assert cohort_amplitude(scaled(1)) is None
    assert cohort_amplitude([*scaled(1, 11), *scaled(10, 9)]) is None
    levels = {factor: cohort_amplitude(scaled(factor)) for factor in (5, 10, 0.2, 0.1, 1000, 1e-3)}
    assert [finding.level for finding in levels.values() if finding] == [
        *["doubt"] * 4,
        *["unusable"] * 2,
    ]
    factor = 2.7 / amplitude_of(sound).usual  # type: ignore[union-attr]
    assert cohort_amplitude(scaled(factor, 1)) is None
    assert cohort_amplitude(scaled(factor)) is not None


def test_what_the_device_states_is_a_finding() -> None:
    plain = _record(_beats())
    assert findings(plain) == ()
    lines = "I: moderate noise\nV1: moderate noise\nII: electrode off\nV6: severe noise\nI: so so"
    statements = "Sinus rhythm\n*** Poor data quality, see Dr. No\nSuspect ARM LEAD REVERSAL"
    doubt, phrases, note = findings(
        replace(plain, metadata={"lead_quality": lines, "statements": statements})
    )
    assert {doubt.name, phrases.name, note.name} == {"device-quality"}
    assert (doubt.level, doubt.leads) == ("doubt", ("II",))
    assert (note.level, note.leads) == ("note", ("I", "V1"))
    assert phrases.level == "doubt"
    assert "Poor data quality, ARM LEAD REVERSAL" in phrases.text
    assert "Dr." not in phrases.text


@pytest.mark.parametrize(
    "statement",
    ["Sinus rhythm", "Pacemaker artifact", "No previous tracing", "Wandering atrial pacemaker"],
)
def test_other_statements_are_no_finding(statement: str) -> None:
    record = _record(_beats())
    assert findings(replace(record, metadata={"statements": statement})) == ()


def test_a_long_recording_is_examined_in_stretches() -> None:
    """What makes one stretch unusable is a doubt about the day."""
    signal = np.tile(_beats(1000, 100.0), 120)  # 20 minutes
    assert findings(_record(signal, 100.0)) == ()
    signal[:, : 70 * 100] = 0.25
    by_name = {finding.name: finding for finding in findings(_record(signal, 100.0))}
    assert (by_name["flat"].level, by_name["flat"].leads) == ("doubt", LEADS)
    assert "1 of 10" in by_name["flat"].text
    signal[:] = 0.25
    assert [finding.level for finding in findings(_record(signal, 100.0))] == ["unusable"]
