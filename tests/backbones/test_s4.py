"""The S4 encoder."""

from __future__ import annotations

import torch

from einthoven.backbones.registry import create_backbone


def test_the_published_shape_has_the_published_size() -> None:
    with torch.device("meta"):
        causal = create_backbone("s4")
        both = create_backbone("s4", causal=False)
    stem = sum(p.numel() for n, p in causal.named_parameters() if n.startswith("stem."))
    total, bidirectional = (sum(p.numel() for p in net.parameters()) for net in (causal, both))
    assert stem == 808_960
    assert (total - stem, bidirectional - stem) == (2_123_776, 2_140_160)
    assert causal.feature_dim == 512
    assert causal.preparation.rate == 240
    assert causal.preparation.window == 600


def test_a_token_sees_its_past_and_one_sample_ahead() -> None:
    net = create_backbone("s4_tiny", seed=0).eval()
    x = torch.randn(1, 12, 100)
    changed = x.clone()
    changed[..., 50:] += 1.0
    with torch.no_grad():
        same = (net.tokens(x) - net.tokens(changed)).abs().amax((0, 2)) < 1e-5
    assert same.tolist() == [True] * 25 + [False] * 25


def test_a_bidirectional_token_sees_everything() -> None:
    net = create_backbone("s4_tiny", causal=False, seed=0).eval()
    x = torch.randn(1, 12, 100)
    changed = x.clone()
    changed[..., -1] += 1.0
    with torch.no_grad():
        assert ((net.tokens(x) - net.tokens(changed)).abs().amax((0, 2)) > 1e-7).all()
