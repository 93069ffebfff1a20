"""Predictions of a split of a cohort, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from einthoven.backbones.inference import Precision, probabilities
from einthoven.cohorts.cohort import Cohort
from einthoven.cohorts.statements import STATEMENTS, any_of
from einthoven.errors import EvaluationError, listed
from einthoven.inference.torch_runtime import on_device, with_leads
from einthoven.models.model import Model
from einthoven.predictions import Calibration, ClassCalibration, Predictions
from einthoven.predictions.sets import LabelSets, Sets
from einthoven.predictions.table import POS_WEIGHT, task_metadata
from einthoven.progress import Progress
from einthoven.signals.batches import SignalSource, long_enough
from einthoven.signals.store import Store
from einthoven.tasks.task import Matrix

CALIBRATED = "calibrated"  # key of a table's metadata: yes or no


def predict_cohort(
    model: Model,
    cohort: Cohort,
    store: Store,
    split: str,
    *,
    calibrated: bool = True,
    leads: Sequence[str] | None = None,
    some_labels: bool = False,
    batch_size: int = 64,
    precision: Precision = "fp32",
    device: torch.device | str = "cpu",
    task: str | None = None,
    progress: Progress | None = None,
) -> Predictions:
    """Predict a split of a cohort; the table includes its targets.

    Parameters
    ----------
    model, cohort, store, split
        The model, and the records to predict: a split of the cohort, or `all`.
    calibrated : bool
        Apply the model's calibration, if it has one; the metadata of the table records it
        (`calibrated`: yes or no). False gives the probabilities of the network.
    leads : sequence of str, optional
        Use these leads only; see `predict_record`.
    some_labels : bool
        Accept a cohort that has some of the model's labels only, and predict those.
    batch_size, precision, device, progress
        As for `einthoven.backbones.inference.probabilities`.
    task : str, optional
        Name of the work, for `progress`. Default: "predict" and the split.

    Raises
    ------
    EvaluationError
        If the labels of model and cohort differ, or the split is empty.
    BackboneError
        If the model does not read one of `leads`, or cannot go without the others.
    """
    cohort = long_enough(cohort, store, model.preparation)
    usable = cohort.select(store.without_quarantined(cohort.ids()))
    labels = [label for label in model.labels if label in usable.labels or not some_labels]
    _check_labels(model, labels, usable)
    ids = usable.ids(split)
    if not len(ids):
        raise EvaluationError(
            f"{cohort.name}: no records in {split}", remedy="choose a split that has records"
        )
    targets = _targets(model, labels, usable, split)
    network, preparation = with_leads(model, None if leads is None else tuple(leads))
    values = probabilities(
        on_device(network, device),
        SignalSource(store, store.rows(ids), targets, preparation),
        aggregate=cast(Any, model.aggregate),
        activate=partial(model.task.behaviour.activate, task=model.task),
        batch_size=batch_size,
        precision=precision,
        device=device,
        task=task or f"predict {split}",
        progress=progress,
    )
    table = Predictions(
        labels=model.labels,
        records=ids,
        patients=usable.patients(split),
        targets=targets,
        probabilities=values,
        metadata=_metadata(model, cohort, split)
        | {"quarantined": str(len(cohort) - len(usable)), CALIBRATED: "no"}
        | ({} if leads is None else {"leads": ",".join(preparation.sources)}),
    )
    table = calibrate_table(model, table) if calibrated else table
    return table if len(labels) == len(model.labels) else table.with_labels(labels)


def predict_statements(
    model: Model,
    cohort: Cohort,
    store: Store,
    split: str,
    shared: Mapping[str, Sequence[Sequence[int]]],
    **options: Any,
) -> Predictions:
    """Predict a split of a cohort whose labels are codes of another vocabulary than the model's.

    The probability of a statement is the highest one of its labels: no less than that of the most
    likely label, and no more than that of any of them. Its target is 1 if one of its labels holds.

    Parameters
    ----------
    shared : mapping
        `einthoven.cohorts.statements.shared_statements` of the labels of model and cohort.
    **options
        Those of `predict_cohort`, whose errors are raised.
    """
    cohort = long_enough(cohort, store, model.preparation)
    usable = cohort.select(store.without_quarantined(cohort.ids()))
    blank = np.zeros((len(cohort), len(model.labels)), dtype=np.uint8)
    table = predict_cohort(
        model, replace(cohort, labels=model.labels, matrix=blank), store, split, **options
    )
    return replace(
        table,
        labels=tuple(shared),
        targets=any_of(usable.targets(split), [of for _, of in shared.values()]),
        probabilities=np.stack(
            [table.probabilities[:, list(of)].max(axis=1) for of, _ in shared.values()], axis=1
        ),
        metadata=dict(table.metadata) | {"task": STATEMENTS},
    )


def _targets(model: Model, labels: Sequence[str], cohort: Cohort, split: str) -> Matrix:
    """Targets in the order of the model's labels, (records, labels); 0 for other labels."""
    own = cohort.targets(split)
    targets = np.zeros((len(own), len(model.labels)), dtype=own.dtype)
    for label in labels:
        targets[:, model.labels.index(label)] = own[:, cohort.labels.index(label)]
    return targets


