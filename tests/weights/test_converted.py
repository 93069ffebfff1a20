from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.registry import BACKBONES
from einthoven.errors import WeightsError
from einthoven.files import read_metadata
from einthoven.weights import load_backbone, load_classifier, to_public
from einthoven.weights.converted import convert_checkpoint

TINY: dict[str, Any] = {
    "width": 32, "depth": 2, "heads": 2, "conv_width": 16, "pos_kernel": 8, "pos_groups": 4,
}  # fmt: skip


@pytest.fixture
def public(tmp_path: Path) -> Path:
    classifier = create_classifier("ecg_fm", labels=3, seed=0, **TINY)
    torch.save({"args": None, "model": to_public(classifier)}, tmp_path / "finetuned.pt")
    return tmp_path / "finetuned.pt"


def test_what_is_written_loads_as_the_original_does(public: Path, tmp_path: Path) -> None:
    encoder, classifier = tmp_path / "encoder.safetensors", tmp_path / "classifier.safetensors"
    convert_checkpoint("ecg_fm", weights=public, out=encoder, **TINY)
    convert_checkpoint("ecg_fm", weights=public, out=classifier, head=True, **TINY)
    x = torch.randn(2, 12, 320)
    first = load_backbone("ecg_fm", weights=public, **TINY)
    second = load_backbone("ecg_fm", weights=encoder, **TINY)
    assert torch.equal(first(x), second(x))
    whole = load_classifier("ecg_fm", weights=classifier, **TINY)
    assert torch.equal(whole(x), load_classifier("ecg_fm", weights=public, **TINY)(x))
    with safe_open(encoder, framework="pt") as file:
        assert not any(key.startswith("head.") for key in file.keys())  # noqa: SIM118


def test_metadata_say_where_it_came_from(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = convert_checkpoint("ecg_fm", weights=public, out=tmp_path / "a", **TINY)
    digest = hashlib.sha256(public.read_bytes()).hexdigest()
    assert read_metadata(tmp_path / "a") == said
    assert (said["sha256"], said["checksum"]) == (digest, "another")
    assert said["public_weights_licence"] == "MIT"
    assert "PTB-XL" in said["public_weights_data"]
    # Not to be taken for a file that was pretrained here.
    assert "pretraining_data" not in said
    known = replace(BACKBONES["ecg_fm"], weights_sha256=digest)
    monkeypatch.setitem(BACKBONES, "ecg_fm", known)
    said = convert_checkpoint("ecg_fm", weights=public, out=tmp_path / "b", **TINY)
    assert said["checksum"] == "as recorded by others"


def test_refusals_write_nothing(public: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(WeightsError, match="exists already"):
        convert_checkpoint("ecg_fm", weights=public, out=tmp_path / "there", **TINY)
    assert (tmp_path / "there").read_text() == "mine"
    with pytest.raises(WeightsError, match="ECG-FM, not mtecg_tiny"):
        convert_checkpoint("mtecg_tiny", weights=public, out=tmp_path / "new")
    with pytest.raises(WeightsError, match="does not fit ecg_fm"):
        convert_checkpoint("ecg_fm", weights=public, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
