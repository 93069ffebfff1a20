"""Input and dense layers that the networks of the PTB-XL benchmark share.

Strodthoff et al., IEEE JBHI 25(5) 2021 (arXiv 2004.13701), trained seven networks in one way: 2.5 s
at 100 Hz, and behind each a pooling over time, batch norm, dropout, a linear map to 128, ReLU,
batch norm, dropout, and a linear map to the labels. All but that last map is the backbone here, so
that a feature vector is what the last map saw there. The weights are drawn as there, before the
first step: Kaiming-normal for convolutions and linear maps, biases at zero, norms at one and zero
(also the norms at the ends of residual branches); recurrent weights as PyTorch draws them.

Both dropouts belong to the published networks and not to a recipe: they act in every training.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from einthoven.backbones.config import check_choice
from einthoven.backbones.contract import Backbone
from einthoven.backbones.layers.shared_batch_norm import SharedBatchNorm
from einthoven.backbones.leads import check_leads, on_twelve_leads
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Resample, Scale, Step, Window

__all__ = [
    "BENCHMARK_PAPER",
    "BenchmarkBackbone",
    "BenchmarkConfig",
    "Dense",
    "benchmark_entry",
    "check_possible",
    "draw_weights",
    "max_and_mean",
]

BENCHMARK_PAPER = (
    "Strodthoff et al., Deep Learning for ECG Analysis: Benchmarks and Insights from PTB-XL, "
    "IEEE JBHI 25(5) 2021 (arXiv 2004.13701)"
)
RATE = 100


@dataclass(frozen=True)
class BenchmarkConfig:
    """Configuration that all networks of the benchmark share.

    Attributes
    ----------
    name : str
        Registry name.
    window : int
        Samples of a prepared input at 100 Hz; the networks themselves take any number.
    evaluation_crops : int
        Windows of a record that are used in evaluation.
    hidden : int
        Size of the feature vector.
    hidden_dropouts : (float, float)
        Dropout in front of the hidden linear map and behind it.
    standardiser : (float, float) or None
        Mean and deviation in mV that signals are standardised by, for weights that were trained so
        elsewhere; None leaves millivolts, and the standardisation to the recipe.
    leads : tuple of str
        Default leads of the input.
    init : {"scratch", "pretraining"}
        Both draw the same weights here.
    """

    name: str
    window: int = 250
    evaluation_crops: int = 7
    hidden: int = 128
    hidden_dropouts: tuple[float, float] = (0.25, 0.5)
    standardiser: tuple[float, float] | None = None
    leads: tuple[str, ...] = STANDARD_LEADS
    init: str = "scratch"


class Dense(nn.Module):
    """Batch norm, dropout, a linear map, ReLU, batch norm, dropout: from pooled to features."""

    def __init__(self, pooled: int, hidden: int, dropouts: tuple[float, float]) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm1d(pooled)
        self.drop1 = nn.Dropout(dropouts[0])
        self.linear = nn.Linear(pooled, hidden)
        self.norm2 = nn.BatchNorm1d(hidden)
        self.drop2 = nn.Dropout(dropouts[1])

    def forward(self, pooled: Tensor) -> Tensor:
        """(batch, pooled) to (batch, hidden).

        Raises
        ------
        BackboneError
            If a single record is to be trained on: its batch has no variance, unless other
            processes have records too.
        """
        alone = not isinstance(self.norm1, SharedBatchNorm)
        if self.training and alone and len(pooled) == 1:
            raise BackboneError(
                "a batch of one record in training has no variance for batch norm to divide by",
                remedy="choose a batch size that leaves no single record at the end of an epoch, "
                "or drop the incomplete batch (stage2.drop_last).",
            )
        with torch.autocast(pooled.device.type, enabled=False):  # small, and as precise as the loss
            h = self.drop1(self.norm1(pooled.to(self.linear.weight.dtype)))
            features: Tensor = self.drop2(self.norm2(self.linear(h).relu()))
        return features


class BenchmarkBackbone(Backbone):
    """A network of the benchmark: subclasses encode the signal, the rest is shared.

    Parameters
    ----------
    config : BenchmarkConfig
        Its shape.

    Raises
    ------
    BackboneError
        For an impossible shape.

    Notes
    -----
    With `leads` the others of the twelve are zero, which is their mean once they are standardised.
    """

    family = "strodthoff"
    final_parameters = ("dense.",)
    shortest: int = 1  # samples of an input
    dense: Dense

    def __init__(self, config: BenchmarkConfig) -> None:
        super().__init__(config, config.hidden)
        check_choice("init", config.init, ("scratch", "pretraining"))
        check_possible(
            config,
            {
                "hidden": (config.hidden > 0, "give a number of features."),
                "hidden_dropouts": (
                    all(0 <= rate < 1 for rate in config.hidden_dropouts),
                    "give two rates from 0 to below 1.",
                ),
            },
        )

    @property
    def preparation(self) -> Preparation:
        """100 Hz, millivolts; the benchmark's standardisation is its recipe's, not a network's."""
        window = Window(self.config.window, evaluation_crops=self.config.evaluation_crops)
        steps: list[Step] = [Resample(RATE), window]
        if self.config.standardiser is not None:
            mean, deviation = self.config.standardiser
            steps.append(Scale(mean=mean, std=deviation))
        return Preparation(leads=self.leads, steps=tuple(steps))

    # ------------------------------------------------------------------ forward

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """(batch, 12, samples) to (batch, tokens, dim)."""

    def pool(self, tokens: Tensor) -> Tensor:
        """Input of the dense layers: maximum and mean over time, (batch, 2 dim)."""
        return max_and_mean(tokens, self.dense.linear.weight.dtype)

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Tokens before the pooling, (batch, tokens, dim); inputs of any length."""
        return self.encode(self._twelve(x, self.leads if leads is None else leads))

    def features(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Output of the dense layers, (batch, feature_dim); arguments as for `tokens`."""
        features: Tensor = self.dense(self.pool(self.tokens(x, leads=leads)))
        return features

    def _twelve(self, x: Tensor, leads: Sequence[str]) -> Tensor:
        check_leads(x, leads)
        if x.shape[-1] < self.shortest:
            raise BackboneError(
                f"input of {x.shape[-1]} samples for {self.name}",
                remedy=f"give {self.shortest} or more; its Preparation gives {self.config.window}.",
            )
        return on_twelve_leads(x, leads)


