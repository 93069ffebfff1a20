"""lstm and lstm_bidir: two recurrent layers over the samples, forwards or in both directions.

The recurrent networks of the PTB-XL benchmark (Strodthoff et al., IEEE JBHI 25(5) 2021, arXiv
2004.13701; long short-term memory after Hochreiter and Schmidhuber, Neural Computation 9(8) 1997),
256 units in every direction and no dropout between the layers. The input of the dense layers
(`einthoven.backbones.layers.benchmark`) is the mean over time, the maximum over time and the last
step.

The benchmark's quirk is kept: the last step is the last sample's in both directions. The backward
direction has read one sample by then; its state after the whole signal is that of the first sample,
which was meant.
"""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from einthoven.backbones.config import Count
from einthoven.backbones.layers.benchmark import (
    BenchmarkBackbone,
    BenchmarkConfig,
    Dense,
    benchmark_entry,
    draw_weights,
)
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.records.record import STANDARD_LEADS


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(BenchmarkConfig):
    """Configuration of a recurrent network.

    Attributes
    ----------
    width : int
        Units of a layer in each direction.
    depth : int
        Layers.
    bidirectional : bool
        Whether a second set of units reads the signal backwards.
    """

    width: Count = 256
    depth: Count = 2
    bidirectional: bool = False


class LSTM(BenchmarkBackbone):
    """The recurrent network."""

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.lstm = nn.LSTM(
            len(STANDARD_LEADS),
            config.width,
            config.depth,
            batch_first=True,
            bidirectional=config.bidirectional,
        )
        self.token_dim = config.width * (2 if config.bidirectional else 1)
        self.dense = Dense(3 * self.token_dim, config)
        draw_weights(self)

    def encode(self, x: Tensor) -> Tensor:
        """Map (batch, 12, samples) to (batch, samples, units of all directions)."""
        tokens: Tensor = self.lstm(x.transpose(1, 2))[0]
        return tokens

    def pool(self, tokens: Tensor) -> Tensor:
        """Mean, maximum and last step, (batch, 3 dim)."""
        dtype = self.dense.linear.weight.dtype
        mean, highest = tokens.mean(1, dtype=dtype), tokens.amax(1).to(dtype)
        return torch.cat([mean, highest, tokens[:, -1].to(dtype)], dim=1)

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """Empty lists: the network has no shortcuts. The first layer is its stem."""
        return [[] for _ in range(self.config.depth - 1)]

    def layer_prefixes(self) -> list[tuple[str, ...]]:
        """Each recurrent layer, the dense layers."""
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        layers = range(self.config.depth)
        recurrent = [tuple(f"lstm.{part}_l{layer}" for part in parts) for layer in layers]
        return [*recurrent, self.final_parameters]


ENTRIES = (
    benchmark_entry(
        LSTM,
        LSTMConfig(name="lstm"),
        "Two recurrent layers of 256 units over every sample, 100 Hz, 2.5 s",
        parameters=903_040,
        recipe="strodthoff-rnn",
    ),
    benchmark_entry(
        LSTM,
        LSTMConfig(name="lstm_bidir", bidirectional=True),
        "Two recurrent layers of 2 x 256 units in both directions, 100 Hz, 2.5 s",
        parameters=2_329_984,
        recipe="strodthoff-rnn",
    ),
)
