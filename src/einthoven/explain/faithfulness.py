"""Faithfulness of an attribution: whether what it marks is what the network uses.

Deletion and insertion: Petsiuk et al., "RISE", BMVC 2018 (arXiv 1806.07421). Cascading
re-initialisation: Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018
(arXiv 1810.03292).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import spearmanr
from torch import Tensor, nn

from einthoven.explain.attribution import Attribution, attribute, attribute_crops
from einthoven.explain.crops import Crops, Output, crops_of, frozen, output_of, outputs
from einthoven.records.record import Record

if TYPE_CHECKING:
    from einthoven.models import Model

CELL = 0.1  # s of a lead, the unit that is deleted
STEPS = 20  # of a curve
RANDOM_ORDERS = 3


@dataclass(frozen=True, eq=False)
class Curves:
    """Prediction while the cells of a record are deleted, or inserted into flat lines.

    A cell is 0.1 s of a lead; a deleted one is flat at the lead's mean. The prediction is the mean
    probability of the crops, not calibrated, or the mean of a number.

    Attributes
    ----------
    shares : numpy.ndarray
        (steps + 1,) share of the cells, from 0 to 1.
    deletion, insertion : numpy.ndarray
        (steps + 1,) in the order of the attribution, the highest first.
    random_deletion, random_insertion : numpy.ndarray
        The mean over random orders.
    """

    shares: NDArray[np.float64]
    deletion: NDArray[np.float64]
    insertion: NDArray[np.float64]
    random_deletion: NDArray[np.float64]
    random_insertion: NDArray[np.float64]

    @property
    def areas(self) -> dict[str, float]:
        """Area under each curve; low is good for deletion, high for insertion."""
        names = ("deletion", "random_deletion", "insertion", "random_insertion")
        return {name: float(np.trapezoid(getattr(self, name), self.shares)) for name in names}

    @property
    def gain(self) -> float:
        """Sum of what deletion is below, and insertion above, the random order."""
        a = self.areas
        return a["random_deletion"] - a["deletion"] + a["insertion"] - a["random_insertion"]


def curves(
    model: Model, record: Record, attribution: Attribution, *, orders: int = RANDOM_ORDERS
) -> Curves:
    """Measure deletion and insertion curves of an attribution, beside `orders` random orders.

    Without random orders, their curves are NaN.
    """
    crops, output = crops_of(model, record), output_of(model, attribution.label)
    is_probability = model.task.behaviour.form != "values"
    cells = _cells(crops)
    random = np.random.default_rng(0)
    scores = cell_sums(attribution)
    rank = np.lexsort((random.permutation(scores.size), -scores.ravel()))
    orders_of = [rank, *(random.permutation(scores.size) for _ in range(orders))]
    with frozen(model.network):
        runs = [
            [_curve(output, crops, cells, order, insert, is_probability) for order in orders_of]
            for insert in (False, True)
        ]
    unknown = [np.full(STEPS + 1, np.nan)]
    (deletion, *random_deletion), (insertion, *random_insertion) = runs
    return Curves(
        np.linspace(0, 1, STEPS + 1),
        deletion,
        insertion,
        np.mean(random_deletion or unknown, axis=0),
        np.mean(random_insertion or unknown, axis=0),
    )


def _cells(crops: Crops) -> NDArray[np.intp]:
    """Cell of each sample of the crops, (crops, leads, window)."""
    columns = _columns(crops.record.duration)
    column = np.clip((crops.times / CELL).astype(np.intp), 0, columns - 1)
    return column[:, None, :] + columns * np.arange(len(crops.leads))[:, None]


def _columns(duration: float) -> int:
    return max(1, int(np.ceil(duration / CELL - 1e-9)))


def cell_sums(attribution: Attribution) -> NDArray[np.float64]:
    """Sum of an attribution over each 0.1 s of each lead, (leads, cells)."""
    samples = attribution.values.shape[1]
    columns = _columns(samples / attribution.rate)
    times = (np.arange(samples) + 0.5) / attribution.rate
    places = np.clip((times / CELL).astype(np.intp), 0, columns - 1)
    return np.stack([np.bincount(places, row, columns) for row in attribution.values])


def _curve(
    output: Output,
    crops: Crops,
    cells: NDArray[np.intp],
    order: NDArray[np.intp],
    insert: bool,
    is_probability: bool,
) -> NDArray[np.float64]:
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    place = torch.from_numpy(rank[cells])
    first, then = crops.signals, crops.baseline
    if insert:
        first, then = then, first
    counts = np.linspace(0, len(order), STEPS + 1).round().astype(int)
    steps = torch.cat([torch.where(place < int(count), then, first) for count in counts])
    values = outputs(output, steps).reshape(len(counts), -1)
    return np.asarray((expit(values) if is_probability else values).mean(axis=1))


def agreement(one: Attribution, other: Attribution) -> float:
    """Rank correlation of the magnitudes of two attributions over cells of 0.1 s of a lead."""
    return rank_correlation(cell_sums(one), cell_sums(other))


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman correlation of magnitudes; NaN if either is constant."""
    a, b = np.abs(one).ravel(), np.abs(other).ravel()
    if not (np.ptp(a) and np.ptp(b)):
        return float("nan")
    return float(spearmanr(a, b).statistic)


