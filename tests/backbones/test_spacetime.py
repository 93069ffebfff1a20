"""SpaceTime; the blocks' numbers are in golden/test_parity_spacetime.py."""

from __future__ import annotations

from typing import Any

import torch

from einthoven.backbones.registry import create_backbone
from einthoven.backbones.spacetime import Preprocessing, SpaceTime

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


def test_fixed_filters_difference_and_take_off_averages() -> None:
    torch.manual_seed(0)
    layer = Preprocessing(16, 8)
    assert layer.windows.min() >= 4
    assert layer.windows.max() <= 7
    line = torch.arange(40.0)  # order 1 leaves the slope, orders 2 and 3 nothing
    out = layer(line[None, :, None].expand(1, 40, 16))[0, 10:]
    for channel, expected in ((0, line[10:]), (1, torch.ones(30)), (2, torch.zeros(30))):
        assert torch.allclose(out[:, channel], expected, atol=1e-4)
        assert torch.allclose(out[:, channel + 8], expected, atol=1e-4)
    # a window of w samples is centred (w - 1) / 2 behind the present
    lags = (layer.windows.float() - 1) / 2
    averaged = [4, 5, 6, 7, 12, 13, 14, 15]
    assert torch.allclose(out[-1, averaged], lags, atol=1e-3)


def test_the_drawn_averages_travel_with_the_weights() -> None:
    torch.manual_seed(1)
    first, second = SpaceTime(_tiny().config), SpaceTime(_tiny().config)
    x = torch.randn(2, 12, 50)
    assert not torch.equal(*(n.blocks[0].preprocessing.windows for n in (first, second)))
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first.eval()(x), second.eval()(x))


def test_dropout_is_fixed() -> None:
    net = _tiny(dropout=0.5)
    assert [*net.feedforward_dropouts(), *net.other_dropouts()] == []
    drops = [module for module in net.modules() if isinstance(module, torch.nn.Dropout)]
    assert [drop.p for drop in drops] == [0.5, 0.5]
