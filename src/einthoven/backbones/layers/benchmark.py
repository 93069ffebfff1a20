"""Input and dense layers that the networks of the PTB-XL benchmark share.

Strodthoff et al., IEEE JBHI 25(5) 2021 (arXiv 2004.13701), trained seven networks in one way: 2.5 s
at 100 Hz, each followed by pooling over time, batch norm, dropout, a linear map to 128, ReLU,
batch norm, dropout, and a linear map to the labels. All but that last map is the backbone here, so
that a feature vector is what the last map saw there. The weights are drawn as there, before the
first step: Kaiming-normal for convolutions and linear maps, biases at zero, norms at one and zero
(also the norms at the ends of residual branches); recurrent weights as PyTorch draws them.

Both dropouts belong to the published networks and not to a recipe: they act in every training.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from einthoven.backbones.config import Count, Share
from einthoven.backbones.layers.shared_batch_norm import SharedBatchNorm
from einthoven.backbones.layers.windowed import WindowedBackbone, WindowedConfig
from einthoven.backbones.leads import on_twelve_leads
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Scale

BENCHMARK_PAPER = (
    "Strodthoff et al., Deep Learning for ECG Analysis: Benchmarks and Insights from PTB-XL, "
    "IEEE JBHI 25(5) 2021 (arXiv 2004.13701)"
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig(WindowedConfig):
    """Configuration that all networks of the benchmark share.

    Attributes
    ----------
    hidden : int
        Size of the feature vector.
    hidden_dropouts : (float, float)
        Dropout in front of the hidden linear map and behind it.
    standardiser : (float, float) or None
        Mean and deviation in mV that signals are standardised by, for weights that were trained so
        elsewhere; None leaves millivolts, and the standardisation to the recipe.
    """

    window: Count = 250
    evaluation_crops: Count = 7
    hidden: Count = 128
    hidden_dropouts: tuple[Share, Share] = (0.25, 0.5)
    standardiser: tuple[float, float] | None = None


class Dense(nn.Module):
    """Batch norm, dropout, a linear map, ReLU, batch norm, dropout: from pooled to features."""

    def __init__(self, pooled: int, config: BenchmarkConfig) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm1d(pooled)
        self.drop1 = nn.Dropout(config.hidden_dropouts[0])
        self.linear = nn.Linear(pooled, config.hidden)
        self.norm2 = nn.BatchNorm1d(config.hidden)
        self.drop2 = nn.Dropout(config.hidden_dropouts[1])

    def forward(self, pooled: Tensor) -> Tensor:
        """Map (batch, pooled) to (batch, hidden).

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
                "or drop the incomplete batch (stage2.drop_last)",
            )
        with torch.autocast(pooled.device.type, enabled=False):  # small, and as precise as the loss
            h = self.drop1(self.norm1(pooled.to(self.linear.weight.dtype)))
            features: Tensor = self.drop2(self.norm2(self.linear(h).relu()))
        return features


class BenchmarkBackbone(WindowedBackbone):
    """A network of the benchmark: subclasses encode the signal, the rest is shared.

    Notes
    -----
    With `leads` the others of the twelve are zero, which is their mean once they are standardised.
    """

    family = "strodthoff"
    final_parameters = ("dense.",)
    dense: Dense

    def __init__(self, config: BenchmarkConfig) -> None:
        super().__init__(config, config.hidden)

    def pooling_parameters(self) -> list[str]:
        """Those of the dense layers."""
        return [f"dense.{name}" for name, _ in self.dense.named_parameters()]

    @property
    def preparation(self) -> Preparation:
        """Rate and window, millivolts; the benchmark's standardisation is its recipe's."""
        plain = super().preparation
        if self.config.standardiser is None:
            return plain
        mean, deviation = self.config.standardiser
        return Preparation(leads=self.leads, steps=(*plain.steps, Scale(mean=mean, std=deviation)))

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Map (batch, 12, samples) to (batch, tokens, dim)."""

    def pool(self, tokens: Tensor) -> Tensor:
        """Input of the dense layers: maximum and mean over time, (batch, 2 dim)."""
        dtype = self.dense.linear.weight.dtype
        return torch.cat([tokens.amax(1).to(dtype), tokens.mean(1, dtype=dtype)], dim=1)

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Tokens before the pooling, (batch, tokens, dim); inputs of any length."""
        return self.encode(on_twelve_leads(x, self.input_leads(x, leads)))

    def features(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Output of the dense layers, (batch, feature_dim); arguments as for `tokens`."""
        features: Tensor = self.dense(self.pool(self.tokens(x, leads=leads)))
        return features


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


def benchmark_entry(
    network: type[BenchmarkBackbone],
    config: BenchmarkConfig,
    summary: str,
    *,
    parameters: int,
    after: str = "",
    recipe: str = "strodthoff",
) -> Entry:
    """Catalogue entry of a network of the benchmark; `after` is the paper that it goes back to."""
    return Entry(
        network=network,
        config=config,
        summary=summary,
        origin="PTB-XL benchmark, 2021",
        paper=f"{BENCHMARK_PAPER}; after {after}" if after else BENCHMARK_PAPER,
        parameters=parameters,
        recipe=recipe,
    )
