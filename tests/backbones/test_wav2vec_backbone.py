"""What HuBERT-ECG and ECG-FM answer alike, since both are made of the same parts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.backbones.registry import create_backbone
from einthoven.errors import RecipeError
from einthoven.stages.finetune import extractor_of, regularise
from einthoven.stages.recipe import Stage2
from einthoven.training.optim import parameter_groups

TINY: dict[str, Any] = {
    "depth": 2, "width": 32, "heads": 2, "conv_width": 16, "pos_kernel": 9, "pos_groups": 4,
}  # fmt: skip
SAMPLES = {"hubert_ecg_small": 100, "ecg_fm": 160}


@pytest.fixture(params=list(SAMPLES))
def classifier(request: pytest.FixtureRequest) -> Classifier:
    return create_classifier(request.param, labels=3, seed=0, **TINY)


def test_a_frozen_extractor_stays_and_everything_else_moves(classifier: Classifier) -> None:
    regularise(classifier, Stage2(freeze_extractor=True))
    before = {name: p.detach().clone() for name, p in classifier.named_parameters()}
    optimiser = torch.optim.SGD(
        [{"params": g["params"]} for g in parameter_groups(classifier, weight_decay=0.0)], lr=1.0
    )
    x = torch.randn(4, 12, SAMPLES[classifier.backbone.name])
    loss = binary_cross_entropy_with_logits(classifier.train()(x), torch.eye(4, 3))
    loss.backward()
    optimiser.step()
    still = {name for name, p in classifier.named_parameters() if torch.equal(p, before[name])}
    assert still == {f"backbone.{name}" for name in extractor_of(classifier.backbone)}
    # Nothing of the backward pass reached it: that is the time it saves.
    assert all(p.grad is None for p in classifier.backbone.extractor.parameters())


def test_backbones_without_an_extractor_are_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"mtecg_tiny_100hz has no convolutional extractor"):
        extractor_of(create_backbone("mtecg_tiny_100hz", seed=0, depth=1))
