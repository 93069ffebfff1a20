"""From a bundle and ECGs to named probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from einthoven.backbones.inference import aggregate_crops, probabilities
from einthoven.bundle import Bundle
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import EvaluationError
from einthoven.predictions import Predictions
from einthoven.records import Record, read_record
from einthoven.signals.batches import SignalSource
from einthoven.signals.prepare import prepare_record
from einthoven.signals.store import Store


@dataclass(frozen=True)
class RecordPrediction:
    """A record and its probabilities by label name."""

    record: Record
    probabilities: dict[str, float]


def predict_record(bundle: Bundle, record: Record) -> RecordPrediction:
    """Probabilities of one ECG.

    Raises
    ------
    PreparationError
        When the record lacks a lead, is too short, or holds values that are not finite.
    """
    crops = prepare_record(bundle.preparation, record)
    with torch.no_grad():
        logits = bundle.classifier(crops).float()
    how: Any = bundle.aggregate
    joined = aggregate_crops(logits, torch.zeros(len(logits), dtype=torch.long), 1, how)[0]
    named = dict(zip(bundle.labels, joined.tolist(), strict=True))
    return RecordPrediction(record, named)


def predict_files(bundle: Bundle, files: Iterable[str | Path]) -> Iterator[RecordPrediction]:
    """Probabilities of ECG files, one after the other."""
    for file in files:
        yield predict_record(bundle, read_record(file))


def predict_cohort(
    bundle: Bundle,
    cohort: Cohort,
    store: Store,
    split: str,
    *,
    batch_size: int = 64,
    precision: Any = "fp32",
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Predictions of a split, beside its targets.

    Raises
    ------
    EvaluationError
        When the bundle's labels are not the cohort's, or the split is empty.
    """
    kept = cohort.select(store.without_quarantined(cohort.ids()))
    columns = _label_columns(bundle, kept)
    ids = kept.ids(split)
    if not len(ids):
        raise EvaluationError(
            f"{cohort.name}: no records in {split}", remedy="choose a split that has records"
        )
    targets = kept.targets(split)[:, columns]
    source = SignalSource(store, store.rows(ids), targets, bundle.preparation)
    how: Any = bundle.aggregate
    values = probabilities(
        bundle.classifier.to(device),
        source,
        aggregate=how,
        batch_size=batch_size,
        precision=precision,
        device=device,
        progress=progress,
    )
    return Predictions(
        labels=bundle.labels,
        records=ids,
        patients=kept.patients(split),
        targets=targets,
        probabilities=values,
        metadata={
            "cohort": cohort.name,
            "version": cohort.version,
            "task": cohort.task,
            "split": split,
            "backbone": str(bundle.about.get("backbone", "")),
            "recipe": str(bundle.about.get("recipe", {}).get("name", "")),
            "quarantined": str(len(cohort) - len(kept)),
        },
    )


def _label_columns(bundle: Bundle, cohort: Cohort) -> np.ndarray[Any, np.dtype[np.intp]]:
    missing = [label for label in bundle.labels if label not in cohort.labels]
    extra = [label for label in cohort.labels if label not in bundle.labels]
    if missing or extra:
        raise EvaluationError(
            f"the bundle's {len(bundle.labels)} labels are not the cohort's {len(cohort.labels)}"
            + (f"; the cohort lacks {missing[:5]}" if missing else "")
            + (f"; the bundle lacks {extra[:5]}" if extra else ""),
            remedy="open the cohort with the task that the bundle was trained for (--task)",
        )
    return np.array([cohort.labels.index(label) for label in bundle.labels])
