"""Probabilities of a classifier for many records, crop by crop, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from einthoven.errors import BackboneError, EinthovenError
from einthoven.progress import Progress

if TYPE_CHECKING:
    from einthoven.signals.batches import SignalSource

Aggregate = Literal["probability", "logit", "max"]
Precision = Literal["fp32", "bf16"]
Activation = Callable[[Tensor], Tensor]
"""Predictions of outputs, both `(rows, outputs)`; the sigmoid by default."""


def device_of(name: str | torch.device) -> str:
    """Resolve the name of a device: `auto` is the first CUDA GPU, or the CPU if there is none.

    Raises
    ------
    EinthovenError
        If this machine, or its PyTorch, does not have the device.
    """
    name = str(name)
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if name == "auto":
        return "cuda" if gpus else "cpu"
    devices = ["cpu", *(["cuda"] if gpus else []), *gpus]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    if name in ("cpu:0", "mps:0"):  # PyTorch's other names of the only one
        name = name.removesuffix(":0")
    if name not in devices:
        raise EinthovenError(
            f"device {name} does not exist on this machine",
            remedy=f"choose {', '.join(['auto', *devices])}",
        )
    return name


def record_outputs(
    model: Callable[[Tensor], Tensor],
    source: SignalSource,
    *,
    batch_size: int = 64,
    precision: Precision = "fp32",
    device: torch.device | str = "cpu",
    rows: NDArray[np.intp] | None = None,
    task: str = "predict",
    progress: Progress | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """Outputs of a network for every evaluation crop.

    Parameters
    ----------
    model : callable
        `(crops, leads, window) -> (crops, outputs)`.
    source : SignalSource
        The records.
    batch_size : int
        Records at a time.
    rows : array of int, optional
        Which records of the source; all of them by default.
    task : str
        Name of the work, for `progress`.
    progress : Progress, optional

    Returns
    -------
    list of (outputs, owner)
        One pair per batch: float32 `(crops, outputs)` on the CPU, and which of its records a crop
        belongs to, counted from the batch's first.
    """
    rows = np.arange(len(source)) if rows is None else rows
    kind = torch.device(device).type
    outputs_by_batch = []
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            crops, owner = source.evaluation_crops(rows[start : start + batch_size])
            with torch.autocast(kind, dtype=torch.bfloat16, enabled=precision == "bf16"):
                outputs = model(crops.to(device))
            outputs_by_batch.append((outputs.float().cpu(), owner))
            if progress:
                progress(task, min(start + batch_size, len(rows)), len(rows))
    return outputs_by_batch


def aggregate_crops(
    logits: Tensor,
    owner: Tensor,
    count: int,
    aggregate: Aggregate | Sequence[Aggregate],
    activate: Activation = torch.sigmoid,
) -> Tensor:
    """Predictions of records from their crops' logits.

    Parameters
    ----------
    logits : Tensor
        `(crops, labels)`.
    owner : Tensor
        `(crops,)` record of each crop, 0 to `count` - 1.
    aggregate : {"probability", "logit", "max"}, or one of them for each label
        Mean of predictions, prediction of the mean logit, or the highest probability.
    activate : callable
        Predictions of logits.

    Returns
    -------
    Tensor
        `(count, labels)` float64.

    Raises
    ------
    BackboneError
        If there are rules for another number of labels.
    """
    if not isinstance(aggregate, str):
        return _aggregate_by_label(logits, owner, count, aggregate, activate)
    values = logits.double() if aggregate == "logit" else activate(logits.double())
    index = owner[:, None].expand_as(values)
    out = torch.zeros(count, values.shape[1], dtype=torch.float64)
    reduced = out.scatter_reduce(
        0, index, values, reduce="amax" if aggregate == "max" else "mean", include_self=False
    )
    return activate(reduced) if aggregate == "logit" else reduced


def _aggregate_by_label(
    logits: Tensor, owner: Tensor, count: int, rules: Sequence[Aggregate], activate: Activation
) -> Tensor:
    if len(rules) != logits.shape[1]:
        raise BackboneError(
            f"{len(rules)} aggregation rules for the outputs of {logits.shape[1]} labels",
            remedy="give one rule or one for each label",
        )
    out = torch.empty(count, len(rules), dtype=torch.float64)
    for rule in set(rules):
        columns = [column for column, other in enumerate(rules) if other == rule]
        out[:, columns] = aggregate_crops(logits, owner, count, rule, activate)[:, columns]
    return out


def probabilities(
    classifier: nn.Module,
    source: SignalSource,
    *,
    aggregate: Aggregate | Sequence[Aggregate] = "probability",
    activate: Activation = torch.sigmoid,
    batch_size: int = 64,
    precision: Precision = "fp32",
    device: torch.device | str = "cpu",
    rows: NDArray[np.intp] | None = None,
    task: str = "predict",
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """`(records, labels)` predictions of a classifier, over each record's evaluation crops."""
    was_training = classifier.training
    classifier.eval()
    outputs_by_batch = record_outputs(
        classifier,
        source,
        batch_size=batch_size,
        precision=precision,
        device=device,
        rows=rows,
        task=task,
        progress=progress,
    )
    classifier.train(was_training)
    parts = [
        aggregate_crops(logits, owner, int(owner.max()) + 1, aggregate, activate)
        for logits, owner in outputs_by_batch
    ]
    return torch.cat(parts).numpy()
