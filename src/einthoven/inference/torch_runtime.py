"""PyTorch as the runtime of a model: its network on a device, for some or all of its leads."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from einthoven.backbones.inference import aggregate_crops
from einthoven.backbones.lead_subset import LeadSubset
from einthoven.models.model import Model
from einthoven.records import Record
from einthoven.signals.preparation import Preparation
from einthoven.signals.prepare import prepare_record

Network = TypeVar("Network", bound=nn.Module)

_PART = 64  # crops in a pass on the CPU, whose cache holds the results of so many

# Subsets of leads by model, as long as the model exists: each costs a trial forward pass.
_SUBSETS: WeakKeyDictionary[Model, dict[tuple[str, ...], LeadSubset]] = WeakKeyDictionary()


class TorchRuntime:
    """The `Runtime` of a model in PyTorch; the caller's network stays in place."""

    def __init__(self, model: Model, device: torch.device | str | None = None) -> None:
        network = model.classifier if device is None else on_device(model.classifier, device)
        self._model = model if network is model.network else replace(model, network=network)
        self._activate = partial(model.task.behaviour.activate, task=model.task)

    def route(self, leads: tuple[str, ...] | None) -> tuple[nn.Module, Preparation]:
        """As `with_leads`."""
        return with_leads(self._model, leads)

    def prepare(self, preparation: Preparation, record: Record) -> Tensor:
        """Crops, (crops, leads, window)."""
        return prepare_record(preparation, record)

    def outputs(self, network: Any, signals: Sequence[Tensor]) -> NDArray[np.float64]:
        """Run the crops of all records together, and aggregate those of each record alone.

        The last bit of a sigmoid depends on the place of a value in its array.
        """
        crops, device = torch.cat(list(signals)), _device(network)
        parts = torch.split(crops, _PART) if device.type == "cpu" else [crops]
        with torch.no_grad():
            logits = torch.cat([network(part.to(device)).float().cpu() for part in parts])
        rule: Any = self._model.aggregate
        rows = [
            aggregate_crops(part, torch.zeros(len(part), dtype=torch.long), 1, rule, self._activate)
            for part in torch.split(logits, [len(each) for each in signals])
        ]
        return torch.cat(rows).numpy()


def with_leads(model: Model, leads: tuple[str, ...] | None) -> tuple[nn.Module, Preparation]:
    """Network and preparation of a model for some of its leads; for all of them without `leads`."""
    if leads is None:
        return model.classifier, model.preparation
    subsets = _SUBSETS.setdefault(model, {})
    if leads not in subsets:
        all_leads, samples = model.preparation.leads, model.preparation.window
        subsets[leads] = LeadSubset(model.classifier, leads, all_leads=all_leads, samples=samples)
    subset = subsets[leads]
    return subset, model.preparation.with_leads(subset.rows).deriving(subset.leads)


def on_device(network: Network, device: torch.device | str) -> Network:
    """The network itself on the CPU, or a copy on another device; the caller's stays in place."""
    if _device(network).type == torch.device(device).type == "cpu":
        return network
    return copy.deepcopy(network).to(device)


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
