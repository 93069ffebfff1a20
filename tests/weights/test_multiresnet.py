"""Files of MULTIRESNET's public code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.errors import WeightsError
from einthoven.weights import load_backbone, load_classifier, to_public

NAME = "multiresnet"
SMALL: dict[str, Any] = {"width": 16, "depth": 2, "scales": 3}


def _source() -> Classifier:
    return create_classifier(NAME, labels=5, seed=0, **SMALL).eval()


def _same(net: nn.Module, like: nn.Module) -> bool:
    theirs = like.state_dict()
    return all(torch.equal(tensor, theirs[key]) for key, tensor in net.state_dict().items())


def test_public_names_and_shapes() -> None:
    public = to_public(_source())
    shapes = {key: tuple(tensor.shape) for key, tensor in public.items()}
    assert len(shapes) == 2 + 2 * 7 + 2
    expected = {
        "encoder.weight": (16, 12, 1),
        "seq_layers.1.h0": (16, 1, 2),
        "seq_layers.0.w": (16, 5),
        "mixing_layers.1.0.weight": (32, 16, 1),
        "mixing_layers.0.0.bias": (32,),
        "norms.1.weight": (16,),
        "output_mapping.weight": (5, 16),
    }
    assert expected.items() <= shapes.items()


@pytest.mark.parametrize("wrapped", [True, False])
def test_reads_its_files(wrapped: bool, tmp_path: Path) -> None:
    source, path = _source(), tmp_path / "model.pt"
    public = to_public(source)
    torch.save({"state_dict": public, "epoch": 3} if wrapped else public, path)
    x = torch.randn(2, 12, 40)
    net = load_classifier(NAME, weights=path, **SMALL)
    assert torch.equal(net(x), source(x))
    assert _same(load_backbone(NAME, weights=path, **SMALL), source.backbone)


def test_reads_our_own_naming(tmp_path: Path) -> None:
    source, path = _source(), tmp_path / "x.safetensors"
    for state in (source.state_dict(), source.backbone.state_dict()):
        save_file(state, path)
        assert _same(load_backbone(NAME, weights=path, **SMALL), source.backbone)


def test_other_shapes_and_networks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(to_public(_source()), path)
    with pytest.raises(WeightsError, match=r"seq_layers\.0\.w \(16, 5\) instead of \(16, 6\)"):
        load_backbone(NAME, weights=path, **(SMALL | {"scales": 4}))
    with pytest.raises(WeightsError, match="a checkpoint of MULTIRESNET, not mtecg_tiny") as error:
        load_backbone("mtecg_tiny", weights=path)
    assert "load it as multiresnet" in error.value.remedy
    swapped = to_public(_source())
    swapped["seq_layers.0.h2"] = swapped.pop("seq_layers.1.h1")
    torch.save(swapped, path)
    with pytest.raises(WeightsError, match=r"1 missing: seq_layers\.1\.h1; 1 unexpected"):
        load_backbone(NAME, weights=path, **SMALL)
