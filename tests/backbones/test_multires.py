"""The multiresolution layer: one long convolution equals the cascade of its definition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from einthoven.backbones.multiresnet import MultiresLayer, multires, response
from einthoven.errors import BackboneError

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


def test_the_cascade_is_what_the_definition_says() -> None:
    layer, scales, tokens = _layer(3, channels=2), 3, 20
    low, high, weights = (p.detach().double() for p in layer.parameters())
    x = torch.randn(1, tokens, 2, dtype=torch.float64)
    for channel in range(2):
        signal, total = x[0, :, channel].tolist(), [0.0] * tokens
        for scale in range(scales):
            past = [signal[t - 2**scale] if t >= 2**scale else 0.0 for t in range(tokens)]
            both = list(zip(past, signal, strict=True))
            detail = [(high[channel, 0] * p + high[channel, 1] * s).item() for p, s in both]
            signal = [(low[channel, 0] * p + low[channel, 1] * s).item() for p, s in both]
            weight = weights[channel, scales - scale].item()  # the finest detail's comes last
            total = [y + weight * d for y, d in zip(total, detail, strict=True)]
        for t in range(tokens):
            total[t] += (weights[channel, 0] * signal[t]).item()
            total[t] += (weights[channel, -1] * x[0, t, channel]).item()
        found = cascade(x, low, high, weights)[0, :, channel]
        assert torch.allclose(found, torch.tensor(total, dtype=torch.float64), atol=1e-14)


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


def test_no_form_loses_digits_where_filters_amplify() -> None:
    layer = _layer(10, torch.float32, channels=16)
    with torch.no_grad():
        layer.low.fill_(0.9)  # doubles what is slow at every scale, almost
    x = 1 + torch.randn(1, 1000, 16)
    with torch.no_grad():
        exact = cascade(x.double(), *(p.double() for p in layer.parameters()))
        found = multires(x, *layer.parameters())
    assert exact.abs().max() > 20 * x.abs().max()
    assert (found - exact).abs().max() < 2e-6 * exact.abs().max()


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


def test_the_number_of_threads_changes_nothing() -> None:
    layer, (x, above) = _layer(6, torch.float32), torch.randn(2, 5, 40, 32)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            found.append(_answers(multires, layer, x, above))
    finally:
        torch.set_num_threads(threads)
    assert all(
        torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True)
    )


def test_a_record_does_not_depend_on_the_others_nor_on_later_samples() -> None:
    layer, x = _layer(6, torch.float32), torch.randn(3, 60, 32)
    with torch.no_grad():
        whole = layer(x)
        assert torch.allclose(layer(x[1:2]), whole[1:2], atol=1e-6)
        assert torch.allclose(layer(x[:, :25]), whole[:, :25], atol=1e-5)
        assert layer(x[:0]).shape == (0, 60, 32)


def test_rows_in_another_order_are_read_rightly() -> None:
    layer, x = _layer(3, torch.float32), torch.randn(32, 2, 40)
    turned = x.permute(1, 2, 0)
    assert not turned.is_contiguous()
    assert torch.allclose(layer(turned), cascade(turned, *layer.parameters()), atol=1e-5)


def test_parameters_start_within_the_published_bounds() -> None:
    layer: Any = _layer(10, channels=4096)
    for tensor, bound in ((layer.low, 0.5**0.5), (layer.high, 0.5**0.5), (layer.weights, 12**-0.5)):
        assert bound * 0.99 < tensor.abs().max() <= bound
        assert abs(tensor.mean()) < bound / 20
    assert layer.weights.shape == (4096, 12)


@pytest.mark.parametrize(("channels", "scales"), [(0, 3), (4, 0)])
def test_impossible_layers_are_refused(channels: int, scales: int) -> None:
    with pytest.raises(BackboneError, match=f"channels = {channels}, scales = {scales}"):
        MultiresLayer(channels, scales)
