"""The contract of a self-supervised objective.

State other than parameters has to survive a killed run, and to be equal in all processes:

* A teacher, a codebook, a counter: a submodule or a buffer, so that it is in the state dict. JSON
  values go through `get_extra_state` and `set_extra_state`; the checkpoint keeps both.
* It changes in `after_step`, which the loop calls after every optimiser step, before a checkpoint
  can be written. `forward` runs several times a step where gradients are accumulated, and in
  validation.
* Its update follows the same rule in every process: from parameters, which are equal, or from sums
  over all processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from einthoven.backbones.contract import Backbone
from einthoven.errors import RecipeError


@dataclass(frozen=True, eq=False)
class ObjectiveOutput:
    """Loss of a batch and metrics to log.

    Attributes
    ----------
    loss : Tensor, scalar
        To be minimised.
    metrics : mapping of str to Tensor
        Detached scalars, left on their device so that reading none of them costs no wait.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """An `nn.Module` that holds a backbone and returns its loss on a batch."""

    @property
    def backbone(self) -> Backbone:
        """The encoder that is being pretrained."""

    def __call__(self, x: Tensor, *, generator: torch.Generator | None = None) -> ObjectiveOutput:
        """Loss of prepared signals (batch, leads, samples); all randomness from `generator`.

        In training the generator is a CPU one and a `einthoven.signals.random.ShareGenerator`.
        What is drawn for each record is drawn by that module's `uniform` and `integers`, which
        give a record the same numbers however many processes share the batch. What is drawn once
        for all records is drawn as usual: it is then the same in all processes.
        """


@runtime_checkable
class SteppedObjective(Protocol):
    """An objective that changes its state after an optimiser step; optional."""

    def after_step(self, step: int) -> None:
        """Update the state after an optimiser step; called once a step in every process.

        Parameters
        ----------
        step : int
            Optimiser steps done since the beginning of training, from 1; a resumed run counts on.
        """


@runtime_checkable
class FittedObjective(Protocol):
    """An objective with state that is fitted on training records before the first step; optional.

    The state is in buffers, so that it is part of the checkpoint.
    """

    fit_records: int

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit the state.

        Parameters
        ----------
        batches : iterable of Tensor, shape (batch, leads, samples)
            One prepared crop, not augmented, of each of at most `fit_records` training records.
        """


@runtime_checkable
class CuttingObjective(Protocol):
    """An objective whose backbone encodes parts of a crop; optional."""

    def encoded_samples(self, samples: int) -> int:
        """Samples of a part of a crop of so many samples."""


Config = TypeVar("Config")


def with_options(config: Config, options: Mapping[str, Any]) -> Config:
    """Copy a validated config with some fields replaced; None leaves a field as it is.

    Raises
    ------
    RecipeError
        If an option is unknown or impossible.
    """
    values = {key: value for key, value in options.items() if value is not None}
    return replace(config, **values)  # type: ignore[type-var]


def config_of(presets: Mapping[str, Config], preset: str, options: Mapping[str, Any]) -> Config:
    """Configuration of a preset with some options replaced. RecipeError for an unknown preset."""
    if preset not in presets:
        raise RecipeError(
            f"preset = {preset!r} is unknown", remedy=f"choose {' or '.join(presets)}"
        )
    return with_options(presets[preset], options)
