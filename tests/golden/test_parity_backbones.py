"""Our networks against the reference implementations, through the public checkpoint's format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven.weights import load_classifier

CASES = [
    ("st_mem_vit_small", "st_mem_small"),
    # Its encoder is checked in every run by the pretraining model's fixture.
    pytest.param("st_mem_vit_base", "st_mem_base", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("fixture", "name"), CASES)
def test_classifier_matches_reference(
    fixture: str, name: str, parity: Callable[[str], Any], tmp_path: Path
) -> None:
    case = parity(fixture)
    path = tmp_path / "best-loss.pth"
    torch.save({"epoch": 3, "model": case.weights(), "optimizer": None, "config": {}}, path)
    classifier = load_classifier(name, weights=path)
    assert sum(p.numel() for p in classifier.parameters()) == case.meta["parameters"]
    x = case.x()
    with torch.no_grad():
        case.check(
            features=classifier.backbone.features(x),
            logits=classifier(x),
            logits_tiny_input=classifier(x * 2**-9),
        )
