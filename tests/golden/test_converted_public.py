"""Public checkpoints at full size, converted: the same outputs, with the licence of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from einthoven.backbones.registry import entry
from einthoven.weights import load_backbone
from einthoven.weights.public import convert_checkpoint

CASES = [
    # Fixture, backbone, what the published file holds beside the tensors, their entry.
    pytest.param("hubert_ecg_small", "hubert_ecg_small", {}, "", id="hubert_ecg_small"),
    pytest.param("ecgfounder_12lead", "ecgfounder_12lead", {"epoch": 3}, "state_dict", id="net1d"),
    pytest.param("st_mem_vit_small", "st_mem_small", {}, "model", id="st_mem_small"),
    pytest.param(
        "ecg_fm_classifier", "ecg_fm", {"args": None, "extra_state": {"epoch": 1}}, "model",
        id="ecg_fm", marks=pytest.mark.slow,
    ),
]  # fmt: skip
SAMPLES = {"hubert_ecg_small": 500, "st_mem_small": 750}
COMMERCIAL = {"hubert_ecg_small": False, "ecgfounder_12lead": None, "ecg_fm": True}


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
    config = convert_checkpoint(name, weights=tmp_path / "public.pth", out=tmp_path / "encoder")
    assert config["commercial_use"] is COMMERCIAL.get(name)
    x = torch.randn(1, 12, SAMPLES.get(name, 1000), generator=torch.Generator().manual_seed(0))
    original = load_backbone(name, weights=tmp_path / "public.pth")
    converted = load_backbone(name, weights=tmp_path / "encoder")
    assert converted.preparation.to_dict() == config["preparation"]
    assert sum(p.numel() for p in converted.parameters()) == entry(name).parameters
    with torch.no_grad():
        assert torch.equal(converted(x), original(x))
