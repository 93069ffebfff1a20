"""What the recipe asks of a network made of blocks, answered once for all of them."""

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
    found = [block.mlp for block in blocks if isinstance(block, Block)]
    return [dropout for mlp in found for dropout in (mlp.drop1, mlp.drop2)]


def attention_dropouts(blocks: Iterable[nn.Module]) -> list[nn.Dropout]:
    """The dropout behind every attention output projection."""
    return [block.attn.output_dropout for block in blocks if isinstance(block, Block)]


def group_by_depth(
    module: nn.Module, *, depth: int, last: tuple[str, ...], blocks: str = "blocks"
) -> list[list[str]]:
    """Partition parameter names into embeddings, each block, and the final layers.

    Parameters
    ----------
    module : nn.Module
        The network.
    depth : int
        Its number of blocks.
    last : tuple of str
        Name prefixes of what comes after the blocks; the rest is taken for embeddings.
    blocks : str
        Name of the list of blocks.
    """
    groups: list[list[str]] = [[] for _ in range(depth + 2)]
    for name, _ in module.named_parameters():
        if name.startswith(f"{blocks}."):
            groups[1 + int(name.split(".")[1])].append(name)
        else:
            groups[-1 if name.startswith(last) else 0].append(name)
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
