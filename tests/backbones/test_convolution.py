"""Convolutions in bf16, among them those that PyTorch gets wrong on some processors."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv1d

from einthoven.backbones.layers.convolution import ConvNorm, as_image, convolve


@pytest.mark.parametrize("kernel", [5, 7, 8, 16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [4, 12, 14, 16])
def test_bf16_is_as_right_as_it_can_be(kernel: int, stride: int, channels: int) -> None:
    """PyTorch 2.13 on AMX: 8 and 16 taps over 4 to 14 channels are wrong by their own size."""
    layer = ConvNorm(channels, 64, kernel, stride=stride, relu=False).eval()
    x = torch.randn(2, channels, 250, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = layer(as_image(x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = layer(as_image(x))
        pure = layer.bfloat16()(as_image(x.bfloat16()))
    assert rough.dtype is pure.dtype is torch.bfloat16
    for found in (rough, pure):
        assert (found.float() - exact).abs().max() < 0.03 * exact.abs().max()


def test_the_gradient_of_the_way_around_is_that_of_the_convolution() -> None:
    torch.manual_seed(0)
    layer = ConvNorm(12, 64, 8, relu=False)  # ReLU would flip with the input's rounding
    x = as_image(torch.randn(4, 12, 50, generator=torch.Generator().manual_seed(0)))
    weights = torch.randn(4, 64, 1, 49, generator=torch.Generator().manual_seed(1))
    gradients = []
    for low in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
            out = layer(x)
        (out.float() * weights).sum().backward()
        assert layer.conv.weight.grad is not None
        gradients.append(layer.conv.weight.grad.clone())
    exact, rough = gradients
    assert (rough - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize(
    ("channels", "groups", "kernel"), [(8, 1, 16), (12, 1, 8), (32, 4, 16), (64, 2, 16)]
)
@pytest.mark.parametrize("cast", [True, False])
def test_bf16_is_fp32_rounded(channels: int, groups: int, kernel: int, cast: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, 90, generator=generator)
    weight = torch.randn(32, channels // groups, kernel, generator=generator)
    bias = torch.randn(32, generator=generator)
    shape = {"stride": 2, "padding": 3, "groups": groups}
    expected = conv1d(x, weight, bias, **shape)
    assert torch.equal(convolve(x, weight, bias, **shape), expected)
    if cast:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = convolve(x, weight, bias, **shape)
    else:
        found = convolve(*(part.bfloat16() for part in (x, weight, bias)), **shape)
        assert found.dtype == torch.bfloat16
    assert float((found.float() - expected).abs().max()) < 0.02 * float(expected.abs().max())
