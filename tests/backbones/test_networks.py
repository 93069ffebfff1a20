"""Sizes, missing leads and refusals of the networks, one table for each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_networks import SMALL

from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import create_backbone
from einthoven.errors import BackboneError
from einthoven.records.record import STANDARD_LEADS

# Networks for which a missing lead is a lead of zeros.
ZERO_FILLED = [
    name for name in SMALL if name not in ("st_mem_tiny", "ecgfounder_12lead", "hubert_ecg_small")
]
# Parameters with heads of 71, 44, 23 and 12 labels, as counted from the published descriptions.
# Sizes of the layer groups, and of the residual branches of each block.
# Values that do not fit each other; `test_config` has those that are impossible by themselves.
IMPOSSIBLE_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "fcn_wang": [{"kernels": (8, 5)}],
    "resnet1d_wang": [{"kernels": (5, 4)}],
    "spacetime": [{"width": 12}, {"state": 4}, {"shared": 3}],
    "chimera": [{"width": 7}],
    "msw_transformer": [{"heads": 3}, {"heads": 32}],
    "s4_tiny": [{"state": 3}],
    "transformer_small": [{"heads": 5}, {"width": 24, "heads": 8}],
    "net1d_small": [{"widths": (32, 16)}, {"depths": (1,)}, {"group_width": 7}, {"width": 64}],
    "ecgfounder_12lead": [{"widths": (32, 16)}, {"depths": (1,)}, {"group_width": 7}],
    "ecg_fm": [{"heads": 5}, {"conv_strides": (2,)}, {"pos_groups": 5}],
    "mtecg_tiny_100hz": [{"heads": 5}],
}
IMPOSSIBLE_LENGTHS = {
    "multiresnet": [0],
    "spacetime": [0],
    "chimera": [0, 52],
    "msw_transformer": [0, 52],
    "s4_tiny": [0, 101],
    "mtecg_tiny_100hz": [0, 4, 999, 1005],
    "st_mem_tiny": [0, 74, 2325, 2500],
}


def _small(name: str, **options: Any) -> Backbone:
    return create_backbone(name, seed=0, **(SMALL[name] | options)).eval()


@pytest.mark.parametrize("name", ZERO_FILLED)
def test_missing_leads_count_as_zeros(name: str) -> None:
    net, recorded = _small(name), ("V1", "ii")
    x, whole = torch.randn(2, 2, 100), torch.zeros(2, 12, 100)
    whole[:, [6, 1]] = x
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = [STANDARD_LEADS[row] for row in order]
    with torch.no_grad():
        expected = net(whole)
        scale = max(1.0, float(expected.abs().max()))
        subset = _small(name, leads=recorded)
        assert subset.preparation.leads == ("V1", "II")
        for output in (
            net(x, leads=recorded),
            net(whole[:, order], leads=shuffled),
            subset(x),
        ):
            assert torch.allclose(output, expected, atol=1e-5 * scale)
    with pytest.raises(BackboneError, match="12 leads"):
        net(x)


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name, cases in IMPOSSIBLE_OPTIONS.items() for options in cases],
)
def test_impossible_options_are_refused_by_name(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(BackboneError, match=next(iter(options))):
        _small(name, **options)


@pytest.mark.parametrize(
    ("name", "samples"),
    [(name, samples) for name, lengths in IMPOSSIBLE_LENGTHS.items() for samples in lengths],
)
def test_impossible_lengths_are_refused(name: str, samples: int) -> None:
    with pytest.raises(BackboneError, match=f"{samples} samples") as refusal:
        _small(name)(torch.zeros(1, 12, samples))
    assert refusal.value.remedy is not None
