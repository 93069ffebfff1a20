"""A kind of target as another package would add it: counts, by Poisson regression."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from einthoven.tasks import Criterion, Task
from einthoven.tasks.kind import Column, Floats
from einthoven.tasks.values import Regression


class Count(Regression):
    """The logarithm of the expected number is linear in the features."""

    name: ClassVar[str] = "count"
    summary: ClassVar[str] = "columns of counts, such as premature beats"
    columns: ClassVar[dict[str, Column]] = {"mae": Column("MAE"), "deviance": Column("Deviance")}

    def fitted(self, task: Task, targets: Floats) -> Task:
        """Nothing is fitted."""
        return task

    def losses(self, outputs: Tensor, targets: Tensor, criterion: Criterion) -> Tensor:
        """Negative log likelihood, without the constant."""
        known = ~targets.isnan()
        return torch.where(known, outputs.exp() - targets.nan_to_num() * outputs, torch.nan)

    def activate(self, outputs: Tensor, task: Task) -> Tensor:
        """Expected numbers."""
        return outputs.exp()

    def start(self, targets: Floats, weights: Floats, task: Task) -> tuple[Floats, Floats]:
        """Logarithms of the means."""
        means = np.nanmean(targets, axis=0)
        return np.log(means), means

    def metrics(self, targets: Floats, predictions: Floats, weights: Floats) -> dict[str, Floats]:
        """Absolute error, and deviance of a Poisson distribution."""
        known = ~np.isnan(targets)
        true, made = np.where(known, targets, 1), np.where(known, predictions, 1)
        log = np.log(np.maximum(true, 1) / made)
        deviance = 2 * (np.where(true > 0, true * log, 0) - (true - made))
        total = weights @ known
        return {
            "mae": weights @ np.abs(true - made) / total,
            "deviance": weights @ deviance / total,
        }


KIND = Count()
