"""evaluate, compare, report and card agree with each other and with the run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from einthoven.cohorts import Cohort
from einthoven.evaluate import auroc
from einthoven.evaluate.estimate import CONSTANT
from einthoven.files import read_json, write_json
from einthoven.models import load_model, update_config
from einthoven.predictions import Predictions
from einthoven.report.data import EvaluationWarning
from einthoven.report.format import number
from einthoven.report.page import write_report
from einthoven.signals.store import Store

QUICK = ("--resamples", 20, "--json")


def test_a_run_its_table_and_its_model_score_the_same(
    cli: Any, made: Any, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    """The model has the labels that 8 records carry; the cohort is opened with all 71."""
    numbers = read_json(made.run / "metrics.json")["test"]
    table = made.run / "predictions" / "test.parquet"
    digests = read_json(made.run / "metrics.json")["predictions"]
    assert digests["test"] == Predictions.load(table).digest != digests["validation"]
    cohort = ("--cohort", synthetic_path, "--task", "all-71", "--split", "test")
    cohort += ("--store", synthetic_store.root)
    saved = tmp_path / "saved.csv"
    for command in (
        (made.run,),
        (table,),
        ("--model", made.model, *cohort, "--save", saved),
        (saved,),
    ):
        result = cli("evaluate", *command, *QUICK)
        score = json.loads(result.out)
        assert score["records"] == numbers["records"], command
        assert score["macro_auroc"] == pytest.approx(numbers["macro_auroc"], abs=1e-9), command
        interval = score["macro_auroc_interval"]
        assert interval == pytest.approx(numbers["macro_auroc_interval"], abs=1e-9)


@pytest.mark.filterwarnings("always::einthoven.stages.leakage.LeakageWarning")
def test_a_score_on_records_that_a_model_has_seen_is_marked(
    cli: Any, made: Any, synthetic_path: Path, synthetic_store: Store
) -> None:
    cohort = ("--cohort", synthetic_path, "--store", synthetic_store.root)
    result = cli("evaluate", "--model", made.model, *cohort, "--split", "validation", *QUICK)
    records = json.loads(result.out)["records"]
    counts = rf"\b{records} \D+ {records} validation .* {records} "
    assert re.search(counts, " ".join(result.err.split()))
    assert " records " not in cli("evaluate", "--model", made.model, *cohort, *QUICK).err


def test_the_included_model_is_evaluated_by_its_name(
    cli: Any, synthetic_path: Path, synthetic_store: Store
) -> None:
    cohort = ("--cohort", synthetic_path, "--store", synthetic_store.root)
    result = cli("evaluate", "--model", "einthoven-small", *cohort, *QUICK, "--device", "cpu")
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
    options = (*QUICK, "--device", "cpu", "--save")
    result = cli(
        "evaluate", "--model", "einthoven-small", *cohort, *options, tmp_path / "some.parquet"
    )
    assert re.search(r"\b2\b\D+\b71\b", result.err)
    assert json.loads(result.out)["per_label"].keys() == set(two)
    command = ("evaluate", "--model", "einthoven-small", *cohort, *QUICK, "--device", "cpu")
    assert json.loads(cli(*command, "--target", two[1]).out)["per_label"].keys() == {two[1]}
    assert cli(*command, "--target", two[1], "--task", "all-71", status=1).remedies == 1
    whole = ("--cohort", synthetic_path, "--store", synthetic_store.root)
    cli("evaluate", "--model", "einthoven-small", *whole, *options, tmp_path / "every.parquet")
    some, every = (Predictions.load(tmp_path / f"{name}.parquet") for name in ("some", "every"))
    same = np.isin(every.records, some.records)
    assert same.sum() == len(some)
    columns = every.with_labels(some.labels)
    assert np.array_equal(some.probabilities, columns.probabilities[same])
    assert some.targets is not None
    assert columns.targets is not None
    assert np.array_equal(some.targets, columns.targets[same])


def test_a_cohort_of_another_vocabulary_is_scored_by_the_statement_map(
    cli: Any, synthetic: Cohort, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    """Codes of SNOMED CT, and of CODE-15 %, which does not distinguish degrees of block."""
    table = synthetic.table[["path", "patient", "split"]].assign(height=180)
    table["path"] = [str(synthetic_path / path) for path in table["path"]]
    table[["164889003", "RBBB"]] = synthetic.matrix[:, :2]
    table.to_csv(tmp_path / "own.csv")
    saved = [tmp_path / name for name in ("mapped.parquet", "every.parquet")]
    for cohort, file in zip((tmp_path / "own.csv", synthetic_path), saved, strict=True):
        command = ("--cohort", cohort, "--store", synthetic_store.root, "--split", "test")
        command += ("--save", file, "--device", "cpu")
        cli("evaluate", "--model", "einthoven-small", *command, *QUICK)
    mapped, every = map(Predictions.load, saved)
    assert mapped.labels == ("AFIB", "RBBB")
    assert mapped.metadata["task"] == "statements"
    parts = every.with_labels(["AFIB", "CRBBB", "IRBBB"]).probabilities
    expected = np.stack([parts[:, 0], parts[:, 1:].max(axis=1)], axis=1)
    expected = expected[np.isin(every.records, mapped.records)]
    assert np.allclose(mapped.probabilities, expected, atol=1e-6)
    assert mapped.targets is not None
    split = (table["split"] == "test").to_numpy()
    assert np.array_equal(mapped.targets, table.loc[split, ["164889003", "RBBB"]].to_numpy())
    options = ("--cohort", tmp_path / "own.csv", "--store", synthetic_store.root, "--split", "test")
    options += ("--out", tmp_path / "card", "--no-robustness", "--device", "cpu", "--resamples", 20)
    printed = cli("card", "--model", "einthoven-small", *options)
    assert "RBBB" in printed.err  # several labels of the model, and so on no card
    evaluation = read_json(tmp_path / "card" / "evaluation.json")
    assert list(evaluation["score"]["per_label"]) == ["AFIB"]
    area = auroc(mapped.targets, mapped.probabilities)[0]
    assert evaluation["score"]["per_label"]["AFIB"]["auroc"] == pytest.approx(area)
    assert list(evaluation["calibration"]["decisions"]) == ["AFIB"]


def test_predictions_without_a_digest_are_stated(cli: Any, made: Any, tmp_path: Path) -> None:
    file, copy = made.run / "predictions" / "test.parquet", tmp_path / "run"
    pd.read_parquet(file).to_parquet(tmp_path / "again.parquet")
    result = cli("evaluate", tmp_path / "again.parquet", *QUICK)
    assert json.loads(result.out)["predictions"] == {"digest": "none"}
    assert "again.parquet" in cli("evaluate", tmp_path / "again.parquet", *QUICK[:2]).err
    (copy / "predictions").mkdir(parents=True)
    pd.read_parquet(file).to_parquet(copy / "predictions" / "test.parquet")
    assert "digest" in cli("evaluate", copy, *QUICK, status=1).err


def test_a_cohort_without_a_shared_statement_is_refused(
    cli: Any, synthetic: Cohort, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    table = synthetic.table[["path", "patient"]].assign(**{"426627000": 1})  # bradycardia
    table.iloc[0, -1] = 0
    table["path"] = [str(synthetic_path / path) for path in table["path"]]
    table.to_csv(tmp_path / "own.csv")
    cohort = ("--cohort", tmp_path / "own.csv", "--store", synthetic_store.root)
    result = cli("evaluate", "--model", "einthoven-small", *cohort, *QUICK, status=1)
    assert "426627000" in result.err


@pytest.mark.filterwarnings("always::einthoven.stages.leakage.LeakageWarning")
def test_all_records_of_a_table_without_splits_are_scored(
    cli: Any, made: Any, synthetic: Cohort, synthetic_path: Path, synthetic_store: Store,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Unless the model has seen some of them, or a split is named."""
    model = load_model(made.model)
    targets = pd.DataFrame(synthetic.matrix, synthetic.table.index, list(synthetic.labels))
    table = synthetic.table[["path", "patient"]].assign(**targets[list(model.labels)])
    table["path"] = [str(synthetic_path / path) for path in table["path"]]
    tested = (synthetic.table["split"] == "test").to_numpy()
    table[tested].to_csv(tmp_path / "unseen.csv")
    table.to_csv(tmp_path / "seen.csv")
    records = {}
    for name, options in (("unseen", ()), ("unseen", ("--split", "test")), ("seen", ())):
        cohort = ("--cohort", tmp_path / f"{name}.csv", "--store", synthetic_store.root)
        result = cli("evaluate", "--model", made.model, *cohort, *options, *QUICK)
        records[name, *options] = json.loads(result.out)["records"]
    assert records["unseen",] == tested.sum()
    assert records["unseen", "--split", "test"] < tested.sum() / 4
    assert records["seen",] < len(table) / 4
    cohort = ("--cohort", tmp_path / "unseen.csv", "--store", synthetic_store.root)
    options = ("--resamples", 0, "--no-robustness", "--out", tmp_path / "out")
    cli("card", "--model", made.model, *cohort, *options)
    evaluation = read_json(tmp_path / "out" / "evaluation.json")
    assert (evaluation["split"], evaluation["score"]["records"]) == ("all", tested.sum())


