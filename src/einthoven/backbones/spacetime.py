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

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, gelu, pad

from einthoven.backbones.config import override
from einthoven.backbones.layers.companion import CompanionKernel
from einthoven.backbones.layers.long_convolution import convolve
from einthoven.backbones.layers.sample_stack import SampleStack
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.structure import group_by_depth
from einthoven.backbones.layers.windowed import WindowedConfig
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError

__all__ = ["ENTRIES", "SpaceTime", "SpaceTimeConfig", "spacetime"]

# Coefficients of the differences of order 0 to 3, the present first.
DIFFERENCES = ((1, 0, 0, 0), (1, -1, 0, 0), (1, -2, 1, 0), (1, -3, 3, -1))
SHORTEST_AVERAGE = 4


@dataclass(frozen=True)
class SpaceTimeConfig(WindowedConfig):
    """Everything that decides the shape of a SpaceTime encoder.

    Attributes
    ----------
    width, depth : int
        Channels and blocks.
    state : int
        Size of a companion matrix, and taps of the fixed filters in front of the first block.
    shared : int
        Neighbouring channels that share a kernel in the first block.
    dropout : float
        In front of every linear layer, part of the network: a recipe does not change it.
    """

    width: int = 128
    depth: int = 4
    state: int = 64
    shared: int = 8
    dropout: float = 0.2


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


class SpaceTime(SampleStack):
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
    Every token depends on the past only.
    """

    family = "spacetime"

    def __init__(self, config: SpaceTimeConfig) -> None:
        if config.depth < 1 or config.shared < 1 or config.width % config.shared:
            raise BackboneError(
                f"depth = {config.depth}, width = {config.width}, shared = {config.shared}",
                remedy="give one block or more, and a divisor of the width as `shared`.",
            )
        super().__init__(config, [_block(config, index) for index in range(config.depth)])

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by layer: embedding, each block; there is no final norm."""
        return group_by_depth(self, depth=self.config.depth, last=())

    def no_weight_decay(self) -> set[str]:
        """Skip weights, and the columns, whose size means nothing; both by our choice."""
        names = (name for name, _ in self.named_parameters())
        return {name for name in names if name.endswith((".skip", ".kernel.a"))}


def _block(config: SpaceTimeConfig, index: int) -> SpaceTimeBlock:
    shared = 1 if index else config.shared
    return SpaceTimeBlock(
        CompanionKernel(config.width // shared, config.state, heads=shared),
        config.width,
        dropout=config.dropout,
        preprocessing=None if index else Preprocessing(config.width, config.state),
    )


def spacetime(**overrides: Any) -> SpaceTime:
    """SpaceTime over 10 s at 100 Hz: four blocks of width 128, 0.15 M parameters."""
    return SpaceTime(override(SpaceTimeConfig(name="spacetime"), overrides))


ENTRIES = (
    Entry(
        name="spacetime",
        build=spacetime,
        family="spacetime",
        summary="SpaceTime, our reading: companion state-space layers, 100 Hz, 10 s",
        origin="our reading of SpaceTime",
        paper="Zhang et al., Effectively Modeling Time Series with Simple Discrete State Spaces, "
        "ICLR 2023",
        parameters=145_024,
        recipe="spacetime",
        missing_leads="it works as if the missing ones were zero",
    ),
)
