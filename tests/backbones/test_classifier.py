from __future__ import annotations

import numpy as np
import pytest
import torch

from einthoven.backbones.classifier import (
    Classifier,
    create_classifier,
    initialise_head,
    start_at_prior,
)
from einthoven.errors import BackboneError

NAME = "mtecg_tiny_100hz"


def test_logits_are_the_head_of_the_features() -> None:
    net = create_classifier(NAME, labels=("NORM", "AFIB"), seed=0, depth=1).eval()
    x = torch.randn(3, 12, 100)
    assert net.labels == ("NORM", "AFIB")
    assert torch.equal(net(x), net.head(net.backbone.features(x)))
    assert create_classifier(NAME, depth=1).head.out_features == 71


def test_head_start() -> None:
    assert not create_classifier(NAME, labels=4, depth=1, head_init="zero").head.weight.any()
    drawn = create_classifier(NAME, labels=400, depth=1, seed=0, head_init="kaiming-normal").head
    assert drawn.weight.std().item() == pytest.approx((2 / drawn.in_features) ** 0.5, rel=0.02)
    assert not drawn.bias.any()
    head = torch.nn.Linear(192, 500)
    initialise_head(head, "glorot-uniform")
    limit = (6 / (192 + 500)) ** 0.5
    assert head.weight.abs().max().item() == pytest.approx(limit, rel=0.001)
    assert head.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.01)
    assert not head.bias.any()
    initialise_head(head, "normal-0.01")
    assert head.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not head.bias.any()
    initialise_head(head, "stock")
    assert head.weight.abs().max().item() == pytest.approx(192**-0.5, rel=0.01)


def test_a_head_that_starts_at_the_labels_shares() -> None:
    head = torch.nn.Linear(8, 3)
    weight = head.weight.clone()
    targets = np.array([[1, 0, 1]] * 19 + [[0, 0, 1]] * 180, dtype=np.uint8)
    start_at_prior(head, targets)
    assert torch.equal(head.weight, weight)
    # 19, none and all of 199, and half a record on either side.
    assert head.bias.sigmoid().tolist() == pytest.approx([0.0975, 0.0025, 0.9975], rel=1e-4)


@pytest.mark.parametrize("labels", [0, (), "NORM", ("A", "A")])
def test_refuses_impossible_labels(labels: object) -> None:
    net = create_classifier(NAME, labels=2, depth=1)
    with pytest.raises(BackboneError, match="labels"):
        Classifier(net.backbone, labels)  # type: ignore[arg-type]


def test_refuses_an_unknown_head_start() -> None:
    with pytest.raises(BackboneError, match="head_init = 'ones'"):
        create_classifier(NAME, depth=1, head_init="ones")
