"""Ensembles: means of finished runs, and refused members."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from einthoven.errors import EvaluationError, TrainingError
from einthoven.evaluate import compare
from einthoven.experiment.ensembles import ensemble
from einthoven.files import read_json, write_json
from einthoven.predictions import Predictions
from einthoven.report.page import write_report

LABELS = ("AFIB", "NORM", "PVC")
MakeRun = Callable[..., Path]


def table(seed: int = 0, split: str = "test", records: int = 60) -> Predictions:
    """Predictions of a run; targets depend on the split only."""
    truth = np.random.default_rng(records).random((records, len(LABELS))) < 0.4
    noise = np.random.default_rng([seed, records]).normal(size=truth.shape)
    return Predictions(
        labels=LABELS,
        records=np.array([f"{split}-{i}" for i in range(records)]),
        patients=np.array([f"p{i // 2}" for i in range(records)]),
        targets=truth.astype(np.uint8),
        probabilities=1 / (1 + np.exp(-(truth + noise))),
        metadata={
            "cohort": "ptb-xl", "version": "1.0.3", "task": "rhythm-3", "split": split,
            "backbone": f"net-{seed}", "recipe": "strodthoff", "calibrated": "no",
        },
    )  # fmt: skip


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A finished run's folder, as `posttrain` leaves it but for what an ensemble does not read:
    `make_run(seed, test={...})` changes fields of its test table."""

    def make(seed: int, *, test: dict[str, Any] | None = None, **request: Any) -> Path:
        folder = tmp_path / f"run-{seed}"
        complete = {
            "stage": "posttrain", "backbone": f"net-{seed}", "cohort": "ptb-xl",
            "version": "1.0.3", "task": "rhythm-3", "labels": list(LABELS), "weights": None,
            "cohort_digest": "c", "records_digest": f"r{seed}", "world": 1,
            "recipe": {"name": "strodthoff", "seed": seed},
        }  # fmt: skip
        folder.mkdir()
        write_json(
            folder / "run.json", {"request": complete | request, "environment": {}, "command": []}
        )
        write_json(folder / "metrics.json", {"seconds": 10.0 + seed})
        table(seed, "validation", 40).save(folder / "predictions" / "validation.parquet")
        replace(table(seed), **(test or {})).save(folder / "predictions" / "test.parquet")
        return folder

    return make


def test_predictions_are_the_unweighted_mean(make_run: MakeRun, tmp_path: Path) -> None:
    done = ensemble([make_run(0), make_run(1), make_run(2)], tmp_path / "out", resamples=20)
    for split, records in (("validation", 40), ("test", 60)):
        mean = Predictions.load(tmp_path / "out" / "predictions" / f"{split}.parquet")
        parts = [table(seed, split, records) for seed in range(3)]
        expected = np.mean([part.probabilities for part in parts], axis=0)
        np.testing.assert_allclose(mean.probabilities, expected, rtol=0, atol=1e-15)
        assert mean.targets is not None
        assert np.array_equal(mean.targets, parts[0].targets)
        assert mean.records.tolist() == parts[0].records.tolist()
        stored = read_json(tmp_path / "out" / "metrics.json")[split]
        for metric, score in (("auroc", roc_auc_score), ("auprc", average_precision_score)):
            values = score(mean.targets, expected, average=None)
            assert stored[f"macro_{metric}"] == pytest.approx(np.mean(values), abs=1e-12)
        low, high = stored["macro_auroc_interval"]
        assert low < stored["macro_auroc"] < high
    assert done.test.macro_auroc == stored["macro_auroc"]
    assert done.run.path == tmp_path / "out"


def test_an_ensemble_is_compared_and_reported_like_a_run(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(0), make_run(1)]
    ensemble(runs, tmp_path / "out", resamples=20)
    tables = [folder / "predictions" / "test.parquet" for folder in (tmp_path / "out", runs[0])]
    comparison = compare(*tables, resamples=20)
    assert comparison.auroc.macro != 0
    written = write_report([tmp_path / "out"], tmp_path / "page.html", resamples=20)
    (run,) = read_json(written.with_suffix(".json"))["runs"]
    members = run["config"]["request"]["members"]
    assert [member["run"] for member in members] == ["run-0", "run-1"]
    assert all(member["backbone"] in written.read_text() for member in members)
    assert run["score"]["macro_auroc"] == comparison.a.macro_auroc


def test_other_members_are_refused_in_the_same_folder(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(seed) for seed in range(3)]
    first = ensemble(runs[:2], tmp_path / "out", resamples=20)
    again = ensemble(runs[:2], tmp_path / "out", resamples=20)
    assert first.test.macro_auroc == again.test.macro_auroc
    with pytest.raises(TrainingError, match="members"):
        ensemble(runs[1:], tmp_path / "out")
    before = read_json(runs[0] / "run.json")
    with pytest.raises(TrainingError, match="run-0"):
        ensemble(runs, runs[0])
    assert read_json(runs[0] / "run.json") == before


WHOLE = table(1)
TARGETS = WHOLE.require_targets().copy()
TARGETS[7, 1] ^= 1


def metadata(**changes: str) -> dict[str, Any]:
    return {"metadata": dict(WHOLE.metadata) | changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ("AFIB", "NORM", "PAC")}, "labels"),
        ({"labels": ("NORM", "AFIB", "PVC")}, "labels"),
        ({"records": np.array([f"test-{i + 1}" for i in range(60)])}, "records"),
        (vars(table(1, records=50)), "records.*patients.*targets"),
        ({"patients": np.array([f"q{i}" for i in range(60)])}, "patients"),
        ({"targets": TARGETS}, "targets"),
        ({"targets": None}, "targets"),
        (metadata(task="form-19"), "form-19.*rhythm-3"),
        (metadata(version="1.0.1"), r"1\.0\.1.*1\.0\.3"),
        (metadata(split="validation"), "test.*validation"),
        (metadata(calibrated="yes"), "calibrated"),
    ],
)
def test_a_member_that_differs_is_refused_by_name(
    make_run: MakeRun, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    runs = [make_run(0), make_run(1, test=changes), make_run(2)]
    with pytest.raises(EvaluationError) as caught:
        ensemble(runs, tmp_path / "out")
    assert re.search(message, caught.value.problem)
    assert str(runs[1]) in str(caught.value)
    assert str(runs[2]) not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_refused_by_name(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, missing in enumerate(
        ("metrics.json", "predictions/validation.parquet", "predictions/test.parquet"), start=1
    ):
        run = make_run(seed)
        (run / missing).unlink()
        with pytest.raises(EvaluationError, match=f"{run}.*{missing}"):
            ensemble([run, run], tmp_path / "out")
    with pytest.raises(EvaluationError, match="absent"):
        ensemble([tmp_path / "absent", run], tmp_path / "out")
    pretrained = make_run(9, stage="pretrain")
    with pytest.raises(EvaluationError, match=r"run-9.*pretrain"):
        ensemble([pretrained, run], tmp_path / "out")


def test_a_member_named_twice_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(0), make_run(1)]
    with pytest.raises(EvaluationError, match="1 runs"):
        ensemble(runs[:1], tmp_path / "out")
    with pytest.raises(EvaluationError, match=r"run-0.*run-0"):
        ensemble([*runs, runs[0]], tmp_path / "out")
    ensemble(runs, tmp_path / "out", resamples=0)
    with pytest.raises(EvaluationError, match=r"out.*ensemble") as caught:
        ensemble([tmp_path / "out", make_run(2)], tmp_path / "more")
    assert "members" in caught.value.remedy
