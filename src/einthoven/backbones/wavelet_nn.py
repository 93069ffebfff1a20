"""Wavelet+NN: a small dense network on statistics of every lead's wavelet coefficients.

The feature-based baseline of Strodthoff et al., "Deep Learning for ECG Analysis: Benchmarks and
Insights from PTB-XL", IEEE JBHI 25(5) 2021 (arXiv 2004.13701): twelve statistics of the six arrays
of a five-level db6 decomposition of each of twelve leads of the whole record, 864 features; each is
standardised by its mean and deviation over the training records; 128 ReLU units, dropout 0.25.

Known, from our sources
    The above, and the list of the statistics.
Chosen here, not specified by the sources
    The order of the features (lead, then array, then statistic) and the exact definitions of the
    statistics (`einthoven.backbones.layers.wavelet_features`); a feature that hardly varies over
    the training records is only centred; Glorot-uniform initial weights and zero biases, of the
    last layer too (the recipe's ``head_init``).

Before `fit_statistics` the features are unscaled, although their magnitudes differ by 10^5, and the
network warns.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import linear

from einthoven.backbones.config import Count, Share
from einthoven.backbones.contract import UnfittedWarning
from einthoven.backbones.layers.benchmark import BENCHMARK_PAPER
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.wavelet_features import (
    COEFFICIENTS,
    STATISTICS,
    wavelet_features,
)
from einthoven.backbones.layers.windowed import WindowedBackbone, WindowedConfig
from einthoven.backbones.leads import lead_rows, weight_of_leads
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS

# A feature with less than this share of its mean as deviation counts as constant: what varies then
# is its rounding.
CONSTANT = 1e-7


@dataclass(frozen=True, kw_only=True)
class WaveletNNConfig(WindowedConfig):
    """Configuration of the network.

    Attributes
    ----------
    levels : int
        Levels of the wavelet decomposition.
    width : int
        Dense units.
    dropout : float
        Dropout behind them. Part of the network: a recipe does not change it.
    """

    levels: Count = 5
    width: Count = 128
    dropout: Share = 0.25


class WaveletNN(WindowedBackbone):
    """The network without its last linear layer.

    Notes
    -----
    A token is a lead. Features have no gradient, so nothing is learned in front of the dense layer.
    With `leads` that layer is restricted to those leads, picked by name; that equals giving all
    twelve, with the missing ones' features at their training means.
    """

    family = "wavelet_nn"
    fits_statistics: ClassVar[bool] = True
    shortest = len(COEFFICIENTS)
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, config: WaveletNNConfig) -> None:
        super().__init__(config, config.width)
        self.token_dim = (config.levels + 1) * len(STATISTICS)
        shape = len(STANDARD_LEADS), self.token_dim
        self.register_buffer("feature_mean", torch.zeros(shape))
        self.register_buffer("feature_std", torch.ones(shape))
        self.dense = nn.Linear(shape[0] * shape[1], config.width)
        nn.init.xavier_uniform_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)
        self.dropout = nn.Dropout(config.dropout)
        self._checked = False  # whether a call looked at the statistics already

    # ------------------------------------------------------------------ forward

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Standardised statistics of every lead, (batch, leads, (levels + 1) * 12).

        An input has at least twelve samples.
        """
        rows = lead_rows(self.input_leads(x, leads))
        values = wavelet_features(x, levels=self.config.levels)
        centred = values - self.feature_mean[rows]  # in double precision still
        return (centred / self.feature_std[rows]).to(self.dense.weight.dtype)

    def features(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Features, (batch, feature_dim); arguments as for `tokens`."""
        self._warn_unfitted()
        tokens = self.tokens(x, leads=leads)
        table = self.dense.weight.view(self.feature_dim, len(STANDARD_LEADS), -1)
        weight = weight_of_leads(table, self.leads if leads is None else leads).flatten(1)
        hidden: Tensor = linear(tokens.flatten(1), weight, self.dense.bias).relu()
        return self.dropout(hidden)  # type: ignore[no-any-return]

    def pooling_parameters(self) -> list[str]:
        """Those of the dense layer: all parameters."""
        return ["dense.weight", "dense.bias"]

    @property
    def is_fitted(self) -> bool:
        """Whether its features were measured, here or when the weights were trained.

        Read off the two buffers, so that it is saved with the weights, and older ones have it.
        """
        return bool(self.feature_mean.any() or self.feature_std.ne(1).any())

    def _warn_unfitted(self) -> None:
        # Once: on an accelerator every look would wait for it.
        if not self._checked and not self.is_fitted:
            warnings.warn(
                f"{self.name} has not measured its features, which it standardises by their mean "
                "and deviation over training records: call fit_statistics(batches) with prepared "
                "records first, as posttrain does, or load trained weights",
                UnfittedWarning,
                stacklevel=3,
            )
        self._checked = True

    # ------------------------------------------------------------------ for the recipe

    def fit_statistics(self, batches: Iterable[Tensor]) -> None:
        """Keep mean and deviation of every feature, over records; see `Backbone.fit_statistics`.

        Those of leads that are not this network's stay zero and one.

        Raises BackboneError if there are no records.
        """
        rows, count = lead_rows(self.leads), 0
        mean = torch.zeros_like(self.feature_mean[rows], dtype=torch.float64)
        squares = torch.zeros_like(mean)
        for batch in batches:
            self.input_leads(batch, None)
            values = wavelet_features(batch.to(mean.device), levels=self.config.levels)
            if not len(values):
                continue
            # Means and squares of two parts, put together without cancellation (Chan et al. 1983).
            count += len(values)
            apart = values.mean(0) - mean
            mean = mean + apart * (len(values) / count)
            within = (values - values.mean(0)).square().sum(0)
            squares = squares + within + apart.square() * (len(values) * (1 - len(values) / count))
        if not count:
            raise BackboneError(
                f"no records to measure the features of {self.name} on",
                remedy="give at least one batch of training records",
            )
        std = (squares / count).sqrt()
        std[std <= CONSTANT * mean.abs()] = 1.0
        self.feature_mean[rows] = mean.to(self.feature_mean.dtype)
        self.feature_std[rows] = std.to(self.feature_std.dtype)

    def residual_branches(self) -> list[list[StochasticDepth]]:
        """Not supported: the network has no blocks."""
        return []

    def layer_prefixes(self) -> list[tuple[str, ...]]:
        """The dense layer, and no final norm."""
        return [("",), ()]


ENTRIES = (
    Entry(
        network=WaveletNN,
        config=WaveletNNConfig(name="wavelet_nn"),
        summary="Wavelet+NN: 864 statistics of wavelet coefficients, one dense layer, 100 Hz, 10 s",
        origin="PTB-XL benchmark, 2021",
        paper=BENCHMARK_PAPER,
        parameters=110_720,
        recipe="wavelet-nn",
        missing_leads="it works as if the features of the missing ones were at their training "
        "means",
    ),
)
