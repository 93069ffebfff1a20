"""Crops of many records to one answer a record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from einthoven.backbones.inference import aggregate_crops, probabilities
from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.errors import BackboneError
from einthoven.signals.batches import SignalSource
from einthoven.signals.store import Store


@pytest.fixture(scope="module")
def source(synthetic: Cohort, synthetic_store: Store) -> SignalSource:
    preparation = create_backbone("mtecg_tiny_100hz", depth=1).preparation
    preparation = preparation.with_window(seconds=2.5).with_evaluation_crops(4)
    rows = synthetic_store.rows(synthetic.ids("validation"))
    return SignalSource(synthetic_store, rows, synthetic.targets("validation"), preparation)


class Means(nn.Module):
    """A network whose logits are the mean and the peak of lead II."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.modes.append(self.training)
        return torch.stack([x[:, 1].mean(1), x[:, 1].amax(1)], dim=1)


def test_crops_are_joined_record_by_record() -> None:
    logits = torch.tensor([[0.0], [3.0], [-1.0], [2.0]])
    owner = torch.tensor([1, 0, 1, 0])
    sigmoid = logits.double().sigmoid().flatten()
    mean = aggregate_crops(logits, owner, 2, "probability").flatten()
    assert torch.allclose(mean, torch.stack([sigmoid[[1, 3]].mean(), sigmoid[[0, 2]].mean()]))
    by_logit = aggregate_crops(logits, owner, 2, "logit").flatten()
    assert torch.allclose(by_logit, torch.tensor([2.5, -0.5]).double().sigmoid())
    highest = aggregate_crops(logits, owner, 2, "max").flatten()
    assert torch.equal(highest, sigmoid[[1, 0]])


def test_one_aggregation_rule_for_each_label() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, -1.0, 0.5], [-1.0, 4.0, 1.0]])
    owner = torch.tensor([0, 1, 0])
    rules: Any = ("max", "logit", "max")
    joined = aggregate_crops(logits, owner, 2, rules)
    for column, rule in enumerate(rules):
        alone = aggregate_crops(logits[:, [column]], owner, 2, rule)
        assert torch.equal(joined[:, [column]], alone)
    with pytest.raises(BackboneError, match=r"2 .* 3 labels"):
        aggregate_crops(logits, owner, 2, ("max", "logit"))


@pytest.mark.parametrize("size", [1, 7, 50])
def test_batch_size_does_not_matter(source: SignalSource, size: int) -> None:
    whole = probabilities(Means(), source, batch_size=64)
    assert whole.shape == (50, 2)
    assert np.allclose(probabilities(Means(), source, batch_size=size), whole, atol=1e-7)


def test_mode_is_restored_after_evaluation(
    source: SignalSource,
) -> None:
    for mode in (True, False):
        network = Means().train(mode)
        probabilities(network, source)
        assert not any(network.modes)
        assert network.training is mode


def test_bf16_answers_in_fp32(source: SignalSource) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12 * 250, 2))
    exact = probabilities(network, source)
    rough = probabilities(network, source, precision="bf16")
    assert rough.dtype == np.float64
    assert 0 < np.abs(exact - rough).max() < 0.05
