from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from einthoven.backbones.ecgfounder import Bottleneck, same_conv


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


def _block(inputs: int, width: int, stride: int) -> Bottleneck:
    return Bottleneck(
        inputs, width, groups=width // 4, kernel=4, stride=stride, activated=False, use_bn=False
    )


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
