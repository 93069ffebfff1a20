"""Steps in which signals were digitised."""

from __future__ import annotations

import numpy as np
import pytest

from einthoven.records.digital import step_of


@pytest.mark.parametrize("step", [0.5, 1, 1.25, 2.44, 2.5, 4.8828125, 4.88, 5, 10])
def test_the_step_is_found(step: float) -> None:
    counts = np.random.default_rng(2).integers(-1500, 1500, (4, 3000))
    found = step_of((counts * step * 1e-3).astype(np.float32))
    assert found.is_exact
    assert found.microvolts == pytest.approx(step, rel=1e-6)


def test_leads_computed_from_others_have_half_steps() -> None:
    first, second = np.random.default_rng(2).integers(-900, 900, (2, 3000)) * 4.88e-3
    leads = np.array([first, second, second - first, second - first / 2], np.float32)
    found = step_of(leads)
    assert found.is_exact
    assert found.microvolts == pytest.approx(2.44, rel=1e-6)


def test_counts_of_another_step_that_were_rounded_to_microvolts() -> None:
    counts = np.random.default_rng(2).integers(-900, 900, 3000)
    assert step_of(np.float32(np.rint(counts * 4.88) / 1000)) == (1.0, True)


def test_no_step_and_no_signal() -> None:
    noise = np.random.default_rng(2).normal(0, 1, 3000).astype(np.float32)
    assert not step_of(noise).is_exact
    assert step_of(noise * 1000).microvolts >= 1000 * np.abs(noise * 1000).max() / 32767
    assert step_of(np.zeros(9, np.float32)) == (1.0, True)
    assert step_of(np.full(9, np.nan, np.float32)) == (1.0, True)
