"""Attention of Transformers: of the last layer, and rolled out through all layers.

Attention is recorded where PyTorch computes it, `scaled_dot_product_attention`, so that a network
needs no further code. Networks that attend within windows only have none here.

Rollout: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020
(arXiv 2005.00928). The attention of the last layer is what ECG-FM (JAMIA Open 2025) shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


class _Recorder(TorchFunctionMode):
    """Attention of every layer, (batch, tokens, tokens), the mean over heads."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is scaled_dot_product_attention:
            query, key, _, *rest = args
            mask = rest[0] if rest else None
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
            if mask is not None:
                scores = scores.masked_fill(~mask, -torch.inf)
            self.layers.append(scores.softmax(-1).mean(1).detach().float())
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def attention_layers(network: Callable[[Tensor], Tensor], crops: Tensor) -> list[Tensor]:
    """Attention of every layer, (crops, tokens, tokens), the mean over heads; rows sum to 1.

    Empty for networks without attention among all tokens.
    """
    with _Recorder() as recorder:
        network(crops)
    layers: list[Tensor] = recorder.layers
    return layers


def rollout(layers: list[Tensor]) -> Tensor:
    """Attention of the output tokens to the input tokens, (crops, tokens, tokens).

    Product of all layers' attention, each with half of the identity for its shortcut.
    """
    product = torch.eye(layers[0].shape[-1]).expand_as(layers[0])
    for layer in layers:
        product = (0.5 * layer + 0.5 * torch.eye(layer.shape[-1])) @ product
    return product
