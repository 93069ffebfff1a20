"""S4: a convolutional stem and a stack of state-space layers, causal or bidirectional.

The encoder of arXiv 2605.12241 and 2509.25095 (its pretrained form is ECG-CPC): four convolutions
from the leads to the width, the first over three samples with stride 2, then four post-norm S4
layers. `s4` has the published shape at 240 Hz, `ecg_cpc` the same for the published weights;
`s4_small` and `s4_tiny` are our presets at 100 Hz with diagonal dynamics, small enough to be
pretrained on two CPU cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from einthoven.backbones.config import check_choice, override
from einthoven.backbones.contract import SequenceBackbone
from einthoven.backbones.layers.state_space import (
    Dynamics,
    StateSpaceBlock,
    StateSpaceKernel,
    TiedDropout,
)
from einthoven.backbones.layers.windowed import WindowedConfig
from einthoven.backbones.leads import check_leads, lead_rows
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError
from einthoven.licences import Licence
from einthoven.records.record import STANDARD_LEADS
from einthoven.signals.preparation import Preparation
from einthoven.signals.steps import Resample, Scale, Window

__all__ = ["ENTRIES", "S4", "S4Config", "ecg_cpc", "s4", "s4_small", "s4_tiny"]

TYPICAL_DEVIATION_MV = 0.25


@dataclass(frozen=True)
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
        Batch norm as published, or none and a bias instead: the same in training and evaluation,
        and whatever else is in the batch. (A norm over the channels of a token would hide the
        ECG's amplitude from the network.)
    dropout : float
        Tied dropout in every state-space layer, unless a recipe changes it.
    pool : {"mean", "mean-max"}
        Features are the mean of the tokens, as published, or their mean and their maximum over
        time side by side, twice the width: a single ectopic beat is lost in a mean.
    scale : float or None
        Millivolts that count as one; None leaves millivolts, as ECG-CPC does.
    init : {"scratch", "pretraining"}
        Both draw the same weights here.
    """

    rate: int = 240
    window: int = 600
    evaluation_crops: int = 3
    width: int = 512
    depth: int = 4
    state: int = 8
    dynamics: Dynamics = "nplr"
    causal: bool = True
    stem_depth: int = 4
    stem_norm: str = "batch"
    dropout: float = 0.2
    pool: str = "mean"
    scale: float | None = None
    init: str = "scratch"


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

    def forward(self, patches: Tensor, rows: Sequence[int] | None = None) -> Tensor:
        """(batch, tokens, inputs * size) to (batch, tokens, width)."""
        weight = self.weight if rows is None else self.weight[:, list(rows)]
        tokens = linear(patches, weight.flatten(1), self.bias)
        if self.norm is not None:
            tokens = self.norm(tokens.flatten(0, 1)).view(tokens.shape)
        return torch.relu(tokens)


class S4(SequenceBackbone):
    """The S4 encoder.

    Parameters
    ----------
    config : S4Config
        Its shape.

    Raises
    ------
    BackboneError
        For an impossible shape.

    Notes
    -----
    With `leads` the kernel of the first convolution is restricted to those leads, picked by name;
    that equals giving all twelve with the missing ones set to zero. A token is two samples; it
    sees one sample beyond them, because the first convolution is centred.
    """

    family = "s4"
    STRIDE = 2
    TAPS = 3

    def __init__(self, config: S4Config) -> None:
        super().__init__(config, config.width * (2 if config.pool == "mean-max" else 1))
        if config.stem_norm not in ("batch", "none") or config.stem_depth < 1:
            raise BackboneError(
                f"stem_norm = {config.stem_norm!r}, stem_depth = {config.stem_depth}",
                remedy="choose 'batch' or 'none', and at least one stem layer.",
            )
        check_choice("init", config.init, ("scratch", "pretraining"))
        check_choice("pool", config.pool, ("mean", "mean-max"))
        self.causal = config.causal
        self.token_rate = config.rate / self.STRIDE
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
        window = Window(self.config.window, evaluation_crops=self.config.evaluation_crops)
        steps: list[Any] = [Resample(self.config.rate), window]
        if self.config.scale is not None:
            steps.append(Scale(mean=0.0, std=self.config.scale))
        return Preparation(leads=self.leads, steps=tuple(steps))

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
        """The stem: (batch, leads, samples) to (batch, samples / 2, width)."""
        names = self.leads if leads is None else leads
        check_leads(x, names)
        if x.shape[-1] < self.STRIDE or x.shape[-1] % self.STRIDE:
            raise BackboneError(
                f"input of {x.shape[-1]} samples for {self.name}",
                remedy=f"give a positive multiple of {self.STRIDE} samples.",
            )
        side = self.TAPS // 2
        patches = pad(x, (side, side)).unfold(2, self.TAPS, self.STRIDE)
        tokens = patches.transpose(1, 2).flatten(2)
        rows = lead_rows(names)
        first = None if rows == list(range(len(STANDARD_LEADS))) else rows
        for index, layer in enumerate(self.stem):
            tokens = layer(tokens, None if index else first)
        return tokens

    def contextualise(self, z: Tensor) -> Tensor:
        """The state-space layers: (batch, tokens, width) to the same shape."""
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
        blocks = cast("list[StateSpaceBlock]", list(self.blocks))
        drops: list[TiedDropout] = [drop for block in blocks for drop in (block.drop1, block.drop2)]
        return list(drops)

    def no_weight_decay(self) -> set[str]:
        """Nothing is exempt in the published runs; the skip weights are by our choice."""
        return {name for name, _ in self.named_parameters() if name.endswith(".D")}


