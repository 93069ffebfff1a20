"""What the measurements share: PTB-XL's records, a finished model's answers, features of nobody."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from einthoven.backbones.inference import aggregate_crops, record_outputs
from einthoven.bundle import Bundle
from einthoven.cohorts.cohort import Cohort
from einthoven.cohorts.ptbxl import DATABASE, STATEMENTS, TASKS, open_ptbxl
from einthoven.errors import ReproduceError
from einthoven.reproduce.pitfalls.scoring import Floats, Places, Resamples, Scored
from einthoven.signals.batches import SignalSource
from einthoven.signals.store import Store

Targets = NDArray[np.uint8]
SPLITS = ("validation", "test")


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model says of every window of a split, before anything is joined.

    Attributes
    ----------
    rows : array of int, shape (records,)
        Rows of the cohort.
    targets : array, shape (records, labels)
    logits : Tensor, shape (windows, labels)
    owner : Tensor, shape (windows,)
        Record of each window, 0 to records - 1.
    aggregate : str or tuple of str
        How the model joins its windows.
    """

    rows: Places
    targets: Targets
    logits: Tensor
    owner: Tensor
    aggregate: str | tuple[str, ...]

    def joined(self, how: Any = None) -> Floats:
        """Probabilities of the records, `(records, labels)`."""
        how = how or self.aggregate
        return aggregate_crops(self.logits, self.owner, len(self.rows), how).numpy()

    def scored(self, how: Any = None) -> Scored:
        """Them, beside the targets."""
        return Scored(self.targets, self.joined(how), np.arange(len(self.rows)))


@dataclass(frozen=True, eq=False)
class Material:
    """What is measured on.

    Attributes
    ----------
    cohort : Cohort
        Task all-71 with the model's labels, every record that was packed, labelled or not.
    store : Store
    model : Bundle
    name : str
        Of the model, for the page.
    validation, test : Answers
    device : str
    resamples : int
    seed : int
    """

    cohort: Cohort
    store: Store
    model: Bundle
    name: str
    validation: Answers
    test: Answers
    device: str = "cpu"
    resamples: int = 1000
    seed: int = 0

    @property
    def patients(self) -> NDArray[np.str_]:
        """Of every record."""
        return self.cohort.patients()

    def resamples_of(self, rows: Places) -> Resamples:
        """Resamples of some records, as whole patients."""
        return Resamples.of(self.patients[rows], count=self.resamples, seed=self.seed)

    @property
    def folds(self) -> NDArray[np.int64]:
        """`strat_fold` of every record."""
        return self.cohort.table["fold"].to_numpy(dtype=np.int64)


def cohort_for(path: Any, store: Store, model: Bundle) -> Cohort:
    """Every packed record of PTB-XL, with a model's labels.

    Raises
    ------
    ReproduceError
        When the model was trained on labels that are not among the 71 statements.
    """
    cohort = open_ptbxl(path, "all-71", empty_rows="keep")
    other = [label for label in model.labels if label not in cohort.labels]
    if other:
        raise ReproduceError(
            f"the model's labels {other[:5]} are not among the 71 statements",
            remedy="name a run or bundle of the task all-71, or none: einthoven-small",
        )
    kept = cohort.select(store.without_quarantined(cohort.ids()))
    return kept.with_labels(model.labels)


def answers(
    model: Bundle,
    cohort: Cohort,
    store: Store,
    split: str,
    *,
    windows: int | None = None,
    change: tuple[float, float] = (1.0, 0.0),
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Answers:
    """A model's answers for the records of a split that carry one of its labels.

    Parameters
    ----------
    windows : int, optional
        Evaluation windows a record; the model's own number without it.
    change : (factor, offset)
        What prepared signals are multiplied by, and what is added then.
    """
    in_split = (cohort.table["split"] == split).to_numpy()
    rows = np.flatnonzero(in_split & cohort.matrix.any(axis=1))
    targets = cohort.matrix[rows]
    prepared = model.preparation
    prepared = prepared if windows is None else prepared.with_evaluation_crops(windows)
    source = SignalSource(store, store.rows(cohort.ids()[rows]), targets, prepared)
    factor, offset = change
    network = model.classifier.to(device)
    parts = record_outputs(
        lambda x: network(x * factor + offset), source, device=device, progress=progress
    )
    first = np.cumsum([0, *(int(owner.max()) + 1 for _, owner in parts[:-1])])
    owners = [owner + int(begin) for (_, owner), begin in zip(parts, first, strict=True)]
    logits = torch.cat([each for each, _ in parts])
    return Answers(rows, targets, logits, torch.cat(owners), model.aggregate)


def members(cohort: Cohort, task: str) -> dict[str, list[int]]:
    """Labels of a task, sorted, with the columns of the cohort's codes that make them up."""
    flag, column, _ = TASKS[task]
    statements = pd.read_csv(cohort.root / STATEMENTS, index_col=0)
    chosen = statements if flag is None else statements[statements[flag] == 1]
    named = chosen.index.to_series() if column is None else chosen[column]
    found: dict[str, list[int]] = {}
    for place, code in enumerate(cohort.labels):
        if code in named.index:
            found.setdefault(str(named[code]), []).append(place)
    return dict(sorted(found.items()))


def as_task(values: NDArray[Any], labels: dict[str, list[int]]) -> NDArray[Any]:
    """Columns of codes to columns of a task's labels, the highest of their members."""
    return np.stack([values[:, columns].max(axis=1) for columns in labels.values()], axis=1)


def likelihoods(cohort: Cohort) -> Floats:
    """What `scp_codes` says of every code of every record, per cent; NaN where it is absent."""
    table = pd.read_csv(cohort.root / DATABASE, usecols=["ecg_id", "scp_codes"], dtype=str)
    said = dict(zip(table["ecg_id"], table["scp_codes"], strict=True))
    column = {label: place for place, label in enumerate(cohort.labels)}
    found = np.full((len(cohort), len(cohort.labels)), np.nan)
    for row, record in enumerate(cohort.ids()):
        for code, value in ast.literal_eval(said[record]).items():
            if code in column:
                found[row, column[code]] = float(value)
    return found
