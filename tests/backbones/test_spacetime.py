"""SpaceTime; the blocks' numbers are in golden/test_parity_spacetime.py."""

from __future__ import annotations

from typing import Any

import torch

from einthoven.backbones.registry import create_backbone
from einthoven.backbones.spacetime import SpaceTime

TINY: dict[str, Any] = {"width": 16, "depth": 2, "state": 8, "shared": 4}


def _tiny(**options: Any) -> SpaceTime:
    built = create_backbone("spacetime", seed=0, **(TINY | options))
    assert isinstance(built, SpaceTime)
    return built.eval()


def test_tokens_are_causal() -> None:
    net, x = _tiny(), torch.randn(1, 12, 60)
    changed = x.clone()
    changed[..., 30:] += 1.0
    with torch.no_grad():
        apart = (net.tokens(x) - net.tokens(changed)).abs().amax((0, 2))
    assert (apart[:30] < 1e-5).all()
    assert (apart[30:] > 1e-3).all()


def test_the_drawn_averages_travel_with_the_weights() -> None:
    torch.manual_seed(1)
    first, second = SpaceTime(_tiny().config), SpaceTime(_tiny().config)
    x = torch.randn(2, 12, 50)
    assert not torch.equal(*(n.blocks[0].preprocessing.windows for n in (first, second)))
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first.eval()(x), second.eval()(x))
