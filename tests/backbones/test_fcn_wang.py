from __future__ import annotations

import torch
from torch.nn.functional import batch_norm, conv1d, relu

from einthoven.backbones.fcn_wang import FCNWang, fcn_wang
from einthoven.backbones.registry import create_backbone


def test_three_convolutions_that_lose_one_sample() -> None:
    """By hand, over lines instead of images of height one."""
    net = create_backbone("fcn_wang", seed=0)
    assert isinstance(net, FCNWang)
    x = torch.randn(2, 12, 60, generator=torch.Generator().manual_seed(0))
    h = x
    for block, padding in zip(net.blocks, (3, 2, 1), strict=True):
        h = conv1d(h, block.conv.weight[:, :, 0], padding=padding)  # type: ignore[union-attr, index]
        h = relu(batch_norm(h, torch.zeros(h.shape[1]), torch.ones(h.shape[1])))
    with torch.no_grad():
        tokens = net.eval().tokens(x)
    assert tokens.shape == (2, 59, 128)
    assert torch.allclose(tokens, h.transpose(1, 2), rtol=1e-4, atol=1e-4)


def test_the_first_convolution_is_the_stem() -> None:
    net = fcn_wang()
    assert [sorted({name.split(".")[1] for name in group}) for group in net.layer_groups()] == [
        ["0"], ["1"], ["2"], ["linear", "norm1", "norm2"],
    ]  # fmt: skip
    assert net.residual_branches() == [[], []]
