"""`einthoven recalibrate`: a new model folder, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from einthoven.cohorts import Cohort
from einthoven.models import load_model, model_path
from einthoven.models.config import WEIGHTS


def test_a_recalibrated_model_predicts_with_the_same_weights(
    cli: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    out = tmp_path / "here"
    options = ("--out", out, "--resamples", 20)
    result = cli("recalibrate", "einthoven-small", synthetic.root, *options)
    assert str(out) in result.out
    before, after = load_model(), load_model(out)
    assert after.calibration != before.calibration
    assert after.sets != before.sets
    weights, expected = (load_file(model_path(str(m)) / WEIGHTS) for m in (out, "einthoven-small"))
    assert weights.keys() == expected.keys()
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)
    assert cli("predict", "--model", out, synthetic.paths("test")[0]).out


def test_records_of_the_training_are_refused(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    result = cli("recalibrate", made.model, synthetic.root, "--out", tmp_path / "new", status=1)
    assert result.remedies == 1
    assert not (tmp_path / "new").exists()
