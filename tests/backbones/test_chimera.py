"""Chimera."""

from __future__ import annotations

from typing import Any

import torch

from einthoven.backbones.chimera import Chimera
from einthoven.backbones.registry import create_backbone

TINY: dict[str, Any] = {"width": 8, "depth": 2, "modes": 2, "features": 16}


def _tiny(**options: Any) -> Chimera:
    built = create_backbone("chimera", seed=0, **(TINY | options))
    assert isinstance(built, Chimera)
    return built.eval()


def test_a_cell_sees_all_leads_and_its_past_only() -> None:
    net, x = _tiny(), torch.randn(1, 12, 60)
    changed = x.clone()
    changed[:, 4, 30:] += 1.0
    with torch.no_grad():
        apart = (net.grid(x) - net.grid(changed)).abs().amax((0, 3))
    assert (apart[:, :6] < 1e-5).all()
    assert (apart[:, 6:] > 1e-5).all()


def test_features_depend_on_the_lead() -> None:
    """The same wave in another lead is another record, although the leads share the embedding."""
    net, wave = _tiny(), torch.randn(1, 1, 50)
    with torch.no_grad():
        features = [net(wave, leads=(lead,)) for lead in ("I", "V1", "V6")]
    assert not torch.allclose(features[0], features[1], atol=1e-3)
    assert not torch.allclose(features[1], features[2], atol=1e-3)
