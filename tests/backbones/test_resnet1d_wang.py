from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv1d, relu

from einthoven.backbones.registry import create_backbone


def _conv(x: Tensor, layer: Any, stride: int = 1) -> Tensor:
    weight = layer.conv.weight[:, :, 0]
    h = conv1d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    return batch_norm(h, torch.zeros(h.shape[1]), torch.ones(h.shape[1]))


def test_a_stem_and_three_blocks_of_which_two_halve() -> None:
    """By hand, over lines instead of images of height one."""
    net: Any = create_backbone("resnet1d_wang", seed=0).eval()
    x = torch.randn(2, 12, 61, generator=torch.Generator().manual_seed(0))
    h = relu(_conv(x, net.stem))
    for block, stride in zip(net.blocks, (1, 2, 2), strict=True):
        branch = _conv(relu(_conv(h, block.conv1, stride)), block.conv2)
        h = relu(branch + (h if stride == 1 else _conv(h, block.shortcut, stride)))
    with torch.no_grad():
        tokens = net.tokens(x)
    assert tokens.shape == (2, 16, 128)
    assert torch.allclose(tokens, h.transpose(1, 2), rtol=1e-3, atol=1e-3)
    kernels = [
        [layer.conv.kernel_size[1] for layer in (block.conv1, block.conv2)] for block in net.blocks
    ]
    assert (net.stem.conv.kernel_size[1], kernels) == (7, [[5, 3]] * 3)


def test_one_holder_a_block() -> None:
    net = create_backbone("resnet1d_wang")
    assert [len(block) for block in net.residual_branches()] == [1, 1, 1]
    assert [len(group) for group in net.layer_groups()] == [3, 6, 9, 9, 6]
