"""The command `label`: its files, what it prints, and that other commands read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from einthoven.cohorts import open_cohort


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    file = tmp_path / "reports.csv"
    file.write_text(
        "path,patient,ward,report\n"
        "a.hea,007,3,Sinus rhythm. Possible inferior infarct\n"
        "b.hea,007,3,Atrial fibrillation. Clockwise rotation\n"
        "c.hea,8,4,\n"
        "d.hea,9,4,Clockwise rotation\n"
    )
    return file


def test_tables(cli: Any, reports: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub" / "labels.csv"
    result = cli("label", reports, "--out", out, "--uncertain", "unknown")
    assert {file.name for file in out.parent.iterdir()} == {
        "labels.csv", "labels.phrases.csv", "labels.unmatched.csv",
    }  # fmt: skip
    labels = pd.read_csv(out, dtype={"patient": str})
    assert labels["path"].tolist() == ["../a.hea", "../b.hea", "../c.hea", "../d.hea"]
    assert labels["AFIB"].fillna(-1).tolist() == [0, 1, -1, 0]
    assert labels["IMI"].fillna(-1).tolist() == [-1, 0, -1, 0]
    assert pd.read_csv(out.with_suffix(".unmatched.csv")).loc[0].tolist() == [
        "clockwise rotation", 2,
    ]  # fmt: skip
    assert "clockwise rotation (2)" in result.out
    assert "33.3 %" in result.out
    cohort = open_cohort(out, labels=["AFIB"])
    assert (len(cohort), cohort.ids().tolist()) == (3, ["../a.hea", "../b.hea", "../d.hea"])
    assert cohort.matrix[:, 0].tolist() == [0, 1, 0]


def test_paths_beside_the_reports_and_columns_that_are_missing(
    cli: Any, reports: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text("[labels.AF]\npatterns = ['atrial fibrillation']\n")
    cli("label", reports, "--patterns", tmp_path / "mine.toml", "--out", tmp_path / "l.csv")
    assert pd.read_csv(tmp_path / "l.csv")["path"][0] == "a.hea"
    pd.read_csv(reports)[["report"]].to_csv(reports, index=False)
    result = cli("label", reports, "--out", tmp_path / "l.csv")
    assert "path, patient" in result.err


def test_refusals(cli: Any, reports: Path, tmp_path: Path) -> None:
    before = reports.read_bytes()
    for more in (
        ["--out", reports],
        ["--out", tmp_path / "labels.parquet"],
        ["--out", tmp_path / "x.csv", "--patterns", "scp"],
        ["--out", tmp_path / "x.csv", "--text", "ward"],
        ["--out", tmp_path / "x.csv", "--uncertain", "maybe"],
    ):
        assert cli("label", reports, *more, status=1).remedies == 1
    assert reports.read_bytes() == before
    assert not (tmp_path / "x.csv").exists()
