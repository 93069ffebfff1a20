"""Backbones over a window of millivolts at one rate, whose features are the mean of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import linear

from einthoven.backbones.config import BackboneConfig, Count
from einthoven.backbones.contract import Backbone
from einthoven.backbones.leads import weight_of_leads
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Resample, Window


@dataclass(frozen=True, kw_only=True)
class WindowedConfig(BackboneConfig):
    """Shared configuration of the networks over a window.

    Attributes
    ----------
    rate : int
        Sampling rate in Hz that the network is meant for.
    window : int
        Samples of a prepared input; the networks themselves take other lengths too.
    evaluation_crops : int
        Windows of a record that are used in evaluation.
    """

    rate: Count = 100
    window: Count = 1000
    evaluation_crops: Count = 1


class WindowedBackbone(Backbone):
    """Base class of backbones over a window, of a `WindowedConfig`."""

    @property
    def preparation(self) -> Preparation:
        """Rate and window; millivolts."""
        window = Window(self.config.window, evaluation_crops=self.config.evaluation_crops)
        return Preparation(leads=self.leads, steps=(Resample(self.config.rate), window))


class SampleStack(WindowedBackbone):
    """An encoder of one token a sample, whose dropout no recipe adjusts.

    Its config has a `width`; each block maps (batch, samples, width) to the same shape and holds
    its residual branches' stochastic depth.

    Notes
    -----
    With `leads` the first linear map is restricted to those leads, picked by name; that equals
    giving all twelve with the missing ones set to zero.
    """

    def __init__(self, config: Any, blocks: Sequence[nn.Module]) -> None:
        super().__init__(config, config.width)
        self.blocks = nn.ModuleList(blocks)
        self.embedding = nn.Linear(len(STANDARD_LEADS), config.width)

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """A token for every sample, (batch, samples, width); inputs of any length."""
        weight = weight_of_leads(self.embedding.weight, self.input_leads(x, leads))
        tokens: Tensor = linear(x.transpose(1, 2), weight, self.embedding.bias)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens
