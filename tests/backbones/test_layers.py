from __future__ import annotations

import pytest
import torch

from einthoven.backbones.layers.transformer import Attention, Block, attend
from einthoven.errors import BackboneError


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


def test_refuses_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(BackboneError, match="heads = 5"):
        Attention(12, 5)
