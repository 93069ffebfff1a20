"""evaluate, compare, report and card agree with each other and with the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import Cohort
from einthoven.files import read_json
from einthoven.models import load_model
from einthoven.predictions import Predictions
from einthoven.signals.store import Store

QUICK = ("--resamples", 20, "--json")


def test_a_run_its_table_and_its_model_score_the_same(
    cli: Any, made: Any, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    """The model has the labels that 8 records carry; the cohort is opened with all 71."""
    numbers = read_json(made.run / "metrics.json")["test"]
    table = made.run / "predictions" / "test.parquet"
    cohort = ("--cohort", synthetic_path, "--task", "all-71", "--split", "test")
    cohort += ("--store", synthetic_store.root)
    kept = tmp_path / "kept.csv"
    for command in (
        (made.run,),
        (table,),
        ("--model", made.model, *cohort, "--save", kept),
        (kept,),
    ):
        result = cli("evaluate", *command, *QUICK)
        assert result.status == 0, result.err
        found = json.loads(result.out)
        assert found["records"] == numbers["records"], command
        assert found["macro_auroc"] == pytest.approx(numbers["macro_auroc"], abs=1e-9), command
        interval = found["macro_auroc_interval"]
        assert interval == pytest.approx(numbers["macro_auroc_interval"], abs=1e-9)


@pytest.mark.filterwarnings("always::einthoven.stages.leakage.LeakageWarning")
def test_records_that_a_bundle_has_seen_score_too_well_and_that_is_said(
    cli: Any, made: Any, synthetic_path: Path, synthetic_store: Store
) -> None:
    cohort = ("--cohort", synthetic_path, "--store", synthetic_store.root)
    result = cli("evaluate", "--model", made.model, *cohort, "--split", "validation", *QUICK)
    records = json.loads(result.out)["records"]
    told = " ".join(result.err.split())
    assert f"has seen {records} of the {records} validation records of cohort" in told
    assert f"{records} in validation, which chose the epoch" in told
    assert "biased" not in cli("evaluate", "--model", made.model, *cohort, *QUICK).err


def test_the_included_model_is_evaluated_by_its_name(
    cli: Any, synthetic_path: Path, synthetic_store: Store
) -> None:
    cohort = ("--cohort", synthetic_path, "--store", synthetic_store.root)
    result = cli("evaluate", "--model", "einthoven-small", *cohort, *QUICK, "--device", "cpu")
    assert result.status == 0, result.err
    assert json.loads(result.out)["records"] > 10


def test_a_table_with_some_labels_of_a_model_is_scored_on_those(
    cli: Any, synthetic: Cohort, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    """As in another hospital; a column of text is not a label."""
    targets = pd.DataFrame(synthetic.matrix, synthetic.table.index, list(synthetic.labels))
    counts = targets[(synthetic.table["split"] == "test").to_numpy()].sum()
    two = counts.index[counts.between(2, 40)][:2].tolist()
    table = synthetic.table[["path", "patient", "split"]].assign(hospital="h", **targets[two])
    table["path"] = [str(synthetic_path / path) for path in table["path"]]
    table.to_csv(tmp_path / "own.csv")
    cohort = ("--cohort", tmp_path / "own.csv", "--store", synthetic_store.root)
    given = (*QUICK, "--device", "cpu", "--save")
    result = cli(
        "evaluate", "--model", "einthoven-small", *cohort, *given, tmp_path / "some.parquet"
    )
    assert result.status == 0, result.err
    assert "2 of the model's 71" in " ".join(result.err.split())
    assert json.loads(result.out)["per_label"].keys() == set(two)
    whole = ("--cohort", synthetic_path, "--store", synthetic_store.root)
    cli("evaluate", "--model", "einthoven-small", *whole, *given, tmp_path / "every.parquet")
    some, every = (Predictions.load(tmp_path / f"{name}.parquet") for name in ("some", "every"))
    same = np.isin(every.records, some.records)
    assert same.sum() == len(some)
    columns = every.with_labels(some.labels)
    assert np.array_equal(some.probabilities, columns.probabilities[same])
    assert some.targets is not None
    assert columns.targets is not None
    assert np.array_equal(some.targets, columns.targets[same])


def test_another_split_and_other_definitions(cli: Any, made: Any) -> None:
    found = json.loads(cli("evaluate", made.run, "--split", "validation", *QUICK).out)
    stored = read_json(made.run / "metrics.json")["validation"]
    assert found["macro_auroc"] == stored["macro_auroc"]
    more = (
        "--by",
        "patient",
        "--interval",
        "basic",
        "--auprc",
        "trapezoid",
        "--undefined-labels",
        "skip",
    )
    found = json.loads(cli("evaluate", made.run, *QUICK, *more).out)
    assert (found["unit"], found["interval"], found["undefined_labels"]) == (
        "patient",
        "basic",
        "skip",
    )
    assert found["auprc_definition"] == "trapezoid"


def test_the_printed_table_has_all_digits(cli: Any, made: Any) -> None:
    numbers = read_json(made.run / "metrics.json")["test"]
    result = cli("evaluate", made.run, "--resamples", 20)
    assert result.status == 0
    assert "…" not in result.out
    assert f"{numbers['macro_auroc']:.4f}" in result.out
    assert f"{numbers['per_label']['AFIB']['auprc']:.4f}" in result.out
    assert "20 record resamples, seed 0" in " ".join(result.err.split())


def test_a_run_compared_with_itself_differs_by_nothing(cli: Any, made: Any) -> None:
    found = json.loads(cli("compare", made.run, made.run, *QUICK).out)
    assert found["auroc"]["macro"] == 0.0
    assert found["auroc"]["macro_interval"] == [0.0, 0.0]


def test_two_runs_compared(cli: Any, made: Any) -> None:
    scores = [read_json(run / "metrics.json")["test"] for run in (made.run, made.other)]
    difference = scores[0]["macro_auroc"] - scores[1]["macro_auroc"]
    found = json.loads(cli("compare", made.run, made.other, *QUICK).out)
    assert found["auroc"]["macro"] == pytest.approx(difference)
    result = cli("compare", made.run, made.other, "--resamples", 20)
    assert f"{difference:+.4f}" in result.out
    assert f"{scores[0]['defined_labels']} of {len(scores[0]['per_label'])}" in result.out
    assert "…" not in result.out
    assert cli("compare", made.run, made.other, "--resamples", 0).status == 0


def test_other_labels_are_refused_by_the_names_of_the_runs(
    cli: Any, made: Any, tmp_path: Path
) -> None:
    table = Predictions.load(made.run / "predictions" / "test.parquet")
    table.with_labels(table.labels[1:]).save(tmp_path / "fewer.csv")
    result = cli("compare", made.run, tmp_path / "fewer.csv")
    assert result.status == 1
    assert f"1 only in {made.run} ({table.labels[0]})" in result.err


def test_rare_labels_can_be_left_out(cli: Any, made: Any) -> None:
    """The macro value is the mean of those that are left, and both runs keep the same ones."""
    counted = read_json(made.run / "metrics.json")["test"]["per_label"]
    floor = sorted(each["positives"] for each in counted.values())[len(counted) // 2]
    kept = {label: each for label, each in counted.items() if each["positives"] >= floor}
    assert 0 < len(kept) < len(counted)
    found = json.loads(cli("evaluate", made.run, "--min-positives", floor, *QUICK).out)
    assert set(found["per_label"]) == set(kept)
    mean = sum(each["auroc"] for each in kept.values()) / len(kept)
    assert found["macro_auroc"] == pytest.approx(mean)
    paired = json.loads(cli("compare", made.run, made.other, "--min-positives", floor, *QUICK).out)
    assert paired["a"]["macro_auroc"] == pytest.approx(mean)
    assert set(paired["b"]["per_label"]) == set(kept)
    result = cli("evaluate", made.run, "--min-positives", 10_000, *QUICK)
    assert (result.status, "10000" in result.err) == (1, True)


def test_a_report_of_two_runs(cli: Any, made: Any, synthetic_path: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = cli(
        "report", made.run, made.other, "--out", page, "--cohort", synthetic_path,
        "--resamples", 20,
    )  # fmt: skip
    assert result.status == 0, result.err
    assert result.out.strip() == f"Report: {page}"
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert len(numbers["comparisons"]) == 1
    assert "<svg" in page.read_text()


def test_a_table_without_targets_cannot_be_scored(cli: Any, made: Any, tmp_path: Path) -> None:
    table = Predictions.load(made.run / "predictions" / "test.parquet")
    bare = Predictions(table.labels, table.records, table.patients, None, table.probabilities)
    bare.save(tmp_path / "bare.csv")
    result = cli("evaluate", tmp_path / "bare.csv")
    assert result.status == 1
    assert "targets" in result.err


def test_a_model_needs_a_cohort_with_its_labels(
    cli: Any, made: Any, synthetic_path: Path, synthetic: Cohort
) -> None:
    assert "--model" in cli("evaluate", made.model).err
    result = cli(
        "evaluate", "--model", made.model, "--cohort", synthetic_path, "--task", "superclass-5"
    )
    assert result.status == 1
    assert "labels" in result.err


def test_a_run_without_predictions_of_a_split(cli: Any, made: Any) -> None:
    result = cli("evaluate", made.run, "--split", "train")
    assert result.status == 1
    assert " train" in result.err


def test_a_card_and_the_report_that_shows_it(
    cli: Any, made: Any, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    run = shutil.copytree(made.run, tmp_path / "run")
    numbers = read_json(run / "metrics.json")["test"]
    result = cli(
        "card", "--model", run / "model", "--cohort", synthetic_path,
        "--store", synthetic_store.root, "--resamples", 20, "--device", "cpu",
    )  # fmt: skip
    assert result.status == 0, result.err
    assert result.out.strip() == f"Card: {run / 'model' / 'README.md'}"
    evidence = read_json(run / "model" / "evaluation.json")
    assert evidence["score"]["macro_auroc"] == pytest.approx(numbers["macro_auroc"], abs=1e-9)
    assert evidence["validation"]["macro_auroc"] > 0
    text = (run / "model" / "README.md").read_text()
    assert "## Fewer leads and noise" in text
    assert evidence["leakage"] is None
    assert "biased" not in text
    page = tmp_path / "report.html"
    assert cli("report", run, "--out", page, "--resamples", 20).status == 0
    shown = page.read_text()
    for section in ("calibration", "subgroups", "robustness"):
        assert f'<section id="{section}"' in shown
    assert repr(evidence["robustness"]["noise"][0]["auroc"]["value"]) in shown


@pytest.mark.filterwarnings("always::einthoven.stages.leakage.LeakageWarning")
def test_a_card_without_what_takes_long(
    cli: Any, made: Any, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    model = shutil.copytree(made.model, tmp_path / "model")
    given = ("--cohort", synthetic_path, "--store", synthetic_store.root, "--resamples", 0)
    assert (
        cli("card", "--model", model, *given, "--no-robustness", "--split", "validation").status
        == 0
    )
    evidence = read_json(model / "evaluation.json")
    assert (evidence["split"], evidence["robustness"]) == ("validation", None)
    text = (model / "README.md").read_text()
    assert "| validation |" in text
    seen = evidence["leakage"]["seen"]
    assert seen > 0
    assert f"{seen} of the {seen} validation records" in text


def test_tables_of_models_are_calibrated_and_those_of_runs_are_not(
    cli: Any, made: Any, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.parquet"
    cli(
        "evaluate", "--model", made.model, "--cohort", synthetic_path,
        "--store", synthetic_store.root, "--save", kept, *QUICK,
    )  # fmt: skip
    ours = Predictions.load(made.run / "predictions" / "test.parquet")
    theirs = Predictions.load(kept)
    assert (ours.metadata["calibrated"], theirs.metadata["calibrated"]) == ("no", "yes")
    calibration = load_model(made.model).calibration
    assert calibration is not None
    expected = calibration.apply(ours.probabilities)
    assert theirs.probabilities == pytest.approx(expected, abs=1e-6)
