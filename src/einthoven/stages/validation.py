"""Validation after an epoch, in fine-tuning and in pretraining."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from einthoven.errors import TrainingError
from einthoven.evaluate.metrics import point_metrics, rank
from einthoven.signals.batches import SignalSource
from einthoven.signals.random import generator_for
from einthoven.tasks import Criterion, Kind, negatives, positives
from einthoven.tasks.kind import Form
from einthoven.tasks.task import Matrix
from einthoven.training.distributed import Processes

SELECT, LOSS = "macro_auroc", "validation_loss"


def best_by(form: Form) -> tuple[str, bool]:
    """Metric of the best epoch, and whether its lowest value is the best.

    The best epoch of labels has the highest macro AUROC, that of others the lowest loss.
    """
    return (SELECT, False) if form == "labels" else (LOSS, True)


def validation_metrics(
    targets: Matrix, probabilities: NDArray[np.float64], kind: Kind | None = None
) -> dict[str, float]:
    """Macro AUROC and macro average precision over the defined labels.

    Labels without positives or without negatives are left out. Of classes and numbers, the metrics
    of their kind, in the mean over numbers.

    Raises
    ------
    TrainingError
        If no label is defined, or a probability is not finite.
    """
    if not np.isfinite(probabilities).all():
        raise TrainingError(
            "the network's validation outputs are not finite",
            remedy="lower base_lr, or use precision = 'fp32'",
        )
    if kind is not None and kind.form != "labels":
        once = np.ones((1, len(targets)))
        metrics = kind.metrics(targets.astype(np.float64), probabilities, once)
        overall = {name: values for name, values in metrics.items() if values.ndim == 1}
        return {name: float(np.mean(values)) for name, values in (overall or metrics).items()}
    defined = np.flatnonzero((positives(targets) > 0) & (negatives(targets) > 0))
    if not len(defined):
        raise TrainingError(
            f"none of {targets.shape[1]} labels has both positives and negatives among the "
            f"{len(targets)} validation records",
            remedy="use a larger cohort, or folds stratified by label",
        )
    ranking = rank(targets[:, defined], probabilities[:, defined])
    areas, precisions, _ = point_metrics(ranking)
    return {
        SELECT: float(areas.mean()),
        "macro_auprc": float(precisions.mean()),
        "defined_labels": len(defined),
    }


def record_losses(
    logits: Tensor, owner: Tensor, targets: Tensor, criterion: Criterion | None = None
) -> Tensor:
    """Loss of every record: mean over labels, then over its evaluation crops.

    This is the training loss on the evaluation crops, before aggregation. It does not depend on
    `data.aggregate`, and is finite for saturated probabilities.

    Parameters
    ----------
    logits, owner : Tensor
        `(crops, labels)`, and the record of each crop, `(crops,)`.
    targets : Tensor
        `(records, labels)`.
    criterion : Criterion, optional
        Binary cross-entropy by default.

    Returns
    -------
    Tensor
        `(records,)` float64.
    """
    criterion = criterion or Criterion()
    crop_losses = criterion.by_row(logits.double(), targets.double()[owner])
    losses = torch.zeros(len(targets), dtype=torch.float64)
    return losses.scatter_reduce(0, owner, crop_losses, "mean", include_self=False)


_BATCH = 128
_SEED = 0x5EED


@dataclass(frozen=True, eq=False)
class ValidationLoss:
    """Loss and metrics of an objective on validation records; `Loop.validate`.

    Processes share the batches; the result does not depend on their number. `sources`, `names` and
    `shares` are the validation records of each cohort that has any, its name, and its share in the
    joint numbers, as in training.
    """

    sources: tuple[SignalSource, ...]
    names: tuple[str, ...]
    shares: tuple[float, ...]
    processes: Processes

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Compute `validation_loss` and `validation_` metrics, and the loss of each cohort."""
        jobs = [
            (part, start)
            for part, source in enumerate(self.sources)
            for start in range(0, len(source), _BATCH)
        ]
        rank, world = self.processes.rank, self.processes.world
        parts = self.processes.gather([self._batch(model, *job) for job in jobs[rank::world]])
        batches = [parts[index % world][index // world] for index in range(len(jobs))]
        sums: list[dict[str, float]] = [defaultdict(float) for _ in self.sources]
        for (part, _), batch in zip(jobs, batches, strict=True):
            for name, value in batch.items():
                sums[part][name] += value
        means = [
            {name: value / len(source) for name, value in total.items()}
            for total, source in zip(sums, self.sources, strict=True)
        ]
        whole = {
            f"validation_{name}": sum(
                share * mean[name] for share, mean in zip(self.shares, means, strict=True)
            )
            for name in means[0]
        }
        if len(means) > 1:
            pairs = zip(self.names, means, strict=True)
            whole |= {f"validation_loss:{name}": mean["loss"] for name, mean in pairs}
        return whole

    @torch.no_grad()
    def _batch(self, model: nn.Module, part: int, start: int) -> dict[str, float]:
        """Loss and metrics of a batch, multiplied by its number of records."""
        source = self.sources[part]
        key = (start, _SEED, part) if part else (start, _SEED)
        rows = np.arange(start, min(start + _BATCH, len(source)))
        signals = source.training_batch(rows, generator_for(*key), None).signals
        # Another key than that of the crops: equal draws would tie masks to crops.
        generator = generator_for(*key, 0x3A5C)
        out = model(signals.to(self.processes.device), generator=generator)
        values = {"loss": out.loss} | dict(out.metrics)
        return {name: float(value) * len(rows) for name, value in values.items()}
