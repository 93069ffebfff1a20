"""Wavelet+NN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from einthoven.backbones.layers.wavelet_features import wavelet_features
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS


def _records(count: int = 30) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 12, 200) * (1 + torch.rand(count, 12, 1))


def _fitted(**options: Any) -> Any:
    net: Any = create_backbone("wavelet_nn", seed=0, **options).eval()
    net.fit_statistics([_records()[:, : len(net.leads)]])
    return net


def test_features_are_a_dense_layer_of_standardised_statistics() -> None:
    net, x = _fitted(), _records(4)
    values = (wavelet_features(x) - net.feature_mean) / net.feature_std
    assert torch.allclose(net.tokens(x), values.float())
    assert net.tokens(x).shape == (4, 12, 72)
    expected = torch.relu(net.dense(values.float().flatten(1)))
    assert torch.allclose(net.features(x), expected, atol=1e-5)
    assert (net.preparation.rate, net.preparation.window) == (100, 1000)


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
        with pytest.raises(BackboneError, match="no records"):
            net.fit_statistics(none)
    with pytest.raises(BackboneError, match="12 leads"):
        net.fit_statistics([torch.zeros(2, 3, 200)])


def test_missing_leads_are_at_their_training_means() -> None:
    net, x, kept = _fitted(), _records(3), ("V2", "I")
    rows = [STANDARD_LEADS.index(name) for name in kept]
    tokens = torch.zeros(3, 12, 72)
    tokens[:, rows] = net.tokens(x)[:, rows]
    expected = torch.relu(net.dense(tokens.flatten(1)))
    assert torch.allclose(net.features(x[:, rows], leads=kept), expected, atol=1e-5)
    few = _fitted(leads=kept)
    assert few.preparation.leads == kept
    assert few(x[:, :2]).shape == (3, 128)
    assert (few.feature_mean[0] == 0).sum() < 5  # lead I's were measured, II's were not
    assert not few.feature_mean[1].any()
