"""`einthoven.posttrain`: the run of the command, from a data frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import einthoven
from einthoven.cohorts import Cohort
from einthoven.errors import CohortError, RecipeError

QUICK: dict[str, Any] = {
    "recipe": "linear-probe",
    "overrides": ["stage1.epochs=1"],
    "resamples": 0,
    "device": "cpu",
    "allow_leakage": True,
}


def test_a_data_frame_becomes_a_run(synthetic: Cohort, tmp_path: Path) -> None:
    label = synthetic.labels.index("AFIB")
    frame = pd.DataFrame(
        {
            "path": [str(path.resolve()) for path in synthetic.paths()],
            "patient": synthetic.patients(),
            "split": synthetic.table["split"],
            "AFIB": synthetic.matrix[:, label],
        }
    )
    out = tmp_path / "run"
    result = einthoven.posttrain(frame, out, **QUICK)
    assert result is not None
    assert (out / "report.html").is_file()
    assert einthoven.load_model(out / "model").labels == ("AFIB",)
    table = einthoven.Predictions.load(out / "predictions" / "test.parquet")
    assert len(table) == (synthetic.table["split"] == "test").sum()
    written = (out / "predictions" / "test.parquet").stat().st_mtime_ns
    again = einthoven.posttrain(frame, out, **QUICK)
    assert again is not None
    assert again.test.macro_auroc == result.test.macro_auroc
    assert (out / "predictions" / "test.parquet").stat().st_mtime_ns == written
    with pytest.raises(CohortError, match="labels"):
        einthoven.posttrain(frame.drop(columns="AFIB"), tmp_path / "none", **QUICK)
    with pytest.raises(RecipeError, match="nope"):
        einthoven.posttrain(frame, tmp_path / "none", recipe="nope")
