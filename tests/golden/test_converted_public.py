"""Public checkpoints at full size, converted: the same outputs, and the terms they came with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from einthoven.weights.converted import convert_to_folder
from einthoven.weights.folder import licence_of_weights
from torch import Tensor

from einthoven.backbones.registry import entry
from einthoven.licences import is_non_commercial
from einthoven.weights import load_backbone

CASES = [
    # Fixture, backbone, what the publisher's file holds beside the tensors, their entry, the input.
    pytest.param("hubert_ecg_small", "hubert_ecg_small", {}, "", id="hubert_ecg_small"),
    pytest.param("ecgfounder_12lead", "ecgfounder_12lead", {"epoch": 3}, "state_dict", id="net1d"),
    pytest.param("st_mem_vit_small", "st_mem_small", {}, "model", id="st_mem_small"),
    pytest.param(
        "ecg_fm_classifier", "ecg_fm", {"args": None, "extra_state": {"epoch": 1}}, "model",
        id="ecg_fm", marks=pytest.mark.slow,
    ),
]  # fmt: skip
SECONDS = {"hubert_ecg_small": 500, "st_mem_small": 750}


@pytest.mark.parametrize(("fixture", "name", "beside", "under"), CASES)
def test_a_converted_folder_is_the_public_file(
    fixture: str,
    name: str,
    beside: dict[str, Any],
    under: str,
    parity: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    tensors: dict[str, Tensor] = parity(fixture).weights()
    torch.save({under: tensors, **beside} if under else tensors, tmp_path / "public.pth")
    about = convert_to_folder(name, weights=tmp_path / "public.pth", out=tmp_path / "encoder")
    assert about["parameters"] == entry(name).parameters
    assert about["commercial_use"] != is_non_commercial(entry(name).weights_licence)
    assert licence_of_weights(name, tmp_path / "encoder") == entry(name).weights_licence
    x = torch.randn(1, 12, SECONDS.get(name, 1000), generator=torch.Generator().manual_seed(0))
    original = load_backbone(name, weights=tmp_path / "public.pth")
    converted = load_backbone(name, weights=tmp_path / "encoder")
    assert converted.preparation.to_dict() == about["preparation"]
    with torch.no_grad():
        assert torch.equal(converted(x), original(x))
