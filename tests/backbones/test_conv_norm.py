from __future__ import annotations

import pytest
import torch
from torch.nn.functional import batch_norm, conv1d, relu

from einthoven.backbones.layers.convolution import ConvNorm, as_image, as_tokens


def test_images_are_channels_last_and_tokens_are_no_copy() -> None:
    x = torch.randn(3, 5, 7)
    image = as_image(x)
    assert image.is_contiguous(memory_format=torch.channels_last)
    tokens = as_tokens(image)
    assert torch.equal(tokens, x.transpose(1, 2))
    assert tokens.is_contiguous()
    assert tokens.data_ptr() == image.data_ptr()


@pytest.mark.parametrize("kernel", [1, 2, 3, 8, 39])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("act", [True, False])
def test_is_a_convolution_of_lines_a_norm_and_relu(kernel: int, stride: int, act: bool) -> None:
    layer = ConvNorm(6, 4, kernel, stride=stride, relu=act).train()
    torch.nn.init.uniform_(layer.norm.weight)
    x = torch.randn(3, 6, 41)
    h = conv1d(x, layer.conv.weight[:, :, 0], stride=stride, padding=(kernel - 1) // 2)
    h = batch_norm(h, None, None, layer.norm.weight, layer.norm.bias, training=True)
    expected = relu(h) if act else h
    found = layer(as_image(x))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found[:, :, 0], expected, atol=1e-5)
    assert found.shape[-1] == (41 - (kernel % 2 == 0) + stride - 1) // stride


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
