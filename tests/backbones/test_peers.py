"""Networks written from their papers: reach, fusion and sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import SMALL

from einthoven.backbones.registry import create_backbone
from einthoven.backbones.spacetime import SpaceTime
from einthoven.backbones.transformer import RotaryAttention


def _tiny(name: str, **options: Any) -> Any:
    return create_backbone(name, seed=0, **(SMALL[name] | options)).eval()


@pytest.mark.parametrize(
    ("name", "options", "samples", "changed", "tokens", "noise"),
    [
        ("multiresnet", {}, 80, range(50, 80), range(50, 80), 1e-6),
        ("spacetime", {}, 60, range(30, 60), range(30, 60), 1e-5),
        ("s4_tiny", {}, 100, range(50, 100), range(25, 50), 1e-5),
        ("s4_tiny", {"causal": False}, 100, range(99, 100), range(50), 1e-7),
        ("transformer_small", {"causal": True}, 100, range(50, 100), range(25, 50), 1e-6),
        ("transformer_small", {}, 100, range(99, 100), range(50), 1e-9),
        ("net1d_small", {"causal": True}, 100, range(50, 100), range(25, 50), 1e-7),
        # Token 5 is in the windows of tokens 4 to 7 and, shifted, 2 to 5.
        ("msw_transformer", {}, 80, range(25, 30), range(2, 8), 1e-6),
    ],
)
def test_samples_reach_certain_tokens_only(
    name: str, options: dict[str, Any], samples: int, changed: range, tokens: range, noise: float
) -> None:
    net, x = _tiny(name, **options), torch.randn(1, 12, samples)
    other = x.clone()
    other[..., list(changed)] += 1.0
    with torch.no_grad():
        apart = (net.tokens(x) - net.tokens(other)).abs().amax((0, 2))
    assert (apart > noise).nonzero().flatten().tolist() == list(tokens)


def test_rotary_attention_depends_on_distances_only() -> None:
    attention = RotaryAttention(8, 2, base=10_000.0, causal=False).eval()
    x = torch.zeros(1, 20, 8)
    x[0, [4, 6]] = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))

    def scores(x: torch.Tensor) -> torch.Tensor:
        parts = attention.qkv(x).chunk(3, dim=-1)
        query, key = (part.reshape(1, 20, 2, 4).transpose(1, 2) for part in parts[:2])
        return attention._rotated(query) @ attention._rotated(key).transpose(2, 3)

    with torch.no_grad():
        before, after = scores(x), scores(torch.roll(x, 7, dims=1))
    torch.testing.assert_close(before[..., 4, 6], after[..., 11, 13])
    assert not torch.allclose(before[..., 4, 6], before[..., 6, 4])


def test_a_cell_of_chimera_sees_all_leads_and_its_past_only() -> None:
    net, x = _tiny("chimera"), torch.randn(1, 12, 60)
    changed = x.clone()
    changed[:, 4, 30:] += 1.0
    with torch.no_grad():
        apart = (net.grid(x) - net.grid(changed)).abs().amax((0, 3))
    assert (apart[:, :6] < 1e-5).all()
    assert (apart[:, 6:] > 1e-5).all()


def test_random_averages_of_spacetime_travel_with_the_weights() -> None:
    torch.manual_seed(1)
    config = _tiny("spacetime").config
    first, second = SpaceTime(config), SpaceTime(config)
    x = torch.randn(2, 12, 50)
    assert not torch.equal(*(n.blocks[0].preprocessing.windows for n in (first, second)))
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first.eval()(x), second.eval()(x))


def test_size_of_s4_without_its_stem_is_the_published_one() -> None:
    sizes = []
    for causal in (True, False):
        with torch.device("meta"):
            net = create_backbone("s4", causal=causal)
        outside = [p for n, p in net.named_parameters() if not n.startswith("stem.")]
        sizes.append(sum(p.numel() for p in outside))
    assert sizes == [2_123_776, 2_140_160]
    assert (net.feature_dim, net.preparation.rate, net.preparation.window) == (512, 240, 600)
