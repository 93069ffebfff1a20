"""Chimera."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from einthoven.backbones.chimera import Chimera
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS

TINY: dict[str, Any] = {"width": 8, "depth": 2, "modes": 2, "features": 16}


def _tiny(**options: Any) -> Chimera:
    built = create_backbone("chimera", seed=0, **(TINY | options))
    assert isinstance(built, Chimera)
    return built.eval()


def test_fewer_leads_are_zeros_for_the_others() -> None:
    net, kept = _tiny(), ("V2", "i")
    x, whole = torch.randn(2, 2, 50), torch.zeros(2, 12, 50)
    whole[:, [STANDARD_LEADS.index(name) for name in ("V2", "I")]] = x
    with torch.no_grad():
        assert torch.equal(net(x, leads=kept), net(whole))
        assert torch.equal(_tiny(leads=kept)(x), net(whole))
        order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
        shuffled = [STANDARD_LEADS[row] for row in order]
        assert torch.equal(net(whole[:, order], leads=shuffled), net(whole))


def test_a_cell_sees_all_leads_and_its_past_only() -> None:
    net, x = _tiny(), torch.randn(1, 12, 60)
    changed = x.clone()
    changed[:, 4, 30:] += 1.0
    with torch.no_grad():
        apart = (net.grid(x) - net.grid(changed)).abs().amax((0, 3))
    assert (apart[:, :6] < 1e-5).all()
    assert (apart[:, 6:] > 1e-5).all()


def test_leads_are_told_apart() -> None:
    """The same wave in another lead is another record, although the leads share the embedding."""
    net, wave = _tiny(), torch.randn(1, 1, 50)
    with torch.no_grad():
        features = [net(wave, leads=(lead,)) for lead in ("I", "V1", "V6")]
    assert not torch.allclose(features[0], features[1], atol=1e-3)
    assert not torch.allclose(features[1], features[2], atol=1e-3)


@pytest.mark.parametrize("bad", [{"width": 7}, {"modes": 0}, {"depth": 0}, {"patch": 0}])
def test_impossible_shapes_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BackboneError, match=next(iter(bad))):
        create_backbone("chimera", **(TINY | bad))


@pytest.mark.parametrize("samples", [0, 52])
def test_inputs_that_are_no_whole_cells_are_refused(samples: int) -> None:
    with pytest.raises(BackboneError, match="multiple of 5"):
        _tiny()(torch.zeros(1, 12, samples))
