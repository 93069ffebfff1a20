from __future__ import annotations

import numpy as np
import pytest
import torch

from einthoven.backbones.contract import PatchBackbone
from einthoven.backbones.registry import create_backbone
from einthoven.objectives.mae import make_target, remove_baseline


@pytest.fixture(params=["mtecg_tiny_100hz", "st_mem_tiny"])
def backbone(request: pytest.FixtureRequest) -> PatchBackbone:
    built = create_backbone(request.param, depth=1)
    assert isinstance(built, PatchBackbone)
    return built


def test_segments_have_zero_mean_and_unit_unbiased_variance(backbone: PatchBackbone) -> None:
    target = make_target("segment-standardised", 5 + 3 * torch.randn(2, 12, 300), backbone)
    assert target.mean(-1).abs().max().item() < 1e-5
    assert target.var(-1).sub(1).abs().max().item() < 1e-4


def test_a_flat_signal_gives_zeros(backbone: PatchBackbone) -> None:
    for kind in ("segment-standardised", "lead-mean-removed", "baseline-removed"):
        target = make_target(kind, torch.full((1, 12, 300), 2.0), backbone)
        assert target.abs().max().item() < 1e-6


def test_baseline_is_a_moving_average_that_takes_drift_and_leaves_beats() -> None:
    rate = 100.0
    seconds = torch.arange(1000) / rate
    drift = torch.sin(2 * np.pi * 0.1 * seconds).expand(1, 2, -1)
    wave = torch.sin(2 * np.pi * 10 * seconds).expand(1, 2, -1)
    left = remove_baseline(drift + wave, rate)[..., 100:-100]
    assert (left - wave[..., 100:-100]).abs().max().item() < 0.06
    values = torch.randn(1, 1, 200)
    by_hand = values[0, 0, 100] - values[0, 0, 70:131].mean()
    assert remove_baseline(values, rate)[0, 0, 100].item() == pytest.approx(
        by_hand.item(), abs=1e-5
    )
