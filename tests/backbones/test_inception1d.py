from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv1d, max_pool1d, relu

from einthoven.backbones.registry import create_backbone


def _conv(x: Tensor, conv: Any) -> Tensor:
    weight = conv.weight[:, :, 0]
    return conv1d(x, weight, padding=weight.shape[-1] // 2)


def _norm(x: Tensor) -> Tensor:
    return batch_norm(x, torch.zeros(x.shape[1]), torch.ones(x.shape[1]))


def test_modules_and_shortcuts() -> None:
    """By hand, over lines instead of images of height one."""
    net: Any = create_backbone("inception1d", seed=0, width=8).eval()
    x = torch.randn(2, 12, 50, generator=torch.Generator().manual_seed(0))
    h = x
    for block in net.blocks:
        before = h
        for module in block.layers:
            narrow = _conv(h, module.bottleneck)
            branches = [_conv(narrow, conv) for conv in module.convs]
            pooled = _conv(max_pool1d(h, 3, stride=1, padding=1), module.pooled)
            h = relu(_norm(torch.cat([*branches, pooled], dim=1)))
        h = relu(h + _norm(_conv(before, block.shortcut.conv)))
    with torch.no_grad():
        tokens = net.tokens(x)
    assert tokens.shape == (2, 50, 32)
    assert torch.allclose(tokens, h.transpose(1, 2), rtol=1e-3, atol=1e-3)


def test_six_modules_two_shortcuts_and_what_reads_the_leads() -> None:
    with torch.device("meta"):
        net: Any = create_backbone("inception1d")
    assert [len(block.layers) for block in net.blocks] == [3, 3]
    kernels = {
        tuple(conv.kernel_size[1] for conv in module.convs)
        for block in net.blocks
        for module in block.layers
    }
    assert kernels == {(39, 19, 9)}
    assert [len(block) for block in net.residual_branches()] == [1, 1]
    groups = net.layer_groups()
    weights = dict(net.named_parameters())
    reading = {name for name, p in weights.items() if p.ndim == 4 and p.shape[1] == 12}
    assert reading <= set(groups[0])
    assert [len(group) for group in groups] == [5, 19, 24, 6]
