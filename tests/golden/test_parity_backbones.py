"""Our networks against the reference implementations, through the public checkpoint's format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven.weights import load_backbone, load_classifier, to_public

CASES = [
    ("mtecg_ti", "mtecg_tiny"),
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


def test_public_names_round_trip(parity: Callable[[str], Any], tmp_path: Path) -> None:
    for fixture, name in (("mtecg_ti", "mtecg_tiny"), ("st_mem_vit_small", "st_mem_small")):
        weights = parity(fixture).weights()
        torch.save({"model": weights}, tmp_path / "file.pth")
        again = to_public(load_classifier(name, weights=tmp_path / "file.pth"))
        assert set(again) == set(weights)
        # By value: softmax hides the biases of the key projections from every output.
        assert all(torch.equal(again[key], weights[key]) for key in weights)


def test_encoder_and_classifier_files_give_the_same_encoder(
    parity: Callable[[str], Any], tmp_path: Path
) -> None:
    weights = parity("mtecg_ti").weights()
    torch.save({"model": weights}, tmp_path / "classifier.pth")
    bare = {f"module.{k}": v for k, v in weights.items() if not k.startswith("head.")}
    torch.save(bare, tmp_path / "encoder.bin")
    first = load_backbone("mtecg_tiny", weights=tmp_path / "classifier.pth").state_dict()
    second = load_backbone("mtecg_tiny", weights=tmp_path / "encoder.bin").state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
