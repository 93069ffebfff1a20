"""The S4 encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS


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


def test_features_are_the_mean_and_the_maximum_of_the_tokens() -> None:
    ours = create_backbone("s4_tiny", seed=0).eval()
    published = create_backbone("s4_tiny", pool="mean", seed=0).eval()
    x = torch.randn(2, 12, 100)
    with torch.no_grad():
        tokens, features = ours.tokens(x), ours.features(x)
        assert features.shape == (2, ours.feature_dim) == (2, 2 * published.feature_dim)
        assert torch.equal(features[:, :96], tokens.mean(1))
        assert torch.equal(features[:, 96:], tokens.max(1).values)
        assert torch.equal(published.features(x), features[:, :96])
    with pytest.raises(BackboneError, match="pool"):
        create_backbone("s4_tiny", pool="sum")


def test_fewer_leads_are_zeros_for_the_others() -> None:
    net = create_backbone("s4_tiny", seed=0).eval()
    kept = ("V2", "I")
    x = torch.randn(2, 2, 100)
    whole = torch.zeros(2, 12, 100)
    whole[:, [STANDARD_LEADS.index(name) for name in kept]] = x
    with torch.no_grad():
        assert torch.allclose(net.features(x, leads=kept), net.features(whole), atol=1e-6)


def test_every_length_and_the_conv_paths_agree() -> None:
    net = create_backbone("s4_tiny", seed=0).eval()
    x = torch.randn(1, 12, 1000)
    with torch.no_grad():  # causal: the long window (FFT) begins like the short one (Toeplitz)
        assert torch.allclose(net.tokens(x)[:, :125], net.tokens(x[..., :250]), atol=1e-4)


@pytest.mark.parametrize(
    "bad", [{"stem_norm": "group"}, {"stem_depth": 0}, {"init": "zeros"}, {"state": 3}]
)
def test_impossible_shapes_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BackboneError):
        create_backbone("s4_tiny", **bad)


def test_odd_inputs_are_refused() -> None:
    with pytest.raises(BackboneError, match="multiple of 2"):
        create_backbone("s4_tiny").features(torch.zeros(1, 12, 101))