def test_another_split_and_other_definitions(cli: Any, made: Any) -> None:
    score = json.loads(cli("evaluate", made.run, "--split", "validation", *QUICK).out)
    stored = read_json(made.run / "metrics.json")["validation"]
    assert score["macro_auroc"] == stored["macro_auroc"]
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
    score = json.loads(cli("evaluate", made.run, *QUICK, *more).out)
    assert (score["unit"], score["interval"], score["undefined_labels"]) == (
        "patient",
        "basic",
        "skip",
    )
    assert score["auprc_definition"] == "trapezoid"


def test_the_printed_table_has_all_digits(cli: Any, made: Any) -> None:
    numbers = read_json(made.run / "metrics.json")["test"]
    result = cli("evaluate", made.run, "--resamples", 20)
    assert "…" not in result.out
    rows = [line for line in result.out.splitlines() if " to " in line]
    assert len(rows) == 1 + numbers["defined_labels"]  # no number is broken over lines
    assert max(map(len, result.out.splitlines())) <= 80
    assert f"{numbers['macro_auroc']:.4f}" in result.out
    assert f"{numbers['per_label']['AFIB']['auprc']:.4f}" in result.out
    assert re.search(r"\b20\b\D+\b0\b", result.err)


def test_a_run_compared_with_itself_differs_by_nothing(cli: Any, made: Any) -> None:
    score = json.loads(cli("compare", made.run, made.run, *QUICK).out)
    assert score["auroc"]["macro"] == 0.0
    assert score["auroc"]["macro_interval"] is None
    assert score["auroc"]["macro_interval_reason"] == CONSTANT


