"""MULTIRESNET."""

from __future__ import annotations

from typing import Any

import torch

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.registry import create_backbone

SMALL: dict[str, Any] = {"width": 16, "depth": 2, "scales": 4}


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
