"""The networks of the PTB-XL benchmark against their definitions, layer by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import batch_norm, conv1d, max_pool1d, relu

from einthoven.backbones.layers.convolution import as_image
from einthoven.backbones.registry import create_backbone
from einthoven.backbones.xresnet1d import Bottleneck


def _conv(x: Tensor, layer: Any, stride: int = 1) -> Tensor:
    """Convolution without its norm, over lines instead of images of height one."""
    weight = layer.weight[:, :, 0]
    return conv1d(x, weight, stride=stride, padding=(weight.shape[-1] - 1) // 2)


def _norm(x: Tensor) -> Tensor:
    return batch_norm(x, torch.zeros(x.shape[1]), torch.ones(x.shape[1]))


def _conv_norm(x: Tensor, layer: Any, stride: int = 1) -> Tensor:
    return _norm(_conv(x, layer.conv, stride))


def test_fcn_wang_is_three_convolutions() -> None:
    net: Any = create_backbone("fcn_wang", seed=0)
    x = torch.randn(2, 12, 60, generator=torch.Generator().manual_seed(0))
    h = x
    for block in net.blocks:
        h = relu(_conv_norm(h, block))
    with torch.no_grad():
        tokens = net.eval().tokens(x)
    assert tokens.shape == (2, 59, 128)
    assert torch.allclose(tokens, h.transpose(1, 2), rtol=1e-4, atol=1e-4)


def test_fcn_wang_groups() -> None:
    net = create_backbone("fcn_wang")
    assert [sorted({name.split(".")[1] for name in group}) for group in net.layer_groups()] == [
        ["0"], ["1"], ["2"], ["linear", "norm1", "norm2"],
    ]  # fmt: skip
    assert net.residual_branches() == [[], []]


def test_resnet1d_wang_is_a_stem_and_three_blocks() -> None:
    net: Any = create_backbone("resnet1d_wang", seed=0).eval()
    x = torch.randn(2, 12, 61, generator=torch.Generator().manual_seed(0))
    h = relu(_conv_norm(x, net.stem))
    for block, stride in zip(net.blocks, (1, 2, 2), strict=True):
        branch = _conv_norm(relu(_conv_norm(h, block.conv1, stride)), block.conv2)
        h = relu(branch + (h if stride == 1 else _conv_norm(h, block.shortcut, stride)))
    with torch.no_grad():
        tokens = net.tokens(x)
    assert tokens.shape == (2, 16, 128)
    assert torch.allclose(tokens, h.transpose(1, 2), rtol=1e-3, atol=1e-3)
    kernels = [
        [layer.conv.kernel_size[1] for layer in (block.conv1, block.conv2)] for block in net.blocks
    ]
    assert (net.stem.conv.kernel_size[1], kernels) == (7, [[5, 3]] * 3)


def test_resnet1d_wang_groups() -> None:
    net = create_backbone("resnet1d_wang")
    assert [len(block) for block in net.residual_branches()] == [1, 1, 1]
    assert [len(group) for group in net.layer_groups()] == [3, 6, 9, 9, 6]


def test_inception1d_is_modules_and_shortcuts() -> None:
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


SMALL: dict[str, Any] = {"stem_widths": (8, 8, 8), "width": 4, "depths": (2, 1)}


def _halved(x: Tensor) -> Tensor:
    """Means of pairs; an odd last sample alone."""
    pairs = [x[..., i : i + 2].mean(-1) for i in range(0, x.shape[-1], 2)]
    return torch.stack(pairs, dim=-1)


@pytest.mark.parametrize("samples", [100, 101, 104])
def test_xresnet1d_is_a_stem_and_bottlenecks(samples: int) -> None:
    net: Any = create_backbone("xresnet1d50", seed=0, **SMALL).eval()
    x = torch.randn(2, 12, samples, generator=torch.Generator().manual_seed(0))
    h = x
    for index, layer in enumerate(net.stem):
        h = relu(_conv_norm(h, layer, 1 if index else 2))
    h = max_pool1d(h, 3, stride=2, padding=1)
    for stage, blocks in enumerate(net.stages):
        for place, block in enumerate(blocks):
            stride = 2 if stage and not place else 1
            shortcut = _halved(h) if stride == 2 else h
            if block.conv1.conv.in_channels != block.conv3.conv.out_channels:
                shortcut = _conv_norm(shortcut, block.project)
            branch = relu(_conv_norm(relu(_conv_norm(h, block.conv1)), block.conv2, stride))
            h = relu(_conv_norm(branch, block.conv3) + shortcut)
    with torch.no_grad():
        tokens = net.tokens(x)
    assert torch.allclose(tokens, h.transpose(1, 2), rtol=1e-3, atol=1e-3)


def test_xresnet1d_averages_an_odd_last_sample_alone() -> None:
    block = Bottleneck(4, 2, 4, kernel=5, stride=2)
    x = torch.arange(1.0, 6.0).expand(1, 4, 5)
    assert block.average(as_image(x))[0, 0, 0].tolist() == [1.5, 3.5, 5.0]


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


def test_xresnet1d_halves_time_five_times() -> None:
    net: Any = create_backbone("xresnet1d50", seed=0).eval()
    lengths: list[int] = []
    for part in (net.stem[0], net.shorten, *net.stages):
        part.register_forward_hook(lambda _, args, out: lengths.append(out.shape[-1]))
    with torch.no_grad():
        net(torch.randn(1, 12, 250))
    assert lengths == [125, 63, 63, 32, 16, 8]


def _states(x: Tensor, lstm: Any, layer: int, *, reverse: bool) -> Tensor:
    """The states of one direction of one layer, (batch, samples, units), in the samples' order."""
    end = f"_l{layer}_reverse" if reverse else f"_l{layer}"
    w_in, w_state, b_in, b_state = (
        getattr(lstm, name + end) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    steps = x.unbind(1)[::-1] if reverse else x.unbind(1)
    state = cell = x.new_zeros(len(x), w_state.shape[1])
    states = []
    for step in steps:
        gates = step @ w_in.T + b_in + state @ w_state.T + b_state
        take, forget, new, give = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + take.sigmoid() * new.tanh()
        state = give.sigmoid() * cell.tanh()
        states.append(state)
    return torch.stack(states[::-1] if reverse else states, dim=1)


@pytest.mark.parametrize("name", ["lstm", "lstm_bidir"])
def test_lstm_states(name: str) -> None:
    net: Any = create_backbone(name, seed=0, width=6).eval()
    x = torch.randn(3, 12, 9, generator=torch.Generator().manual_seed(0))
    h = x.transpose(1, 2)
    for layer in range(2):
        directions = [False, True] if name == "lstm_bidir" else [False]
        h = torch.cat([_states(h, net.lstm, layer, reverse=r) for r in directions], dim=2)
    with torch.no_grad():
        assert torch.allclose(net.tokens(x), h, atol=1e-6)


def test_lstm_pools_mean_maximum_and_last_step() -> None:
    net: Any = create_backbone("lstm", width=2)
    tokens = torch.tensor([[[1.0, -4.0], [5.0, -2.0], [3.0, -6.0]]])
    assert net.pool(tokens).tolist() == [[3.0, -4.0, 5.0, -2.0, 3.0, -6.0]]


def test_lstm_last_step_is_the_last_sample_in_both_directions() -> None:
    """The benchmark's quirk: the backward half of the last step knows one sample only."""
    net: Any = create_backbone("lstm_bidir", seed=0, width=6, depth=1).eval()
    x = torch.randn(2, 12, 30, generator=torch.Generator().manual_seed(0))
    other = torch.cat([torch.randn(2, 12, 29), x[..., -1:]], dim=-1)
    with torch.no_grad():
        backward, changed = (net.pool(net.tokens(each))[:, -6:] for each in (x, other))
        assert torch.allclose(backward, changed, atol=1e-6)
        assert torch.allclose(backward, net.tokens(x[..., -1:])[:, 0, -6:], atol=1e-6)
        forward = net.pool(net.tokens(x))[:, -12:-6]
        assert torch.allclose(forward, net.tokens(x)[:, -1, :6])


@pytest.mark.parametrize(("name", "sizes"), [("lstm", [4, 4, 6]), ("lstm_bidir", [8, 8, 6])])
def test_lstm_groups(name: str, sizes: list[int]) -> None:
    net = create_backbone(name, width=4)
    assert [len(group) for group in net.layer_groups()] == sizes
    assert all(n.endswith(("_l1", "_l1_reverse")) for n in net.layer_groups()[1])
    assert net.residual_branches() == [[]]
