"""The multiresolution layer: one long convolution equals the cascade of its definition."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.multiresnet import MultiresLayer, multires, response

# The published length and number of scales; shifts beyond a short input; a single sample.
SHAPES = [(1000, 10), (37, 10), (64, 3), (1, 2)]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6}


def cascade(x: Tensor, low: Tensor, high: Tensor, weights: Tensor) -> Tensor:
    """The layer as its definition reads: two grouped convolutions a scale."""
    channels, scales = len(weights), weights.shape[1] - 2
    signal, factors = x.transpose(1, 2).contiguous(), weights[..., None]
    total = factors[:, scales + 1] * signal
    for scale in range(scales):
        dilation = 2**scale
        padded = pad(signal, (dilation, 0))
        detail = conv1d(padded, high[:, None], dilation=dilation, groups=channels)
        signal = conv1d(padded, low[:, None], dilation=dilation, groups=channels)
        total = total + factors[:, scales - scale] * detail
    return (total + factors[:, 0] * signal).transpose(1, 2)


def _layer(scales: int, dtype: torch.dtype = torch.float64, channels: int = 32) -> MultiresLayer:
    torch.manual_seed(scales)
    return MultiresLayer(channels, scales).to(dtype)


def _answers(
    call: Callable[..., Tensor], layer: MultiresLayer, x: Tensor, above: Tensor
) -> list[Tensor]:
    """The sum, and the gradients of the input and of the parameters."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    y = call(x, layer.low, layer.high, layer.weights)
    y.backward(above)
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("tokens", "scales"), SHAPES)
def test_values_and_gradients_are_the_cascades(
    tokens: int, scales: int, dtype: torch.dtype
) -> None:
    layer = _layer(scales, dtype)
    x, above = torch.randn(2, 3, tokens, 32, dtype=dtype)
    expected = _answers(cascade, layer, x, above)
    for ours, theirs in zip(_answers(multires, layer, x, above), expected, strict=True):
        assert ours.dtype == dtype
        assert (ours - theirs).abs().max() <= TOLERANCE[dtype] * theirs.abs().max()


def test_the_response_is_the_answer_to_an_impulse() -> None:
    layer = _layer(5)
    for tokens in (50, 20, 1):
        impulse = torch.zeros(1, tokens, 32, dtype=torch.float64)
        impulse[0, 0] = 1.0
        kernel = response(*layer.parameters(), tokens=tokens)
        assert torch.allclose(kernel, cascade(impulse, *layer.parameters())[0].T, atol=1e-15)
    whole = response(*layer.parameters(), tokens=50)
    assert not whole[:, 32:].any()  # five scales see 2**5 samples
    assert whole[:, 31].all()


def test_network_in_bf16_is_close_to_fp32() -> None:
    net = create_classifier("multiresnet", labels=5, seed=0, dropout=0.0)
    x = torch.randn(2, 12, 300)
    answers = []
    for enabled in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            logits = net(x).float()
        logits.square().sum().backward()
        gradients = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        answers.append((logits.detach(), torch.cat(gradients)))
    (wide, wide_gradient), (low, low_gradient) = answers
    assert torch.allclose(low, wide, atol=0.05)
    assert torch.cosine_similarity(low_gradient, wide_gradient, dim=0) > 0.99
