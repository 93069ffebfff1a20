from __future__ import annotations

from typing import Any

import pytest
import torch

from einthoven.backbones.registry import create_backbone
from einthoven.errors import EinthovenError, RecipeError
from einthoven.objectives import create_objective
from einthoven.objectives.cmsc import cmsc_loss, halves, mask_leads, retrieval, segments_of_batch
from einthoven.stages.pretrain import check_pretraining
from einthoven.stages.recipe import load_pretraining

SMALL: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}


def test_halves_are_neighbours_of_one_record() -> None:
    x = torch.arange(14.0).reshape(2, 1, 7)
    segments = halves(x)
    assert segments[:, 0].tolist() == [[0, 1, 2], [3, 4, 5], [7, 8, 9], [10, 11, 12]]
    features, record, segment = segments_of_batch(torch.arange(8.0).reshape(4, 2), None)
    assert features.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert record.tolist() == [0, 0, 1, 1]
    assert segment.tolist() == [0, 1, 0, 1]
    with pytest.raises(RecipeError, match="1 samples"):
        halves(torch.zeros(1, 1, 1))


def test_loss_by_hand() -> None:
    features = torch.tensor([[2.0, 0.0], [0.6, 0.8], [0.0, 5.0], [0.0, 1.0]])
    record, segment = torch.tensor([4, 4, 9, 9]), torch.tensor([0, 1, 0, 1])
    scores = torch.tensor([[0.6, 0.0], [0.8, 1.0]]) / 0.5
    rows = torch.nn.functional.cross_entropy(scores, torch.arange(2))
    columns = torch.nn.functional.cross_entropy(scores.t(), torch.arange(2))
    loss = cmsc_loss(features, record, segment, temperature=0.5)
    assert loss.item() == pytest.approx((rows + columns).item() / 2, rel=1e-5)
    assert retrieval(features, record, segment) == 1.0
    assert retrieval(features[[0, 3, 2, 1]], record, segment) == 0.0


def test_lead_masking_zeroes_whole_leads_by_segment() -> None:
    x = torch.ones(400, 12, 3)
    masked = mask_leads(x, 0.5, records=200, generator=torch.Generator().manual_seed(0))
    kept = masked[..., 0]
    assert torch.equal(masked, kept[..., None].expand_as(masked))
    assert kept.mean().item() == pytest.approx(0.5, abs=0.02)
    assert (kept[::2] != kept[1::2]).any(1).float().mean() > 0.99  # halves draw for themselves
    assert mask_leads(x, 0.0, records=200) is x
    assert x.min() == 1.0


def test_halves_fit_the_backbone() -> None:
    """A window of 250 samples has halves of 125; a network of even lengths takes 124 of them."""
    backbone = create_backbone("s4_tiny", width=16, depth=1, seed=0)
    objective: Any = create_objective("cmsc", backbone)
    assert objective.encoded_samples(250) == 124
    assert objective(torch.randn(3, 12, 250)).loss.isfinite()


def test_the_check_before_pretraining_is_that_of_the_halves() -> None:
    """10 s are two halves of 5 s, which HuBERT-ECG takes; 20 s are not."""
    whole = ["objective=cmsc", "crop_seconds=10"]
    check_pretraining(load_pretraining("mae", whole), "hubert_ecg_small")
    with pytest.raises(EinthovenError):
        check_pretraining(load_pretraining("mae", [*whole, "crop_seconds=20"]), "hubert_ecg_small")
    check_pretraining(load_pretraining("mae", ["objective=cmsc"]), "s4_small")
