"""Kind of target: how it is read, learned, predicted and measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import CohortError, RecipeError
from einthoven.tasks.task import Matrix, Task

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

Floats = NDArray[np.float64]
Form = Literal["labels", "classes", "values"]
RegressionLoss = Literal["l2", "l1", "huber"]
PosWeight = Literal["none", "balanced"] | tuple[float, ...]


class Column(NamedTuple):
    """Name of a metric in tables, its decimal places, and whether it has the unit of the target."""

    title: str
    places: int = 3
    has_unit: bool = False


@dataclass(frozen=True, eq=False)
class Criterion:
    """What training minimises: the loss of a task.

    Attributes
    ----------
    task : Task
        With what is fitted on the training records.
    loss : {"l2", "l1", "huber"}
        Loss of numbers, in units of their standard deviation: squares, absolute values, or squares
        up to one standard deviation.
    weights : tuple of float
        Weight of the positives of each label, or of the records of each class; empty for none.
    """

    task: Task = field(default_factory=Task)
    loss: RegressionLoss = "l2"
    weights: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        task: Task,
        targets: Matrix,
        *,
        loss: RegressionLoss = "l2",
        pos_weight: PosWeight = "none",
    ) -> Criterion:
        """Fit task and weights to the targets of the training records, `(records, outputs)`.

        Raises
        ------
        RecipeError
            If there are weights for another number of outputs, or the kind has none.
        """
        kind = task.behaviour
        if pos_weight == "none" or (pos_weight == "balanced" and kind.form == "values"):
            return cls(task.fitted(targets), loss)
        if kind.form == "values":
            raise RecipeError(
                f"pos_weight has no effect on {task.kind}: a number has no positives",
                remedy="leave pos_weight out",
            )
        weights = kind.balance(targets) if pos_weight == "balanced" else tuple(pos_weight)
        if len(weights) != targets.shape[1]:
            raise RecipeError(
                f"pos_weight has {len(weights)} numbers for {targets.shape[1]} outputs",
                remedy="give one for each label or class, in their order, or balanced",
            )
        return cls(task.fitted(targets), loss, weights)

    @property
    def form(self) -> Form:
        """Form of the task's kind."""
        return self.task.behaviour.form

    def mean(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of `(rows, outputs)` over what is known."""
        losses = self.task.behaviour.losses(outputs, targets, self)
        return losses.nanmean() if bool(losses.isnan().any()) else losses.mean()

    def by_row(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of each row over what is known of it, `(rows,)`."""
        losses = self.task.behaviour.losses(outputs, targets, self)
        return losses.nanmean(dim=1) if bool(losses.isnan().any()) else losses.mean(dim=1)

    def activate(self, outputs: Tensor) -> Tensor:
        """Predictions, `(rows, outputs)`."""
        return self.task.behaviour.activate(outputs, self.task)


class Kind(ABC):
    """A kind of target.

    Attributes
    ----------
    name : str
        As tasks name it.
    form : {"labels", "classes", "values"}
        Labels have a probability and a threshold each, classes exclude each other, values are
        numbers. It decides which metrics, tables and figures apply.
    summary : str
        One line.
    columns : dict of str to Column
        Metrics of `metrics`, in the order of tables; empty for labels.
    """

    name: ClassVar[str]
    form: ClassVar[Form]
    summary: ClassVar[str]
    columns: ClassVar[dict[str, Column]] = {}

    def check(self, task: Task) -> None:
        """Refuse fields of a task that do not apply to this kind (CohortError)."""
        for name, form in {"unit": "values", "classes": "classes"}.items():
            if getattr(task, name) and self.form != form:
                raise CohortError(
                    f"task: {name} does not apply to {self.name}", remedy=f"leave {name} out"
                )

    # ------------------------------------------------------------------ tables

    @abstractmethod
    def read(self, task: Task, frame: pd.DataFrame, file: Path) -> tuple[tuple[str, ...], Matrix]:
        """Names of the outputs, and targets `(records, outputs)`, NaN where not known.

        Raises
        ------
        CohortError
            For missing columns, or cells that are no such target.
        """

    def numbers(self, task: Task, frame: pd.DataFrame, file: Path) -> dict[str, Floats]:
        """Columns of numbers that the targets are made of, by name; NaN where not known.

        Their values are examined for codes of missing values when a cohort is opened.
        """
        return {}

    @abstractmethod
    def strata(self, targets: Matrix) -> NDArray[np.uint8]:
        """`(records, strata)` 0 and 1, over which splits are stratified."""

    @abstractmethod
    def unscorable(self, targets: Matrix) -> str:
        """Why the targets of a split cannot be scored; the empty string if they can."""

    # ------------------------------------------------------------------ training

    def fitted(self, task: Task, targets: Matrix) -> Task:
        """The task with what is fitted on the targets of the training records."""
        return task

    def balance(self, targets: Matrix) -> tuple[float, ...]:
        """Weights of labels or classes that make up for their frequency."""
        raise RecipeError(f"{self.name} has no weights", remedy="leave pos_weight out")

    @abstractmethod
    def losses(self, outputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
        """Losses of `(rows, outputs)`: one for each output, or one a row; NaN where not known."""

    @abstractmethod
    def activate(self, outputs: Tensor, task: Task) -> Tensor:
        """Predictions of a network's outputs, both `(rows, outputs)`."""

    @abstractmethod
    def start(self, targets: Floats, weights: Floats, task: Task) -> tuple[Floats, Floats]:
        """Outputs without features: the best constants, and the curvature of the loss there.

        Parameters
        ----------
        targets : array, shape (rows, outputs)
            NaN where not known.
        weights : array, shape (rows, 1)

        Returns
        -------
        outputs, curvature : array, shape (outputs,)
            Curvature 0 for an output that stays constant, because nothing is known of it.
        """

    def objective(
        self, outputs: Floats, targets: Floats, criterion: Criterion
    ) -> tuple[Floats, Floats]:
        """Losses as `losses`, 0 where not known, and their derivatives `(rows, outputs)`."""
        import torch

        values = torch.from_numpy(outputs).requires_grad_()
        losses = self.losses(values, torch.from_numpy(targets), criterion)
        total = losses.nansum()
        total.backward()  # type: ignore[no-untyped-call]
        assert values.grad is not None
        return losses.detach().nan_to_num().numpy(), values.grad.numpy()

    # ------------------------------------------------------------------ evaluation

    def metrics(self, targets: Floats, predictions: Floats, weights: Floats) -> dict[str, Floats]:
        """Metrics of `columns` in every resample.

        Parameters
        ----------
        targets, predictions : array, shape (records, outputs)
        weights : array, shape (resamples, records)
            Copies of each record.

        Returns
        -------
        dict of str to array
            `(resamples,)`, or `(resamples, outputs)` for a metric of each output; NaN where a
            resample does not define it.
        """
        return {}
