"""MULTIRESNET."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.layers.state_space import TiedDropout
from einthoven.backbones.registry import create_backbone

SMALL: dict[str, Any] = {"width": 16, "depth": 2, "scales": 4}


def test_preparation_is_the_whole_record_at_100_hz() -> None:
    preparation = create_backbone("multiresnet", **SMALL).preparation
    assert (preparation.rate, preparation.window) == (100, 1000)
    assert [str(step) for step in preparation.steps][1:] == [
        "window of 1000 samples (1 evaluation crops)"
    ]


def test_tokens_are_causal() -> None:
    net = create_backbone("multiresnet", seed=0, **SMALL).eval()
    x = torch.randn(1, 12, 80)
    changed = x.clone()
    changed[..., 50:] += 1.0
    with torch.no_grad():
        tokens = net.tokens(x)
        same = (tokens - net.tokens(changed)).abs().amax((0, 2)) < 1e-6
        assert torch.allclose(net.features(x), tokens.mean(1), atol=1e-6)
    assert tokens.shape == (1, 80, 16)
    assert same.tolist() == [True] * 50 + [False] * 30


def test_the_first_of_a_thousand_samples_reaches_the_last_token() -> None:
    net = create_backbone("multiresnet", seed=0, depth=1, width=16).eval()
    x = torch.randn(1, 12, 1000)
    changed = x.clone()
    changed[..., 0] += 1e3
    with torch.no_grad():
        assert (net.tokens(x)[:, -1] != net.tokens(changed)[:, -1]).any()


def test_dropout_is_tied_and_fixed() -> None:
    net: Any = create_backbone("multiresnet", seed=0, **SMALL)
    inner = [m for m in net.modules() if isinstance(m, nn.Dropout)]
    assert [type(m) for m in inner] == [TiedDropout] * 4
    assert {m.p for m in inner} == {0.2}
    assert net.feedforward_dropouts() == net.other_dropouts() == []
    x = torch.randn(2, 12, 50)
    torch.manual_seed(0)
    assert not torch.equal(net(x), net(x))


def test_last_norm_is_the_final_group() -> None:
    groups = create_backbone("multiresnet", **SMALL).layer_groups()
    assert groups[0] == ["embedding.weight", "embedding.bias"]
    assert groups[-1] == ["blocks.1.norm.weight", "blocks.1.norm.bias"]
    assert "blocks.0.norm.weight" in groups[1]
    assert {"blocks.1.multires.low", "blocks.1.multires.weights"} <= set(groups[2])


def test_bf16_is_close_to_fp32() -> None:
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
