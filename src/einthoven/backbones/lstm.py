"""lstm and lstm_bidir: two recurrent layers over the samples, forwards or in both directions.

The recurrent networks of the PTB-XL benchmark (Strodthoff et al., IEEE JBHI 25(5) 2021, arXiv
2004.13701; long short-term memory after Hochreiter and Schmidhuber, Neural Computation 9(8) 1997),
256 units in every direction and no dropout between the layers. The dense layers
(`einthoven.backbones.layers.benchmark`) are given the mean over time, the maximum over time and the
last step.

The benchmark's quirk is kept: the last step is the last sample's in both directions. The backward
direction has read one sample by then; its state after the whole signal is that of the first sample,
which was meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from einthoven.backbones.config import override
from einthoven.backbones.layers.benchmark import (
    BenchmarkBackbone,
    BenchmarkConfig,
    Dense,
    benchmark_entry,
    check_possible,
    draw_weights,
)
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.records.record import STANDARD_LEADS

__all__ = ["ENTRIES", "LSTM", "LSTMConfig", "lstm", "lstm_bidir"]


@dataclass(frozen=True)
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

    width: int = 256
    depth: int = 2
    bidirectional: bool = False


class LSTM(BenchmarkBackbone):
    """The recurrent network.

    Parameters
    ----------
    config : LSTMConfig
        Its shape.
    """

    config: LSTMConfig

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        check_possible(
            config,
            {
                "width": (config.width > 0, "give a number of units."),
                "depth": (config.depth > 0, "give one layer or more."),
            },
        )
        self.lstm = nn.LSTM(
            len(STANDARD_LEADS),
            config.width,
            config.depth,
            batch_first=True,
            bidirectional=config.bidirectional,
        )
        outputs = config.width * (2 if config.bidirectional else 1)
        self.dense = Dense(3 * outputs, config.hidden, config.hidden_dropouts)
        draw_weights(self)

    def encode(self, x: Tensor) -> Tensor:
        """(batch, 12, samples) to (batch, samples, units of all directions)."""
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

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by layer: each recurrent layer, the dense layers."""
        groups: list[list[str]] = [[] for _ in range(self.config.depth + 1)]
        for name, _ in self.named_parameters():
            layer = name.removesuffix("_reverse").rpartition("_l")[2]
            groups[int(layer) if name.startswith("lstm.") else -1].append(name)
        return groups


def lstm(**overrides: Any) -> LSTM:
    """Forwards, 0.90 M parameters."""
    return LSTM(override(LSTMConfig(name="lstm"), overrides))


def lstm_bidir(**overrides: Any) -> LSTM:
    """In both directions, 2.33 M parameters."""
    preset = LSTMConfig(name="lstm_bidir", bidirectional=True)
    return LSTM(override(preset, overrides))


ENTRIES = (
    benchmark_entry(
        "lstm",
        lstm,
        "Two recurrent layers of 256 units over every sample, 100 Hz, 2.5 s",
        parameters=903_040,
        recipe="strodthoff-rnn",
    ),
    benchmark_entry(
        "lstm_bidir",
        lstm_bidir,
        "Two recurrent layers of 2 x 256 units in both directions, 100 Hz, 2.5 s",
        parameters=2_329_984,
        recipe="strodthoff-rnn",
    ),
)