def _metadata(model: Model, cohort: Cohort, split: str) -> dict[str, str]:
    """Origin of a table of predictions: the cohort, the network and its recipe."""
    provenance = model.config.get("provenance") or {}
    weights = " ".join(f"{weight:g}" for weight in provenance.get("pos_weight") or ())
    optional = {POS_WEIGHT: weights} if weights else {}
    return (
        task_metadata(model.task, len(model.labels))
        | optional
        | {
            "cohort": cohort.name,
            "version": cohort.version,
            "task": cohort.task,
            "split": split,
            "backbone": model.backbone.name,
            "recipe": str((provenance.get("recipe") or {}).get("name", "")),
        }
    )


def calibrate_table(model: Model, table: Predictions) -> Predictions:
    """Calibrate a table of network probabilities; unchanged if the model has no calibration.

    Raises
    ------
    EvaluationError
        If the table is calibrated already, or has labels that the model lacks.
    """
    check_uncalibrated(model, table)
    calibration = calibration_of(model, table.labels)
    if calibration is None:
        return table
    metadata = dict(table.metadata) | {CALIBRATED: "yes"}
    return replace(table.calibrated(calibration), metadata=metadata)


def calibration_of(model: Model, labels: Sequence[str]) -> Calibration | ClassCalibration | None:
    """The calibration of some labels of a model; classes have one for all."""
    if not isinstance(model.calibration, Calibration):
        return model.calibration
    return model.calibration.select([model.labels.index(label) for label in labels])


def sets_of(model: Model, labels: Sequence[str]) -> Sets | None:
    """The prediction sets of some labels of a model; those of classes and numbers are of all.

    None without sets; those of labels need thresholds.
    """
    if not isinstance(model.sets, LabelSets):
        return model.sets
    if model.calibration is None:
        return None
    return model.sets.select([model.labels.index(label) for label in labels])


def check_uncalibrated(model: Model, table: Predictions) -> None:
    """Refuse a table that is calibrated already, or has labels that the model lacks.

    Raises
    ------
    EvaluationError
        If it is, or has.
    """
    is_whole = model.task.behaviour.form != "labels"  # classes exclude each other
    differs = table.labels != model.labels if is_whole else set(table.labels) - set(model.labels)
    if differs or table.metadata.get(CALIBRATED) == "yes":
        raise EvaluationError(
            "the table is calibrated already, or its labels are not the model's",
            remedy="pass the table of predict_cohort(..., calibrated=False) for this model",
        )


def _check_labels(model: Model, labels: Sequence[str], cohort: Cohort) -> None:
    missing = [label for label in labels if label not in cohort.labels]
    extra = [label for label in cohort.labels if label not in labels]
    if missing or extra or not labels:
        raise EvaluationError(
            f"the model's {len(model.labels)} labels are not the cohort's {len(cohort.labels)}"
            + (f"; the cohort lacks {listed(missing)}" if missing else "")
            + (f"; the model lacks {listed(extra)}" if extra else ""),
            remedy="open the cohort with the task that the model was trained for (`task=...`)",
        )
