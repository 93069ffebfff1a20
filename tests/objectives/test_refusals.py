"""Options and networks that an objective refuses."""

from __future__ import annotations

from typing import Any

import pytest
from small_networks import SMALL

from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError, RecipeError
from einthoven.objectives import create_objective

NETWORKS = {"mae": "st_mem_tiny", "cmsc": "st_mem_tiny", "cpc": "s4_tiny", "ecg_fm": "ecg_fm"}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("mae", {"mask_ratio": 0.0}),
    ("mae", {"mask_ratio": float("nan")}),
    ("mae", {"mask_ratio": 0.99}),
    ("mae", {"masking": "random"}),
    ("mae", {"target": "fluctuated"}),
    ("mae", {"ratio": 0.5}),
    ("cmsc", {"temperature": 0.0}),
    ("cmsc", {"lead_mask": 1.5}),
    ("cmsc", {"margin": 1}),
    ("cpc", {"offsets_ms": [1.0]}),
    ("cpc", {"offsets_ms": []}),
    ("cpc", {"offsets_ms": [40.0, 41.0]}),
    ("cpc", {"preset": "other"}),
    ("cpc", {"reduction": "max"}),
    ("cpc", {"negatives": -1}),
    ("cpc", {"negatives": 2.5}),
    ("ecg_fm", {"negatives": 0}),
    ("ecg_fm", {"dropout": 1.0}),
    ("ecg_fm", {"cmsc_weight": -1.0}),
    ("ecg_fm", {"code_temperature": (0.5, 2.0, 0.9)}),
    ("ecg_fm", {"codes": 0}),
    ("ecg_fm", {"code_groups": 3}),
]


@pytest.mark.parametrize(("objective", "options"), OPTIONS, ids=str)
def test_impossible_options_are_refused(objective: str, options: dict[str, Any]) -> None:
    name = NETWORKS[objective]
    with pytest.raises(RecipeError, match=next(iter(options))) as refusal:
        create_objective(objective, create_backbone(name, **SMALL[name]), **options)
    assert refusal.value.remedy is not None


@pytest.mark.parametrize(
    ("objective", "network"),
    [("mae", "s4_tiny"), ("cpc", "st_mem_tiny"), ("ecg_fm", "s4_tiny"), ("wav2vec2", "s4_tiny")],
)
def test_networks_that_do_not_suit_are_refused(objective: str, network: str) -> None:
    with pytest.raises(BackboneError, match=network):
        create_objective(objective, create_backbone(network, **SMALL[network]))
