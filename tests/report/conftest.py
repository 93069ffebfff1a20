"""A small report: predictions, runs, comparisons, an evaluation and ECGs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven.evaluate import calibration_report, fit_calibration, score_subgroups
from einthoven.evaluate.curves import curves
from einthoven.evaluate.scores import score_predictions
from einthoven.files import Json, write_json, write_lines
from einthoven.predictions import Predictions
from einthoven.records.record import STANDARD_LEADS, Record
from einthoven.report.cases import example
from einthoven.report.data import report_data

HOSTILE = '<script>alert("$x$")</script>'
LABELS = ("NORM", "ISC_", HOSTILE, "LONG|PIPE", "窦性心律")
RECORDS, RESAMPLES = 120, 40
PART = {
    "records": 120, "patients": 60, "without_label": {"records": 24, "share": 0.2},
    "positives": {label: {"records": 6, "share": 0.05} for label in LABELS},
    "age": {"median": 61.5, "lower_quartile": 47.0, "upper_quartile": 72.25,
            "missing": {"records": 3, "share": 0.025}},
    "sex": {"<b>odd</b>": {"records": 90, "share": 0.75}, "": {"records": 30, "share": 0.25}},
    "date": {"first": "2019-02", "last": "2024-11", "missing": {"records": 12, "share": 0.1}},
    "device": None,
    "rate": {"500": {"records": 120, "share": 1.0}},
    "seconds": {"median": 10.0, "lower_quartile": 10.0, "upper_quartile": 10.0},
}  # fmt: skip
POPULATION = {
    "found": 777, "left_out": {"quarantined": 650, "without a label": 7}, "used": 120,
    "descriptions": {"NORM": "normal <ECG>"}, "parts": {"test": PART, "all": PART},
}  # fmt: skip


@pytest.fixture(scope="session")
def labels() -> tuple[str, ...]:
    """Names that break a page without escaping."""
    return LABELS


def _predictions(strength: float, seed: int) -> Predictions:
    shared = np.random.default_rng(0)
    targets = (shared.random((RECORDS, len(LABELS))) < [0.5, 0.3, 0.2, 0.06, 0.1]).astype(np.uint8)
    noise = np.random.default_rng(seed).normal(size=targets.shape)
    return Predictions(
        labels=LABELS,
        records=np.array([f"r{i}" for i in range(RECORDS)]),
        patients=np.array([f"p{i // 2}" for i in range(RECORDS)]),
        targets=targets,
        probabilities=1 / (1 + np.exp(-(strength * targets + noise - 1))),
        metadata={"split": "test"},
    )


def _config(recipe: str) -> dict[str, Any]:
    return {
        "request": {
            "backbone": "st_mem_tiny",
            "weights": {"path": "model", "sha256": "ab" * 32},
            "recipe": {
                "name": recipe,
                "seed": 3,
                "initialise": "pretrained",
                "stage1": {"epochs": 100} if recipe == "post-training" else None,
                "stage2": {"epochs": 2, "drop_path": 0.1, "dropout": 0.01},
            },
            "cohort": "ptb-xl",
            "version": "1.0.3",
            "task": "all-71",
            "labels": list(LABELS),
            "cohort_digest": "cd" * 32,
            "records_digest": "ef" * 32,
            "world": 1,
        },
        "environment": {"einthoven": "0.1.0", "torch": "2.13.0"},
        "command": ["einthoven", "posttrain", "my data", "--out", f"runs/{recipe}"],
    }


def _history(top: float) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 0.3 / epoch,
            "seconds": 10.0,
            "validation_seconds": 1.0,
            "macro_auroc": top - 0.2 / epoch,
            "macro_auprc": top - 0.4 / epoch,
        }
        for epoch in range(1, 5)
    ]


def _write_run(folder: Path, recipe: str, place: int, strength: float) -> Path:
    """Write a finished run's folder, as far as a report reads it."""
    table = _predictions(strength, place + 1)
    table.save(folder / "predictions" / "test.parquet")
    numbers = {
        "test": score_predictions(table, resamples=RESAMPLES).to_dict(),
        "validation": {"macro_auroc": 0.91 - place / 10, "macro_auprc": 0.6},
        "seconds": 5025.0,
    }
    write_json(folder / "metrics.json", numbers)
    write_json(folder / "run.json", _config(recipe))
    (folder / "stage2").mkdir()
    write_lines(folder / "stage2" / "metrics.jsonl", _history(0.95 - 0.05 * place))
    return folder


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of four runs by name, the first the best."""
    folder = tmp_path_factory.mktemp("runs")
    strengths = {"post-training": 3.0, "fine-tuning": 1.8, "linear probe": 1.2, HOSTILE: 0.6}
    return {
        name: _write_run(folder / str(place), name, place, strength)
        for place, (name, strength) in enumerate(strengths.items())
    }


@pytest.fixture(scope="session")
def report(runs: dict[str, Path]) -> Json:
    """The numbers of a page about the four runs, compared with the second."""
    data, records = report_data(runs, "fine-tuning", resamples=RESAMPLES, command="einthoven 'x'")
    assert not records
    return data


@pytest.fixture(scope="session")
def comparison(report: Json) -> Json:
    """The first run against the second."""
    return dict(report["comparisons"][0])


def _condition(name: str, **fields: Any) -> dict[str, Any]:
    value = {
        "value": 0.8125, "interval": [0.7625, 0.8515], "difference": -0.0325,
        "difference_interval": [-0.0515, -0.0125], "worse": 2,
    }  # fmt: skip
    return {
        "name": name,
        "log_loss": 0.3125,
        "ece": 0.0635,
        "auroc": value,
        "auprc": value,
    } | fields


@pytest.fixture(scope="session")
def evaluation(report: Json) -> Json:
    """The contents of an evaluation.json."""
    run, table = report["runs"][0], _predictions(3.0, 1)
    assert table.targets is not None
    fitted = fit_calibration(table)
    measured = calibration_report(table, fitted, resamples=20)
    drawn = curves(table, measured, resamples=20)
    assert drawn is not None
    sex = np.where(np.arange(len(table)) % 2, "female", "<b>odd</b>")
    sex[:7] = ""
    clean = {key: {"value": 0.845, "interval": [0.8, 0.9]} for key in ("auroc", "auprc")}
    return {
        "split": "test",
        "cohort": {"name": "ptb-xl", "version": "1.0.3", "task": "all-71"},
        "score": run["score"],
        "validation": run["validation"],
        "population": POPULATION,
        "calibration": measured.to_dict(),
        "curves": drawn.to_dict(),
        "subgroups": score_subgroups(table, {"sex": sex}, resamples=20).to_dict(),
        "robustness": {
            "records": 120, "resamples": 20, "seed": 0, "unit": "record",
            "clean": clean | {"log_loss": 0.25, "ece": 0.0125},
            "leads": [_condition("8 leads", leads=["I", "II", "V1"], policy="native")],
            "noise": [_condition("muscle, 6 dB", noise="muscle", snr=6.0)],
            "left_out": {"6 limb leads": "the model does not read III"},
        },
    }  # fmt: skip


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    """A record of flat leads with a signal added to lead II."""

    def make(
        lead_two: Any = 0.0,
        *,
        rate: float = 500.0,
        seconds: float = 10.0,
        leads: tuple[str, ...] = STANDARD_LEADS,
    ) -> Record:
        signal = np.zeros((len(leads), round(seconds * rate)), dtype=np.float32)
        signal[leads.index("II")] += lead_two
        return Record.create(
            signal, rate, leads=leads, name="MRN-4711", patient="Jane Doe", source_hash="9f" * 32
        )

    return make


@pytest.fixture(scope="session")
def examples(make_record: Callable[..., Record]) -> tuple[list[Json], list[Record]]:
    """Two ECGs with the calls of two labels, and one of them without a threshold."""
    record = make_record(rate=100.0)
    call = {"label": HOSTILE, "call": "missed", "predicted": "absent", "truth": "present"}
    call |= {"probability": 0.0625, "threshold": 0.125}
    unknown = {"label": "NORM", "call": None, "predicted": None, "truth": "present"}
    unknown |= {"probability": 0.96875, "threshold": None}
    entries = [
        example(record, title, {"row": row, "record": f"r{row}", "patient": "p<3>"}, labels)
        for row, (title, labels) in enumerate(
            [("Missed: ISC_", [call]), ("<script>second</script>", [unknown])]
        )
    ]
    return entries, [record, record]


@pytest.fixture(scope="session")
def gallery(make_record: Callable[..., Record]) -> tuple[Json, list[Record]]:
    """Wrong calls of three records, one of them drawn."""
    call = {"call": "false alarm", "predicted": "present", "truth": "absent", "threshold": 0.375}
    errors = [
        {"row": row, "record": f"<i>{row}", "patient": "", "label": HOSTILE, "quality": quality}
        | {"probability": 0.5 + row / 32}
        | call
        for row, quality in ((0, ""), (1, None), (2, "I is flat & loose"))
    ]
    drawn = {key: errors[2][key] for key in ("row", "record", "patient", "quality")}
    summary = {"labels": 5, "pairs": 600, "missed": 0, "false_alarms": 3, "records": 3}
    shown = [drawn | {"errors": errors[2:]}]
    gallery = {**summary, "errors": errors, "drawn": shown, "file": "page.errors.csv"}
    return gallery, [make_record(rate=100.0)]
