"""The PTB-XL benchmark's networks against the reference, through the format of its own files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from einthoven.backbones.layers.benchmark import BenchmarkBackbone

NAMES = ("fcn_wang", "resnet1d_wang", "xresnet1d101", "inception1d", "lstm", "lstm_bidir")


@pytest.mark.parametrize("name", NAMES)
def test_classifier_and_pooled_vector_match_the_reference(
    name: str, parity: Callable[[str], Any], load_named: Callable[..., Any]
) -> None:
    case = parity(f"peer_{name}")
    net = load_named("strodthoff", name, case.weights())
    assert sum(p.numel() for p in net.parameters()) == case.meta["parameters"]
    backbone = net.backbone
    assert isinstance(backbone, BenchmarkBackbone)
    with torch.no_grad():
        case.check(logits=net(case.x()), pooled=backbone.pool(backbone.tokens(case.x())))
