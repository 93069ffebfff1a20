"""Preparation against scipy and the published transforms; refusals of values and batches."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from beats import beats
from numpy.typing import NDArray
from scipy import signal as sps

from einthoven.errors import PreparationError
from einthoven.records.record import STANDARD_LEADS, Record
from einthoven.signals import filters, prepare
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import (
    evaluation_starts,
    prepare_batch,
    prepare_record,
    random_starts,
)
from einthoven.signals.steps import (
    Baseline,
    Centre,
    Decimate,
    Derive,
    Fill,
    Filter,
    Fir,
    MinMax,
    Resample,
    Scale,
    Standardise,
    Window,
)

ST_MEM = Preparation(
    leads=STANDARD_LEADS,
    steps=(
        Resample(250),
        Window(2250, evaluation_crops=3),
        Filter("highpass", 0.67, order=5),
        Filter("lowpass", 40, order=5),
        Standardise(over="record"),
    ),
)
TWO = ("II", "V5")


def _by_scipy(steps: tuple, x: NDArray[np.float64], rate: float, start: int) -> NDArray[np.float64]:
    """One record, step by step, in float64."""
    for step in steps:
        if isinstance(step, Resample):
            if step.rate != rate:
                x = sps.resample(x, int(x.shape[-1] * step.rate / rate), axis=-1)
            rate = step.rate
        elif isinstance(step, Window):
            x = np.pad(x, [(0, 0), (0, max(0, step.samples - x.shape[-1]))])
            x = x[:, start : start + step.samples]
        elif isinstance(step, Filter):
            design = sps.butter(step.order, step.cutoff, step.kind, fs=rate, output="sos")
            x = sps.sosfiltfilt(design, x)
        elif isinstance(step, Standardise):
            axis = (0, 1) if step.over == "record" else 1
            x = (x - x.mean(axis, keepdims=True)) / x.std(axis, keepdims=True)
        elif isinstance(step, Centre):
            x = x - x.mean(1, keepdims=True)
        else:
            x = (x - step.mean) / step.std
    return x


def _check_against_scipy(preparation: Preparation, samples: int, rate: float) -> None:
    x = beats(5, len(preparation.leads), samples, rate)
    generator = torch.Generator().manual_seed(1)
    starts = random_starts(preparation, samples, rate=rate, count=5, generator=generator)
    ours = prepare_batch(preparation, torch.from_numpy(x).float(), rate=rate, starts=starts)
    single = x.astype(np.float32).astype(np.float64)
    pairs = zip(single, starts.tolist(), strict=True)
    expected = np.stack([_by_scipy(preparation.steps, r, rate, start) for r, start in pairs])
    assert ours.dtype == torch.float32
    assert ours.shape == expected.shape == (5, len(preparation.leads), preparation.window)
    assert np.abs(ours.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("rate", "stored", "crops"),
    [(500, "crops_500", [0, 1, 2]), (100, "first_last_crop_100", [0, 2])],
)
def test_st_mem_equals_the_published_transforms(
    shared: Path, rate: int, stored: str, crops: list[int]
) -> None:
    with np.load(shared / "parity" / "preprocess_st_mem.npz") as golden:
        raw, expected = torch.from_numpy(golden[f"raw{rate}_uV"]), golden[stored]
    starts = torch.tensor(evaluation_starts(ST_MEM, raw.shape[1], rate=rate))[crops]
    batch = raw.expand(len(crops), -1, -1)
    ours = prepare_batch(ST_MEM, batch, rate=rate, starts=starts, unit="uV").numpy()
    assert np.abs(ours - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("rate", "samples"),
    [
        (500, 4999),
        (100, 997),
        (250, 2250),
        (257, 2570),
        (1000, 15001),
        (128.5, 1285),
        (500, 100_000),
    ],
)
def test_st_mem_equals_scipy_for_other_lengths_and_rates(rate: float, samples: int) -> None:
    _check_against_scipy(ST_MEM, samples, rate)


@pytest.mark.parametrize(
    "steps",
    [
        (Resample(500), Standardise("lead"), Window(2500)),
        (Resample(500), Filter("bandpass", (0.67, 40), order=4), Window(2501), Standardise()),
        (Filter("lowpass", 45, order=3), Resample(250), Window(1000), Filter("highpass", 0.5)),
        (Resample(250), Window(1250), Scale(mean=0.1, std=0.5)),
        (Centre(), Resample(250), Window(1250), Filter("lowpass", 40, order=2)),
        (Resample(250), Centre(), Window(1250), Centre(), Scale(mean=0.1, std=0.5)),
        (Scale(mean=0.1, std=0.5), Resample(100), Window(600), Standardise("lead")),
        (Resample(500), Window(2500), Standardise(), Resample(100), Filter("lowpass", 20, order=2)),
        (Resample(300), Resample(200), Window(1000), Filter("bandpass", (0.05, 47), order=3)),
    ],
    ids=lambda steps: "-".join(step.name for step in steps),
)
@pytest.mark.parametrize("rate", [500, 120])
def test_steps_run_in_the_order_given(steps: tuple, rate: float) -> None:
    _check_against_scipy(Preparation(TWO, steps), int(10.2 * rate), rate)


def test_short_records_are_padded_with_zeros_at_the_end() -> None:
    steps = (Resample(250), Window(2250, short="pad"), Filter("highpass", 0.67), Standardise())
    preparation = Preparation(TWO, steps)
    assert evaluation_starts(preparation, 3000, rate=500) == [0]
    _check_against_scipy(preparation, 3000, 500)
    raw = Preparation(TWO, steps[:2])
    out = prepare_batch(raw, torch.ones(1, 2, 500), rate=250, starts=torch.tensor([0]))
    assert out[0, 0].tolist() == [1.0] * 500 + [0.0] * 1750


def test_microvolts_equal_millivolts_and_a_large_batch_equals_single_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = torch.from_numpy((1000 * beats(7, 12, 5000, 500)).astype(np.int16))
    starts = torch.tensor([0, 1, 7, 99, 125, 249, 250])
    whole = prepare_batch(ST_MEM, raw, rate=500, starts=starts, unit="uV")
    volts = prepare_batch(ST_MEM, raw.double() / 1000, rate=500, starts=starts)
    torch.testing.assert_close(volts, whole, rtol=0, atol=2e-5)
    monkeypatch.setattr(prepare, "_VALUES_AT_A_TIME", 3 * 12 * 5000)
    parts = prepare_batch(ST_MEM, raw, rate=500, starts=starts, unit="uV")
    torch.testing.assert_close(parts, whole, rtol=0, atol=2e-5)


def test_the_callers_signals_are_left_alone() -> None:
    for steps in (ST_MEM.steps, (Resample(500), Standardise(), Window(4000))):
        signals = torch.from_numpy(beats(2, 12, 5000, 500)).float()
        before = signals.clone()
        preparation = Preparation(STANDARD_LEADS, steps)
        prepare_batch(preparation, signals, rate=500, starts=torch.tensor([3, 5]))
        assert torch.equal(signals, before)


def test_precision_does_not_follow_the_callers_settings() -> None:
    backend = torch.backends.mkldnn.matmul
    signals = torch.from_numpy(beats(2, 12, 5000, 500)).float()
    starts = torch.tensor([3, 200])
    plain = prepare_batch(ST_MEM, signals, rate=500, starts=starts)
    # Maps are checked when they are made, and this must not follow the settings either.
    filters.crop_filter.cache_clear()
    before = backend.fp32_precision
    backend.fp32_precision = "tf32"
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cast = prepare_batch(ST_MEM, signals.requires_grad_(), rate=500, starts=starts)
        assert backend.fp32_precision == "tf32"
    finally:
        backend.fp32_precision = before
    torch.testing.assert_close(cast, plain, rtol=0, atol=2e-6)
    assert not cast.requires_grad


def test_flat_signals_become_zero_and_never_nan() -> None:
    signals = torch.from_numpy(beats(3, 12, 5000, 500)).float()
    signals[0] = 0.0
    signals[1] = 2.5
    starts = torch.tensor([0, 10, 20])
    out = prepare_batch(ST_MEM, signals, rate=500, starts=starts)
    assert not out[:2].any()
    assert torch.isfinite(out).all()
    by_lead = Preparation(STANDARD_LEADS, (Resample(500), Window(5000), Standardise("lead")))
    signals[2, 4] = -1.7
    out = prepare_batch(by_lead, signals[2:], rate=500, starts=torch.tensor([0]))
    assert not out[0, 4].any()
    torch.testing.assert_close(out[0, 5].std(correction=0), torch.tensor(1.0))


def test_a_centred_preparation_passes_no_offset() -> None:
    raw = Preparation(TWO, (Resample(250), Window(500), Scale(0.0, 0.25)))
    centred = raw.centred()
    assert centred.steps == (Centre(), *raw.steps)
    assert centred.centred() is centred
    assert (raw.passes_offsets, centred.passes_offsets) == (True, False)
    x = torch.from_numpy(beats(3, 2, 5000, 500)).float()
    for preparation, moved in ((raw, 2.0), (centred, 0.0)):
        starts = torch.tensor([0, 5, 17])
        one, other = (
            prepare_batch(preparation, each, rate=500, starts=starts) for each in (x, x + 0.5)
        )
        torch.testing.assert_close(other - one, torch.full_like(one, moved), rtol=0, atol=1e-5)
    limbs = Preparation(("I", "II", "III"), raw.steps).deriving(("I", "II"))
    assert limbs.centred().derived == ("III",)


def test_centring_keeps_missing_values() -> None:
    steps = (Centre(), Resample(100), Window(4), Fill("zero"))
    x = torch.tensor([[[1.0, float("nan"), 3.0, 5.0], [2.0, 2.0, 2.0, 2.0]]])
    out = prepare_batch(Preparation(TWO, steps), x, rate=100, starts=torch.tensor([0]))
    assert out.tolist() == [[[-2.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0]]]


EVERY_STEP = Preparation(
    ("I", "II", "III"),
    (
        Derive(["III"], ["I", "II"]),
        Centre(),
        Scale(0.1, 3),
        Fill("zero"),
        Fir([0.05, 47]),
        Resample(500, method="linear"),
        Baseline(0.4),
        MinMax(),
        Window(100),
        Fill("crop-mean"),
        Filter("bandpass", [0.67, 40.1], order=4),
        Decimate(5, over="end-to-end"),
        Standardise("lead"),
    ),
)


@pytest.mark.parametrize("preparation", [ST_MEM, EVERY_STEP])
def test_json_round_trip_is_exact(preparation: Preparation) -> None:
    again = Preparation.from_dict(json.loads(json.dumps(preparation.to_dict())))
    assert again == preparation
    assert hash(again) == hash(preparation)
    assert again.digest == preparation.digest
    assert len({str(step) for step in again.steps}) == len(again.steps)
    assert "; " not in "".join(map(str, again.steps))  # a description is split there


def test_the_digest_tells_preparations_apart() -> None:
    others = [
        ST_MEM.with_evaluation_crops(2),
        ST_MEM.with_window(seconds=8),
        Preparation(STANDARD_LEADS, (*ST_MEM.steps[:2], ST_MEM.steps[3], *ST_MEM.steps[2:3])),
        Preparation(STANDARD_LEADS[::-1], ST_MEM.steps),
    ]
    assert len({ST_MEM.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    ("samples", "crops", "expected"),
    [
        (2500, 3, [0, 125, 250]),
        (2250, 3, [0]),
        (2251, 3, [0, 1]),
        (2252, 3, [0, 1, 2]),
        (2253, 3, [0, 1, 2]),
        (4500, 3, [0, 1125, 2250]),
        (2500, 1, [125]),
        (2500, 2, [0, 250]),
        (2500, 7, [0, 41, 82, 123, 164, 205, 246]),
    ],
)
def test_evaluation_starts(samples: int, crops: int, expected: list[int]) -> None:
    preparation = ST_MEM.with_evaluation_crops(crops)
    assert evaluation_starts(preparation, samples, rate=250) == expected


def test_random_starts_reach_both_ends_and_follow_the_generator() -> None:
    def draw(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return random_starts(ST_MEM, 4520, rate=500, count=2000, generator=generator)

    assert torch.equal(draw(1), draw(1))
    assert set(draw(1).tolist()) == set(range(11))


def _record(leads: tuple[str, ...], samples: int = 5000) -> Record:
    signal = beats(1, len(leads), samples, 500)[0].astype(np.float32)
    return Record(signal, 500.0, leads, "r1", None, "r1.hea", "0" * 64, {})


def test_a_record_is_prepared_with_its_leads_picked_by_name() -> None:
    record = _record(("V5", "I", "II"))
    preparation = Preparation(TWO, ST_MEM.steps)
    out = prepare_record(preparation, record)
    assert out.shape == (3, 2, 2250)
    expected = [
        _by_scipy(preparation.steps, record.signal[[2, 0]].astype(float), 500, start)
        for start in (0, 125, 250)
    ]
    np.testing.assert_allclose(out.numpy(), np.stack(expected), atol=5e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_missing_and_infinite_values_are_refused(bad: float) -> None:
    signals = torch.zeros(40, 12, 5000)
    signals[37, 2, 4999] = bad
    with pytest.raises(PreparationError, match=r"record 37 .*III \(1 of 5000"):
        prepare_batch(ST_MEM, signals, rate=500, starts=torch.zeros(40, dtype=torch.long))


def test_a_missing_value_of_a_record_is_named_by_lead() -> None:
    signal = np.zeros((12, 5000), dtype=np.float32)
    signal[2, 4999] = np.nan
    record = Record.create(signal, 500, leads=STANDARD_LEADS, name="an ECG")
    with pytest.raises(PreparationError, match=r"^an ECG: .*lead III \(1 of 5000 samples\)\n"):
        prepare_record(ST_MEM, record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signals": torch.zeros(2, 11, 5000)}, "12, samples"),
        ({"signals": torch.zeros(2, 12, 4400)}, "2200 samples"),
        ({"rate": 0.0}, "rate = 0.0"),
        ({"rate": float("nan")}, "rate = nan"),
        ({"starts": torch.tensor([0, 251])}, "251"),
        ({"starts": torch.tensor([-1, 0])}, "-1"),
        ({"starts": torch.tensor([0])}, r"\(1,\)"),
        ({"starts": torch.tensor([0.0, 1.0])}, "float32"),
        ({"unit": "V"}, "unit = 'V'"),
    ],
)
def test_batches_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    arguments = {"signals": torch.zeros(2, 12, 5000), "rate": 500.0, "starts": torch.tensor([0, 1])}
    arguments |= change
    with pytest.raises(PreparationError, match=message):
        prepare_batch(ST_MEM, arguments.pop("signals"), **arguments)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"step": "median", "samples": 3}, "'median'"),
        ({"step": "resample", "rate": 250, "methd": "fourier"}, "'methd'"),
        ({"step": "resample"}, "resample: rate"),
        ("resample", " 'resample' "),
        ({1: 2, "step": "resample", "rate": 100}, "'1'"),
        ({"step": ["resample"]}, r"\['resample'\]"),
    ],
)
def test_unknown_steps_and_keys_are_refused(step: object, message: str) -> None:
    with pytest.raises(PreparationError, match=message):
        Preparation.from_dict({"leads": ["I"], "steps": [step]})


def test_filters_that_the_rate_or_the_window_cannot_carry_are_refused() -> None:
    with pytest.raises(PreparationError, match="cutoff 50 Hz"):
        Preparation(TWO, (Resample(100), Window(900), Filter("lowpass", 50)))
    first = Preparation(TWO, (Filter("lowpass", 60), Resample(500), Window(900)))
    short = Preparation(TWO, (Resample(100), Window(18), Filter("lowpass", 40)))
    for preparation, message in [(first, "cutoff 60 Hz"), (short, "18 samples")]:
        with pytest.raises(PreparationError, match=message):
            prepare_batch(preparation, torch.zeros(1, 2, 1000), rate=100, starts=torch.tensor([0]))
