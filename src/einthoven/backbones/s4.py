"""S4: a convolutional stem and a stack of state-space layers, causal or bidirectional.

The encoder of arXiv 2605.12241 and 2509.25095 (its pretrained form is ECG-CPC): four convolutions
from the leads to the width, the first over three samples with stride 2, then four post-norm S4
layers. `s4` has the published shape at 240 Hz, `ecg_cpc` the same for the published weights;
`s4_small` and `s4_tiny` are our presets at 100 Hz with diagonal dynamics, small enough to be
pretrained on two CPU cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from einthoven.backbones.config import TYPICAL_DEVIATION_MV, Count, Share
from einthoven.backbones.contract import SequenceBackbone
from einthoven.backbones.layers.state_space import (
    Dynamics,
    StateSpaceBlock,
    StateSpaceKernel,
    TiedDropout,
)
from einthoven.backbones.layers.windowed import WindowedBackbone, WindowedConfig
from einthoven.backbones.leads import weight_of_leads
from einthoven.backbones.registry import Entry
from einthoven.licences import Licence
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Scale


@dataclass(frozen=True, kw_only=True)
class S4Config(WindowedConfig):
    """Configuration of an S4 encoder, which takes any even number of samples.

    Attributes
    ----------
    width, depth : int
        Channels and state-space layers.
    state : int
        Size of a channel's state.
    dynamics : {"nplr", "diagonal"}
        See `StateSpaceKernel`.
    causal : bool
        Whether a token sees the past only. Contrastive predictive coding needs that; its encoder
        can be loaded with ``causal=False`` afterwards, the future's kernels then start at zero.
    stem_depth : int
        Convolutions in front; all but the first are over a single token.
    stem_norm : {"batch", "none"}
        Batch norm as published, or none and a bias instead: independent of training or evaluation
        and of the other records of the batch. (A norm over the channels of a token would hide the
        ECG's amplitude from the network.)
    dropout : float
        Tied dropout in every state-space layer, unless a recipe changes it.
    pool : {"mean", "mean-max"}
        Features are the mean of the tokens, as published, or their mean and their maximum over
        time side by side, twice the width: a single ectopic beat is lost in a mean.
    scale : float or None
        Scale, in mV, that the input is divided by; None keeps mV, as ECG-CPC does.
    """

    rate: Count = 240
    window: Count = 600
    evaluation_crops: Count = 3
    width: Count = 512
    depth: Count = 4
    state: Annotated[int, Field(gt=0, multiple_of=2)] = 8
    dynamics: Dynamics = "nplr"
    causal: bool = True
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
        tokens = linear(patches, weight.flatten(1), self.bias)
        if self.norm is not None:
            tokens = self.norm(tokens.flatten(0, 1)).view(tokens.shape)
        return torch.relu(tokens)


class S4(SequenceBackbone, WindowedBackbone):
    """The S4 encoder.

    Notes
    -----
    With `leads` the kernel of the first convolution is restricted to those leads, picked by name;
    that equals giving all twelve with the missing ones set to zero. A token is two samples; it
    sees one sample beyond them, because the first convolution is centred.
    """

    family = "s4"
    reader = "einthoven.weights.ecg_cpc:ENCODER"
    multiple = 2  # the stride of the first convolution
    TAPS = 3

    def __init__(self, config: S4Config) -> None:
        super().__init__(config, config.width * (2 if config.pool == "mean-max" else 1))
        self.causal = config.causal
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
        self.blocks = nn.ModuleList(self._block() for _ in range(config.depth))
        # Blocks are post-norm: the norm of the last one is the final norm.
        self.final_parameters = (f"blocks.{config.depth - 1}.norm.",)

    def _block(self) -> StateSpaceBlock:
        config = self.config
        kernel = StateSpaceKernel(
            config.width, config.state, dynamics=config.dynamics, causal=config.causal
        )
        return StateSpaceBlock(config.width, kernel, dropout=config.dropout)

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

    def contextualise(self, z: Tensor) -> Tensor:
        """Run the state-space layers: (batch, tokens, width) to the same shape."""
        for block in self.blocks:
            z = block(z)
        return z

    def features(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Pooled tokens, (batch, feature_dim): the mean, and the maximum for `mean-max`."""
        tokens = self.tokens(x, leads=leads)
        if self.config.pool == "mean":
            return tokens.mean(1)
        return torch.cat([tokens.mean(1), tokens.amax(1)], dim=1)

    # ------------------------------------------------------------------ for the recipe

    def feedforward_dropouts(self) -> list[nn.Dropout]:
        """Both tied dropouts of every layer: in front of the gated projection and behind it."""
        return [part for part in self.blocks.modules() if isinstance(part, TiedDropout)]

    def no_weight_decay(self) -> set[str]:
        """Nothing is exempt in the published runs; the skip weights are by our choice."""
        return {name for name, _ in self.named_parameters() if name.endswith(".D")}


_PAPER = "arXiv 2509.25095 (ECG-CPC) and arXiv 2605.12241; layers after Gu et al., ICLR 2022"
_SMALL = S4Config(
    name="s4_small",
    rate=100,
    window=250,
    width=192,
    state=16,
    dynamics="diagonal",
    stem_depth=2,
    dropout=0.0,
    pool="mean-max",
    scale=TYPICAL_DEVIATION_MV,
)

ENTRIES = (
    Entry(
        network=S4,
        config=S4Config(name="s4"),
        summary="S4, the published causal shape: width 512, state 8, 240 Hz, 2.5 s",
        origin="S4, arXiv 2605.12241",
        paper=_PAPER,
        parameters=2_932_736,
        recipes="s4-240hz",
        pretraining_recipe="s4-240hz",
    ),
    Entry(
        network=S4,
        config=S4Config(name="ecg_cpc", evaluation_crops=4),
        summary="ECG-CPC: convolutional stem and causal S4, raw millivolts, 240 Hz, 2.5 s",
        origin="ECG-CPC, arXiv 2025",
        paper=_PAPER,
        parameters=2_932_736,
        weights_from="not stated in our sources; the authors' repositories are "
        "AI4HealthUOL/ecg-fm-benchmarking and AI4HealthUOL/ecg-pretraining-strategies (released "
        "files there end in _e10.ckpt)",
        weights_name="AI4HealthUOL/ecg-fm-benchmarking",
        weights_file="x_e10.ckpt",
        pretraining_data="Harvard-Emory ECG Database (10 million records, crops of 10 s), by "
        "contrastive predictive coding; not PTB-XL",
        licence=Licence("unknown", "not stated in our sources", None),
        contains_ptbxl=False,
        recipes="s4-240hz",
        pretraining_recipe="s4-240hz",
    ),
    Entry(
        network=S4,
        config=_SMALL,
        summary="Diagonal S4 of width 192 at 100 Hz, our size for two CPU cores",
        origin="our size of S4",
        paper=_PAPER,
        parameters=355_584,
        recipes="s4-100hz-cpu",
        pretraining_recipe="s4-ptbxl-100hz-cpu",
    ),
    Entry(
        network=S4,
        config=replace(_SMALL, name="s4_tiny", width=96, stem_norm="none"),
        summary="Diagonal S4 of width 96 at 100 Hz, our size for demonstrations",
        origin="our size of S4",
        paper=_PAPER,
        parameters=94_656,
        recipes="s4-100hz-cpu",
        pretraining_recipe="s4-ptbxl-100hz-cpu",
    ),
)
