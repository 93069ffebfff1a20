from __future__ import annotations

import math

import pytest
import torch

from einthoven.backbones.layers.patches import sincos_positions
from einthoven.backbones.layers.transformer import Attention, Block, attend
from einthoven.errors import BackboneError


def test_sincos_positions_follow_the_formula() -> None:
    table = sincos_positions(30, 8, before=1, after=1)[0]
    assert table.shape == (32, 8)
    assert not table[0].any()
    assert not table[-1].any()
    assert torch.equal(table[1], torch.tensor([0.0] * 4 + [1.0] * 4))
    assert float(table[6, 2]) == pytest.approx(math.sin(5 * 10000 ** (-2 / 4)), rel=1e-6)
    assert float(table[6, 7]) == pytest.approx(math.cos(5 * 10000 ** (-3 / 4)), rel=1e-6)


def test_attention_equals_the_written_out_formula() -> None:
    layer, x = Attention(12, 3), torch.randn(2, 5, 12)
    query, key, value = layer.qkv(x).split(12, dim=-1)
    heads = []
    for part in (slice(0, 4), slice(4, 8), slice(8, 12)):
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 2.0
        heads.append(scores.softmax(-1) @ value[..., part])
    expected = layer.proj(torch.cat(heads, dim=-1))
    assert torch.allclose(layer(x), expected, atol=1e-6)


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


def test_dropouts_act_where_they_are_asked_to() -> None:
    block = Block(16, 2)
    x = torch.randn(2, 5, 16)
    plain = block(x)
    block.mlp.drop1.p = 0.5
    assert not torch.allclose(block(x), plain)
    assert torch.allclose(block.eval()(x), plain, atol=1e-6)
    block.train()
    block.mlp.drop1.p = 0.0
    block.attn.attention_dropout.p = 0.5
    assert not torch.allclose(block(x), plain)


def test_both_branches_draw_on_their_own() -> None:
    block = Block(16, 2)
    block.drop_path1.rate = block.drop_path2.rate = 0.5
    seen: dict[str, int] = {}
    block.attn.register_forward_pre_hook(lambda _, a: seen.update(attention=len(a[0])))
    block.mlp.register_forward_pre_hook(lambda _, a: seen.update(feedforward=len(a[0])))
    torch.manual_seed(1)
    pairs = set()
    for _ in range(5):
        block(torch.randn(64, 3, 16))
        pairs.add((seen["attention"], seen["feedforward"]))
    assert any(first != second for first, second in pairs)
    assert all(max(pair) < 64 for pair in pairs)


def test_refuses_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(BackboneError, match="heads = 5"):
        Attention(12, 5)
