"""SpaceTime: state-space layers with companion matrices over the whole record; our reading for ECG.

Zhang et al., "Effectively Modeling Time Series with Simple Discrete State Spaces", ICLR 2023. The
paper reports PTB-XL; its public code covers forecasting only and has no configuration, loader or
head for ECGs.

Known, from the public code (revision 7b7398c) and checked against numbers that it returned
    The companion state-space layer (`einthoven.backbones.layers.companion`) and the default block
    around it: width 128, state 64; in the first block fixed differences and moving averages and 16
    kernels shared by 8 channels each, in the others a kernel for every channel; skip weights, GELU,
    dropout, a linear layer, and the two residual sums.
Chosen here, since nobody published it
    A linear embedding of the twelve leads, four blocks, the mean over time and no norm anywhere;
    dropout 0.2 (forecasting used 0.2 and 0.25); full records of 10 s at 100 Hz, as MultiresNet
    reads them; the scale of the initial b and c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, gelu, linear, pad

from einthoven.backbones.config import override
from einthoven.backbones.contract import Backbone
from einthoven.backbones.layers.companion import CompanionKernel
from einthoven.backbones.layers.long_convolution import convolve
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.structure import block_branches, group_by_depth
from einthoven.backbones.leads import canonical_leads, check_leads, lead_rows
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.prepare import Preparation, Resample, Window

__all__ = ["SpaceTime", "SpaceTimeConfig", "spacetime"]

# Coefficients of the differences of order 0 to 3, the present first.
DIFFERENCES = ((1, 0, 0, 0), (1, -1, 0, 0), (1, -2, 1, 0), (1, -3, 3, -1))
SHORTEST_AVERAGE = 4


@dataclass(frozen=True)
class SpaceTimeConfig:
    """Everything that decides the shape of a SpaceTime encoder.

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
    state : int
        Size of a companion matrix, and taps of the fixed filters in front of the first block.
    shared : int
        Neighbouring channels that share a kernel in the first block.
    dropout : float
        In front of every linear layer, part of the network: a recipe does not change it.
    leads : tuple of str
        Leads that inputs have when nothing else is said.
    """

    name: str
    rate: int = 100
    window: int = 1000
    evaluation_crops: int = 1
    width: int = 128
    depth: int = 4
    state: int = 64
    shared: int = 8
    dropout: float = 0.2
    leads: tuple[str, ...] = STANDARD_LEADS


class Preprocessing(nn.Module):
    """Fixed filters: differences, and what is left when a moving average is subtracted.

    Of every eight channels the first four are differenced (orders 0 to 3), the others lose the
    mean of their last samples, as many as a draw between 4 and `taps` decided for each.

    Parameters
    ----------
    width : int
        Channels.
    taps : int
        Length of the longest average, plus one.

    Raises
    ------
    BackboneError
        When the width is no multiple of eight or there is no room for an average.
    """

    windows: Tensor

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        if width < 1 or width % 8 or taps <= SHORTEST_AVERAGE:
            raise BackboneError(
                f"width = {width}, state = {taps}",
                remedy=f"give a multiple of 8 and more than {SHORTEST_AVERAGE}: differences and "
                f"moving averages share out the first block's channels in groups of eight.",
            )
        self.taps = taps
        # Integers, in the checkpoint: half of the channels mean nothing without them.
        self.register_buffer("windows", torch.randint(SHORTEST_AVERAGE, taps, (width // 2,)))

    def kernel(self) -> Tensor:
        """Weights of lags 0 to taps - 1, (width, taps), float32."""
        lags = torch.arange(self.taps, device=self.windows.device)
        inside = lags < self.windows[:, None]
        averages = (lags == 0).float() - inside / self.windows[:, None]
        differences = averages.new_tensor(DIFFERENCES)
        differences = pad(differences, (0, self.taps - differences.shape[1]))
        groups = averages.view(-1, 4, self.taps)
        both = torch.cat([differences.expand_as(groups), groups], dim=1)
        return both.flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape, in fp32: differences cancel most digits."""
        with torch.autocast(x.device.type, enabled=False):
            past = pad(x.float().transpose(1, 2), (self.taps - 1, 0))
            weight = self.kernel().flip(-1).unsqueeze(1)
            return conv1d(past, weight, groups=len(weight)).transpose(1, 2)


class SpaceTimeBlock(nn.Module):
    """Fixed filters where there are any; then companion filters and a linear layer, added to them.

    Parameters
    ----------
    kernel : CompanionKernel
        The filters.
    width : int
        Channels.
    dropout : float
        Between GELU and the linear layer.
    preprocessing : Preprocessing, optional
        What the block begins with; the residual connection starts behind it.
    """

    def __init__(
        self,
        kernel: CompanionKernel,
        width: int,
        *,
        dropout: float,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.kernel = kernel
        self.skip = nn.Parameter(torch.randn(width))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, width)
        self.depth = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        if self.preprocessing is not None:
            x = self.preprocessing(x)
        out: Tensor = self.depth(x, self.branch)
        return out

    def branch(self, x: Tensor) -> Tensor:
        """What the residual connection skips; (batch, tokens, width)."""
        filtered = convolve(x, self.kernel(x.shape[1])[None], self.skip)
        mixed: Tensor = self.linear(self.dropout(gelu(filtered)))
        return mixed + filtered


class SpaceTime(Backbone):
    """The SpaceTime encoder.

    Parameters
    ----------
    config : SpaceTimeConfig
        Its shape.

    Raises
    ------
    BackboneError
        For an impossible shape.

    Notes
    -----
    Every token depends on the past only. With `leads` the embedding is restricted to those leads,
    picked by name; that equals giving all twelve with the missing ones set to zero.
    """

    family = "spacetime"

    def __init__(self, config: SpaceTimeConfig) -> None:
        super().__init__()
        if config.depth < 1 or config.shared < 1 or config.width % config.shared:
            raise BackboneError(
                f"depth = {config.depth}, width = {config.width}, shared = {config.shared}",
                remedy="give one block or more, and a divisor of the width as `shared`.",
            )
        self.config = replace(config, leads=canonical_leads(config.leads))
        self.name, self.leads = config.name, self.config.leads
        self.feature_dim = config.width
        self.embedding = nn.Linear(len(STANDARD_LEADS), config.width)
        self.blocks = nn.ModuleList(self._block(index) for index in range(config.depth))

    def _block(self, index: int) -> SpaceTimeBlock:
        width, state = self.config.width, self.config.state
        shared = 1 if index else self.config.shared
        return SpaceTimeBlock(
            CompanionKernel(width // shared, state, heads=shared),
            width,
            dropout=self.config.dropout,
            preprocessing=None if index else Preprocessing(width, state),
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
        """A token for every sample.

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
        """Parameter names by layer: embedding, each block; there is no final norm."""
        return group_by_depth(self, depth=self.config.depth, last=())

    def no_weight_decay(self) -> set[str]:
        """Skip weights, and the columns, whose size means nothing; both by our choice."""
        names = (name for name, _ in self.named_parameters())
        return {name for name in names if name.endswith((".skip", ".kernel.a"))}


def spacetime(**overrides: Any) -> SpaceTime:
    """SpaceTime over 10 s at 100 Hz: four blocks of width 128, 0.15 M parameters."""
    return SpaceTime(override(SpaceTimeConfig(name="spacetime"), overrides))
