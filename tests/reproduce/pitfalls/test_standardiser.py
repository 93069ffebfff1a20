"""Constants, and the input that the wrong ones stand for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from einthoven.reproduce.pitfalls.material import Material
from einthoven.reproduce.pitfalls.standardiser import (
    Scaler,
    _change,
    scaler_of,
    scales_itself,
    standardiser,
)
from einthoven.signals.prepare import Preparation, Resample, Scale, Standardise, Window
from einthoven.signals.store import Store

LEADS = ("I", "II")
CUT = (Resample(100), Window(250))


def test_constants_are_those_of_all_samples(synthetic_store: Store) -> None:
    rows = np.arange(0, 160, 7)
    chunks = synthetic_store.read(rows)
    values = np.concatenate([chunk.signals.ravel() for chunk in chunks]).astype(float) / 1000
    found = scaler_of(synthetic_store, rows)
    assert found.mean == pytest.approx(values.mean())
    assert found.deviation == pytest.approx(values.std())


@pytest.mark.parametrize("steps", [(Scale(0.01, 0.24),), (), (Scale(0.0, 0.25),)])
def test_the_changed_input_is_what_the_wrong_constants_would_have_made(
    steps: tuple[Scale, ...],
) -> None:
    """In mV: the x for which the right standardiser says what the wrong one says of the true x."""
    right, wrong = Scaler(0.01, 0.24), Scaler(-0.02, 0.3)
    factor, offset = _change(Preparation(LEADS, CUT + steps), right, wrong)
    x = np.array([-1.0, 0.0, 0.7])
    scale = steps[0] if steps else Scale(0.0, 1.0)
    stand_in = ((x - scale.mean) / scale.std * factor + offset) * scale.std + scale.mean
    np.testing.assert_allclose(
        (stand_in - right.mean) / right.deviation, (x - wrong.mean) / wrong.deviation
    )


def test_right_constants_change_nothing() -> None:
    right = Scaler(0.01, 0.24)
    assert _change(Preparation(LEADS, (*CUT, Scale(0.5, 2))), right, right) == pytest.approx((1, 0))


def test_a_network_that_scales_every_record_by_itself_is_left_alone(material: Material) -> None:
    steps = (*material.model.preparation.steps, Standardise(over="record"))
    itself = Preparation(material.model.preparation.leads, steps)
    assert scales_itself(itself)
    found = standardiser(replace(material, model=replace(material.model, preparation=itself)))
    assert not found.effects
    assert "scales every record by itself" in found.notes[0]


def test_more_wrong_is_more_different(material: Material) -> None:
    found = standardiser(material)
    (small, large) = (
        next(abs(e.difference) for e in found.effects if e.what == what)
        for what in ("fitted on all folds", "deviation twice as large")
    )
    assert small < large
    assert found.rows[0][0] == "folds 1 to 8, 100 Hz"
    assert found.rows[0][3] == "+0.00 %"
