"""`einthoven.posttrain`: the run of the command, from a data frame."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import einthoven
from einthoven.cohorts import Cohort
from einthoven.errors import CohortError, RecipeError
from einthoven.models import model_path, read_config
from einthoven.records import read_record
from einthoven.records.wfdb import write_wfdb
from einthoven.report.page import write_report

QUICK: dict[str, Any] = {
    "recipe": "linear-probe",
    "overrides": ["stage1.epochs=1", "data.evaluation_crops=1", "refit=never"],
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
    for cohort in (frame, synthetic):  # a column that is not there, and a second task
        with pytest.raises(CohortError, match=r"ward|task=\.\.\."):
            einthoven.posttrain(cohort, tmp_path / "none", task=einthoven.Task(target="ward"))


def test_nothing_of_a_path_leaves_the_machine(
    synthetic: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A marker is the name of the folder of data, weights, recipes and runs."""
    home = tmp_path / "MARKER"
    shutil.copytree(synthetic.root, home / "ecgs")
    shutil.copytree(model_path("einthoven-small"), home / "encoder")
    (home / "base.toml").write_text('extends = "linear-probe"\n')
    (home / "own.toml").write_text(f'extends = "{home / "base.toml"}"\n')
    paths = [home / "ecgs" / path.relative_to(synthetic.root) for path in synthetic.paths()]
    frame = pd.DataFrame({"path": map(str, paths), "patient": synthetic.patients()})
    frame["split"] = synthetic.table["split"].to_numpy()
    for label in ("AFIB", "NORM"):
        frame[label] = synthetic.matrix[:, synthetic.labels.index(label)]
    frame.to_csv(home / "ward.csv", index=False)
    command = [f"{home}/bin/einthoven", "posttrain", "ward.csv", f"--out={home}/runs/one"]
    monkeypatch.setattr(sys, "argv", [*command, "--store", f"{home}/my data/s"])
    network = read_config(home / "encoder")["backbone"]
    overrides = [*QUICK["overrides"][1:], "stage1.solver=logistic"]
    settings = QUICK | {"recipe": home / "own.toml", "overrides": overrides}
    settings |= {"backbone": network, "weights": home / "encoder", "store": home / "store"}
    for name in ("one", "two"):
        einthoven.posttrain(home / "ward.csv", home / name / "run", **settings)
    cohort = einthoven.open_cohort(home / "ward.csv")
    runs = [home / name / "run" for name in ("one", "two")]
    page = write_report(runs, home / "pages" / "both.html", cohort=cohort, resamples=20)
    encoder = ["--cohort", str(home / "ward.csv")]
    shared = write_report(runs[:1], home / "pages" / "one.html", resamples=0, options=encoder)
    files = [*page.parent.iterdir(), *runs[0].glob("report*"), *(runs[0] / "model").iterdir()]
    assert {page, shared, runs[0] / "model" / "config.json"} <= set(files)
    for file in files:
        assert b"MARKER" not in file.read_bytes(), file
    assert "einthoven posttrain ward.csv --out=one --store s" in shared.read_text()


def test_records_of_few_leads_train_a_network_of_these(synthetic: Cohort, tmp_path: Path) -> None:
    label = synthetic.labels.index("AFIB")
    frame = synthetic.table[["patient", "split"]].assign(AFIB=synthetic.matrix[:, label])
    frame["path"] = [f"{number}.hea" for number in range(len(frame))]
    for name, file in zip(frame["path"], synthetic.paths(), strict=True):
        record = read_record(file).select(("I", "II"))
        path = (tmp_path / name).with_suffix("")
        write_wfdb(path, record.signal, rate=record.rate, leads=record.leads)
    frame.to_csv(tmp_path / "t.csv", index=False)
    settings = QUICK | {"options": {"leads": ["I", "II"]}, "out": tmp_path / "run"}
    for _ in range(2):
        assert einthoven.posttrain(tmp_path / "t.csv", **settings) is not None
    assert einthoven.load_model(tmp_path / "run" / "model").preparation.sources == ("I", "II")
