"""Features without training: they follow from the seed, and see waves rather than offsets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestNeighbors

from einthoven.errors import ReproduceError
from einthoven.reproduce.pitfalls import features as module
from einthoven.reproduce.pitfalls.features import (
    NEIGHBOURS,
    PENALTY,
    Neighbours,
    Probe,
    squashed,
    window_features,
)
from einthoven.signals.store import Store

DRAWS = np.random.default_rng(5)


def test_features_follow_from_seed_and_record_alone(synthetic_store: Store) -> None:
    rows = np.array([5, 3, 80, 7])
    found = window_features(synthetic_store, rows, kernels=3)
    assert found.shape == (4, module.WINDOWS, 2 * 3 * len(module.DILATIONS))
    alone = window_features(synthetic_store, rows[2:3], kernels=3)
    np.testing.assert_allclose(alone[0], found[2], atol=1e-6)
    assert not np.allclose(window_features(synthetic_store, rows, kernels=3, seed=1), found)


def test_windows_are_in_their_order_in_time(synthetic_store: Store) -> None:
    record = synthetic_store.record(str(synthetic_store.index.index[0]))
    third = torch.from_numpy(record.signal[None, :, 500:750])
    bank = module._bank(3, 0)
    found = window_features(synthetic_store, np.array([0]), kernels=3)
    np.testing.assert_allclose(found[0, 2], module._convolved(third, bank)[0].numpy(), atol=1e-5)


def test_an_offset_of_a_lead_is_not_seen() -> None:
    x = torch.randn(2, 12, 250, generator=torch.Generator().manual_seed(0))
    bank = module._bank(4, 0)
    moved = module._convolved(x + torch.arange(12.0)[:, None], bank)
    np.testing.assert_allclose(moved.numpy(), module._convolved(x, bank).numpy(), atol=1e-4)


def test_the_probe_is_ridge_regression() -> None:
    x = DRAWS.normal(size=(80, 6)).astype(np.float32)
    targets = (DRAWS.random((80, 2)) < 0.3).astype(np.uint8)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    known = Ridge(alpha=PENALTY * 80).fit(z, targets)
    found = Probe.fit(x, targets).probabilities(x)
    np.testing.assert_allclose(found, squashed(known.predict(z).astype(float)), atol=1e-4)


def test_neighbours_are_the_nearest_by_cosine() -> None:
    x = DRAWS.normal(size=(70, 5)).astype(np.float32)
    targets = (DRAWS.random((70, 3)) < 0.3).astype(np.uint8)
    values, nearest = Neighbours.fit(x, targets)(x)
    assert nearest.tolist() == list(range(70))
    assert values.min() >= 0
    assert values.max() <= 1
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    brute = NearestNeighbors(n_neighbors=NEIGHBOURS, metric="cosine").fit(z)
    distances, places = brute.kneighbors(z)
    weights = np.exp(10 * (1 - distances))
    known = (weights[..., None] * targets[places]).sum(axis=1) / weights.sum(axis=1)[:, None]
    np.testing.assert_allclose(values, known, atol=1e-4)


def test_records_without_so_many_windows_are_refused(
    synthetic_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WINDOWS", 9)
    with pytest.raises(ReproduceError, match="less than 9 windows"):
        window_features(synthetic_store, np.array([0]), kernels=1)
