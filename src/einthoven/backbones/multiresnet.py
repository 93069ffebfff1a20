"""MULTIRESNET: multiresolution convolutions over the whole record, without downsampling.

Shi, Wang and Fox, "Sequence Modeling with Multiresolution Convolutional Memory", ICML 2023, in the
configuration that its public code trains on PTB-XL: all six tasks, full records of 10 s at 100 Hz,
six layers of 128 channels, ten scales, "fading" memory. A layer is a cascade of short filters
(`einthoven.backbones.layers.multires`), GELU, a gated linear map over the channels, both with
dropout of whole channels; then the residual sum and a layer norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import gelu, glu

from einthoven.backbones.config import override
from einthoven.backbones.layers.multires import MultiresLayer
from einthoven.backbones.layers.sample_stack import SampleStack
from einthoven.backbones.layers.state_space import TiedDropout
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.structure import group_by_depth
from einthoven.backbones.layers.windowed import WindowedConfig
from einthoven.backbones.registry import Entry
from einthoven.errors import BackboneError

__all__ = ["ENTRIES", "MultiresBlock", "MultiresNet", "MultiresNetConfig", "multiresnet"]


@dataclass(frozen=True)
class MultiresNetConfig(WindowedConfig):
    """Everything that decides the shape of a MULTIRESNET.

    Attributes
    ----------
    width, depth : int
        Channels and blocks.
    scales : int
        Of every layer. The published number is the least with which the last sample of the window
        depends on the first, ``ceil(log2(window))``.
    dropout : float
        Of whole channels, twice a block. The network's own: a recipe does not change it.
    """

    width: int = 128
    depth: int = 6
    scales: int = 10
    dropout: float = 0.2


class MultiresBlock(nn.Module):
    """Filters at all scales, GELU, a gated linear map; added to the input, then normalised.

    Parameters
    ----------
    width, scales, dropout
        See `MultiresNetConfig`.
    """

    def __init__(self, width: int, scales: int, *, dropout: float) -> None:
        super().__init__()
        self.multires = MultiresLayer(width, scales)
        self.drop1 = TiedDropout(dropout)
        self.mix = nn.Linear(width, 2 * width)
        self.drop2 = TiedDropout(dropout)
        self.depth = StochasticDepth()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens, width) to the same shape."""
        out: Tensor = self.norm(self.depth(x, self.branch))
        return out

    def branch(self, x: Tensor) -> Tensor:
        """What the residual connection skips; (batch, tokens, width)."""
        filtered = self.drop1(gelu(self.multires(x)))
        gated: Tensor = self.drop2(glu(self.mix(filtered), dim=-1))
        return gated


class MultiresNet(SampleStack):
    """The network without its last linear layer.

    Parameters
    ----------
    config : MultiresNetConfig
        Its shape.

    Raises
    ------
    BackboneError
        For an impossible shape.

    Notes
    -----
    Every token depends on the past only.
    """

    family = "multiresnet"

    def __init__(self, config: MultiresNetConfig) -> None:
        if config.depth < 1 or config.width < 1:
            raise BackboneError(
                f"depth = {config.depth}, width = {config.width}",
                remedy="give at least one of each.",
            )
        blocks = [
            MultiresBlock(config.width, config.scales, dropout=config.dropout)
            for _ in range(config.depth)
        ]
        super().__init__(config, blocks)

    def layer_groups(self) -> list[list[str]]:
        """Parameter names by layer: embedding, each block, and the norm of the last one.

        Blocks are post-norm, so the last one's norm is the final norm.
        """
        groups = group_by_depth(self, depth=self.config.depth, last=())
        final = f"blocks.{self.config.depth - 1}.norm."
        groups[-1] = [name for name in groups[-2] if name.startswith(final)]
        groups[-2] = [name for name in groups[-2] if not name.startswith(final)]
        return groups

    def no_weight_decay(self) -> set[str]:
        """Nothing is exempt in the published runs."""
        return set()


def multiresnet(**overrides: Any) -> MultiresNet:
    """MULTIRESNET as published for PTB-XL: 10 s at 100 Hz, 0.21 M parameters."""
    return MultiresNet(override(MultiresNetConfig(name="multiresnet"), overrides))


ENTRIES = (
    Entry(
        name="multiresnet",
        build=multiresnet,
        family="multiresnet",
        summary="MULTIRESNET: causal filters at ten scales over the whole record, 100 Hz, 10 s",
        origin="Shi et al. 2023",
        paper="Shi et al., Sequence Modeling with Multiresolution Convolutional Memory, ICML 2023",
        parameters=213_632,
        recipe="multiresnet",
        missing_leads="it works as if the missing ones were zero",
    ),
)
