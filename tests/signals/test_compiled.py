"""The compiled path against the tensor path: the same crops for every rate, length and step."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import Tensor

from einthoven.signals import plan
from einthoven.signals.prepare import (
    Filter,
    Preparation,
    Resample,
    Scale,
    Standardise,
    Window,
    prepare_batch,
    random_starts,
)

pytestmark = pytest.mark.skipif(not find_spec("numba"), reason="needs numba")

BAND = (Filter("highpass", 0.67, order=5), Filter("lowpass", 40, order=5))
ST_MEM = (Resample(250), Window(2250), *BAND, Standardise(over="record"))


def _signals(batch: int, leads: int, samples: int, rate: float) -> Tensor:
    """Beats, offsets and noise as the store holds them, in whole microvolts."""
    random = np.random.default_rng(samples + leads)
    beats = np.exp(-(((np.arange(samples) / rate * 1.2) % 1 - 0.5) ** 2) / 5e-4)
    size = random.uniform(200, 2000, (batch, leads, 1))
    noise = 30 * random.standard_normal((batch, leads, samples))
    offset = random.uniform(-500, 500, (batch, leads, 1))
    return torch.from_numpy((size * beats + noise + offset).astype(np.int16))


class _Paths:
    """Prepares on either path, and says whether the compiled one was really taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch

    def operations(self, steps: tuple, samples: int, rate: float) -> tuple:
        shape = plan.Shape(samples, float(rate))
        return plan._operations(steps, shape, 1e-3, torch.device("cpu"), True)

    def both(self, steps: tuple, signals: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        found = [self.one(steps, signals, rate, worth) for worth in (0, 1 << 60)]
        return found[0], found[1]

    def one(self, steps: tuple, signals: Tensor, rate: float, worth: int = 0) -> Tensor:
        preparation = Preparation(tuple(f"lead {i}" for i in range(signals.shape[1])), steps)
        samples, generator = signals.shape[2], torch.Generator().manual_seed(2)
        starts = random_starts(
            preparation, samples, rate=rate, count=len(signals), generator=generator
        )
        self.patch.setattr(plan, "COMPILED_WORTH", worth)
        return prepare_batch(preparation, signals, rate=rate, starts=starts, unit="uV")


@pytest.fixture
def paths(monkeypatch: pytest.MonkeyPatch) -> _Paths:
    return _Paths(monkeypatch)


def _assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    # Both round, in another order; the largest difference seen is 9e-7.
    assert float((found - expected).abs().max()) <= 1.5e-6 * float(expected.abs().max())


@pytest.mark.parametrize(
    ("rate", "samples", "compiled"),
    [
        (500, 5000, True),
        (500, 4600, False),  # 2300 = 2 x 2 x 5 x 5 x 23
        (500, 4999, False),
        (100, 1000, True),
        (100, 960, True),
        (250, 2500, True),
        (250, 2250, True),
        (257, 2570, False),
        (360, 3600, True),
        (400, 4096, True),
        (1000, 10_000, True),
        (1000, 9999, False),
        (500, 100_000, True),  # its crops are; the long resampling before them is not
    ],
)
def test_both_paths_agree_for_other_rates_and_lengths(
    paths: _Paths, rate: float, samples: int, compiled: bool
) -> None:
    operations = paths.operations(ST_MEM, samples, rate)
    assert any(isinstance(o, plan._Compiled) for o in operations) == compiled
    _assert_close(*paths.both(ST_MEM, _signals(3, 12, samples, rate), rate))


@pytest.mark.parametrize("leads", range(1, 13))
def test_both_paths_agree_for_every_number_of_leads(paths: _Paths, leads: int) -> None:
    # Seven records fill no whole number of vectors, whatever the leads.
    steps = (Resample(250), Window(1111), *BAND, Standardise("lead" if leads % 2 else "record"))
    _assert_close(*paths.both(steps, _signals(7, leads, 1000, 100), 100))


@pytest.mark.parametrize(
    "steps",
    [
        (Resample(250), Window(2250)),
        (Resample(250), Window(2500), Standardise("lead")),
        (Resample(250), Window(16), Standardise()),
        (Resample(250), Window(1000), Filter("notch", 50, order=2), Scale(0.1, 0.5)),
        (Resample(500), Filter("bandpass", (0.67, 40), order=4), Window(2501), Standardise()),
        (Filter("lowpass", 45, order=3), Resample(250), Window(1000), Filter("highpass", 0.5)),
        (Scale(0.1, 0.5), Resample(100), Window(600), Filter("lowpass", 20, order=1)),
        (Resample(500), Standardise(), Window(2500), Resample(100), Filter("lowpass", 20)),
    ],
    ids=lambda steps: "-".join(step.name for step in steps),
)
def test_both_paths_agree_for_other_steps(paths: _Paths, steps: tuple) -> None:
    taken = paths.operations(steps, 5000, 500)
    assert any(isinstance(operation, plan._Compiled) for operation in taken)
    _assert_close(*paths.both(steps, _signals(5, 2, 5000, 500), 500))


def test_a_record_does_not_depend_on_its_batch_nor_on_threads(paths: _Paths) -> None:
    signals = _signals(9, 5, 1000, 100)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = paths.one(ST_MEM, signals, 100)
        torch.set_num_threads(4)
        together = paths.one(ST_MEM, signals, 100)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)
    # The first draws of the starts are the same for any number of records.
    for count in (1, 4, 7):
        assert torch.equal(paths.one(ST_MEM, signals[:count], 100), alone[:count])


def test_every_kind_of_input_gives_the_same(paths: _Paths) -> None:
    signals = _signals(4, 3, 2000, 200)
    whole = paths.one(ST_MEM, signals, 200)
    for other in (signals.float(), signals.double(), signals.int(), signals.float().half().float()):
        assert float((paths.one(ST_MEM, other, 200) - whole).abs().max()) <= 2e-3
    assert torch.equal(paths.one(ST_MEM, signals.float(), 200), whole)
    strided = torch.zeros(3, 4, 2000, dtype=torch.int16).transpose(0, 1).copy_(signals)
    assert torch.equal(paths.one(ST_MEM, strided, 200), whole)
    assert torch.equal(paths.one(ST_MEM, signals.float().requires_grad_(), 200), whole)
    assert not paths.one(ST_MEM, signals.float().requires_grad_(), 200).requires_grad


def test_flat_signals_become_zero(paths: _Paths) -> None:
    signals = _signals(3, 12, 5000, 500)
    signals[0] = 0
    signals[1] = 2500
    out = paths.one(ST_MEM, signals, 500)
    assert not out[:2].any()
    assert bool(out[2].any())
    assert bool(torch.isfinite(out).all())


def test_small_batches_and_machines_without_numba_take_the_tensor_path(
    monkeypatch: pytest.MonkeyPatch, paths: _Paths
) -> None:
    signals = _signals(8, 12, 5000, 500)
    seen = []
    original = plan._compiled
    monkeypatch.setattr(plan, "_compiled", lambda found: seen.append(1) or original(found))
    plan._operations.cache_clear()
    worth = plan.COMPILED_WORTH
    paths.one(ST_MEM, signals[:3], 500, worth)
    assert not seen
    compiled = paths.one(ST_MEM, signals, 500, worth)
    assert seen == [1]
    plan._operations.cache_clear()
    monkeypatch.setattr(plan, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "einthoven.signals.compiled", None)
    _assert_close(compiled, paths.one(ST_MEM, signals, 500, worth))
    assert seen == [1]
    plan._operations.cache_clear()