def max_and_mean(tokens: Tensor, dtype: torch.dtype) -> Tensor:
    """(batch, time, channels) to (batch, 2 channels), the maxima first."""
    return torch.cat([tokens.amax(1).to(dtype), tokens.mean(1, dtype=dtype)], dim=1)


def draw_weights(module: nn.Module) -> None:
    """Draw convolutions and linear maps as the benchmark does before training.

    Kaiming-normal by the number of inputs, for ReLU; biases zero. Norms are left at one and zero,
    recurrent layers as they are.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def check_possible(config: BenchmarkConfig, fields: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse impossible values.

    Parameters
    ----------
    config : BenchmarkConfig
        Configuration of a network.
    fields : mapping
        Field to whether its value is possible, and the remedy if it is not.

    Raises
    ------
    BackboneError
        Naming the first field that is impossible, and its value.
    """
    for field, (possible, remedy) in fields.items():
        if not possible:
            raise BackboneError(
                f"{config.name}: {field} = {getattr(config, field)!r} is impossible", remedy=remedy
            )


def benchmark_entry(
    name: str,
    build: Callable[..., Backbone],
    summary: str,
    *,
    parameters: int,
    after: str = "",
    recipe: str = "strodthoff",
) -> Entry:
    """Catalogue entry of a network of the benchmark; `after` is the paper that it goes back to."""
    return Entry(
        name=name,
        build=build,
        family=BenchmarkBackbone.family,
        summary=summary,
        origin="PTB-XL benchmark, 2021",
        paper=f"{BENCHMARK_PAPER}; after {after}" if after else BENCHMARK_PAPER,
        parameters=parameters,
        recipe=recipe,
        missing_leads="it works as if the missing ones were zero",
    )
