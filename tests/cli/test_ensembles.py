"""`einthoven ensemble` on runs that `einthoven posttrain` made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from einthoven.files import read_json
from einthoven.predictions import Predictions


def test_two_runs_become_one_that_others_read(made: Any, cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "ensemble"
    said = cli("ensemble", made.run, made.other, "--out", out, "--resamples", 20)
    assert said.status == 0, said.err
    numbers = read_json(out / "metrics.json")["test"]
    assert f"Test macro AUROC {numbers['macro_auroc']:.4f} (" in said.out
    assert f"Report: {out / 'report.html'}" in said.out
    assert "Bundle" not in said.out
    tables = [
        Predictions.load(folder / "predictions" / "test.parquet")
        for folder in (out, made.run, made.other)
    ]
    mean = (tables[1].probabilities + tables[2].probabilities) / 2
    np.testing.assert_allclose(tables[0].probabilities, mean, rtol=0, atol=1e-15)
    said = cli("compare", out, made.run, "--resamples", 20, "--json")
    assert said.status == 0, said.err
    page = tmp_path / "page.html"
    said = cli("report", out, made.run, made.other, "--out", page, "--resamples", 20)
    assert said.status == 0, said.err
    assert "unweighted mean" in page.read_text()
    assert cli("evaluate", out, "--resamples", 0).status == 0


def test_what_is_no_run_is_refused(made: Any, cli: Any, tmp_path: Path) -> None:
    said = cli("ensemble", made.run, made.encoder, "--out", tmp_path / "out")
    assert said.status == 1
    assert f"{made.encoder} is no run folder" in said.err
    assert not (tmp_path / "out").exists()


def test_help_shows_the_way(cli: Any) -> None:
    said = cli("ensemble", "--help")
    assert said.status == 0
    for part in ("unweighted", "einthoven posttrain", "einthoven compare", "no bundle"):
        assert part in said.out
