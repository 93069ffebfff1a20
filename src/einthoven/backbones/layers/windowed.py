"""Backbones over a window of millivolts at one rate, whose features are the mean of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import linear

from einthoven.backbones.contract import Backbone
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.structure import block_branches
from einthoven.backbones.leads import canonical_leads, check_leads, lead_rows
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.prepare import Preparation, Resample, Window

__all__ = ["SampleStack", "WindowedBackbone", "WindowedConfig"]


@dataclass(frozen=True)
class WindowedConfig:
    """Configuration that all of them share.

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
    """Base class of backbones over a window.

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


class SampleStack(WindowedBackbone):
    """An encoder of one token a sample, whose dropout is its own and not a recipe's.

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

    # ------------------------------------------------------------------ forward

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """A token for every sample, after the last block.

        Parameters
        ----------
        x : Tensor, shape (batch, leads, samples)
            Prepared signals of any length.
        leads : sequence of str, optional
            Names of the input's rows; `self.leads` when left out.

        Returns
        -------
        Tensor, shape (batch, samples, width)
        """
        named = self.leads if leads is None else leads
        check_leads(x, named)
        if not x.shape[-1]:
            raise BackboneError(
                f"input of 0 samples for {self.name}", remedy="give one sample or more."
            )
        weight = self.embedding.weight[:, lead_rows(named)]
        tokens: Tensor = linear(x.transpose(1, 2), weight, self.embedding.bias)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    # ------------------------------------------------------------------ for the recipe

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """One holder a block."""
        return block_branches(self.blocks)

    def feedforward_dropouts(self) -> list[nn.Dropout]:
        """None that a recipe sets: `dropout` is part of the network."""
        return []

    def other_dropouts(self) -> list[nn.Dropout]:
        """None: the network has none."""
        return []
