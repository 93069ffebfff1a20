from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from einthoven.backbones.ecgfounder import Bottleneck, SqueezeExcitation, Stem, halve, same_conv


def _by_hand(x: Tensor, weight: Tensor, stride: int, groups: int) -> Tensor:
    """The published rule with an explicit padded copy."""
    samples, kernel = x.shape[-1], weight.shape[-1]
    out = -(-samples // stride)
    total = max(0, (out - 1) * stride + kernel - samples)
    padded = pad(x, (total // 2, total - total // 2))
    result = conv1d(padded, weight, stride=stride, groups=groups)
    assert result.shape[-1] == out
    return result


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3, 5, 16])
def test_convolution_is_same_padded_at_every_length(kernel: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 2, kernel, generator=generator)
    for samples in (1, 2, 3, 15, 16, 17, 40, 79, 80):
        x = torch.randn(2, 4, samples, generator=generator)
        ours = same_conv(x, weight, None, stride=stride, groups=2)
        assert torch.allclose(ours, _by_hand(x, weight, stride, 2), atol=1e-5), samples


@pytest.mark.parametrize("samples", [500, 501])
@pytest.mark.parametrize("channels", [1, 4, 8, 12])
def test_autocast_does_not_break_convolutions_of_few_channels(channels: int, samples: int) -> None:
    """PyTorch 2.13 on AMX: 8 and 12 channels with 16 taps are wrong by their own size in bf16."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, channels, 16, generator=generator)
    x = torch.randn(2, channels, samples, generator=generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = same_conv(x, weight, None, stride=2, groups=1)
    pure = same_conv(x.bfloat16(), weight.bfloat16(), None, stride=2, groups=1)
    assert pure.dtype is torch.bfloat16
    expected = _by_hand(x, weight, 2, 1)
    for rough in (ours, pure):
        assert (rough.float() - expected).abs().max() < 0.03 * expected.abs().max()


def test_halving_compares_a_single_last_sample_with_zero() -> None:
    x = torch.tensor([[[-3.0, -1.0, 2.0, 4.0, -5.0]]])
    assert halve(x).tolist() == [[[-1.0, 4.0, 0.0]]]
    assert halve(x[..., :4]).tolist() == [[[-1.0, 4.0]]]
    assert halve(-x).tolist() == [[[3.0, -2.0, 5.0]]]


def test_squeeze_and_excitation_gates_channels_by_their_means() -> None:
    layer = SqueezeExcitation(4)
    x = torch.randn(3, 4, 7)
    shuffled = x[..., torch.randperm(7)]  # the same means
    gate = layer(x) / x
    assert torch.allclose(gate, gate[..., :1].expand_as(gate), atol=1e-5)
    assert bool(((gate > 0) & (gate < 1)).all())
    assert torch.allclose(layer(shuffled) / shuffled, gate, atol=1e-5)


def _block(inputs: int, width: int, stride: int) -> Bottleneck:
    return Bottleneck(
        inputs, width, groups=width // 4, kernel=4, stride=stride, activated=False, use_bn=False
    )


def test_a_dropped_branch_leaves_pooled_input_between_zero_channels() -> None:
    block = _block(4, 12, 2).train()
    block.drop_path.rate = 0.5
    block.drop_path.generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, 9)
    out = block(x)
    assert out.shape == (64, 12, 5)
    dropped = (out[:, :4] == 0).flatten(1).all(1)
    assert 16 < int(dropped.sum()) < 48
    assert torch.equal(out[dropped, 4:8], halve(x)[dropped])
    assert not out[dropped, 8:].any()


def test_an_odd_number_of_new_channels_goes_behind() -> None:
    block = _block(5, 8, 1)
    shortcut = block._shortcut(torch.ones(1, 5, 2))
    assert shortcut[0, :, 0].tolist() == [0, 1, 1, 1, 1, 1, 0, 0]


def test_only_kept_samples_are_computed() -> None:
    block = _block(8, 8, 1).train()
    seen: list[int] = []
    block.conv3.register_forward_hook(lambda _, args, out: seen.append(len(out)))
    block.drop_path.rate = 0.5
    block.drop_path.generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 8, 6)
    out = block(x)
    assert seen == [int((out != x).flatten(1).any(1).sum())]
    assert 70 < seen[0] < 130


def test_the_stem_reads_the_rows_that_there_are() -> None:
    stem = Stem(12, 8, 16, use_bn=False)
    x = torch.zeros(2, 12, 50)
    x[:, [1, 6]] = torch.randn(2, 2, 50)
    every = list(range(12))
    assert torch.allclose(stem(x[:, [6, 1]], [6, 1]), stem(x, every), atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert stem(x, every).dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_run_through_a_network(dtype: torch.dtype) -> None:
    stem, block = Stem(12, 8, 16, use_bn=False).to(dtype), _block(8, 12, 2).to(dtype)
    assert block(stem(torch.randn(2, 12, 50, dtype=dtype), range(12))).dtype is dtype
