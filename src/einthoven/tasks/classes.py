"""Classes, one of which applies to a record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import CohortError
from einthoven.tasks.kind import Column, Criterion, Floats, Form, Kind
from einthoven.tasks.labels import (
    column_of,
    name_of,
    names_of,
    refuse_nameless,
    refuse_several,
    refuse_spellings,
)
from einthoven.tasks.task import Matrix, Task, compact, positives

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

MOST_CLASSES = 200
FEW_CLASSES = 20
"""With more, a column whose values mostly occur once is one of numbers or texts, not of classes."""
PROBABILITY_MARGIN = 1e-15  # log losses clip probabilities this far from 0


class Multiclass(Kind):
    """One softmax and one cross-entropy over the classes."""

    name: ClassVar[str] = "multiclass"
    form: ClassVar[Form] = "classes"
    summary: ClassVar[str] = "a column of names, one of which applies to a record"
    columns: ClassVar[dict[str, Column]] = {
        "accuracy": Column("Accuracy"),
        "balanced_accuracy": Column("Balanced accuracy"),
        "macro_f1": Column("Macro F1"),
        "kappa": Column("Cohen's kappa"),
        "log_loss": Column("Log loss"),
        "brier": Column("Brier score"),
        "recall": Column("Recall"),
        "precision": Column("Precision"),
        "f1": Column("F1"),
    }

    def check(self, task: Task) -> None:
        """More than one column, or fewer than two classes."""
        super().check(task)
        refuse_several(task)
        if len(task.classes) == 1 or len(set(task.classes)) < len(task.classes):
            raise CohortError(
                f"task: classes {list(task.classes)}", remedy="name two classes or more, each once"
            )

    def read(self, task: Task, frame: pd.DataFrame, file: Path) -> tuple[tuple[str, ...], Matrix]:
        """One column of names."""
        if not task.targets:
            raise CohortError("task: multiclass without a target", remedy="name its column")
        column = column_of(task.targets[0], frame, file)
        texts = names_of(column)
        if not task.classes:
            refuse_nameless(column, texts, file)
        names = tuple(map(name_of, task.classes)) or tuple(sorted(set(texts[texts != ""])))
        if not 2 <= len(names) <= MOST_CLASSES:
            raise CohortError(
                f"{file}: column {task.targets[0]!r} has {len(names)} different values",
                remedy="choose a column of a few names; a number is `task=Task(kind='regression')`"
                if len(names) > MOST_CLASSES
                else "choose a column of two names or more",
            )
        refuse_spellings(column, texts, file, task.classes and names)
        single = int((texts[texts != ""].value_counts() == 1).sum())
        if not task.classes and len(names) > FEW_CLASSES and single > len(names) / 2:
            raise CohortError(
                f"{file}: {single} of the {len(names)} values of {task.targets[0]!r} occur once",
                remedy="choose a column of a few names; a number is `task=Task(kind='regression')`",
            )
        matrix = (texts.to_numpy()[:, None] == np.array(names)).astype(np.float32)
        matrix[matrix.sum(axis=1) == 0] = np.nan
        return names, compact(matrix)

    def strata(self, targets: Matrix) -> NDArray[np.uint8]:
        """The classes."""
        return np.asarray(targets == 1, dtype=np.uint8)

    def unscorable(self, targets: Matrix) -> str:
        """Fewer than two classes."""
        count = int((positives(targets) > 0).sum())
        return "" if count > 1 else "fewer than two classes"

    def balance(self, targets: Matrix) -> tuple[float, ...]:
        """Weights with the mean 1 over the records, so that every class has the same sum."""
        counts = positives(targets)
        present = int((counts > 0).sum())
        total = int(counts.sum())
        return tuple(np.where(counts > 0, total / (present * np.maximum(counts, 1)), 1.0).tolist())

    def losses(self, outputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
        """Cross-entropy of every row, `(rows, 1)`."""
        import torch

        has_class = ~targets.isnan().any(dim=1, keepdim=True)
        terms = targets.nan_to_num() * outputs.log_softmax(dim=1)
        if criterion.weights:
            terms = terms * outputs.new_tensor(criterion.weights)
        return torch.where(has_class, -terms.sum(dim=1, keepdim=True), torch.nan)

    def activate(self, outputs: Tensor, task: Task) -> Tensor:
        """Softmax."""
        return outputs.softmax(dim=1)

    def start(self, targets: Floats, weights: Floats, task: Task) -> tuple[Floats, Floats]:
        """Logarithms of the shares; half a record for a class without any."""
        counts = (weights * np.nan_to_num(targets)).sum(axis=0)
        total = max(float(counts.sum()), 1.0)
        share = np.clip(counts / total, 0.5 / total, 1 - 0.5 / total)
        return np.log(share), (counts > 0) * share * (1 - share)

    def metrics(self, targets: Floats, predictions: Floats, weights: Floats) -> dict[str, Floats]:
        """Metrics of the most probable class and the probabilities, over records with a class."""
        has_class = ~np.isnan(targets).any(axis=1)
        true, shares, weights = targets[has_class], predictions[has_class], weights[:, has_class]
        classes = true.shape[1]
        cell = true.argmax(axis=1) * classes + shares.argmax(axis=1)
        marks = np.zeros((len(cell), classes**2))
        marks[np.arange(len(cell)), cell] = 1
        confusion = (weights @ marks).reshape(-1, classes, classes)
        hits = confusion.diagonal(axis1=1, axis2=2)
        rows, columns = confusion.sum(axis=2), confusion.sum(axis=1)
        total = rows.sum(axis=1)
        recall, precision = _ratio(hits, rows), _ratio(hits, columns)
        f1 = _ratio(2 * hits, rows + columns)
        agreement, chance = hits.sum(axis=1) / total, (rows * columns).sum(axis=1) / total**2
        own = np.clip((shares * true).sum(axis=1), PROBABILITY_MARGIN, 1.0)
        squares = ((shares - true) ** 2).sum(axis=1)
        return {
            "accuracy": agreement,
            "balanced_accuracy": np.nanmean(recall, axis=1),
            "macro_f1": np.nanmean(f1, axis=1),
            "kappa": _ratio(agreement - chance, 1 - chance),
            "log_loss": weights @ -np.log(own) / total,
            "brier": weights @ squares / total,
            "recall": recall,
            "precision": precision,
            "f1": f1,
        }


def confusion_matrix(targets: Matrix, predictions: Floats) -> NDArray[np.int64]:
    """Records by true class (rows) and most probable class (columns)."""
    has_class = ~np.isnan(targets).any(axis=1)
    classes = targets.shape[1]
    cell = targets[has_class].argmax(axis=1) * classes + predictions[has_class].argmax(axis=1)
    return np.bincount(cell, minlength=classes**2).reshape(classes, classes)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