def reinitialisation(
    model: Model, record: Record, attribution: Attribution, *, seed: int = 0
) -> dict[str, float]:
    """Rank correlation with the attribution of networks whose upper layers are drawn anew.

    The head is drawn anew first, then one layer after the other below it, and the last value is
    that of a network without any trained parameter. An attribution that stays the same does not
    depend on what the network has learned.

    Returns
    -------
    dict
        By the name of the last layer drawn, in order.
    """
    crops = crops_of(model, record)
    network = copy.deepcopy(model.classifier)
    fresh = _fresh(network, len(model.labels), seed)
    original, parameters = cell_sums(attribution), dict(network.named_parameters())
    correlations = {}
    changed: Any = replace(model, network=network)
    output = output_of(changed, attribution.label)
    head = [name for name in parameters if name.startswith("head.")]
    groups = [[name for name in group if name not in head] for group in network.layer_groups()]
    for names in filter(None, (head, *groups[::-1])):
        with torch.no_grad():
            for name in names:
                parameters[name].copy_(fresh[name])
        with frozen(network):
            other = attribute_crops(changed, output, crops, attribution.label, attribution.method)
        layer = names[0].removeprefix("backbone.").rsplit(".", 1)[0]
        correlations[layer] = rank_correlation(original, cell_sums(other))
    return correlations


def _fresh(network: Any, outputs: int, seed: int) -> dict[str, Tensor]:
    """Parameters of a network of the same shape as it is before training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = type(network.backbone)(network.backbone.config)
        whole: nn.Module = type(network)(backbone, outputs, head=network.head_kind)
    return {name: parameter.detach() for name, parameter in whole.named_parameters()}


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """All measures of one attribution.

    Attributes
    ----------
    curves : Curves
    completeness_error : float or None
        As in the attribution.
    reinitialisation : dict of str to float
    agreement : dict of str to float
        Rank correlation with other methods, by name.
    """

    curves: Curves
    completeness_error: float | None
    reinitialisation: dict[str, float]
    agreement: dict[str, float]


def faithfulness(
    model: Model,
    record: Record,
    attribution: Attribution,
    *,
    others: Sequence[str] = ("smoothgrad",),
) -> Faithfulness:
    """Measure the faithfulness of an attribution, and its agreement with other methods."""
    label = attribution.label
    alternatives = {name: attribute(model, record, label, name) for name in others}
    return Faithfulness(
        curves(model, record, attribution),
        attribution.completeness_error,
        reinitialisation(model, record, attribution),
        {name: agreement(attribution, other) for name, other in alternatives.items()},
    )
