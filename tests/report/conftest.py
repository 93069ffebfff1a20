"""A small report: made-up predictions, runs, comparisons and ECGs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from einthoven.evaluate import compare, score
from einthoven.predictions import Predictions
from einthoven.records.record import STANDARD_LEADS, Record
from einthoven.report import Example, PairedRuns, ReportRun

HOSTILE = '<script>alert("$x$")</script>'
LABELS = ("NORM", "ISC_", HOSTILE, "LONG|PIPE", "窦性心律")
RECORDS = 120
SETTINGS: dict[str, Any] = {"resamples": 40, "undefined_labels": "skip"}


@pytest.fixture(scope="session")
def labels() -> tuple[str, ...]:
    """Names that a careless page would break on."""
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


def _about(recipe: str) -> dict[str, Any]:
    return {
        "request": {
            "backbone": "st_mem_tiny",
            "weights": {"path": "encoder.safetensors", "sha256": "ab" * 32},
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
        found = score(table.targets, table.probabilities, labels=LABELS, **SETTINGS).to_dict()
        made.append(
            ReportRun(
                name=name,
                about=_about(name),
                score=found,
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


@pytest.fixture(scope="session")
def make_record() -> Callable[..., Record]:
    """A record of twelve flat leads, or of given ones, with a signal added to lead II."""

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
    """An ECG with a true label that was not predicted, and with one that nobody knows."""
    probabilities = dict(zip(LABELS, (0.9, 0.05, 0.6, 0.3, 0.01), strict=True))
    return Example(make_record(rate=100.0), ("ISC_", "AFIB"), probabilities)
