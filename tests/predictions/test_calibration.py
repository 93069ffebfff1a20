"""Calibration: its map, decisions, JSON round trip and refusals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from einthoven.errors import CalibrationError
from einthoven.evaluate.metrics import auroc, average_precision
from einthoven.predictions import Calibration

THREE = Calibration((1.0, 2.0, 0.5), (0.0, 0.0, 1.0), (0.5, 0.25, 0.9))


def test_apply_is_platt_scaling_of_the_logit() -> None:
    probabilities = np.random.default_rng(0).random((50, 3))
    expected = expit(logit(probabilities) / [1.0, 2.0, 0.5] + [0.0, 0.0, 1.0])
    assert THREE.apply(probabilities) == pytest.approx(expected, abs=1e-14)
    assert THREE.apply(probabilities[7]) == pytest.approx(expected[7], abs=1e-14)


def test_certain_probabilities_do_not_change() -> None:
    assert THREE.apply([[0.0] * 3, [1.0] * 3]).tolist() == [[0.0] * 3, [1.0] * 3]
    assert np.isfinite(THREE.apply([5e-324, 1e-300, 1 - 1e-16])).all()


def test_ranking_metrics_do_not_change() -> None:
    generator = np.random.default_rng(1)
    targets = (generator.random((400, 3)) < 0.2).astype(np.uint8)
    probabilities = expit(generator.normal(size=(400, 3)) * 3 + targets).round(3)  # with ties
    calibrated = THREE.apply(probabilities)
    assert np.array_equal(auroc(targets, probabilities), auroc(targets, calibrated))
    assert np.array_equal(
        average_precision(targets, probabilities), average_precision(targets, calibrated)
    )


def test_a_label_is_called_from_its_threshold() -> None:
    assert THREE.decide([0.5, 0.25, 0.9]).tolist() == [True, True, True]
    assert THREE.decide([[0.49, 0.24, 0.89]]).tolist() == [[False, False, False]]


def test_json_round_trip() -> None:
    odd = Calibration((1 / 3, 2.0), (0.1, -0.0), (1e-300, 1.0))
    again = Calibration(**json.loads(json.dumps(odd.to_dict())))
    assert again == odd
    assert hash(again) == hash(odd)
    assert len(odd) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (([1.0], [0.0, 0.0], [0.5]), "'biases': 2"),
        (([], [], []), "temperatures"),
        (([1.0, 0.0], [0.0] * 2, [0.5] * 2), "temperatures = 0.0"),
        (([1.0], [float("nan")], [0.5]), "biases = nan"),
        (([1.0], [0.0], [1.2]), "thresholds = 1.2"),
        ((["hot"], [0.0], [0.5]), "temperatures = 'hot'"),
        (([[1.0]], [0.0], [0.5]), r"temperatures = \(1.0,\)"),
    ],
)
def test_impossible_calibrations_are_refused(values: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        Calibration(*values)


@pytest.mark.parametrize("probabilities", [[0.5, 0.5], 0.5, [0.5, 0.5, 1.5], [0.5, np.nan, 0.5]])
def test_other_shapes_and_values_are_refused(probabilities: Any) -> None:
    for method in (THREE.apply, THREE.decide):
        with pytest.raises(CalibrationError):
            method(probabilities)


@pytest.mark.parametrize("values", [{}, {"temperatures": [1.0]}, {"hot": [1.0]}])
def test_other_dictionaries_are_refused(values: Any) -> None:
    with pytest.raises(CalibrationError, match="calibration") as caught:
        Calibration(**values)
    assert "temperatures, biases, thresholds" in caught.value.remedy
