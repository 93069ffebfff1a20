"""Attention in windows against attention with a mask, and who sees whom."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from einthoven.backbones.msw_transformer import WindowAttention


def _layer(window: int) -> WindowAttention:
    torch.manual_seed(window)
    layer = WindowAttention(16, 4, window)
    torch.nn.init.normal_(layer.distance)
    return layer.double()


def _windows(tokens: int, window: int, shift: int) -> Tensor:
    """Which window each token is in."""
    return (torch.arange(tokens) + shift) // window


def _masked(layer: WindowAttention, x: Tensor) -> Tensor:
    """The same over all tokens at once, what is outside the window masked."""
    tokens, window = x.shape[1], layer.window
    query, key, value = (
        part.unflatten(-1, (4, 4)).transpose(1, 2) for part in layer.qkv(x).chunk(3, -1)
    )
    scores = query @ key.transpose(-1, -2) / 2.0
    place = torch.arange(tokens)
    apart = place - place[:, None]
    for head in range(4):
        home = _windows(tokens, window, 0 if head < 2 else window // 2)
        inside = home == home[:, None]
        bias = layer.distance[head][(apart + window - 1).clamp(0, 2 * window - 2)]
        scores[:, head] = (scores[:, head] + bias).masked_fill(~inside, -torch.inf)
    return layer.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("window", [2, 5, 8])
@pytest.mark.parametrize("tokens", [1, 5, 16, 23])
def test_windows_are_masked_attention_with_its_gradients(window: int, tokens: int) -> None:
    layer = _layer(window)
    x = torch.randn(2, tokens, 16, dtype=torch.double, requires_grad=True)
    found, expected = layer(x), _masked(layer, x)
    assert torch.allclose(found, expected)
    direction = torch.randn_like(found)
    parts = [x, *layer.parameters()]
    for slope, wanted in zip(
        torch.autograd.grad(found, parts, direction),
        torch.autograd.grad(expected, parts, direction),
        strict=True,
    ):
        assert torch.allclose(slope, wanted, atol=1e-10)
