"""Residual branches, dropouts, parameter groups and initialisation of networks made of blocks."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.transformer import Block

__all__ = [
    "attention_dropouts",
    "block_branches",
    "feedforward_dropouts",
    "group_by_depth",
    "initialise_linears",
]


def block_branches(blocks: Iterable[nn.Module]) -> list[list[StochasticDepth]]:
    """The stochastic-depth holders of every block, in the order they run."""
    return [[m for m in block.modules() if isinstance(m, StochasticDepth)] for block in blocks]


def feedforward_dropouts(blocks: Iterable[nn.Module]) -> list[nn.Dropout]:
    """Both dropouts of every feed-forward."""
    layers = [block.mlp for block in blocks if isinstance(block, Block)]
    return [dropout for mlp in layers for dropout in (mlp.drop1, mlp.drop2)]


def attention_dropouts(blocks: Iterable[nn.Module]) -> list[nn.Dropout]:
    """The dropout behind every attention output projection."""
    return [block.attn.output_dropout for block in blocks if isinstance(block, Block)]


def group_by_depth(
    module: nn.Module, *, depth: int, final: tuple[str, ...] = ()
) -> list[list[str]]:
    """Partition parameter names into embeddings, each entry of `blocks`, and the final layers.

    Parameters
    ----------
    module : nn.Module
        The network.
    depth : int
        Its number of blocks.
    final : tuple of str
        Name prefixes of the final layers, also inside the last block (the norm of a post-norm
        block). Parameters outside `blocks` with other prefixes belong to the embeddings.
    """
    groups: list[list[str]] = [[] for _ in range(depth + 2)]
    for name, _ in module.named_parameters():
        if name.startswith(final):
            groups[-1].append(name)
        elif name.startswith("blocks."):
            groups[1 + int(name.split(".")[1])].append(name)
        else:
            groups[0].append(name)
    return groups


def initialise_linears(module: nn.Module, *, rule: str) -> None:
    """Draw every linear layer afresh, biases zero and layer norms at one and zero.

    Parameters
    ----------
    module : nn.Module
        Changed in place.
    rule : {"xavier", "truncated-normal"}
        Xavier-uniform (MAE, ST-MEM's pretraining) or truncated normal of std 0.02 (ViT, MTECG).
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            if rule == "xavier":
                nn.init.xavier_uniform_(part.weight)
            else:
                nn.init.trunc_normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
