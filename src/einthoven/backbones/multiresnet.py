"""MULTIRESNET: multiresolution convolutions over the whole record, without downsampling.

Shi, Wang and Fox, "Sequence Modeling with Multiresolution Convolutional Memory", ICML 2023, in the
configuration that its public code trains on PTB-XL: all six tasks, full records of 10 s at 100 Hz,
six layers of 128 channels, ten scales, "fading" memory. A layer is a cascade of short filters
(`einthoven.backbones.layers.multires`), GELU, a gated linear map over the channels, both with
dropout of whole channels; then the residual sum and a layer norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import gelu, glu, linear

from einthoven.backbones.config import override
from einthoven.backbones.contract import Backbone
from einthoven.backbones.layers.multires import MultiresLayer
from einthoven.backbones.layers.state_space import TiedDropout
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.structure import block_branches, group_by_depth
from einthoven.backbones.leads import canonical_leads, check_leads, lead_rows
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.prepare import Preparation, Resample, Window

__all__ = ["MultiresBlock", "MultiresNet", "MultiresNetConfig", "multiresnet"]


@dataclass(frozen=True)
class MultiresNetConfig:
    """Everything that decides the shape of a MULTIRESNET.

    Attributes
    ----------
    name : str
        Registry name.
    rate : int
        Sampling rate in Hz that the network is meant for.
    window : int
        Samples of a prepared input; the network itself takes any number.
    evaluation_crops : int
        Windows of a record that are used in evaluation.
    width, depth : int
        Channels and blocks.
    scales : int
        Of every layer. The published number is the least with which the last sample of the window
        depends on the first, ``ceil(log2(window))``.
    dropout : float
        Of whole channels, twice a block. The network's own: a recipe does not change it.
    leads : tuple of str
        Leads that inputs have when nothing else is said.
    """

    name: str
    rate: int = 100
    window: int = 1000
    evaluation_crops: int = 1
    width: int = 128
    depth: int = 6
    scales: int = 10
    dropout: float = 0.2
    leads: tuple[str, ...] = STANDARD_LEADS


class MultiresBlock(nn.Module):
    """Filters at all scales, GELU, a gated linear map; added to the input, then normalised.

    Parameters
    ----------
    width, scales, dropout
        See `MultiresNetConfig`.
    """

    def __init__(self, width: int, scales: int, *, dropout: float) -> None:
        super().__init__()
        self.multires = MultiresLayer(width, scales)
        self.drop1 = TiedDropout(dropout)
        self.mix = nn.Linear(width, 2 * width)
        self.drop2 = TiedDropout(dropout)
        self.depth = StochasticDepth()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        out: Tensor = self.norm(self.depth(x, self.branch))
        return out

    def branch(self, x: Tensor) -> Tensor:
        """What the residual connection skips; (batch, tokens, width)."""
        filtered = self.drop1(gelu(self.multires(x)))
        gated: Tensor = self.drop2(glu(self.mix(filtered), dim=-1))
        return gated


class MultiresNet(Backbone):
    """The network without its last linear layer.

    Parameters
    ----------
    config : MultiresNetConfig
        Its shape.

    Raises
    ------
    BackboneError
        For an impossible shape.

    Notes
    -----
    Every token depends on the past only. With `leads` the first linear map is restricted to those
    leads, picked by name; that equals giving all twelve with the missing ones set to zero.
    """

    family = "multiresnet"

    def __init__(self, config: MultiresNetConfig) -> None:
        super().__init__()
        if config.depth < 1 or config.width < 1:
            raise BackboneError(
                f"depth = {config.depth}, width = {config.width}",
                remedy="give at least one of each.",
            )
        self.config = replace(config, leads=canonical_leads(config.leads))
        self.name, self.leads = config.name, self.config.leads
        self.feature_dim = config.width
        self.embedding = nn.Linear(len(STANDARD_LEADS), config.width)
        self.blocks = nn.ModuleList(
            MultiresBlock(config.width, config.scales, dropout=config.dropout)
            for _ in range(config.depth)
        )

    @property
    def preparation(self) -> Preparation:
        """Rate and window; millivolts."""
        window = Window(self.config.window, evaluation_crops=self.config.evaluation_crops)
        return Preparation(leads=self.leads, steps=(Resample(self.config.rate), window))

    # ------------------------------------------------------------------ forward

    def forward(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """The same as `features`."""
        return self.features(x, leads=leads)

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """A token for every sample, after the last norm.

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
        tokens = linear(x.transpose(1, 2), weight, self.embedding.bias)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens

    def features(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Mean of the tokens, (batch, feature_dim)."""
        return self.tokens(x, leads=leads).mean(1)

    # ------------------------------------------------------------------ for the recipe

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """One holder a block."""
        return block_branches(self.blocks)

    def feedforward_dropouts(self) -> list[nn.Dropout]:
        """None that a recipe sets: `dropout` is part of the network."""
        return []

    def other_dropouts(self) -> list[nn.Dropout]:
        """None."""
        return []

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by layer: embedding, each block, and the norm of the last one.

        Blocks are post-norm, so the last one's norm is the final norm.
        """
        groups = group_by_depth(self, depth=self.config.depth, last=())
        final = f"blocks.{self.config.depth - 1}.norm."
        groups[-1] = [name for name in groups[-2] if name.startswith(final)]
        groups[-2] = [name for name in groups[-2] if not name.startswith(final)]
        return groups

    def no_weight_decay(self) -> set[str]:
        """Nothing is exempt in the published runs."""
        return set()


def multiresnet(**overrides: Any) -> MultiresNet:
    """MULTIRESNET as published for PTB-XL: 10 s at 100 Hz, 0.21 M parameters."""
    return MultiresNet(override(MultiresNetConfig(name="multiresnet"), overrides))
