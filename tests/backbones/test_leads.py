"""Fewer leads: the network's own policy, be it to refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from einthoven.backbones.lead_subset import LeadSubset
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS

TINY = {"depth": 1, "width": 32, "heads": 1}


def fewer(network: nn.Module, leads: Sequence[str], samples: int = 500) -> LeadSubset:
    return LeadSubset(network, leads, all_leads=STANDARD_LEADS, samples=samples)


WAV2VEC = {"depth": 1, "width": 32, "heads": 1, "conv_width": 16, "pos_kernel": 8, "pos_groups": 4}
FOUNDER = {"stem_width": 16, "widths": (16,), "depths": (1,)}
CHEST = ("V1", "V2", "V3", "V4", "V5", "V6")
# Family, options, samples of an input, and whether missing leads that do not follow are refused.
DERIVING: list[Any] = [
    ("hubert_ecg_small", WAV2VEC, 500, True),
    ("hubert_ecg_small", {**WAV2VEC, "missing_leads": "zero"}, 500, False),
    ("ecg_fm", WAV2VEC, 500, False),
    ("ecg_fm", {**WAV2VEC, "missing_leads": "refuse"}, 500, True),
    ("ecgfounder_12lead", FOUNDER, 500, False),
    ("mtecg_tiny_100hz", TINY, 500, False),
    ("st_mem_tiny", {"depth": 1}, 1500, False),
    ("s4_tiny", {}, 500, False),
]


@pytest.mark.parametrize(("name", "options", "samples", "refuses"), DERIVING)
def test_derivable_leads_are_computed_and_the_rest_is_native(
    name: str, options: dict[str, Any], samples: int, refuses: bool
) -> None:
    network = create_backbone(name, seed=0, **options).eval()
    eight = fewer(network, ("I", "II", *CHEST), samples)
    assert eight.policy == "derived"
    assert eight.rows == STANDARD_LEADS
    assert eight.leads == ("I", "II", *CHEST)
    x = torch.randn(2, 12, samples)
    with torch.no_grad():
        assert torch.equal(eight(x), network(x))
    if refuses:
        with pytest.raises(BackboneError, match="II, III"):
            fewer(network, ("I", "V1"), samples)
        return
    two = fewer(network, ("I", "V1"), samples)
    assert (two.policy, two.rows) == ("native", ("I", "V1"))
    built = create_backbone(name, seed=0, **options, leads=("I", "V1")).eval()
    with torch.no_grad():
        assert torch.equal(two(x[:, :2]), built(x[:, :2]))


def test_lead_subset_leaves_the_network_unchanged() -> None:
    """In its mode and with its statistics: twelve leads go on giving what they gave."""
    network = create_backbone("fcn_wang", seed=0).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    part = fewer(network, ("V1", "II"), 250)
    assert not part.training
    part.train(part.training)  # as is done after a prediction
    fewer(network, ("I",), 250)
    assert not any(module.training for module in network.modules())
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    network.train()
    assert fewer(network, ("V1", "II"), 250).training
    assert all(module.training for module in network.modules())
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_unread_leads_are_refused() -> None:
    network = create_backbone("mtecg_tiny_100hz", seed=0, leads=("I", "II"), **TINY).eval()
    with pytest.raises(BackboneError, match="V1 "):
        LeadSubset(network, ("I", "V1"), all_leads=("I", "II"), samples=500)
    for wrong in ((), ("X",), ("I", "i")):
        with pytest.raises(BackboneError):
            fewer(network, wrong)
