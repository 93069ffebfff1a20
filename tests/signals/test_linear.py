"""The linear maps: rank and precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal as sps

from einthoven.signals import linear
from einthoven.signals.filters import design
from einthoven.signals.linear import MapKey, spectral_map
from einthoven.signals.steps import Filter

CPU = torch.device("cpu")
HIGH, LOW = Filter("highpass", 0.67, order=5), Filter("lowpass", 40, order=5)
KINDS = [
    HIGH,
    LOW,
    Filter("bandpass", (0.67, 40), order=4),
    Filter("notch", 50, order=2),
    Filter("lowpass", 30, order=1),
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_ends_of_a_crop_take_two_dimensions_a_pole(kind: Filter) -> None:
    chain = spectral_map(MapKey(3000, 3000, 2250, 250.0, (kind,)), CPU)
    poles = kind.order * (2 if kind.kind == "bandpass" else 1)
    assert chain.rank <= 2 * poles


def test_a_map_that_float32_would_spoil_works_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    key = MapKey(1100, 2200, 2000, 250.0, (HIGH, LOW), gain=3.0)
    assert spectral_map(key, CPU).response.dtype == torch.float32
    monkeypatch.setattr(linear, "FLOAT32_LIMIT", 0.0)
    chain = spectral_map.__wrapped__(key, CPU)
    assert chain.response.dtype == torch.float64
    x = torch.randn(2, 3, 1100, generator=torch.Generator().manual_seed(0))
    whole = sps.resample(x.double().numpy(), 2200, axis=-1)
    for start in (0, 77, 200):
        expected = whole[..., start : start + 2000]
        for kind in (HIGH, LOW):
            expected = sps.sosfiltfilt(design(kind, 250), expected)
        found = chain(x, torch.full((2,), start))
        np.testing.assert_allclose(found, 3 * expected.astype(np.float32), rtol=3e-7, atol=3e-7)
