"""PTB-XL, and the outputs of a finished model on folds 9 and 10."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from einthoven.backbones.inference import aggregate_crops, record_outputs
from einthoven.cohorts.cohort import Cohort
from einthoven.cohorts.ptbxl import DATABASE, STATEMENTS, TASKS, open_ptbxl
from einthoven.errors import ReproduceError
from einthoven.models import Model, load_model
from einthoven.signals.batches import SignalSource
from einthoven.signals.store import Store
from scoring import Effect, Floats, Indices, Scored, Targets, paired_effects, patient_resamples


@dataclass(frozen=True, eq=False)
class Outputs:
    """A model's logits for every window of a split, before windows are joined.

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

    rows: Indices
    targets: Targets
    logits: Tensor
    owner: Tensor
    aggregate: str | tuple[str, ...]

    def joined(self, aggregate: str | tuple[str, ...] | None = None) -> Floats:
        """Probabilities of the records, `(records, labels)`."""
        method: Any = aggregate or self.aggregate
        return aggregate_crops(self.logits, self.owner, len(self.rows), method).numpy()

    def scored(self, aggregate: str | tuple[str, ...] | None = None) -> Scored:
        """Joined probabilities beside the targets."""
        return Scored.of_records(self.targets, self.joined(aggregate))


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that is measured on.

    Attributes
    ----------
    cohort : Cohort
        Task all-71 with the model's labels: every packed record, labelled or not.
    store : Store
    model : Model
    name : str
        Name of the model, for the page.
    validation, test : Outputs
    device : str
    resamples : int
    seed : int
    """

    cohort: Cohort
    store: Store
    model: Model
    name: str
    validation: Outputs
    test: Outputs
    device: str = "cpu"
    resamples: int = 1000
    seed: int = 0

    @property
    def patients(self) -> NDArray[np.str_]:
        """Patient of every record."""
        return self.cohort.patients()

    @property
    def folds(self) -> NDArray[np.int64]:
        """`strat_fold` of every record."""
        return self.cohort.table["fold"].to_numpy(dtype=np.int64)

    def random(self, stream: int) -> np.random.Generator:
        """Random numbers of one measurement."""
        return np.random.default_rng(np.random.SeedSequence([self.seed, stream]))

    def counts(self, rows: Indices) -> NDArray[Any]:
        """Patient resamples of some records."""
        return patient_resamples(self.patients[rows], count=self.resamples, seed=self.seed)

    def test_effects(self, what: str, right: Scored, wrong: Scored) -> list[Effect]:
        """Effects on resamples of the test records."""
        return paired_effects(what, right, wrong, self.counts(self.test.rows))

    def outputs(
        self, *, windows: int | None = None, change: tuple[float, float] = (1.0, 0.0)
    ) -> Outputs:
        """Outputs on the test split with other windows or another scaling; see `outputs_of`."""
        return outputs_of(
            self.model, self.cohort, self.store, "test",
            windows=windows, change=change, device=self.device,
        )  # fmt: skip


def open_study(
    path: str | Path,
    store: Store,
    model_path: str | Path,
    *,
    device: str = "cpu",
    resamples: int = 1000,
    seed: int = 0,
) -> Study:
    """Open PTB-XL and predict folds 9 and 10.

    Raises
    ------
    ReproduceError
        If the model has labels that are not among the 71 statements.
    """
    model = load_model(model_path)
    cohort = cohort_for(path, store, model)
    validation, test = (
        outputs_of(model, cohort, store, split, device=device) for split in ("validation", "test")
    )
    name = f"`{Path(model_path).name}`"
    return Study(cohort, store, model, name, validation, test, device, resamples, seed)


def cohort_for(path: str | Path, store: Store, model: Model) -> Cohort:
    """Every packed record of PTB-XL, with a model's labels.

    Raises
    ------
    ReproduceError
        If the model has labels that are not among the 71 statements.
    """
    cohort = open_ptbxl(path, "all-71", empty_rows="keep")
    other = [label for label in model.labels if label not in cohort.labels]
    if other:
        raise ReproduceError(
            f"the model's labels {other[:5]} are not among the 71 statements",
            remedy="use a model of the task all-71",
        )
    return cohort.select(store.without_quarantined(cohort.ids())).with_labels(model.labels)


def outputs_of(
    model: Model,
    cohort: Cohort,
    store: Store,
    split: str,
    *,
    windows: int | None = None,
    change: tuple[float, float] = (1.0, 0.0),
    device: str = "cpu",
) -> Outputs:
    """A model's outputs for the records of a split that carry one of its labels.

    Parameters
    ----------
    windows : int, optional
        Evaluation windows a record; by default the model's.
    change : (factor, offset)
        Applied to prepared signals.
    """
    in_split = (cohort.table["split"] == split).to_numpy()
    rows = np.flatnonzero(in_split & cohort.matrix.any(axis=1))
    targets = cohort.matrix[rows]
    preparation = model.preparation
    if windows is not None:
        preparation = preparation.with_evaluation_crops(windows)
    source = SignalSource(store, store.rows(cohort.ids()[rows]), targets, preparation)
    factor, offset = change
    network = model.classifier.to(device)
    parts = record_outputs(lambda x: network(x * factor + offset), source, device=device)
    first = np.cumsum([0, *(int(owner.max()) + 1 for _, owner in parts[:-1])])
    owner = torch.cat([part + int(begin) for (_, part), begin in zip(parts, first, strict=True)])
    return Outputs(rows, targets, torch.cat([part for part, _ in parts]), owner, model.aggregate)


def members(cohort: Cohort, task: str) -> dict[str, list[int]]:
    """Labels of a task, sorted, each with the columns of its statement codes."""
    flag, column, _ = TASKS[task]
    statements = pd.read_csv(cohort.root / STATEMENTS, index_col=0)
    task_statements = statements if flag is None else statements[statements[flag] == 1]
    names = task_statements.index.to_series() if column is None else task_statements[column]
    columns: dict[str, list[int]] = {}
    for place, code in enumerate(cohort.labels):
        if code in names.index:
            columns.setdefault(str(names[code]), []).append(place)
    return dict(sorted(columns.items()))


def as_task(values: NDArray[Any], labels: dict[str, list[int]]) -> NDArray[Any]:
    """Columns of codes to columns of a task's labels: the highest of their members."""
    return np.stack([values[:, columns].max(axis=1) for columns in labels.values()], axis=1)


def likelihoods(cohort: Cohort) -> Floats:
    """Likelihood of every code of every record, per cent; NaN where the code is absent."""
    table = pd.read_csv(cohort.root / DATABASE, usecols=["ecg_id", "scp_codes"], dtype=str)
    codes = table.set_index("ecg_id")["scp_codes"].loc[list(cohort.ids())].map(ast.literal_eval)
    frame = pd.DataFrame(list(codes), dtype=np.float64).reindex(columns=list(cohort.labels))
    return frame.to_numpy(dtype=np.float64)
