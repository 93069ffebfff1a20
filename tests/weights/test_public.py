"""What public weights have seen: from the file where it says so, from the catalogue otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from einthoven.weights.converted import convert_checkpoint, convert_to_folder
from safetensors.torch import save_file

from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.registry import create_backbone
from einthoven.files import read_metadata, write_json, write_tensors
from einthoven.weights import to_public
from einthoven.weights.public import PublicData, public_data

TINY: dict[str, Any] = {
    "depth": 1, "width": 32, "heads": 2, "conv_width": 16, "pos_kernel": 8, "pos_groups": 4,
}  # fmt: skip
HUBERT = "hubert_ecg_small"


def seen(name: str, file: Path) -> bool | None:
    data = public_data(name, file)
    assert data is not None
    assert data.backbone == name
    return data.contains_ptbxl


@pytest.fixture
def fm(tmp_path: Path) -> Path:
    torch.save({"model": to_public(create_backbone("ecg_fm", seed=0, **TINY))}, tmp_path / "fm.pt")
    return tmp_path / "fm.pt"


@pytest.fixture
def sft(tmp_path: Path) -> Path:
    """A HuBERT-ECG classifier, as the fine-tuned ones are published."""
    state = to_public(create_classifier(HUBERT, labels=3, seed=0, **TINY))
    save_file(state, tmp_path / "sft.safetensors")
    return tmp_path / "sft.safetensors"


def test_the_catalogue_answers_for_a_file_in_public_names(fm: Path, tmp_path: Path) -> None:
    assert seen("ecg_fm", fm) is True
    torch.save(to_public(create_backbone(HUBERT, seed=0, **TINY)), tmp_path / "ssl.pt")
    assert seen(HUBERT, tmp_path / "ssl.pt") is None
    save_file({"a": torch.ones(1)}, tmp_path / "a")
    assert seen("st_mem_base", tmp_path / "a") is False
    assert public_data("s4_tiny", tmp_path / "a") is None  # nobody publishes any


def test_hubert_s_classifiers_were_trained_on_it_whatever_the_container(
    sft: Path, tmp_path: Path
) -> None:
    assert seen(HUBERT, sft) is True
    state = to_public(create_classifier(HUBERT, labels=3, seed=0, **TINY))
    torch.save({"model_state_dict": state, "linear": True}, tmp_path / "sft.pt")
    assert seen(HUBERT, tmp_path / "sft.pt") is True


def test_a_converted_file_says_it_itself(sft: Path, fm: Path, tmp_path: Path) -> None:
    """An encoder out of a classifier has no head left that would tell."""
    out = tmp_path / "model"
    convert_checkpoint(HUBERT, weights=sft, out=out, **TINY)
    assert read_metadata(out)["contains_ptbxl"] == "yes"
    assert seen(HUBERT, out) is True
    about = convert_to_folder(HUBERT, weights=sft, out=tmp_path / "folder", **TINY)
    assert about["contains_ptbxl"] is True
    assert seen(HUBERT, tmp_path / "folder") is True
    assert "PTB-XL among them: yes." in (tmp_path / "folder" / "README.md").read_text()
    torch.save(to_public(create_backbone(HUBERT, seed=0, **TINY)), tmp_path / "ssl.pt")
    about = convert_to_folder(HUBERT, weights=tmp_path / "ssl.pt", out=tmp_path / "ssl", **TINY)
    assert about["contains_ptbxl"] is None
    assert seen(HUBERT, tmp_path / "ssl") is None


def test_what_was_pretrained_here_says_on_what(tmp_path: Path) -> None:
    network = create_backbone("ecg_fm", seed=0, **TINY)
    write_tensors(tmp_path / "own", network.state_dict(), {"pretraining_data": "cart 1.0"})
    assert public_data("ecg_fm", tmp_path / "own") is None


@pytest.mark.parametrize("inside", [True, None])
def test_what_weights_became_answers_for_them(tmp_path: Path, inside: bool | None) -> None:
    """A run that began with them, and its bundle; one that says it began with others, too."""
    network = create_backbone("ecg_fm", seed=0, **TINY)
    kept = PublicData("ecg_fm", "what they had", inside).record("cart")
    best = tmp_path / "run" / "stage2" / "best.safetensors"
    write_tensors(best, network.state_dict(), {})
    write_json(tmp_path / "run" / "run.json", {"request": {"public_weights": kept}})
    assert public_data("ecg_fm", best) == PublicData("ecg_fm", "what they had", inside)
    weights = tmp_path / "model" / "model.safetensors"
    write_tensors(weights, network.state_dict(), {})
    about: dict[str, Any] = {"checksums": {weights.name: ""}, "public_weights": None}
    write_json(weights.with_name("config.json"), about)
    assert public_data("ecg_fm", weights.parent) is None
    write_json(weights.with_name("config.json"), about | {"public_weights": kept})
    assert seen("ecg_fm", weights.parent) is inside


def test_a_record_warns_of_ptbxl_and_says_when_nobody_knows() -> None:
    for inside, words in ((True, "are not those of an unseen"), (None, "is unknown")):
        data = PublicData("ecg_fm", "a list", inside)
        record = json.loads(json.dumps(data.record("ptb-xl")))
        assert words in record["warning"]
        assert record["cohort"] == "ptb-xl"
        assert PublicData.of_record("ecg_fm", record) == data
        assert "warning" not in data.record("cart")
    assert PublicData("st_mem_base", "a list", False).warning("ptb-xl") == ""
    # As runs of earlier versions recorded it, which recorded nothing else.
    old = {"cohort": "ptb-xl", "pretraining_data": "a list", "warning": "..."}
    assert PublicData.of_record("ecg_fm", old) == PublicData("ecg_fm", "a list", True)
