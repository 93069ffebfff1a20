"""A small report: predictions, runs, comparisons, an evaluation and ECGs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from einthoven.evaluate import (
    calibration_report,
    compare,
    fit_calibration,
    score,
    score_subgroups,
)
from einthoven.predictions import Predictions
from einthoven.records.record import STANDARD_LEADS, Record
from einthoven.report.data import Example, PairedRuns, ReportRun

HOSTILE = '<script>alert("$x$")</script>'
LABELS = ("NORM", "ISC_", HOSTILE, "LONG|PIPE", "窦性心律")
RECORDS = 120
SETTINGS: dict[str, Any] = {"resamples": 40, "undefined_labels": "skip"}


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


@pytest.fixture(scope="session")
def runs() -> list[ReportRun]:
    """Four runs, the first the best."""
    made = []
    names = ("post-training", "fine-tuning", "linear probe", HOSTILE)
    for place, (name, strength) in enumerate(zip(names, (3.0, 1.8, 1.2, 0.6), strict=True)):
        table = _predictions(strength, place + 1)
        assert table.targets is not None
        result = score(table.targets, table.probabilities, labels=LABELS, **SETTINGS).to_dict()
        made.append(
            ReportRun(
                name=name,
                config=_config(name),
                score=result,
                validation={"macro_auroc": 0.91 - place / 10, "macro_auprc": 0.6},
                history=_history(0.95 - 0.05 * place),
                predictions=table,
                seconds=5025.0 if place == 0 else None,
            )
        )
    return made


@pytest.fixture(scope="session")
def paired(runs: list[ReportRun]) -> list[PairedRuns]:
    """The first run and the third, each against the second."""
    return [
        PairedRuns(
            runs[i].name,
            runs[1].name,
            compare(runs[i].predictions, runs[1].predictions, **SETTINGS),  # type: ignore[arg-type]
        )
        for i in (0, 2)
    ]


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
def evaluation(runs: list[ReportRun]) -> dict[str, Any]:
    """The contents of an evaluation.json."""
    table = runs[0].predictions
    assert table is not None
    assert table.targets is not None
    fitted = fit_calibration(table.targets, table.probabilities, LABELS)
    measured = calibration_report(table.targets, table.probabilities, LABELS, fitted, resamples=20)
    sex = np.where(np.arange(len(table)) % 2, "female", "<b>odd</b>")
    sex[:7] = ""
    clean = {key: {"value": 0.845, "interval": [0.8, 0.9]} for key in ("auroc", "auprc")}
    return {
        "split": "test",
        "cohort": {"name": "ptb-xl", "version": "1.0.3", "task": "all-71"},
        "score": runs[0].score,
        "validation": runs[0].validation,
        "calibration": measured.to_dict(),
        "subgroups": score_subgroups(table, {"sex": sex}, resamples=20).to_dict(),
        "robustness": {
            "records": 120, "resamples": 20, "seed": 0, "by": "record",
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
def example(make_record: Callable[..., Record]) -> Example:
    """An ECG with a true label of low probability, and one that the model does not have."""
    probabilities = dict(zip(LABELS, (0.9, 0.05, 0.6, 0.3, 0.01), strict=True))
    return Example(make_record(rate=100.0), ("ISC_", "AFIB"), probabilities)
