"""Convolutional stem that several sequence models share, and how their tokens are pooled.

The stem of arXiv 2605.12241 and 2509.25095: convolutions from the leads to the width, the first
over three samples with stride 2, the others over a single token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from einthoven.backbones.config import Count, Share
from einthoven.backbones.contract import SequenceBackbone
from einthoven.backbones.layers.windowed import WindowedBackbone, WindowedConfig
from einthoven.backbones.leads import weight_of_leads
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.filters import is_traced
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Scale


@dataclass(frozen=True, kw_only=True)
class StemConfig(WindowedConfig):
    """Configuration of a sequence model behind the stem, which takes any even number of samples.

    Attributes
    ----------
    width : int
        Channels of the stem, and size of a token.
    stem_depth : int
        Convolutions in front; all but the first are over a single token.
    stem_norm : {"batch", "none"}
        Batch norm as published, or none and a bias instead: independent of training or evaluation
        and of the other records of the batch. (A norm over the channels of a token would hide the
        ECG's amplitude from the network.)
    dropout : float
        Dropout of the blocks, unless a recipe changes it.
    pool : {"mean", "mean-max"}
        Features are the mean of the tokens, as published, or their mean and their maximum over
        time side by side, twice the width: a single ectopic beat is lost in a mean.
    scale : float or None
        Scale, in mV, that the input is divided by; None keeps mV.
    """

    rate: Count = 240
    window: Count = 600
    evaluation_crops: Count = 3
    width: Count = 512
    stem_depth: Count = 4
    stem_norm: Literal["batch", "none"] = "batch"
    dropout: Share = 0.2
    pool: Literal["mean", "mean-max"] = "mean"
    scale: float | None = None


class StemLayer(nn.Module):
    """A convolution over `size` samples, batch norm or a bias, and ReLU."""

    def __init__(self, inputs: int, width: int, *, size: int, norm: str) -> None:
        super().__init__()
        weight = torch.empty(width, inputs, size)
        if norm == "batch":
            nn.init.kaiming_uniform_(weight, a=5**0.5)
        else:  # nothing rescales what comes out: keep its size through ReLU
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        self.weight = nn.Parameter(weight)
        self.norm = nn.BatchNorm1d(width) if norm == "batch" else None
        self.bias = nn.Parameter(torch.zeros(width)) if norm == "none" else None

    def forward(self, patches: Tensor, leads: Sequence[str] | None = None) -> Tensor:
        """Map (batch, tokens, inputs * size) to (batch, tokens, width); `leads` of layer 1."""
        weight = self.weight if leads is None else weight_of_leads(self.weight, leads)
        if self.norm is not None and is_traced():
            # Into the weights: onnxruntime 1.19 fuses the norm wrongly.
            mean, variance = self.norm.running_mean, self.norm.running_var
            assert mean is not None
            assert variance is not None
            scale = self.norm.weight / (variance + self.norm.eps).sqrt()
            shift = self.norm.bias - mean * scale
            return torch.relu(linear(patches, scale[:, None] * weight.flatten(1), shift))
        tokens = linear(patches, weight.flatten(1), self.bias)
        if self.norm is not None:
            tokens = self.norm(tokens.flatten(0, 1)).view(tokens.shape)
        return torch.relu(tokens)


class StemBackbone(SequenceBackbone, WindowedBackbone):
    """Base of a sequence model behind the stem; a subclass builds `blocks`.

    Parameters
    ----------
    config : StemConfig
        Its shape.

    Notes
    -----
    With `leads` the kernel of the first convolution is restricted to those leads, picked by name;
    that equals giving all twelve with the missing ones set to zero. A token is two samples; it
    sees one sample beyond them, because the first convolution is centred.
    """

    multiple = 2  # the stride of the first convolution
    TAPS = 3

    def __init__(self, config: StemConfig) -> None:
        super().__init__(config, config.width * (2 if config.pool == "mean-max" else 1))
        self.token_rate = config.rate / self.multiple
        self.token_dim = config.width
        self.stem = nn.ModuleList(
            StemLayer(
                config.width if layer else len(STANDARD_LEADS),
                config.width,
                size=1 if layer else self.TAPS,
                norm=config.stem_norm,
            )
            for layer in range(config.stem_depth)
        )

    @property
    def preparation(self) -> Preparation:
        """Rate and window; millivolts as they are, or over `scale`."""
        plain = super().preparation
        if self.config.scale is None:
            return plain
        scale = Scale(mean=0.0, std=self.config.scale)
        return Preparation(leads=self.leads, steps=(*plain.steps, scale))

    @property
    def input_scale(self) -> float | None:
        """The config's `scale`."""
        scale: float | None = self.config.scale
        return scale

    def scale_inputs(self, millivolts: float) -> None:
        """Set the config's `scale`."""
        self.config = replace(self.config, scale=millivolts)

    # ------------------------------------------------------------------ forward

    def embed(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Run the stem: (batch, leads, samples) to (batch, samples / 2, width)."""
        names, side = self.input_leads(x, leads), self.TAPS // 2
        patches = pad(x, (side, side)).unfold(2, self.TAPS, self.multiple)
        tokens = patches.transpose(1, 2).flatten(2)
        for index, layer in enumerate(self.stem):
            tokens = layer(tokens, None if index else names)
        return tokens

    def features(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Pooled tokens, (batch, feature_dim): the mean, and the maximum for `mean-max`."""
        tokens = self.tokens(x, leads=leads)
        if self.config.pool == "mean":
            return tokens.mean(1)
        return torch.cat([tokens.mean(1), tokens.amax(1)], dim=1)
