"""Wavelet features against the definitions, read one record, lead and coefficient at a time."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from einthoven.backbones.layers.wavelet_features import (
    COEFFICIENTS,
    array_lengths,
    wavelet_arrays,
    wavelet_features,
)
from einthoven.errors import BackboneError

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
    found = wavelet_arrays(x, levels=3)
    for row in range(len(x)):
        expected = _arrays(x[row].double().numpy(), 3)
        assert [len(a) for a in expected] == [a.shape[1] for a in found]
        for ours, theirs in zip(found, expected, strict=True):
            assert np.allclose(ours[row], theirs, atol=1e-14)


def test_lengths_are_those_of_pywavelets() -> None:
    assert array_lengths(1000, 5) == [41, 41, 72, 134, 258, 505]
    for samples in (1000, 101, 12):
        arrays = wavelet_arrays(torch.zeros(1, samples), levels=5)
        assert [a.shape[1] for a in arrays] == array_lengths(samples, 5)


def test_features_are_those_of_a_loop() -> None:
    x = _signals()
    found = wavelet_features(x, levels=3)
    assert found.shape == (3, 4, 4 * 12)
    assert found.dtype == torch.float64
    for record in range(3):
        for lead in range(4):
            arrays = wavelet_arrays(x[record, lead][None], levels=3)
            expected = [s for a in arrays for s in _described(a[0].numpy())]
            assert np.allclose(found[record, lead], expected, atol=1e-13, rtol=1e-12)


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


@pytest.mark.parametrize(("shape", "levels"), [((2, 12, 11), 5), ((12, 100), 5), ((2, 3, 50), 0)])
def test_what_has_no_features_is_refused(shape: tuple[int, ...], levels: int) -> None:
    with pytest.raises(BackboneError, match="shape"):
        wavelet_features(torch.zeros(shape), levels=levels)
