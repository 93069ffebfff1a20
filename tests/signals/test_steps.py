"""Steps against scipy: filters, medians, decimation, filling, computed leads, and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from beats import beats
from numpy.typing import NDArray
from scipy import signal as sps
from torch import Tensor

from einthoven.errors import PreparationError
from einthoven.records.record import Record
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import prepare_batch, prepare_record
from einthoven.signals.steps import (
    Baseline,
    Decimate,
    Derive,
    Fill,
    Filter,
    Fir,
    MinMax,
    Resample,
    Scale,
    Standardise,
    Step,
    Window,
    step_from_dict,
)

TWO = ("II", "V5")
LIMB = ("I", "II", "III", "aVR", "aVL", "aVF")
FOLLOW = LIMB[2:]
Floats = NDArray[np.float64]


def _prepared(preparation: Preparation, x: Floats, rate: float, start: int = 0) -> Tensor:
    starts = torch.full((len(x),), start)
    return prepare_batch(preparation, torch.from_numpy(x).float(), rate=rate, starts=starts)


def _close(result: Tensor, expected: Floats) -> None:
    assert result.shape == expected.shape
    assert np.abs(result.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def _whole(samples: int, *steps: Step) -> Preparation:
    """Steps on records of 500 Hz whose window is the whole record."""
    return Preparation(TWO, (Resample(500), *steps, Window(samples)))


# ------------------------------------------------------------------ results


@pytest.mark.parametrize(
    ("rate", "samples"), [(500, 5000), (100, 1000), (257, 2571), (1000, 10_000), (500, 152)]
)
def test_fir_is_scipys_filter_forwards_and_backwards(rate: float, samples: int) -> None:
    x = beats(3, 2, samples, rate)
    taps = int(0.3 * rate) | 1
    h = sps.firwin(taps, [0.05, 47], pass_zero=False, fs=rate)
    padlen = min(3 * taps, samples - 1)
    preparation = Preparation(TWO, (Fir((0.05, 47)), Resample(rate), Window(samples)))
    _close(_prepared(preparation, x, rate), sps.filtfilt(h, 1.0, x, padlen=padlen))


def test_fir_refuses_low_rates_and_short_records() -> None:
    first = Preparation(TWO, (Fir((0.05, 47)), Resample(500), Window(100)))
    with pytest.raises(PreparationError, match="cutoff 47 Hz"):
        _prepared(first, beats(3, 2, 900, 90), 90)
    with pytest.raises(PreparationError, match="150 samples"):
        _prepared(first, beats(3, 2, 150, 500), 500)


@pytest.mark.parametrize(("rate", "samples"), [(100, 1000), (257, 2571), (1000, 9999), (250, 5)])
def test_linear_resampling_keeps_the_ends(rate: float, samples: int) -> None:
    x = beats(3, 2, samples, rate)
    length = int(samples * 500 / rate)
    preparation = Preparation(TWO, (Resample(500, method="linear"), Window(length)))
    places = np.linspace(0, samples - 1, length)
    expected = [[np.interp(places, np.arange(samples), row) for row in record] for record in x]
    result = _prepared(preparation, x, rate)
    _close(result, np.array(expected))
    torch.testing.assert_close(result[..., [0, -1]], torch.from_numpy(x[..., [0, -1]]).float())


@pytest.mark.parametrize(("seconds", "window"), [(0.4, 201), (0.2, 101), (0.003, 3)])
def test_baseline_is_a_running_median(seconds: float, window: int) -> None:
    x = beats(3, 2, 1200, 500).astype(np.float32).astype(np.float64)
    median = [[sps.medfilt(row, window) for row in record] for record in x]
    _close(_prepared(_whole(1200, Baseline(seconds)), x, 500), x - np.array(median))


def test_min_max_spreads_every_lead_from_minus_one_to_one() -> None:
    x = beats(3, 2, 1000, 500)
    x[1, 0], x[2] = 3.7, 0.0
    low, high = x.min(-1, keepdims=True), x.max(-1, keepdims=True)
    result = _prepared(_whole(1000, MinMax()), x, 500)
    _close(result, 2 * (x - low) / (high - low + 1e-8) - 1)
    assert (result[1, 0] == -1).all()
    assert (result[2] == -1).all()


def test_a_flat_lead_stays_flat_after_a_filter() -> None:
    """Rounding in float32 is not scaled to the range of a signal."""
    x = np.full((3, 2, 5000), 4.0)
    x[1] = -0.3
    preparation = Preparation(TWO, (Fir((0.05, 47)), Resample(500), MinMax(), Window(5000)))
    assert (_prepared(preparation, x, 500) == -1).all()


@pytest.mark.parametrize("over", ["lead", "end-to-end"])
@pytest.mark.parametrize(("samples", "factor"), [(2500, 5), (996, 4), (35, 5)])
def test_decimation_is_scipys(over: str, samples: int, factor: int) -> None:
    x = beats(3, 2, samples, 500)
    preparation = Preparation(TWO, (Resample(500), Window(samples), Decimate(factor, over=over)))
    rows = x.reshape(3, 1, -1) if over == "end-to-end" else x
    result = _prepared(preparation, x, 500)
    _close(result, sps.decimate(rows, factor, axis=-1).reshape(3, 2, -1))
    assert (preparation.rate, preparation.window) == (500 / factor, samples // factor)


def test_missing_values_are_filled() -> None:
    x = beats(3, 2, 1000, 500)
    x[0, 1, 100:200] = x[2, 0] = np.nan
    crop = x[..., 50:550]
    steps = (Resample(500), Window(500))
    zero = _prepared(Preparation(TWO, (Fill("zero"), *steps)), x, 500, start=50)
    _close(zero, np.nan_to_num(crop, nan=0.0))
    mean = _prepared(Preparation(TWO, (*steps, Fill("crop-mean"))), x, 500, start=50)
    means = np.nanmean(crop, axis=(1, 2), keepdims=True)
    _close(mean, np.where(np.isnan(crop), means, crop))
    # A filter in between makes all of the lead what one of its values is, and no other lead.
    spread = (Fir((0.05, 47)), *steps, Fill("crop-mean"))
    result = _prepared(Preparation(TWO, spread), x, 500, start=50)
    assert result[0, 1].unique().numel() == 1
    torch.testing.assert_close(result[0, 1, 0], result[0, 0].mean())


def test_infinity_and_records_without_values_are_refused_even_with_a_fill_step() -> None:
    x = beats(3, 2, 1000, 500)
    preparation = Preparation(TWO, (Resample(500), Window(500), Fill("crop-mean")))
    x[1, 1, 3] = np.inf
    with pytest.raises(PreparationError, match=r"record 1 .*V5"):
        _prepared(preparation, x, 500)
    x[1] = np.nan
    with pytest.raises(PreparationError, match=r"^fill: .*NaN"):
        _prepared(preparation, x, 500)


# ------------------------------------------------------------------ computed leads


def _derived(leads: tuple[str, ...], step: Derive) -> Preparation:
    return Preparation(leads, (step, Resample(500), Window(1000)))


@pytest.mark.parametrize("of", [("I", "II"), ("III", "aVF"), ("aVR", "II")])
def test_derived_leads_keep_the_law(of: tuple[str, str]) -> None:
    x = beats(3, 2, 1000, 500)
    one, two = x[:, 0], x[:, 1]
    limb = np.stack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2], axis=1)
    rest = tuple(lead for lead in LIMB if lead not in of)
    preparation = _derived(LIMB, Derive(rest, of))
    assert set(preparation.sources) == set(of)
    assert preparation.derived == rest
    sources = limb[:, [LIMB.index(lead) for lead in preparation.sources]]
    _close(_prepared(preparation, sources, 500), limb)
    whole = torch.from_numpy(np.round(1000 * sources)).short()
    starts = torch.zeros(3, dtype=torch.long)
    result = prepare_batch(preparation, whole, rate=500, starts=starts, unit="uV")
    assert np.abs(result.numpy() - limb).max() < 2.1e-3  # what rounding to microvolts leaves


def test_source_leads_are_read_even_if_they_are_not_prepared() -> None:
    x = beats(3, 3, 1000, 500)
    alone = _derived(("V1", "III"), Derive(("III",), ("I", "II")))
    assert alone.sources == ("V1", "I", "II")
    _close(_prepared(alone, x, 500), np.stack([x[:, 0], x[:, 2] - x[:, 1]], axis=1))


def test_a_preparation_derives_missing_leads() -> None:
    plain = Preparation((*LIMB, "V1"), (Resample(500), Window(1000)))
    assert plain.deriving((*LIMB, "V1", "V2")) is plain
    assert plain.deriving(("I", "V1")) is plain
    eight = plain.deriving(("V1", "II", "I"))
    assert eight == _derived((*LIMB, "V1"), Derive(FOLLOW, ("I", "II")))
    assert eight.digest != plain.digest
    assert ", ".join(FOLLOW) in eight.describe()
    # What was measured stays, and a record without the first pair is computed from another.
    assert plain.deriving(("I", "II", "aVF", "V1")).derived == ("III", "aVR", "aVL")
    again = eight.deriving(("II", "III", "V1"))
    assert (again.sources, again.derived) == (("II", "III", "V1"), ("I", "aVR", "aVL", "aVF"))
    # Chest leads do not follow: they are still required.
    assert plain.deriving(("I", "II")).sources == ("I", "II", "V1")


def test_missing_leads_are_computed_only_by_a_preparation_that_derives_them() -> None:
    leads = ("I", "II", "V1")
    signal = beats(3, 3, 1000, 500)[0].astype(np.float32)
    record = Record(signal, 500.0, leads, "r1", None, "r1.hea", "0" * 64, {})
    plain = Preparation((*LIMB, "V1"), (Resample(500), Window(1000)))
    with pytest.raises(PreparationError, match=", ".join(FOLLOW)) as refusal:
        prepare_record(plain, record)
    assert "preparation.deriving(record.leads)" in refusal.value.remedy
    out = prepare_record(plain.deriving(record.leads), record)[0].numpy()
    np.testing.assert_allclose(out[2], signal[1] - signal[0], atol=1e-6)
    with pytest.raises(PreparationError, match="leads V2") as refusal:
        prepare_record(plain.with_leads(("I", "V2")), record)
    assert "lead_subset=" in refusal.value.remedy


# ------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resample(0), "rate = 0"),
        (lambda: Resample("250"), "rate = '250'"),
        (lambda: Resample(250, method="cubic"), "method = 'cubic'"),
        (lambda: Window(2250.0), "samples = 2250.0"),
        (lambda: Window(2250, evaluation_crops=True), "evaluation_crops = True"),
        (lambda: Filter("lowpass", (0.67, 40)), r"filter: lowpass .*\(0\.67, 40"),
        (lambda: Filter("notch", 50, order=5), "order = 5"),
        (lambda: Scale(float("nan"), 1.0), "mean = nan"),
        (lambda: Preparation((), (Resample(500), Window(9))), r"leads = \(\)"),
        (lambda: Preparation(("I", "I"), (Resample(500), Window(9))), r"leads = \('I', 'I'\)"),
        (lambda: Preparation(TWO, (Resample(500),)), "0 windows"),
        (lambda: Preparation(TWO, (Window(9),)), "Resample"),
        (lambda: _whole(100).with_window(seconds=0.001), "0.001 s"),
        (lambda: Preparation.from_dict({"leads": ["I"]}), r"\{'leads': \['I'\]\}"),
        *(
            (lambda seconds=seconds: _whole(100).with_window(seconds=seconds), f"{seconds} s")
            for seconds in (math.nan, math.inf, -math.inf)
        ),
        *(
            (lambda values=values: Preparation.from_dict(values), r"\.to_dict")
            for values in (
                {"leads": "II", "steps": []},
                {"leads": None, "steps": []},
                {"leads": [1], "steps": []},
                {"leads": ["II"], "steps": 3},
                None,
            )
        ),
        (lambda: Fir(47), "cutoff = 47"),
        (lambda: Fir((47, 0.05)), r"fir: .*\(47\.0, 0\.05\)"),
        (lambda: Decimate(1), "factor = 1"),
        (lambda: Derive("III", ("I", "II")), "leads = 'III'"),
        (lambda: Derive(("V1",), ("I", "II")), "derive: V1"),
        (lambda: Derive(("III",), ("I", "II", "aVR")), r"of = \('I', 'II', 'aVR'\)"),
        (lambda: _derived(("I", "II"), Derive(("III",), ("I", "II"))), "derive: III"),
        (
            lambda: Preparation(TWO, (Resample(500), Derive(("I",), ("II", "III")), Window(9))),
            "step 2",
        ),
        (lambda: _whole(100, Decimate(5)), "^decimate .*crops"),
        (lambda: _whole(100, Fill("crop-mean")), "^fill .*crops"),
        (
            lambda: Preparation(TWO, (Resample(500), Window(99), Decimate(5))),
            "99 samples .*5",
        ),
        (
            lambda: Preparation(
                TWO, (Resample(500), Window(100), Decimate(5), Filter("lowpass", 50))
            ),
            "cutoff 50 Hz",
        ),
    ],
)
def test_contradictions_are_refused_at_construction(make, message: str) -> None:
    with pytest.raises(PreparationError, match=message):
        make()


def test_one_corner_may_be_a_list_and_numbers_numpys() -> None:
    x = beats(3, 2, 1000, 500)
    alone = Filter("highpass", 0.67)
    for step in (
        Filter("highpass", (0.67,)),
        step_from_dict({"step": "filter", "kind": "highpass", "cutoff": [0.67]}),
        Filter("highpass", np.float64(0.67), order=np.int64(5)),
    ):
        found, expected = (_prepared(_whole(1000, each), x, 500) for each in (step, alone))
        assert torch.equal(found, expected)
    band = Filter("bandpass", np.array([0.5, 40]))
    assert band == Filter("bandpass", (0.5, 40.0))
    assert step_from_dict(band.to_dict()) == band


def test_a_window_that_is_decimated_keeps_a_multiple() -> None:
    steps = (Resample(500), Window(2500), Decimate(5, over="end-to-end"), Standardise())
    preparation = Preparation(TWO, steps)
    assert preparation.with_window(seconds=2.5).window == 250
    with pytest.raises(PreparationError, match="1252 samples"):
        preparation.with_window(seconds=2.504)
