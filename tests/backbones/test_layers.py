"""Attention, convolution and stochastic depth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from einthoven.backbones.layers.convolution import ConvNorm, as_image, convolve
from einthoven.backbones.layers.stochastic_depth import StochasticDepth
from einthoven.backbones.layers.transformer import attend
from einthoven.backbones.msw_transformer import WindowAttention
from einthoven.errors import RecipeError


def test_plain_products_in_bf16_training_equal_the_fused_kernel() -> None:
    three = [torch.randn(2, 3, 50, 16, dtype=torch.bfloat16) for _ in range(3)]
    fused = attend(*three)
    trained = [tensor.clone().requires_grad_() for tensor in three]
    plain = attend(*trained)
    assert plain.dtype is torch.bfloat16
    assert torch.allclose(plain.float(), fused.float(), atol=0.03)
    plain.float().square().sum().backward()
    gradients = [tensor.grad for tensor in trained]
    exact = [tensor.double().requires_grad_() for tensor in three]
    attend(*exact).square().sum().backward()
    for ours, theirs in zip(gradients, exact, strict=True):
        assert ours is not None
        assert torch.nn.functional.cosine_similarity(
            ours.double().flatten(),
            theirs.grad.flatten(),
            dim=0,  # type: ignore[union-attr]
        ).item() == pytest.approx(1.0, abs=1e-3)


def _layer(window: int) -> WindowAttention:
    torch.manual_seed(window)
    layer = WindowAttention(16, 4, window)
    torch.nn.init.normal_(layer.distance)
    return layer.double()


def _windows(tokens: int, window: int, shift: int) -> Tensor:
    """Which window each token is in."""
    return (torch.arange(tokens) + shift) // window


def _masked(layer: WindowAttention, x: Tensor) -> Tensor:
    """The same over all tokens at once, what is outside the window masked."""
    tokens, window = x.shape[1], layer.window
    query, key, value = (
        part.unflatten(-1, (4, 4)).transpose(1, 2) for part in layer.qkv(x).chunk(3, -1)
    )
    scores = query @ key.transpose(-1, -2) / 2.0
    place = torch.arange(tokens)
    apart = place - place[:, None]
    for head in range(4):
        home = _windows(tokens, window, 0 if head < 2 else window // 2)
        inside = home == home[:, None]
        bias = layer.distance[head][(apart + window - 1).clamp(0, 2 * window - 2)]
        scores[:, head] = (scores[:, head] + bias).masked_fill(~inside, -torch.inf)
    return layer.proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("window", [2, 5, 8])
@pytest.mark.parametrize("tokens", [1, 5, 16, 23])
def test_windows_are_masked_attention_with_its_gradients(window: int, tokens: int) -> None:
    layer = _layer(window)
    x = torch.randn(2, tokens, 16, dtype=torch.double, requires_grad=True)
    result, expected = layer(x), _masked(layer, x)
    assert torch.allclose(result, expected)
    direction = torch.randn_like(result)
    parts = [x, *layer.parameters()]
    for slope, wanted in zip(
        torch.autograd.grad(result, parts, direction),
        torch.autograd.grad(expected, parts, direction),
        strict=True,
    ):
        assert torch.allclose(slope, wanted, atol=1e-10)


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
            result = convolve(x, weight, bias, **shape)
    else:
        result = convolve(*(part.bfloat16() for part in (x, weight, bias)), **shape)
        assert result.dtype == torch.bfloat16
    assert float((result.float() - expected).abs().max()) < 0.02 * float(expected.abs().max())


def _with_generator(rate: float, seed: int = 0) -> StochasticDepth:
    holder = StochasticDepth(rate)
    holder.generator = torch.Generator().manual_seed(seed)
    return holder


class _Branch(nn.Module):
    """Doubles its input and counts the rows it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return x * self.scale


def test_computes_only_the_kept_samples() -> None:
    holder, branch = _with_generator(0.5), _Branch()
    x = torch.ones(1000, 3)
    out = holder(x, branch)
    kept = out[:, 0] != 1.0
    assert branch.rows == [int(kept.sum())]
    assert 400 < branch.rows[0] < 600
    assert torch.equal(out[kept], torch.full_like(out[kept], 1 + 2 / 0.5))
    assert torch.equal(out[~kept], x[~kept])


def test_gradient_is_that_of_the_kept_samples() -> None:
    holder, branch = _with_generator(0.4), _Branch()
    x = torch.randn(50, 4, requires_grad=True)
    holder(x, branch).sum().backward()
    kept = (x.grad[:, 0] - 1.0).abs() > 1e-6  # type: ignore[index]
    assert torch.allclose(x.grad[kept], torch.tensor(1 + 2 / 0.6))  # type: ignore[index]
    assert float(branch.scale.grad) == pytest.approx(x[kept].sum().item() / 0.6, rel=1e-4)  # type: ignore[arg-type]


def test_with_no_sample_kept_parameters_get_a_zero_gradient() -> None:
    holder, branch = _with_generator(0.999), _Branch()
    x = torch.randn(2, 3, requires_grad=True)
    out = holder(x, branch)
    assert torch.equal(out, x)
    out.sum().backward()
    assert branch.scale.grad is not None
    assert float(branch.scale.grad) == 0.0
    assert torch.equal(x.grad, torch.ones_like(x))  # type: ignore[arg-type]


def test_a_shortcut_of_another_shape_is_what_the_branch_is_added_to() -> None:
    holder = _with_generator(0.5)
    x, shortcut = torch.ones(1000, 4), torch.full((1000, 2), 7.0)
    out = holder(x, lambda kept: kept[:, :2], shortcut=shortcut)
    kept = out[:, 0] != 7.0
    assert 400 < int(kept.sum()) < 600
    assert torch.equal(out[kept], torch.full_like(out[kept], 7 + 1 / 0.5))
    assert torch.equal(out[~kept], shortcut[~kept])
    assert torch.equal(holder.eval()(x, lambda kept: kept[:, :2], shortcut=shortcut), shortcut + 1)


def test_eval_and_rate_zero_add_the_plain_branch_without_a_draw() -> None:
    x = torch.randn(5, 3)
    state = torch.get_rng_state()
    assert torch.equal(StochasticDepth(0.9).eval()(x, torch.neg), torch.zeros_like(x))
    assert torch.equal(StochasticDepth(0.0)(x, torch.neg), torch.zeros_like(x))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_refuses_impossible_rates(rate: float) -> None:
    holder = StochasticDepth()
    with pytest.raises(RecipeError, match=f"= {rate} "):
        holder.rate = rate
    assert holder.rate == 0.0
