"""Backbones over a window of millivolts at one rate, whose features are the mean of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear

from einthoven.backbones.contract import Backbone
from einthoven.backbones.leads import check_leads, lead_rows
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Resample, Window

__all__ = ["SampleStack", "WindowedBackbone", "WindowedConfig"]


@dataclass(frozen=True)
class WindowedConfig:
    """Shared configuration of the networks over a window.

    Attributes
    ----------
    name : str
        Registry name.
    rate : int
        Sampling rate in Hz that the network is meant for.
    window : int
        Samples of a prepared input; the networks themselves take other lengths too.
    evaluation_crops : int
        Windows of a record that are used in evaluation.
    leads : tuple of str
        Default leads of the input.
    """

    name: str
    rate: int = 100
    window: int = 1000
    evaluation_crops: int = 1
    leads: tuple[str, ...] = STANDARD_LEADS


class WindowedBackbone(Backbone):
    """Base class of backbones over a window, of a `WindowedConfig`."""

    @property
    def preparation(self) -> Preparation:
        """Rate and window; millivolts."""
        window = Window(self.config.window, evaluation_crops=self.config.evaluation_crops)
        return Preparation(leads=self.leads, steps=(Resample(self.config.rate), window))


class SampleStack(WindowedBackbone):
    """An encoder of one token a sample, whose dropout no recipe adjusts.

    Parameters
    ----------
    config : WindowedConfig
        With a `width` besides.
    blocks : sequence of nn.Module
        Each takes and gives (batch, samples, width), and holds its residual branches' stochastic
        depth.

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
        names = self.leads if leads is None else leads
        check_leads(x, names)
        if not x.shape[-1]:
            raise BackboneError(
                f"input of 0 samples for {self.name}", remedy="give one sample or more."
            )
        weight = self.embedding.weight[:, lead_rows(names)]
        tokens: Tensor = linear(x.transpose(1, 2), weight, self.embedding.bias)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens
