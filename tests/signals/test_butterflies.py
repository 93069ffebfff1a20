"""Short transforms against numpy's, and the choice of passes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from einthoven.signals.butterflies import COST, Pair, dft, passes


@pytest.mark.parametrize("n", sorted({1, 6, 12, 15, 20, 25, 32, *COST}))
def test_a_short_transform_is_numpys(n: int) -> None:
    random = np.random.default_rng(n)
    x = random.standard_normal(n) + 1j * random.standard_normal(n)
    found = [complex(value.re, value.im) for value in dft([Pair(v.real, v.imag) for v in x])]
    np.testing.assert_allclose(found, np.fft.fft(x), atol=1e-13)


@pytest.mark.parametrize("n", [8, 500, 1125, 1250, 1280, 1800, 2048, 2500, 5000])
def test_passes_multiply_to_the_length(n: int) -> None:
    way = passes(n)
    assert way is not None
    assert math.prod(way) == n
    assert set(way) <= set(COST)


def test_the_cheapest_passes_are_taken_and_large_factors_have_none() -> None:
    assert passes(1000) == (10, 10, 10)
    assert passes(2500) == (10, 10, 5, 5)
    assert passes(1285) is None  # 5 x 257
    assert passes(7) is None
