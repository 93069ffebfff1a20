"""The crops of a record as a network reads them, and the way back to the time of the record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from einthoven.errors import EvaluationError, listed
from einthoven.records.limb_leads import repair_leads
from einthoven.records.quality import refuse_flat
from einthoven.records.record import Record
from einthoven.signals.prepare import evaluation_seconds, prepare_record

if TYPE_CHECKING:
    from einthoven.models import Model

Output = Callable[[Tensor], Tensor]
"""Output of a label, (crops,), for prepared crops, (crops, leads, window)."""

BATCH = 64  # crops in a pass of the network


@dataclass(frozen=True, eq=False)
class Crops:
    """Prepared crops of one record.

    Attributes
    ----------
    record : Record
        The record without a calibration pulse and leads without a valid sample.
    leads : tuple of str
        Leads of the network, in its order.
    signals : Tensor
        (crops, leads, window), as the network reads them.
    baseline : Tensor
        Flat lines at the mean of each lead of each crop, of the same shape.
    starts : numpy.ndarray
        (crops,) begin of each crop in the time of the record, s.
    step : float
        Distance of the samples of a crop, s.
    """

    record: Record
    leads: tuple[str, ...]
    signals: Tensor
    starts: NDArray[np.float64]
    step: float

    @property
    def baseline(self) -> Tensor:
        return self.signals.mean(-1, keepdim=True).expand_as(self.signals)

    @property
    def times(self) -> NDArray[np.float64]:
        """(crops, window) middle of each sample in the time of the record, s."""
        middles = (np.arange(self.signals.shape[-1]) + 0.5) * self.step
        return self.starts[:, None] + middles

    def in_record_time(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Mean over crops on the record's own samples, (leads, samples).

        `values` is (crops, leads, window). The sum over a crop's samples is kept wherever the crop
        lies within the record; a sample outside all crops is 0.
        """
        samples = self.record.signal.shape[1]
        edges = np.arange(samples + 1) / self.record.rate
        total = np.zeros((values.shape[1], samples))
        for start, crop in zip(self.starts, values.astype(np.float64), strict=True):
            bounds = start + np.arange(crop.shape[-1] + 1) * self.step
            for row, lead in zip(total, crop, strict=True):
                # The integral at the borders of samples, so that any pair of rates keeps the sum.
                row += np.diff(np.interp(edges, bounds, np.append(0.0, np.cumsum(lead))))
        return (total / len(values)).astype(np.float32)


def crops_of(model: Model, record: Record) -> Crops:
    """Prepare the crops of a record as for its prediction.

    Raises
    ------
    PreparationError
        If the record lacks leads that do not follow from others, is too short, flat or not finite.
    """
    record = repair_leads(record)
    refuse_flat(record)
    preparation = model.preparation.deriving(record.leads)
    signals = prepare_record(preparation, record)
    starts = np.array([begin for begin, _ in evaluation_seconds(preparation, record)])
    return Crops(record, preparation.leads, signals, starts, 1.0 / preparation.rate)


def output_of(model: Model, label: str) -> Output:
    """The output of a label: log odds of a label or class, or a standardised number.

    Raises
    ------
    EvaluationError
        If the model has no such label.
    ModelError
        If the model is an encoder without a head.
    """
    network, labels = model.classifier, model.labels
    if label not in labels:
        raise EvaluationError(
            f"{model.name} has no label {label!r}", remedy=f"name one of {listed(labels)}"
        )
    place = labels.index(label)
    is_class = model.task.behaviour.form == "classes" and len(labels) > 1
    others = [i for i in range(len(labels)) if i != place]

    def output(crops: Tensor) -> Tensor:
        outputs: Tensor = network(crops)
        if not is_class:
            return outputs[:, place]
        return outputs[:, place] - outputs[:, others].logsumexp(1)

    return output


@torch.no_grad()
def outputs(output: Output, crops: Tensor) -> NDArray[np.float64]:
    """The output for many crops, (crops,), a batch at a time."""
    parts = [output(part).double() for part in torch.split(crops, BATCH)]
    return torch.cat(parts).numpy()


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Eval mode without gradients of the parameters, which cost time and are not used."""
    was_training, parameters = (
        network.training,
        [p for p in network.parameters() if p.requires_grad],
    )
    network.eval()
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        network.train(was_training)
        for parameter in parameters:
            parameter.requires_grad_(True)
