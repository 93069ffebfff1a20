"""What each sample of a record contributes to one output of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from einthoven.errors import EvaluationError
from einthoven.explain.crops import Crops, Output, crops_of, frozen, output_of, outputs
from einthoven.explain.methods import METHODS, Part
from einthoven.records.record import Record

if TYPE_CHECKING:
    from einthoven.models import Model

DEFAULT = "integrated-gradients"
"""The method that was the most faithful for einthoven-small (docs/explain.md)."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """Contribution of every sample of a record to one output of a model.

    Attributes
    ----------
    values : numpy.ndarray
        (leads, samples) float32 on the record's own samples: the mean over the crops that the
        model predicts, 0 outside them. Positive values speak for the label, negative ones against
        it. They refer to the prepared signal and do not depend on the unit of the record.
    leads : tuple of str
        Leads of the model, in its order; limb leads that the record lacks are computed.
    rate : float
        Hz, of the record.
    label : str
        Label, class or number.
    method : str
        Name in `METHODS`.
    baseline : {"lead-mean", "line", "none"}
        What a sample is compared with: a flat line at the mean of its lead, a straight line between
        the ends of its window, or nothing.
    output, baseline_output : float
        Output of the network for the record and for flat lines at each lead's mean, the mean over
        crops: log odds of a label or class before calibration, or a standardised number.
    completeness_error : float or None
        Distance of the sum of all values from `output` - `baseline_output`, in their unit; None for
        methods whose values are in another unit.
    resolves : tuple of {"lead", "beat", "wave"}
        What the method tells apart in this network; leads, beats or the waves of a beat that are
        not named share a value equally.
    is_for_label : bool
        Whether the values depend on the label; attention does not.
    """

    values: NDArray[np.float32]
    leads: tuple[str, ...]
    rate: float
    label: str
    method: str
    baseline: str
    output: float
    baseline_output: float
    completeness_error: float | None
    resolves: tuple[Part, ...]
    is_for_label: bool


def attribute(model: Model, record: Record, label: str, method: str = DEFAULT) -> Attribution:
    """Attribute one output of a model to the samples of a record.

    Parameters
    ----------
    model : Model
        On the CPU; its network is left as it was.
    record : Record
        Limb leads that it lacks are computed if two of its leads determine them.
    label : str
        One of `model.labels`.
    method : str
        A name in `METHODS` that suits the network (`methods_of`).

    Raises
    ------
    EvaluationError
        If the model has no such label, the method is unknown or does not suit the network, or
        captum is not installed.
    PreparationError
        If the record lacks further leads, is too short, flat or not finite.
    """
    output, crops = output_of(model, label), crops_of(model, record)
    with frozen(model.network):
        return attribute_crops(model, output, crops, label, method)


def attribute_crops(
    model: Model, output: Output, crops: Crops, label: str, method: str
) -> Attribution:
    """As `attribute`, for prepared crops and a network without gradients of its parameters."""
    _check(model, crops, method)
    kind = METHODS[method]
    values = kind.compute(model, output, crops).detach().numpy().astype(np.float64)
    there, nothing = (float(outputs(output, x).mean()) for x in (crops.signals, crops.baseline))
    # Most Transformers have a token for all leads together.
    differs = len(crops.leads) == 1 or bool((values != values[:, :1]).any())
    error = abs(values.sum() / len(values) - (there - nothing)) if kind.is_additive else None
    return Attribution(
        values=crops.in_record_time(values),
        leads=crops.leads,
        rate=crops.record.rate,
        label=label,
        method=method,
        baseline=kind.baseline,
        output=there,
        baseline_output=nothing,
        completeness_error=error,
        resolves=tuple(part for part in kind.resolves if part != "lead" or differs),
        is_for_label=kind.is_for_label,
    )


def methods_of(model: Model, record: Record) -> tuple[str, ...]:
    """Names of the methods that suit a model's network."""
    return _suitable(model, crops_of(model, record))


def _suitable(model: Model, crops: Crops) -> tuple[str, ...]:
    with frozen(model.network), torch.no_grad():
        return tuple(name for name, kind in METHODS.items() if kind.suits(model, crops))


def _check(model: Model, crops: Crops, method: str) -> None:
    if method in METHODS and METHODS[method].suits(model, crops):
        return
    problem = f"{method} does not suit {model.backbone.name}"
    if method not in METHODS:
        problem = f"method {method!r} is unknown"
    suitable = ", ".join(_suitable(model, crops))
    raise EvaluationError(problem, remedy=f"choose one of {suitable}")