def s4(**overrides: Any) -> S4:
    """The published shape, causal: 240 Hz, 2.5 s, 2.93 M parameters."""
    return S4(override(S4Config(name="s4"), overrides))


def ecg_cpc(**overrides: Any) -> S4:
    """ECG-CPC: the published shape, for its weights; a record of 10 s is four windows."""
    return S4(override(S4Config(name="ecg_cpc", evaluation_crops=4), overrides))


_OURS = S4Config(
    name="",
    rate=100,
    window=250,
    state=16,
    dynamics="diagonal",
    stem_depth=2,
    dropout=0.0,
    pool="mean-max",
    scale=TYPICAL_DEVIATION_MV,
)


def s4_small(**overrides: Any) -> S4:
    """Our preset for two CPU cores: 100 Hz, 2.5 s, width 192."""
    return S4(override(replace(_OURS, name="s4_small", width=192), overrides))


def s4_tiny(**overrides: Any) -> S4:
    """Our smallest preset, for demonstrations and tests: 100 Hz, 2.5 s, width 96, no batch norm."""
    return S4(override(replace(_OURS, name="s4_tiny", width=96, stem_norm="none"), overrides))


_PAPER = "arXiv 2509.25095 (ECG-CPC) and arXiv 2605.12241; layers after Gu et al., ICLR 2022"

ENTRIES = (
    Entry(
        name="s4",
        build=s4,
        family="s4",
        summary="S4, the published causal shape: width 512, state 8, 240 Hz, 2.5 s",
        origin="S4, arXiv 2605.12241",
        paper=_PAPER,
        parameters=2_932_736,
        recipes="s4-240hz",
        pretraining_recipe="s4-240hz",
        missing_leads="it works as if the missing ones were zero",
    ),
    Entry(
        name="ecg_cpc",
        build=ecg_cpc,
        family="s4",
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
        recipes="s4-240hz",
        pretraining_recipe="s4-240hz",
        missing_leads="it works as if the missing ones were zero",
    ),
    Entry(
        name="s4_small",
        build=s4_small,
        family="s4",
        summary="Diagonal S4 of width 192 at 100 Hz, our size for two CPU cores",
        origin="our size of S4",
        paper=_PAPER,
        parameters=355_584,
        recipes="s4-100hz-cpu",
        pretraining_recipe="s4-ptbxl-100hz-cpu",
        missing_leads="it works as if the missing ones were zero",
    ),
    Entry(
        name="s4_tiny",
        build=s4_tiny,
        family="s4",
        summary="Diagonal S4 of width 96 at 100 Hz, our size for demonstrations",
        origin="our size of S4",
        paper=_PAPER,
        parameters=94_656,
        recipes="s4-100hz-cpu",
        pretraining_recipe="s4-ptbxl-100hz-cpu",
        missing_leads="it works as if the missing ones were zero",
    ),
)
