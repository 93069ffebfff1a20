"""The networks of the PTB-XL benchmark against their definitions, layer by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from einthoven.backbones.registry import create_backbone


def test_fcn_wang_groups() -> None:
    net = create_backbone("fcn_wang")
    assert [sorted({name.split(".")[1] for name in group}) for group in net.layer_groups()] == [
        ["0"], ["1"], ["2"], ["linear", "norm1", "norm2"],
    ]  # fmt: skip
    assert net.residual_branches() == [[], []]


def test_resnet1d_wang_groups() -> None:
    net = create_backbone("resnet1d_wang")
    assert [len(block) for block in net.residual_branches()] == [1, 1, 1]
    assert [len(group) for group in net.layer_groups()] == [3, 6, 9, 9, 6]


def test_inception1d_groups() -> None:
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


@pytest.mark.parametrize(
    ("name", "depths"), [("xresnet1d50", [3, 4, 6, 3]), ("xresnet1d101", [3, 4, 23, 3])]
)
def test_xresnet1d_depths(name: str, depths: list[int]) -> None:
    with torch.device("meta"):
        net: Any = create_backbone(name)
    assert [len(stage) for stage in net.stages] == depths
    assert [len(block) for block in net.residual_branches()] == [1] * sum(depths)
    groups = net.layer_groups()
    assert [len(group) for group in groups] == [9, 12, *[9] * (sum(depths) - 1), 6]
    strides = [[block.conv2.conv.stride[1] for block in stage] for stage in net.stages]
    assert strides == [[2 if s and not b else 1 for b in range(n)] for s, n in enumerate(depths)]


@pytest.mark.parametrize(("name", "sizes"), [("lstm", [4, 4, 6]), ("lstm_bidir", [8, 8, 6])])
def test_lstm_groups(name: str, sizes: list[int]) -> None:
    net = create_backbone(name, width=4)
    assert [len(group) for group in net.layer_groups()] == sizes
    assert all(n.endswith(("_l1", "_l1_reverse")) for n in net.layer_groups()[1])
    assert net.residual_branches() == [[]]
