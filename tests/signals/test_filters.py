"""Zero-phase filters: golden coefficients, ends and transposes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal as sps

from einthoven.signals.filters import design, edge_of, filtered, transposed
from einthoven.signals.released_steps import Decimate
from einthoven.signals.steps import Filter

HIGH, LOW = Filter("highpass", 0.67, order=5), Filter("lowpass", 40, order=5)
KINDS = [
    HIGH,
    LOW,
    Filter("bandpass", (0.67, 40), order=4),
    Filter("notch", 50, order=2),
    Filter("lowpass", 30, order=1),
]


def test_coefficients_are_those_of_st_mem() -> None:
    assert design(HIGH, 250)[0, 0] == pytest.approx(0.9731214644, abs=5e-11)
    assert design(LOW, 250)[0, 0] == pytest.approx(0.0090036334, abs=5e-11)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_transpose_is_the_transpose(kind: Filter) -> None:
    sections = design(kind, 250)
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, 300))
    forwards = sps.sosfiltfilt(sections, x) @ y
    assert transposed(sections, y) @ x == pytest.approx(forwards, rel=1e-9)


@pytest.mark.parametrize("kind", [*KINDS, Decimate(5)], ids=str)
def test_the_ends_are_extended_as_scipy_does_unasked(kind: Filter | Decimate) -> None:
    sections = design(kind, 250)
    x = np.random.default_rng(0).standard_normal((2, 300))
    asked = sps.sosfiltfilt(sections, x, padlen=edge_of(sections))
    np.testing.assert_array_equal(filtered([sections], x), asked)
    longer = sps.sosfiltfilt(sections, x, padlen=edge_of(sections) + 1)
    assert not np.array_equal(longer, asked)
