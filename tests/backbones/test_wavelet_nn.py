"""Wavelet+NN: features against their definitions, one coefficient at a time, and the network."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from einthoven.backbones.layers.wavelet_features import (
    COEFFICIENTS,
    wavelet_arrays,
    wavelet_features,
)
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS

Floats = NDArray[np.float64]
LOW = np.array(COEFFICIENTS)
HIGH = np.array([COEFFICIENTS[11 - k] * (-1) ** k for k in range(12)])


def _level(x: list[float]) -> tuple[list[float], list[float]]:
    """One level from the definition; the signal goes on beyond its ends as in a mirror."""

    def mirrored(t: int) -> float:
        while not 0 <= t < len(x):
            t = -1 - t if t < 0 else 2 * len(x) - 1 - t
        return x[t]

    windows = [
        np.array([mirrored(2 * n + 1 - 11 + k) for k in range(12)])
        for n in range((len(x) + 11) // 2)
    ]
    return [float(LOW @ w) for w in windows], [float(HIGH @ w) for w in windows]


def _arrays(x: Floats, levels: int) -> list[Floats]:
    approximation, details = x.tolist(), []
    for _ in range(levels):
        approximation, detail = _level(approximation)
        details.append(np.array(detail))
    return [np.array(approximation), *reversed(details)]


def _described(values: Floats) -> list[float]:
    crossings = [
        sum((a > level) != (b > level) for a, b in zip(values[1:], values[:-1], strict=True))
        for level in (0.0, values.mean())
    ]
    return [
        float(scipy.stats.entropy(list(Counter(values.tolist()).values()))),
        *map(float, crossings),
        *map(float, np.percentile(values, [5, 25, 75, 95])),
        float(np.median(values)),
        float(values.mean()),
        float(values.std()),
        float(values.var()),
        math.sqrt(sum(v * v for v in values) / len(values)),
    ]


def _signals() -> Tensor:
    """Noise, whole microvolts with stretches that repeat, a flat lead, an empty one."""
    torch.manual_seed(0)
    x = torch.randn(3, 4, 160)
    x[0, 1] = (x[0, 1] * 2).round() / 2
    x[0, 1, 40:100] = 0.125
    x[1, 2] = 0.3
    x[2, 3] = 0.0
    return x


def test_arrays_are_the_transform_from_its_definition() -> None:
    x = _signals().flatten(0, 1)
    result = wavelet_arrays(x, levels=3)
    for row in range(len(x)):
        expected = _arrays(x[row].double().numpy(), 3)
        assert [len(a) for a in expected] == [a.shape[1] for a in result]
        for ours, theirs in zip(result, expected, strict=True):
            assert np.allclose(ours[row], theirs, atol=1e-14)


def test_features_are_those_of_a_loop() -> None:
    x = _signals()
    result = wavelet_features(x, levels=3)
    assert result.shape == (3, 4, 4 * 12)
    assert result.dtype == torch.float64
    for record in range(3):
        for lead in range(4):
            arrays = wavelet_arrays(x[record, lead][None], levels=3)
            expected = [s for a in arrays for s in _described(a[0].numpy())]
            assert np.allclose(result[record, lead], expected, atol=1e-13, rtol=1e-12)


def test_equal_samples_give_equal_coefficients() -> None:
    """Entropy asks which values are exactly equal, so the same window must round the same."""
    x = torch.zeros(1, 2, 1000)
    x[0, 0] = 0.1  # flat: one value in every array
    period = torch.randn(8, generator=torch.Generator().manual_seed(2))
    x[0, 1] = period.repeat(125)  # the first level repeats every four coefficients
    entropy = wavelet_features(x).view(2, 6, 12)[..., 0]
    assert entropy[0].abs().max() < 1e-12
    # Windows that reach beyond an end differ, five at either.
    inner = 505 - 2 * 5
    shares = [math.ceil((inner - k) / 4) for k in range(4)] + [1] * 10
    assert entropy[1, 5] == pytest.approx(scipy.stats.entropy(shares), abs=1e-12)


def _records(count: int = 30) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 12, 200) * (1 + torch.rand(count, 12, 1))


def _fitted(**options: Any) -> Any:
    net: Any = create_backbone("wavelet_nn", seed=0, **options).eval()
    net.fit_statistics([_records()[:, : len(net.leads)]])
    return net


def test_statistics_are_those_of_all_records_whatever_the_batches() -> None:
    x = _records()
    values = wavelet_features(x)
    mean, std = values.mean(0), values.std(0, correction=0)
    varying = std > 1e-6 * mean.abs()
    for sizes in ([30], [1, 13, 0, 16]):
        net: Any = create_backbone("wavelet_nn", seed=0).eval()
        net.fit_statistics(iter(x.split(sizes)))
        assert torch.allclose(net.feature_mean.double(), mean, rtol=1e-6, atol=1e-7)
        assert torch.allclose(net.feature_std.double()[varying], std[varying], rtol=1e-6)
        tokens = net.tokens(x).double()[:, varying]
        assert tokens.mean(0).abs().max() < 1e-4
        assert (tokens.std(0, correction=0) - 1).abs().max() < 1e-5


def test_a_feature_that_does_not_vary_is_only_centred() -> None:
    x = _records()
    x[:, 3] = 0.1  # a lead that was never connected: every feature the same up to rounding
    net: Any = create_backbone("wavelet_nn", seed=0).eval()
    net.fit_statistics([x])
    assert (net.feature_std[3] == 1).sum() >= 60
    entropy = 0  # no two coefficients of noise are equal, so it is log(length) throughout
    assert net.feature_std[0, entropy] == 1
    x[0, 3, 100:] = 0.2
    assert net.tokens(x)[:, 3].abs().max() < 1e4
    assert net.tokens(x[1:])[:, 3].abs().max() < 1e-5


def test_statistics_need_records() -> None:
    net = create_backbone("wavelet_nn")
    assert net.fits_statistics
    for none in ([], [torch.zeros(0, 12, 200)]):
        with pytest.raises(BackboneError, match="wavelet_nn"):
            net.fit_statistics(none)
    with pytest.raises(BackboneError, match="12 leads"):
        net.fit_statistics([torch.zeros(2, 3, 200)])


def test_missing_leads_are_at_their_training_means() -> None:
    net, x, leads = _fitted(), _records(3), ("V2", "I")
    rows = [STANDARD_LEADS.index(name) for name in leads]
    tokens = torch.zeros(3, 12, 72)
    tokens[:, rows] = net.tokens(x)[:, rows]
    expected = torch.relu(net.dense(tokens.flatten(1)))
    assert torch.allclose(net.features(x[:, rows], leads=leads), expected, atol=1e-5)
    few = _fitted(leads=leads)
    assert few.preparation.leads == leads
    assert few(x[:, :2]).shape == (3, 128)
    assert (few.feature_mean[0] == 0).sum() < 5  # lead I's were measured, II's were not
    assert not few.feature_mean[1].any()
