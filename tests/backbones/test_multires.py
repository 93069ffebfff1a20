"""The multiresolution layer: three forms of the same sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from einthoven.backbones.layers import multires as module
from einthoven.backbones.layers.multires import MultiresLayer, cascade, multires, response
from einthoven.errors import BackboneError

# The published length and number of scales; shifts beyond a short input; a single sample.
SHAPES = [(1000, 10), (37, 10), (64, 3), (1, 2)]
TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6}


@pytest.fixture(params=["compiled", "one convolution"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each way that `multires` may go."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    monkeypatch.setattr(module, "_compiles", lambda _: request.param == "compiled")
    return request.param


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
    form: str, tokens: int, scales: int, dtype: torch.dtype
) -> None:
    layer = _layer(scales, dtype)
    x, above = torch.randn(2, 3, tokens, 32, dtype=dtype)
    expected = _answers(cascade, layer, x, above)
    for ours, theirs in zip(_answers(multires, layer, x, above), expected, strict=True):
        assert ours.dtype == dtype
        assert (ours - theirs).abs().max() <= TOLERANCE[dtype] * theirs.abs().max()


def test_no_form_loses_digits_where_filters_amplify(form: str) -> None:
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


def test_compiled_gradients_are_derivatives() -> None:
    pytest.importorskip("numba")
    from einthoven.backbones.layers.multires_compiled import CompiledMultires

    torch.manual_seed(1)
    shapes = (2, 5, 16), (16, 4), (16, 5)
    tensors = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in shapes]
    assert torch.autograd.gradcheck(CompiledMultires.apply, tensors)


def test_bfloat16_is_read_exactly_and_rounded_once() -> None:
    pytest.importorskip("numba")
    layer = _layer(4, torch.float32)
    x, above = torch.randn(2, 2, 50, 32).bfloat16()
    found = _answers(multires, layer, x, above)
    wide = _answers(multires, layer, x.float(), above.float())
    assert [t.dtype for t in found[:2]] == [torch.bfloat16] * 2
    for ours, theirs in zip(found, wide, strict=True):
        assert torch.equal(ours, theirs.to(ours.dtype))
    x[0, 3, 5], x[1, 4, 6] = float("nan"), float("inf")
    spoilt = multires(x, *layer.parameters())
    assert spoilt[0, 3, 5].isnan()
    assert not spoilt[1, 4, 6].isfinite()
    assert spoilt[..., 7:].isfinite().all()


def test_the_number_of_threads_changes_nothing() -> None:
    pytest.importorskip("numba")
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


def test_a_record_does_not_depend_on_the_others_nor_on_later_samples(form: str) -> None:
    layer, x = _layer(6, torch.float32), torch.randn(3, 60, 32)
    with torch.no_grad():
        whole = layer(x)
        assert torch.allclose(layer(x[1:2]), whole[1:2], atol=1e-6)
        assert torch.allclose(layer(x[:, :25]), whole[:, :25], atol=1e-5)
        assert layer(x[:0]).shape == (0, 60, 32)


def test_what_the_compiled_form_does_not_take_goes_the_other_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not module._compiles(torch.zeros(1, 5, 24))  # no sixteens
    assert not module._compiles(torch.zeros(1, 5, 32, dtype=torch.float16))
    assert not module._compiles(torch.zeros(1, 5, 32, device="meta"))
    layer, x = _layer(3, torch.float32, channels=24), torch.randn(2, 9, 24)
    expected = cascade(x, *layer.parameters())
    assert torch.allclose(layer(x), expected, atol=1e-6)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert not module._compiles(torch.zeros(1, 5, 32))  # a graph cannot hold the compiled form


def test_rows_in_another_order_are_read_rightly(form: str) -> None:
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
