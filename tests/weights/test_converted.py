from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.registry import catalogue, create_backbone
from einthoven.bundle import load_bundle
from einthoven.errors import BundleError, WeightsError
from einthoven.files import read_metadata
from einthoven.licences import Licence
from einthoven.signals.prepare import Preparation
from einthoven.weights import load_backbone, load_classifier, to_public
from einthoven.weights.converted import convert_checkpoint, convert_to_folder
from einthoven.weights.folder import licence_of_weights

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
    known = replace(catalogue()["ecg_fm"], weights_sha256=digest)
    monkeypatch.setitem(catalogue(), "ecg_fm", known)
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


def test_what_is_einthoven_s_own_is_not_converted(public: Path, tmp_path: Path) -> None:
    """Its origin, its terms and the records it has seen would be lost on the way."""
    convert_to_folder("ecg_fm", weights=public, out=tmp_path / "x", **TINY)
    bare = tmp_path / "bare.safetensors"
    save_file(create_backbone("ecg_fm", seed=0, **TINY).state_dict(), bare)
    for own in (tmp_path / "x", tmp_path / "x" / "weights.safetensors", bare):
        for convert in (convert_checkpoint, convert_to_folder):
            with pytest.raises(WeightsError, match="is einthoven's own already"):
                convert("ecg_fm", weights=own, out=tmp_path / "again", **TINY)
    assert not (tmp_path / "again").exists()


def test_a_folder_of_the_hub_is_converted_by_the_file_in_it(public: Path, tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    state = to_public(load_backbone("ecg_fm", weights=public, **TINY))
    save_file(state, tmp_path / "snapshot" / "model.safetensors")
    out = tmp_path / "x.safetensors"
    said = convert_checkpoint("ecg_fm", weights=tmp_path / "snapshot", out=out, **TINY)
    assert said["converted_from"] == "model.safetensors"


def test_options_are_recorded_with_how_to_repeat_them(public: Path, tmp_path: Path) -> None:
    given = {**TINY, "leads": ("I", "II"), "missing_leads": "zero"}
    convert_to_folder("ecg_fm", weights=public, out=tmp_path / "x", **given)
    card = (tmp_path / "x" / "README.md").read_text()
    assert """ --option 'leads=["I", "II"]' --option 'missing_leads="zero"' --out RUN""" in card
    assert "leads=('I', 'II'), missing_leads='zero')`" in card
    said = json.loads(read_metadata(tmp_path / "x" / "weights.safetensors")["backbone_options"])
    assert said == json.loads(json.dumps(given))


def test_a_folder_says_what_it_holds(public: Path, tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    about = convert_to_folder("ecg_fm", weights=public, out=folder, **TINY)
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "bundle.json", "weights.safetensors",
    ]  # fmt: skip
    assert json.loads((folder / "bundle.json").read_text()) == json.loads(json.dumps(about))
    net = load_backbone("ecg_fm", weights=folder, **TINY)
    x = torch.randn(2, 12, 320)
    assert torch.equal(net(x), load_backbone("ecg_fm", weights=public, **TINY)(x))
    assert about["parameters"] == sum(p.numel() for p in net.parameters())
    assert Preparation.from_dict(about["preparation"]) == net.preparation
    assert (about["licence"], about["commercial_use"]) == ("MIT", True)
    assert about["source"]["sha256"] == hashlib.sha256(public.read_bytes()).hexdigest()
    card = (folder / "README.md").read_text()
    assert "3. window of 2500 samples" not in card  # the leads come first
    assert "4. window of 2500 samples" in card
    assert "Not for commercial use" not in card
    with pytest.raises(BundleError, match="reads 'einthoven-bundle-1'"):
        load_bundle(folder)


def test_a_folder_keeps_the_head_when_asked(public: Path, tmp_path: Path) -> None:
    about = convert_to_folder("ecg_fm", weights=public, out=tmp_path / "x", head=True, **TINY)
    assert about["head"] is True
    assert load_classifier("ecg_fm", weights=tmp_path / "x", **TINY).head.out_features == 3
    with pytest.raises(WeightsError, match="exists already"):
        convert_to_folder("ecg_fm", weights=public, out=tmp_path / "x", **TINY)


def test_a_folder_is_checked(public: Path, tmp_path: Path) -> None:
    convert_to_folder("ecg_fm", weights=public, out=tmp_path / "x", **TINY)
    file = tmp_path / "x" / "weights.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match="is damaged: its SHA-256"):
        load_backbone("ecg_fm", weights=tmp_path / "x", **TINY)


def test_terms_go_along(public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = replace(catalogue()["ecg_fm"], licence=Licence("CC-BY-NC-4.0", "", False))
    monkeypatch.setitem(catalogue(), "ecg_fm", bound)
    about = convert_to_folder("ecg_fm", weights=public, out=tmp_path / "x", **TINY)
    assert about["commercial_use"] is False
    assert "**Not for commercial use.**" in (tmp_path / "x" / "README.md").read_text()
    monkeypatch.undo()
    # In the folder, and in the file alone.
    assert licence_of_weights("ecg_fm", tmp_path / "x") == "CC-BY-NC-4.0"
    shutil.copy(tmp_path / "x" / "weights.safetensors", tmp_path / "alone.safetensors")
    assert licence_of_weights("ecg_fm", tmp_path / "alone.safetensors").startswith("CC-BY-NC")
