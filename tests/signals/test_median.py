"""The running median on either path, against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal as sps

from einthoven.signals.median import by_ranks, running_median


@pytest.mark.parametrize(
    ("samples", "window"), [(1000, 201), (1000, 1), (37, 5), (5, 9), (1, 1), (64, 63)]
)
@pytest.mark.parametrize("kind", ["drift", "ties", "flat", "negative"])
def test_both_paths_give_scipys_median(samples: int, window: int, kind: str) -> None:
    random = np.random.default_rng(samples)
    x = np.cumsum(random.standard_normal((2, 3, samples)), axis=-1).astype(np.float32)
    if kind == "ties":
        x = np.round(x)
    if kind == "flat":
        x[:] = 1.5
    if kind == "negative":
        x = -np.abs(x) - 1  # the zeros beyond the ends are the largest values
    expected = np.array([[_median(row, window) for row in record] for record in x])
    given = torch.from_numpy(x)
    assert torch.equal(running_median(given, window), torch.from_numpy(expected))
    ranked = by_ranks(given.view(6, samples), window).view_as(given)
    assert torch.equal(ranked, torch.from_numpy(expected))
    assert torch.equal(given, torch.from_numpy(x))


def _median(row: np.ndarray, window: int) -> np.ndarray:
    padded = np.pad(row, window // 2)
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, window), axis=-1)


def test_the_reference_is_scipys() -> None:
    row = np.random.default_rng(0).standard_normal(500)
    assert np.array_equal(_median(row, 21), sps.medfilt(row, 21))


def test_no_rows_give_no_rows() -> None:
    assert running_median(torch.zeros(0, 12, 50), 5).shape == (0, 12, 50)
