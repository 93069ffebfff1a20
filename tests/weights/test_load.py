from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from public_names import to_public
from safetensors.torch import save_file
from small_networks import SMALL, same_weights
from torch import Tensor

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.registry import backbone_names, create_backbone, entry
from einthoven.errors import BackboneError, WeightsError
from einthoven.models import load_model
from einthoven.weights import load_backbone, load_classifier

NAME, DEPTH = "st_mem_tiny", {"depth": 2}


def _public() -> dict[str, Tensor]:
    return to_public(create_classifier(NAME, labels=5, seed=0, **DEPTH))


@pytest.mark.parametrize("wrap", [
    lambda s: {"model": s},
    lambda s: {"epoch": 1, "model": s, "optimizer": {"state": {}}},
    lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}},
    lambda s: {f"module.net.encoder.{k}": v for k, v in s.items()},
    lambda s: {"model": s, "optimizer": [np.float64(1e-3), np.zeros(3)], "epoch": np.int64(3)},
    lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    lambda s: {k: v for k, v in s.items() if not k.startswith("head.")},
    lambda s: {k: v.half().float() if v.ndim == 0 else v.double() for k, v in s.items()},
])  # fmt: skip
def test_reads_every_container(wrap: Callable[[Any], Any], tmp_path: Path) -> None:
    source = create_classifier(NAME, labels=5, seed=0, **DEPTH)
    torch.save(wrap(to_public(source)), tmp_path / "x.pth")
    net = load_backbone(NAME, weights=tmp_path / "x.pth", **DEPTH)
    assert not net.training
    assert same_weights(net, source.backbone)
    assert all(p.requires_grad and p.dtype is torch.float32 for p in net.parameters())


def test_reads_the_only_checkpoint_of_a_folder_also_a_link(tmp_path: Path) -> None:
    """A snapshot in the Hub's cache is a folder of links to files without a suffix."""
    source = create_backbone(NAME, seed=0, **DEPTH)
    folder = tmp_path / "snapshot"
    folder.mkdir()
    save_file(to_public(source), tmp_path / "blob")
    (folder / "model.safetensors").symlink_to("../blob")
    assert same_weights(load_backbone(NAME, weights=folder, **DEPTH), source)
    (folder / "other.safetensors").symlink_to("../blob")
    with pytest.raises(WeightsError, match=r"other\.safetensors"):
        load_backbone(NAME, weights=folder, **DEPTH)


def test_reads_whole_classifiers(tmp_path: Path) -> None:
    source = create_classifier(NAME, labels=5, seed=0, **DEPTH).eval()
    x = torch.randn(2, 12, 300)
    torch.save({"model": to_public(source)}, tmp_path / "public.pth")
    save_file(source.state_dict(), tmp_path / "own")
    for path in (tmp_path / "public.pth", tmp_path / "own"):
        assert torch.equal(load_classifier(NAME, weights=path, **DEPTH)(x), source(x))
    with pytest.raises(WeightsError, match="head"):
        load_classifier(NAME, weights=tmp_path / "own", labels=("A", "B"), **DEPTH)
    save_file(source.backbone.state_dict(), tmp_path / "encoder")
    with pytest.raises(WeightsError):
        load_classifier(NAME, weights=tmp_path / "encoder", **DEPTH)


def test_lists_missing_unexpected_and_reshaped_in_the_names_of_the_file(tmp_path: Path) -> None:
    state = _public()
    state["block1.extra"] = torch.ones(1)
    del state["lead_embeddings.3"]
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError) as refusal:
        load_backbone(NAME, weights=tmp_path / "x.pth", **DEPTH)
    assert "missing: lead_embeddings.3" in refusal.value.problem
    assert "unexpected: block1.extra" in refusal.value.problem
    state = _public()
    state["norm.weight"] = torch.ones(190)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"norm.weight \(190,\) .*\(192,\)"):
        load_backbone(NAME, weights=tmp_path / "x.pth", **DEPTH)
    state = _public()
    state["norm.weight"] = torch.ones(192, dtype=torch.int32)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"norm.weight torch.int32"):
        load_backbone(NAME, weights=tmp_path / "x.pth", **DEPTH)


def test_names_the_network_of_a_model() -> None:
    with pytest.raises(WeightsError) as refusal:
        load_backbone("s4_tiny", weights="einthoven-small")
    assert "s4_small" in refusal.value.remedy


