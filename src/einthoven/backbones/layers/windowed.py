"""Backbones whose input is a window of millivolts at one rate, features the mean of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from einthoven.backbones.contract import Backbone
from einthoven.backbones.leads import canonical_leads
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.prepare import Preparation, Resample, Window

__all__ = ["WindowedBackbone", "WindowedConfig"]


@dataclass(frozen=True)
class WindowedConfig:
    """What every one of them can choose.

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
        Leads that inputs have when nothing else is said.
    """

    name: str
    rate: int = 100
    window: int = 1000
    evaluation_crops: int = 1
    leads: tuple[str, ...] = STANDARD_LEADS


class WindowedBackbone(Backbone):
    """What those backbones share.

    Parameters
    ----------
    config : WindowedConfig
        Its shape; the leads' names may be in any spelling.
    feature_dim : int
        Size of a feature vector.
    """

    def __init__(self, config: Any, feature_dim: int) -> None:
        super().__init__()
        self.config = replace(config, leads=canonical_leads(config.leads))
        self.name, self.leads = config.name, self.config.leads
        self.feature_dim = feature_dim

    @property
    def preparation(self) -> Preparation:
        """Rate and window; millivolts."""
        window = Window(self.config.window, evaluation_crops=self.config.evaluation_crops)
        return Preparation(leads=self.leads, steps=(Resample(self.config.rate), window))

    def features(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Mean of the tokens, (batch, feature_dim)."""
        return self.tokens(x, leads=leads).mean(1)
