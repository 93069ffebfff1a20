"""Numbers, standardised on the training records while they are learned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import CohortError
from einthoven.tasks.kind import Column, Criterion, Floats, Form, Kind
from einthoven.tasks.labels import column_of, numbers
from einthoven.tasks.task import Matrix, Task

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

QUANTILES = 5
"""Groups of equal size over which splits are stratified."""
FEWEST_VALUES = 3
_MOST_ROUNDED = 0.1  # of the mean deviation


class Regression(Kind):
    """One linear output a number."""

    name: ClassVar[str] = "regression"
    form: ClassVar[Form] = "values"
    summary: ClassVar[str] = "columns of numbers, with their unit"
    columns: ClassVar[dict[str, Column]] = {
        "mae": Column("MAE", has_unit=True),
        "rmse": Column("RMSE", has_unit=True),
        "r2": Column("R²"),
        "pearson": Column("Pearson r"),
        "bias": Column("Mean error", has_unit=True),
        "sd": Column("SD of error", has_unit=True),
    }

    def check(self, task: Task) -> None:
        """Units for another number of targets."""
        super().check(task)
        if isinstance(task.unit, tuple) and len(task.unit) not in (0, 1, len(task.targets)):
            raise CohortError(
                f"task: {len(task.unit)} units for {len(task.targets)} targets",
                remedy="give one unit, or one for each target",
            )

    def read(self, task: Task, frame: pd.DataFrame, file: Path) -> tuple[tuple[str, ...], Matrix]:
        """Columns of numbers."""
        if not task.targets:
            raise CohortError(f"task: {self.name} without a target", remedy="name its column")
        columns = self.numbers(task, frame, file)
        for name, column in columns.items():
            _refuse_rounded(name, column, file)
        return task.targets, np.column_stack([columns[x] for x in task.targets]).astype(np.float32)

    def numbers(self, task: Task, frame: pd.DataFrame, file: Path) -> dict[str, Floats]:
        """The targets."""
        return {name: numbers(column_of(name, frame, file), file) for name in task.targets}

    def strata(self, targets: Matrix) -> NDArray[np.uint8]:
        """Quantiles of every number."""
        groups = []
        for column in targets.T.astype(np.float64):
            values = column[~np.isnan(column)]
            shares = np.linspace(0, 1, QUANTILES + 1)[1:-1]
            limits = np.quantile(values, shares) if values.size else shares
            place = np.searchsorted(limits, column, side="right")
            marks = place[:, None] == np.arange(QUANTILES)
            groups.append(marks & ~np.isnan(column)[:, None])
        return np.concatenate(groups, axis=1).astype(np.uint8)

    def unscorable(self, targets: Matrix) -> str:
        """Fewer than three different numbers."""
        for column in targets.T:
            if len(np.unique(column[~np.isnan(column)])) >= FEWEST_VALUES:
                return ""
        return f"fewer than {FEWEST_VALUES} different values"

    def fitted(self, task: Task, targets: Matrix) -> Task:
        """Mean and standard deviation; 1 for a number that does not vary."""
        values = targets.astype(np.float64)
        has_value = ~np.isnan(values)
        count = np.maximum(has_value.sum(axis=0), 1)
        mean = np.where(has_value, values, 0).sum(axis=0) / count
        scale = np.sqrt((np.where(has_value, values - mean, 0) ** 2).sum(axis=0) / count)
        scale = np.where(scale > 0, scale, 1.0)
        return replace(task, mean=tuple(mean.tolist()), scale=tuple(scale.tolist()))

    def losses(self, outputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
        """Losses of standardised numbers."""
        import torch
        from torch.nn.functional import huber_loss, l1_loss, mse_loss

        losses: dict[str, Callable[..., Tensor]]
        losses = {"l2": mse_loss, "l1": l1_loss, "huber": huber_loss}
        mean, scale = (outputs.new_tensor(x) for x in (criterion.task.mean, criterion.task.scale))
        has_value = ~targets.isnan()
        standard = torch.where(has_value, (targets - mean) / scale, 0).to(outputs.dtype)
        values = losses[criterion.loss](outputs, standard, reduction="none")
        return torch.where(has_value, values, torch.nan)

    def activate(self, outputs: Tensor, task: Task) -> Tensor:
        """In the unit of the number."""
        mean, scale = (outputs.new_tensor(x) for x in (task.mean, task.scale))
        return outputs * scale + mean

    def start(self, targets: Floats, weights: Floats, task: Task) -> tuple[Floats, Floats]:
        """Zero, the mean of standardised numbers."""
        curvature = np.zeros(targets.shape[1])
        curvature[~np.isnan(targets).all(axis=0)] = 1.0
        return np.zeros(targets.shape[1]), curvature

    def metrics(self, targets: Floats, predictions: Floats, weights: Floats) -> dict[str, Floats]:
        """Metrics of each number, over the records in which it is known."""
        has_value = ~np.isnan(targets)
        count = np.maximum(has_value.sum(axis=0), 1)
        centre = np.where(has_value, targets, 0).sum(axis=0) / count
        true = np.where(has_value, targets - centre, 0)  # centred, for the precision of the sums
        made = np.where(has_value, predictions - centre, 0)
        error = made - true
        total = weights @ has_value.astype(np.float64)
        total = np.where(total > 0, total, np.nan)

        def mean(values: Floats) -> Floats:
            return np.asarray(weights @ values / total)

        squares, bias = mean(error**2), mean(error)
        spread = mean(true**2) - mean(true) ** 2
        spread_made = mean(made**2) - mean(made) ** 2
        covariance = mean(true * made) - mean(true) * mean(made)
        some = np.where(spread > 0, spread, np.nan)
        both = some * np.where(spread_made > 0, spread_made, np.nan)
        return {
            "mae": mean(np.abs(error)),
            "rmse": np.sqrt(squares),
            "r2": 1 - squares / some,
            "pearson": covariance / np.sqrt(both),
            "bias": bias,
            "sd": np.sqrt(np.maximum(squares - bias**2, 0)),
        }


def _refuse_rounded(name: str, column: Floats, file: Path) -> None:
    """Refuse numbers whose differences are lost in 32 bits, as they are stored."""
    values = column[~np.isnan(column)]
    if len(np.unique(values)) < 2:
        return
    with np.errstate(over="ignore"):
        rounded = np.abs(values - values.astype(np.float32)).max()
    middle = np.median(values)
    spread = (np.abs(values - middle) / values.size).sum()
    if rounded > _MOST_ROUNDED * spread:
        raise CohortError(
            f"{file}: column {name!r} deviates by {spread:.3g} on average from {middle:.10g}: "
            f"numbers of 32 bits, which are used for targets, are up to {rounded:.3g} off",
            remedy="subtract an offset from the column, or choose another unit",
        )
