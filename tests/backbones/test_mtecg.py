from __future__ import annotations

import pytest
import torch

from einthoven.backbones.mtecg import MTECG
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError


@pytest.fixture
def net() -> MTECG:
    built = create_backbone("mtecg_tiny_100hz", seed=0, depth=2)
    assert isinstance(built, MTECG)
    return built.eval()


def test_mean_pooling_has_its_own_norm_and_ignores_the_class_token() -> None:
    net = create_backbone("mtecg_tiny_100hz", seed=0, depth=1, global_pool="mean").eval()
    names = dict(net.named_parameters())
    assert "fc_norm.weight" in names
    assert "norm.weight" not in names
    assert net.layer_groups()[-1] == ["fc_norm.weight", "fc_norm.bias"]
    x = torch.randn(2, 12, 100)
    pooled = net._encode(net.embed_grid(x))[:, 1:].mean(1)
    assert torch.allclose(net(x), net.fc_norm(pooled), atol=1e-6)
    with pytest.raises(BackboneError, match="global_pool = 'max'"):
        create_backbone("mtecg_tiny_100hz", global_pool="max")


def test_start_is_truncated_normal() -> None:
    net = create_backbone("mtecg_tiny_100hz", seed=0, depth=1)
    for tensor in (net.pos_embed, net.blocks[0].attn.qkv.weight):
        assert tensor.std().item() == pytest.approx(0.02, rel=0.1)
