from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv1d, max_pool1d, relu

from einthoven.backbones.layers.convolution import as_image
from einthoven.backbones.registry import create_backbone
from einthoven.backbones.xresnet1d import Bottleneck

SMALL: dict[str, Any] = {"stem_widths": (8, 8, 8), "width": 4, "depths": (2, 1)}


def _conv(x: Tensor, layer: Any, stride: int = 1) -> Tensor:
    weight = layer.conv.weight[:, :, 0]
    h = conv1d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    return batch_norm(h, torch.zeros(h.shape[1]), torch.ones(h.shape[1]))


def _halved(x: Tensor) -> Tensor:
    """Means of pairs; an odd last sample alone."""
    pairs = [x[..., i : i + 2].mean(-1) for i in range(0, x.shape[-1], 2)]
    return torch.stack(pairs, dim=-1)


@pytest.mark.parametrize("samples", [100, 101, 104])
def test_stem_blocks_and_shortcuts(samples: int) -> None:
    """By hand, over lines instead of images of height one."""
    net: Any = create_backbone("xresnet1d50", seed=0, **SMALL).eval()
    x = torch.randn(2, 12, samples, generator=torch.Generator().manual_seed(0))
    h = x
    for index, layer in enumerate(net.stem):
        h = relu(_conv(h, layer, 1 if index else 2))
    h = max_pool1d(h, 3, stride=2, padding=1)
    for stage, blocks in enumerate(net.stages):
        for place, block in enumerate(blocks):
            stride = 2 if stage and not place else 1
            shortcut = _halved(h) if stride == 2 else h
            if block.conv1.conv.in_channels != block.conv3.conv.out_channels:
                shortcut = _conv(shortcut, block.project)
            branch = relu(_conv(relu(_conv(h, block.conv1)), block.conv2, stride))
            h = relu(_conv(branch, block.conv3) + shortcut)
    with torch.no_grad():
        tokens = net.tokens(x)
    assert torch.allclose(tokens, h.transpose(1, 2), rtol=1e-3, atol=1e-3)


def test_an_odd_last_sample_is_averaged_with_nothing() -> None:
    block = Bottleneck(4, 2, 4, kernel=5, stride=2)
    x = torch.arange(1.0, 6.0).expand(1, 4, 5)
    assert block.average(as_image(x))[0, 0, 0].tolist() == [1.5, 3.5, 5.0]


@pytest.mark.parametrize(
    ("name", "depths"), [("xresnet1d50", [3, 4, 6, 3]), ("xresnet1d101", [3, 4, 23, 3])]
)
def test_the_published_depths(name: str, depths: list[int]) -> None:
    with torch.device("meta"):
        net: Any = create_backbone(name)
    assert [len(stage) for stage in net.stages] == depths
    assert [len(block) for block in net.residual_branches()] == [1] * sum(depths)
    groups = net.layer_groups()
    assert [len(group) for group in groups] == [9, 12, *[9] * (sum(depths) - 1), 6]
    strides = [[block.conv2.conv.stride[1] for block in stage] for stage in net.stages]
    assert strides == [[2 if s and not b else 1 for b in range(n)] for s, n in enumerate(depths)]


def test_two_and_a_half_seconds_become_eight_tokens() -> None:
    net: Any = create_backbone("xresnet1d50", seed=0).eval()
    lengths: list[int] = []
    for part in (net.stem[0], net.shorten, *net.stages):
        part.register_forward_hook(lambda _, args, out: lengths.append(out.shape[-1]))
    with torch.no_grad():
        net(torch.randn(1, 12, 250))
    assert lengths == [125, 63, 63, 32, 16, 8]
