"""Filters against scipy: coefficients, transposes, maps of crops, the running median."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal as sps

from einthoven.signals import filters
from einthoven.signals.filters import crop_filter, running_median
from einthoven.signals.steps import Filter

HIGH, LOW = Filter("highpass", 0.67), Filter("lowpass", 40)
BAND = Filter("bandpass", (0.67, 40), order=4)
KINDS = [HIGH, LOW, BAND, Filter("notch", 50, order=2), Filter("lowpass", 30, order=1)]


@pytest.mark.parametrize("design", KINDS, ids=str)
def test_the_transpose_is_the_transpose(design: Filter) -> None:
    sections = design.sections(250)
    x, y = np.random.default_rng(0).standard_normal((2, 300))
    forwards = sps.sosfiltfilt(sections, x) @ y
    assert filters._transposed(sections, y) @ x == pytest.approx(forwards, rel=1e-9)


@pytest.mark.parametrize("window", [2000, 1999, 2250])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_crop_filter_is_scipys_in_either_precision(
    window: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if dtype == "float64":
        monkeypatch.setattr(filters, "FLOAT32_LIMIT", 0.0)
    chain = crop_filter.__wrapped__((HIGH, LOW), window, 250.0)
    assert chain.response.dtype == dtype
    x = torch.randn(2, 3, window, generator=torch.Generator().manual_seed(0))
    expected = x.double().numpy()
    for design in (HIGH, LOW):
        expected = sps.sosfiltfilt(design.sections(250), expected)
    tolerance = 3e-7 if dtype == "float64" else 3e-6
    np.testing.assert_allclose(chain(x), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("samples", "window"), [(1000, 201), (1000, 1), (37, 5), (1, 1), (64, 63)])
@pytest.mark.parametrize("kind", ["drift", "ties", "flat", "negative"])
def test_the_running_median_is_scipys(samples: int, window: int, kind: str) -> None:
    random = np.random.default_rng(samples)
    x = np.cumsum(random.standard_normal((2, 3, samples)), axis=-1).astype(np.float32)
    if kind == "ties":
        x = np.round(x)
    if kind == "flat":
        x[:] = 1.5
    if kind == "negative":
        x = -np.abs(x) - 1  # the zeros beyond the ends are the largest values
    expected = np.array([[sps.medfilt(row, window) for row in record] for record in x])
    rows = torch.from_numpy(x)
    assert torch.equal(running_median(rows, window), torch.from_numpy(expected))
    assert torch.equal(rows, torch.from_numpy(x))