def test_names_the_backbone_that_a_file_fits(tmp_path: Path) -> None:
    torch.save(to_public(create_backbone("st_mem_small", seed=0)), tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="reshaped") as refusal:
        load_backbone(NAME, weights=tmp_path / "x.pth")
    assert "st_mem_small" in refusal.value.remedy


@pytest.mark.parametrize(
    "fixture", ["ecgfounder_12lead", "hubert_ecg_small", "ecg_fm_pretrain", "ecg_fm_classifier"]
)
def test_recognises_real_key_lists(fixture: str, shared: Path, tmp_path: Path) -> None:
    keys = json.loads((shared / "parity" / f"{fixture}.json").read_text())["keys"]
    torch.save({"model": {key: torch.ones(1) for key in keys}}, tmp_path / "x.pth")
    with pytest.raises(WeightsError) as refusal:
        load_backbone(NAME, weights=tmp_path / "x.pth")
    assert fixture.split("_")[0] in refusal.value.remedy


def test_refuses_files_without_tensors_and_unknown_names(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "best": 0.9}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="epoch, best"):
        load_backbone("mtecg_tiny", weights=tmp_path / "x.pth")
    torch.save(_public(), tmp_path / "x.pth")
    with pytest.raises(BackboneError, match="vit"):
        load_backbone("vit", weights=tmp_path / "x.pth")


def test_a_model_has_its_own_weights() -> None:
    loaded = load_backbone("einthoven-small").state_dict()
    expected = load_model().backbone.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    with pytest.raises(WeightsError, match=r"x\.pth"):
        load_backbone("einthoven-small", weights="x.pth")
    with pytest.raises(WeightsError, match="create_backbone"):
        load_backbone(NAME)
    with pytest.raises(BackboneError, match="foo"):
        load_backbone("foo", weights="absent.pth")


UNPUBLISHED = [name for name in backbone_names() if not entry(name).reader]
PUBLISHED = ["ecg_fm", "ecgfounder_12lead", "hubert_ecg_small", "st_mem_tiny"]


@pytest.mark.parametrize("name", [*UNPUBLISHED, *PUBLISHED])
def test_networks_are_read_in_our_names(name: str, tmp_path: Path) -> None:
    options = SMALL.get(name, {})
    network = create_backbone(name, seed=0, **options)
    save_file(network.state_dict(), tmp_path / "own.safetensors")
    again = load_backbone(name, weights=tmp_path / "own.safetensors", **options)
    assert same_weights(again, network)
    save_file({"odd": torch.ones(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(WeightsError, match=name):
        load_backbone(name, weights=tmp_path / "odd.safetensors")


def test_labels_are_as_many_as_outputs(tmp_path: Path) -> None:
    classifier = create_classifier("mtecg_tiny_100hz", labels=2, seed=0, depth=1)
    save_file(classifier.state_dict(), tmp_path / "x.safetensors")
    options = {"weights": tmp_path / "x.safetensors", "depth": 1}
    assert load_classifier("mtecg_tiny_100hz", labels=("A", "B"), **options).labels == ("A", "B")
    with pytest.raises(WeightsError, match=r"2 .*3 labels"):
        load_classifier("mtecg_tiny_100hz", labels=("A", "B", "C"), **options)


def test_a_causal_encoder_is_loaded_in_both_directions(tmp_path: Path) -> None:
    """Its outputs stay; the kernels of the future are zero and can be trained."""
    options: dict[str, Any] = {"width": 16, "depth": 2, "state": 4}
    causal = create_backbone("s4_tiny", seed=0, **options).eval()
    save_file(causal.state_dict(), tmp_path / "causal.safetensors")
    both = load_backbone(
        "s4_tiny", weights=tmp_path / "causal.safetensors", causal=False, **options
    ).eval()
    x = torch.randn(2, 12, 100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(both.tokens(x), causal.tokens(x), rtol=1e-5, atol=1e-5)
    kernel = both.blocks[0].kernel.C
    assert kernel.shape[0] == 2
    assert (kernel[1] == 0).all()
    assert kernel.requires_grad
    save_file(both.state_dict(), tmp_path / "both.safetensors")
    with pytest.raises(WeightsError):
        load_backbone("s4_tiny", weights=tmp_path / "both.safetensors", causal=True, **options)