def test_two_runs_compared(cli: Any, made: Any) -> None:
    scores = [read_json(run / "metrics.json")["test"] for run in (made.run, made.other)]
    difference = scores[0]["macro_auroc"] - scores[1]["macro_auroc"]
    score = json.loads(cli("compare", made.run, made.other, *QUICK).out)
    assert score["auroc"]["macro"] == pytest.approx(difference)
    result = cli("compare", made.run, made.other, "--resamples", 20)
    assert number(difference, signed=True, places=4) in result.out
    assert f"{scores[0]['defined_labels']} of {len(scores[0]['per_label'])}" in result.out
    assert "…" not in result.out
    cli("compare", made.run, made.other, "--resamples", 0)


def test_other_labels_are_refused_by_the_names_of_the_runs(
    cli: Any, made: Any, tmp_path: Path
) -> None:
    table = Predictions.load(made.run / "predictions" / "test.parquet")
    table.with_labels(table.labels[1:]).save(tmp_path / "fewer.csv")
    result = cli("compare", made.run, tmp_path / "fewer.csv", status=1)
    assert f"{made.run} ({table.labels[0]})" in result.err


def test_rare_labels_can_be_left_out(cli: Any, made: Any) -> None:
    """The macro value is the mean of those that are left, and both runs keep the same ones."""
    counted = read_json(made.run / "metrics.json")["test"]["per_label"]
    floor = sorted(each["positives"] for each in counted.values())[len(counted) // 2]
    common = {label: each for label, each in counted.items() if each["positives"] >= floor}
    assert 0 < len(common) < len(counted)
    score = json.loads(cli("evaluate", made.run, "--min-positives", floor, *QUICK).out)
    assert set(score["per_label"]) == set(common)
    mean = sum(each["auroc"] for each in common.values()) / len(common)
    assert score["macro_auroc"] == pytest.approx(mean)
    paired = json.loads(cli("compare", made.run, made.other, "--min-positives", floor, *QUICK).out)
    assert paired["a"]["macro_auroc"] == pytest.approx(mean)
    assert set(paired["b"]["per_label"]) == set(common)
    result = cli("evaluate", made.run, "--min-positives", 10_000, *QUICK, status=1)
    assert "10000" in result.err


def test_a_report_of_two_runs(cli: Any, made: Any, synthetic_path: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = cli(
        "report", made.run, made.other, "--out", page, "--cohort", synthetic_path,
        "--resamples", 20,
    )  # fmt: skip
    assert result.out.split()[-1] == str(page)
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert len(numbers["comparisons"]) == 1
    assert numbers["command"].endswith(
        f"--out {page.name} --resamples 20 --cohort {synthetic_path.name}"
    )
    assert "<svg" in page.read_text()


def test_a_report_states_predictive_values_at_a_prevalence(
    cli: Any, made: Any, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    options = ("report", made.run, "--out", page, "--resamples", 20)
    cli(*options, "--prevalence", "NORM=0.3", "--prevalence", "AFIB=.02")
    numbers = json.loads(page.with_suffix(".json").read_text())
    assert {k: v["prevalence"] for k, v in numbers["prevalence"].items()} == {
        "NORM": 0.3,
        "AFIB": 0.02,
    }
    assert repr(numbers["prevalence"]["NORM"]["npv"]) in page.read_text()
    for wrong in ("XYZ=0.1", "NORM=2", "NORM=2 %", "NORM"):
        assert wrong.partition("=")[0] in cli(*options, "--prevalence", wrong, status=1).err


def test_a_report_draws_examples_from_a_table_with_other_columns(
    cli: Any, made: Any, synthetic: Cohort, tmp_path: Path
) -> None:
    table, page = tmp_path / "ecgs.csv", tmp_path / "report.html"
    paths = [str(path.resolve()) for path in synthetic.paths()]
    frame = pd.DataFrame({"path": paths, "record": synthetic.ids(), "ward": "B"})
    frame.to_csv(table, index=False)
    cli("report", made.run, "--out", page, "--cohort", table, "--resamples", 0)
    with_examples = page.read_text().count("<svg")
    cli("report", made.run, "--out", page, "--resamples", 0)
    assert page.read_text().count("<svg") < with_examples


def test_a_table_without_targets_cannot_be_scored(cli: Any, made: Any, tmp_path: Path) -> None:
    table = Predictions.load(made.run / "predictions" / "test.parquet")
    bare = Predictions(table.labels, table.records, table.patients, None, table.probabilities)
    bare.save(tmp_path / "bare.csv")
    result = cli("evaluate", tmp_path / "bare.csv", status=1)
    assert "targets" in result.err


def test_a_model_needs_a_cohort_with_its_labels(
    cli: Any, made: Any, synthetic_path: Path, synthetic: Cohort
) -> None:
    assert "--model" in cli("evaluate", made.model, status=1).err
    cohort = ("--model", made.model, "--cohort", synthetic_path, "--task", "superclass-5")
    result = cli("evaluate", *cohort, *QUICK)  # both have normal ECGs
    assert list(json.loads(result.out)["per_label"]) == ["NORM"]


def test_a_run_without_predictions_of_a_split(cli: Any, made: Any) -> None:
    result = cli("evaluate", made.run, "--split", "train", status=1)
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
    assert result.out.split()[-1] == str(run / "model" / "README.md")
    evaluation = read_json(run / "model" / "evaluation.json")
    assert evaluation["score"]["macro_auroc"] == pytest.approx(numbers["macro_auroc"], abs=1e-9)
    assert evaluation["validation"]["macro_auroc"] > 0
    text = (run / "model" / "README.md").read_text()
    first = evaluation["robustness"]["noise"][0]["auroc"]["value"]
    assert number(first) in text
    assert evaluation["leakage"] is None
    page = tmp_path / "report.html"
    cli("report", run, "--out", page, "--resamples", 20)
    shown = page.read_text()
    for section in ("calibration", "subgroups", "robustness"):
        assert f'<section id="{section}"' in shown
    assert repr(first) in shown
    # The evaluation of other records in the run's folder is not mixed with the run's own numbers.
    other = evaluation | {"score": evaluation["score"] | {"records": 7}}
    write_json(run / "model" / "evaluation.json", other)
    with pytest.warns(EvaluationWarning):
        write_report([run], page, resamples=20)
    data = read_json(page.with_suffix(".json"))["runs"][0]
    assert data["evaluation"] == {}
    assert data["score"]["macro_auroc"] == numbers["macro_auroc"]


def test_the_card_of_every_saved_folder(cli: Any, made: Any, tmp_path: Path) -> None:
    ensemble = tmp_path / "both"
    cli("ensemble", made.run, made.other, "--out", ensemble, "--resamples", 0)
    stored = (made.model / "README.md").read_text()
    for folder in (made.run, made.model):
        assert cli("card", "--model", folder).out.strip() == stored.strip()
    assert "feature-extraction" in cli("card", "--model", made.encoder).out
    assert "Wagner" in cli("card", "--model", "einthoven-small").out
    for folder in (made.model, ensemble):
        assert "PTB-XL among the training data: unknown" in cli("card", "--model", folder).out
    assert read_json(ensemble / "run.json")["request"]["contains_ptbxl"] is None
    assert "such as" in cli("card", "--model", tmp_path / "absent", status=1).err


def test_an_ensemble_has_seen_what_its_members_have(cli: Any, made: Any, tmp_path: Path) -> None:
    members = [shutil.copytree(run, tmp_path / run.name) for run in (made.run, made.other)]
    terms: Any = {"license": "CC-BY-NC-4.0", "license_text": "", "commercial_use": False}
    update_config(members[0] / "model", provenance={"contains_ptbxl": True}, **terms)
    cli("ensemble", *members, "--out", tmp_path / "both", "--resamples", 0)
    card = cli("card", "--model", tmp_path / "both").out
    assert "PTB-XL among the training data: yes" in card
    assert "Not for commercial use" in card
    assert "predict --model" not in card


@pytest.mark.filterwarnings("always::einthoven.stages.leakage.LeakageWarning")
def test_a_card_without_robustness(
    cli: Any, made: Any, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "validation"
    command = ["card", "--model", made.model, "--cohort", synthetic_path, "--resamples", 0]
    command += ["--store", synthetic_store.root, "--no-robustness", "--split", "validation"]
    assert "--out" in cli(*command, status=1).err
    cli(*command, "--out", out)
    evaluation = read_json(out / "evaluation.json")
    assert (evaluation["split"], evaluation["robustness"]) == ("validation", None)
    text = (out / "README.md").read_text()
    assert "| validation |" in text
    seen = evaluation["leakage"]["seen"]
    assert seen > 0
    assert f"{seen} validation records" in text


def test_tables_of_models_are_calibrated_and_those_of_runs_are_not(
    cli: Any, made: Any, synthetic_path: Path, synthetic_store: Store, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.parquet"
    cli(
        "evaluate", "--model", made.model, "--cohort", synthetic_path,
        "--store", synthetic_store.root, "--save", saved, *QUICK,
    )  # fmt: skip
    ours = Predictions.load(made.run / "predictions" / "test.parquet")
    theirs = Predictions.load(saved)
    assert (ours.metadata["calibrated"], theirs.metadata["calibrated"]) == ("no", "yes")
    calibration = load_model(made.model).calibration
    assert calibration is not None
    expected = calibration.apply(ours.probabilities)
    assert theirs.probabilities == pytest.approx(expected, abs=1e-6)
