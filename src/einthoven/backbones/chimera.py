"""Chimera: two-dimensional state-space layers over leads and time; our reading.

Behrouz et al., "Chimera: Effectively Modeling Multivariate Time Series with 2-Dimensional State
Space Models", NeurIPS 2024 (arXiv 2406.04320). There is no official code (a project of 2025 with
the same name is another model), and the recipe for ECGs could not be read.

Confirmed, in summaries by others
    The record is a grid of variates and times at 100 Hz. Two hidden states, one carried along
    time and one along the variates, are coupled by four matrices; there are two step sizes; two
    heads, one of small and one of large steps in time (trend and seasons); the variates are scanned
    in both directions; there is gating; B, C and the steps may depend on the input.
Recalled, not checked against the paper
    The form of the recurrences (`einthoven.backbones.layers.two_dimensional_ssm`).
Chosen here
    Parameters that do not depend on the input, so that a layer is a convolution; diagonal dynamics
    with complex modes; the discretisation; the heads as halves of the channels; a block made of
    layer norm, gated 2-D layer and output projection; 50 ms of a lead as the grid's cell, embedded
    with weights that the leads share and a table that tells them apart; the leads joined at each
    time by a linear layer with GELU, then the mean over time; every size; crops of 2.5 s, seven of
    them in evaluation, as the PTB-XL benchmark has them: a step costs a quarter of one on whole
    records, and the kernels' memory is learned, not tied to the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, cast

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from einthoven.backbones.config import Count
from einthoven.backbones.layers.patches import cut_patches
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.two_dimensional_ssm import GridKernel, grid_convolve
from einthoven.backbones.layers.windowed import WindowedBackbone, WindowedConfig
from einthoven.backbones.leads import on_twelve_leads
from einthoven.backbones.registry import Entry
from einthoven.records.record import STANDARD_LEADS


@dataclass(frozen=True, kw_only=True)
class ChimeraConfig(WindowedConfig):
    """Configuration of a Chimera encoder.

    Attributes
    ----------
    patch : int
        Samples of a lead in a cell.
    width, depth : int
        Channels of a cell, one half slow and one half fast, and blocks.
    modes : int
        Complex modes of a channel's states.
    features : int
        Size of a token, in which the leads are joined.
    """

    window: Count = 250
    evaluation_crops: Count = 7
    patch: Count = 5
    width: Annotated[int, Field(gt=0, multiple_of=2)] = 64
    depth: Count = 4
    modes: Count = 4
    features: Count = 192


class ChimeraBlock(nn.Module):
    """Layer norm, a two-dimensional layer whose output is gated, projection; added to the input."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.input = nn.Linear(width, 2 * width)
        self.kernel = GridKernel(width, modes)
        self.skip = nn.Parameter(torch.randn(width))
        self.dropout = nn.Dropout(0.0)
        self.output = nn.Linear(width, width)
        self.depth = StochasticDepth()

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, variates, tokens, width) to the same shape."""
        out: Tensor = self.depth(x, self.branch)
        return out

    def branch(self, x: Tensor) -> Tensor:
        """Residual branch, of the same shape."""
        value, gate = self.input(self.norm(x)).chunk(2, dim=-1)
        filtered = grid_convolve(value, self.kernel(*x.shape[1:3]), self.skip)
        gated: Tensor = self.output(self.dropout(filtered * silu(gate)))
        return gated


class Chimera(WindowedBackbone):
    """The Chimera encoder; its grid always has twelve leads, missing ones zero."""

    family = "chimera"
    final_parameters = ("readout.",)  # joins the leads

    def __init__(self, config: ChimeraConfig) -> None:
        super().__init__(config, config.features)
        self.multiple = config.patch
        leads, width = len(STANDARD_LEADS), config.width
        self.embedding = nn.Linear(config.patch, width)
        self.lead_embedding = nn.Parameter(0.02 * torch.randn(leads, 1, width))
        self.blocks = nn.ModuleList(ChimeraBlock(width, config.modes) for _ in range(config.depth))
        self.readout = nn.Linear(leads * width, config.features)

    # ------------------------------------------------------------------ forward

    def grid(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """Cells after the last block, (batch, 12, tokens, width); input as for `tokens`."""
        whole = on_twelve_leads(x, self.input_leads(x, leads))
        patches = cut_patches(whole, self.config.patch)
        cells: Tensor = self.embedding(patches) + self.lead_embedding
        for block in self.blocks:
            cells = block(cells)
        return cells

    def tokens(self, x: Tensor, *, leads: Sequence[str] | None = None) -> Tensor:
        """A token for every time of the grid, (batch, samples / patch, feature_dim).

        The number of samples is a multiple of the patch; the token joins all leads.
        """
        grid = self.grid(x, leads=leads)
        return gelu(self.readout(grid.transpose(1, 2).flatten(2)))

    # ------------------------------------------------------------------ for the recipe

    def feedforward_dropouts(self) -> list[nn.Dropout]:
        """The dropout in front of every block's output projection."""
        return [block.dropout for block in cast("list[ChimeraBlock]", list(self.blocks))]

    def no_weight_decay(self) -> set[str]:
        """Dynamics, skip weights and the lead table, by our choice: output weights do decay."""
        names = [name for name, _ in self.named_parameters()]
        tables = {name for name in names if name.endswith(".skip") or name == "lead_embedding"}
        return tables | {name for name in names if ".kernel." in name and ".output_" not in name}


ENTRIES = (
    Entry(
        network=Chimera,
        config=ChimeraConfig(name="chimera"),
        summary="Chimera, our reading: state-space layers over leads and time, 100 Hz, 2.5 s",
        origin="our reading of Chimera",
        paper="Behrouz et al., Chimera: Effectively Modeling Multivariate Time Series with "
        "2-Dimensional State Space Models, NeurIPS 2024 (arXiv 2406.04320)",
        parameters=223_040,
        recipe="chimera",
        missing_leads="the rows of the missing ones are zero in its grid",
    ),
)
