"""Properties of preparation that hold for records of any rate, length and number of leads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from einthoven.errors import PreparationError
from einthoven.signals import steps as registry
from einthoven.signals.filters import crop_filter
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import prepare_batch, prepare_mixed, resampled_length
from einthoven.signals.steps import (
    Centre,
    Fill,
    Filter,
    Fir,
    Frame,
    MinMax,
    Resample,
    Scale,
    Standardise,
    Step,
    Window,
    register_step,
)

BAND = (Filter("highpass", 0.67, order=2), Filter("lowpass", 20, order=3))
LINEAR = {
    "resample": (),
    "straight lines": (Resample(100, method="linear"),),
    "centred": (Centre(),),
    "fir": (Fir((0.05, 20)),),
    "whole-record filters": BAND[:1],
}
BEHIND = {"nothing": (), "filters": BAND, "scale": (Scale(0.0, 0.3),)}
UNLIKE = {"standardised": (Standardise("lead"),), "extremes": (MinMax(),)}


@dataclass(frozen=True)
class Case:
    """Records of one rate and length, and a preparation for them."""

    signals: Tensor
    rate: float
    preparation: Preparation
    starts: Tensor

    def prepared(self, signals: Tensor | None = None, rows: slice = slice(None)) -> Tensor:
        signals = self.signals if signals is None else signals
        starts = self.starts[rows]
        return prepare_batch(self.preparation, signals[rows], rate=self.rate, starts=starts)


@st.composite
def cases(draw: st.DrawFn, *, behind: dict = BEHIND | UNLIKE) -> Case:
    rate = draw(st.sampled_from([50.0, 100.0, 128.5, 250.0, 257.0, 360.0, 500.0, 1000.0]))
    samples = int(draw(st.floats(1, 60)) * rate)
    leads = tuple(f"lead {i}" for i in range(draw(st.integers(1, 15))))
    before = draw(st.sampled_from(list(LINEAR.values())))
    after = draw(st.sampled_from(list(behind.values())))
    window = Window(draw(st.integers(20, 1000)), short="pad")
    preparation = Preparation(leads, (*before, Resample(100), window, *after))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    records = draw(st.integers(1, 3))
    signals = torch.from_numpy(random.standard_normal((records, len(leads), samples))).float()
    room = resampled_length(preparation, samples, rate=rate) - window.samples
    starts = torch.from_numpy(random.integers(0, room + 1, records))
    return Case(signals, rate, preparation, starts)


EXAMPLES = settings(max_examples=25, derandomize=True, deadline=None, database=None)


def _close(result: Tensor, expected: Tensor) -> None:
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5 * scale)


@EXAMPLES
@given(cases())
def test_the_result_has_the_declared_shape_and_is_finite(case: Case) -> None:
    preparation = case.preparation
    prepared = case.prepared()
    assert prepared.shape == (len(case.signals), len(preparation.leads), preparation.window)
    assert prepared.dtype == torch.float32
    assert (preparation.rate, preparation.window) == (100.0, preparation.crop.samples)
    assert torch.isfinite(prepared).all()


@EXAMPLES
@given(cases())
def test_a_batch_equals_its_records_one_by_one(case: Case) -> None:
    alone = [case.prepared(rows=slice(i, i + 1)) for i in range(len(case.signals))]
    _close(case.prepared(), torch.cat(alone))


@EXAMPLES
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_leads_only_orders_the_result(case: Case, random) -> None:
    order = list(range(len(case.preparation.leads)))
    random.shuffle(order)
    _close(case.prepared(case.signals[:, order]), case.prepared()[:, order])


@EXAMPLES
@given(cases(behind=BEHIND), st.floats(-3, 3), st.floats(-3, 3))
def test_linear_steps_are_linear(case: Case, first: float, second: float) -> None:
    other = case.signals.flip(-1)
    mixed = case.prepared(first * case.signals + second * other)
    _close(mixed, first * case.prepared() + second * case.prepared(other))


@EXAMPLES
@given(cases(behind=BEHIND), st.data())
def test_gaps_are_refused_or_filled(case: Case, data: st.DataObject) -> None:
    signals = case.signals.clone()
    begin = data.draw(st.integers(0, signals.shape[2] - 1))
    signals[-1, 0, begin : begin + 50] = torch.nan
    with pytest.raises(PreparationError, match=f"record {len(signals) - 1} ") as refusal:
        case.prepared(signals)
    assert refusal.value.remedy is not None
    steps = (Fill("zero"), *case.preparation.steps)
    filled = replace(case, preparation=replace(case.preparation, steps=steps))
    _close(filled.prepared(signals), case.prepared(signals.nan_to_num(0.0)))


# ------------------------------------------------------------------ many lengths


def test_records_of_many_lengths_share_one_map_and_equal_single_records() -> None:
    steps = (Resample(100), Window(300), *BAND, Standardise())
    preparation = Preparation(("I", "II"), steps)
    random = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(1, 2, samples, generator=random), 250.0, torch.tensor([samples % 40]))
        for samples in range(1000, 1100)
    ]
    crop_filter.cache_clear()
    prepared = prepare_mixed(preparation, batches)
    assert crop_filter.cache_info().misses == 1
    single = [prepare_batch(preparation, x, rate=rate, starts=s) for x, rate, s in batches]
    _close(prepared, torch.cat(single))


# ------------------------------------------------------------------ steps of other packages


class Every(Step):
    """Keep every n-th sample."""

    name: ClassVar[str] = "test-every"
    count: int

    def __str__(self) -> str:
        return f"every {self.count}th sample"

    def after(self, frame: Frame) -> Frame:
        samples = -(-frame.samples // self.count)
        return replace(frame, samples=samples, rate=frame.rate / self.count)

    def apply(self, x: Tensor, frame: Frame, starts: Tensor) -> Tensor:
        return x[..., :: self.count]


def test_a_step_of_another_package_is_registered_and_applied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "STEPS", dict(registry.STEPS))
    every = register_step(Every)(3)
    preparation = Preparation(("I",), (Resample(100), Window(90), every))
    assert Preparation.from_dict(preparation.to_dict()) == preparation
    assert preparation.to_dict()["steps"][-1] == {"step": "test-every", "count": 3}
    assert (preparation.window, preparation.rate) == (30, pytest.approx(100 / 3))
    x = torch.arange(100.0)[None, None]
    out = prepare_batch(preparation, x, rate=100, starts=torch.tensor([4]))
    assert out[0, 0].tolist() == list(range(4, 94, 3))
    with pytest.raises(PreparationError, match="'test-every'"):
        register_step(type("Other", (Step,), {"name": "test-every"}))
    with pytest.raises(PreparationError, match=r"count = 0\.5") as refusal:
        replace(every, count=0.5)
    assert refusal.value.remedy is not None
