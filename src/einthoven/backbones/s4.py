"""S4: a convolutional stem and a stack of state-space layers, causal or bidirectional.

The encoder of arXiv 2605.12241 and 2509.25095 (its pretrained form is ECG-CPC): four convolutions
from the leads to the width, the first over three samples with stride 2, then four post-norm S4
layers. `s4` has the published shape at 240 Hz, `ecg_cpc` the same for the published weights;
`s4_small` and `s4_tiny` are our presets at 100 Hz with diagonal dynamics, small enough to be
pretrained on two CPU cores.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from einthoven.backbones.config import TYPICAL_DEVIATION_MV, Count
from einthoven.backbones.layers.state_space import (
    Dynamics,
    StateSpaceBlock,
    StateSpaceKernel,
    TiedDropout,
)
from einthoven.backbones.layers.stem import StemBackbone, StemConfig
from einthoven.backbones.registry import Entry
from einthoven.licences import Licence


@dataclass(frozen=True, kw_only=True)
class S4Config(StemConfig):
    """Configuration of an S4 encoder; the other fields are those of `StemConfig`.

    Attributes
    ----------
    depth : int
        State-space layers.
    state : int
        Size of a channel's state.
    dynamics : {"nplr", "diagonal"}
        See `StateSpaceKernel`.
    causal : bool
        Whether a token sees the past only. Contrastive predictive coding needs that; its encoder
        can be loaded with ``causal=False`` afterwards, the future's kernels then start at zero.
    """

    depth: Count = 4
    state: Annotated[int, Field(gt=0, multiple_of=2)] = 8
    dynamics: Dynamics = "nplr"
    causal: bool = True


class S4(StemBackbone):
    """The S4 encoder."""

    family = "s4"
    reader = "einthoven.weights.ecg_cpc:ENCODER"

    def __init__(self, config: S4Config) -> None:
        super().__init__(config)
        self.causal = config.causal
        self.blocks = nn.ModuleList(self._block() for _ in range(config.depth))
        # Blocks are post-norm: the norm of the last one is the final norm.
        self.final_parameters = (f"blocks.{config.depth - 1}.norm.",)

    def _block(self) -> StateSpaceBlock:
        config = self.config
        kernel = StateSpaceKernel(
            config.width, config.state, dynamics=config.dynamics, causal=config.causal
        )
        return StateSpaceBlock(config.width, kernel, dropout=config.dropout)

    def contextualise(self, z: Tensor) -> Tensor:
        """Run the state-space layers: (batch, tokens, width) to the same shape."""
        for block in self.blocks:
            z = block(z)
        return z

    def adapted(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Kernels of the future that are zero, for the weights of a causal encoder.

        The outputs are those of the causal encoder until it is trained.
        """
        if self.causal:
            return tensors
        return {
            name: torch.cat([tensor, torch.zeros_like(tensor)])
            if name.endswith(".kernel.C") and len(tensor) == 1
            else tensor
            for name, tensor in tensors.items()
        }

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
