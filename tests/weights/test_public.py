"""Licence, origin and pretraining data of public weights go along, into every model from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from public_names import to_public

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.backbones.registry import create_backbone, entry
from einthoven.errors import ModelError, WeightsError
from einthoven.files import file_sha256
from einthoven.licences import Licence
from einthoven.models import derived_provenance, load_model, read_config, save_model
from einthoven.weights import load_backbone
from einthoven.weights.public import (
    config_of_weights,
    convert_checkpoint,
    data_on_cohort,
    public_data,
)

TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 2, "conv_width": 16, "pos_groups": 4}
HUBERT = "hubert_ecg_small"


@pytest.fixture
def ecg_fm(tmp_path: Path) -> Path:
    torch.save({"model": to_public(create_backbone("ecg_fm", seed=0, **TINY))}, tmp_path / "fm.pt")
    return tmp_path / "fm.pt"


def hubert(folder: Path, *, classifier: bool) -> Path:
    network: Any = (create_classifier if classifier else create_backbone)(HUBERT, seed=0, **TINY)
    torch.save(to_public(network), folder / "hubert.pt")
    return folder / "hubert.pt"


def test_the_catalogue_is_the_source_for_public_files(ecg_fm: Path) -> None:
    data = public_data("ecg_fm", ecg_fm)
    assert data == {
        "backbone": "ecg_fm",
        "pretraining_data": entry("ecg_fm").pretraining_data,
        "contains_ptbxl": True,
    }
    assert Licence.from_dict(config_of_weights("ecg_fm", ecg_fm)) == entry("ecg_fm").licence


@pytest.mark.parametrize(("classifier", "inside"), [(False, None), (True, True)])
def test_fine_tuned_classifiers_differ_from_their_encoder(
    classifier: bool, inside: bool | None, tmp_path: Path
) -> None:
    data = public_data(HUBERT, hubert(tmp_path, classifier=classifier))
    assert data is not None
    assert data["contains_ptbxl"] is inside


@pytest.mark.parametrize("head", [False, True])
def test_a_converted_checkpoint_is_the_same_network(head: bool, tmp_path: Path) -> None:
    file = hubert(tmp_path, classifier=True)
    config = convert_checkpoint(HUBERT, weights=file, out=tmp_path / "model", head=head, **TINY)
    public = config["provenance"]["public_weights"]
    assert public["sha256"] == file_sha256(file)
    assert public["sha256_matches_catalogue"] is False
    assert config["commercial_use"] is False
    assert Licence.from_dict(config) == entry(HUBERT).licence
    assert public_data(HUBERT, tmp_path / "model") == public_data(HUBERT, file)
    with pytest.warns(UserWarning, match="CC-BY-NC"):
        model = load_model(tmp_path / "model")
    assert isinstance(model.network, Classifier) is head
    state = load_backbone(HUBERT, weights=file, **TINY).state_dict()
    for source in (model.backbone, load_backbone(HUBERT, weights=tmp_path / "model")):
        assert all(torch.equal(state[key], value) for key, value in source.state_dict().items())


def test_conversion_replaces_nothing_and_takes_public_files_only(
    ecg_fm: Path, tmp_path: Path
) -> None:
    convert_checkpoint("ecg_fm", weights=ecg_fm, out=tmp_path / "model", **TINY)
    with pytest.raises(ModelError):
        convert_checkpoint("ecg_fm", weights=ecg_fm, out=tmp_path / "model", **TINY)
    with pytest.raises(WeightsError):
        convert_checkpoint("ecg_fm", weights=tmp_path / "model", out=tmp_path / "again", **TINY)


def test_a_model_trained_from_public_weights_keeps_their_data(ecg_fm: Path, tmp_path: Path) -> None:
    convert_checkpoint("ecg_fm", weights=ecg_fm, out=tmp_path / "model", **TINY)
    model = load_model(tmp_path / "model")
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    save_model(model, tmp_path / "trained")
    provenance = read_config(tmp_path / "trained")["provenance"]
    assert provenance["initial_weights"]["sha256"] == model.config["weights_sha256"]
    assert provenance["contains_ptbxl"] is True
    assert public_data("ecg_fm", tmp_path / "trained") == public_data("ecg_fm", ecg_fm)


def test_the_origin_of_a_bare_weights_file_is_unknown(tmp_path: Path) -> None:
    network = create_backbone("ecg_fm", seed=0, **TINY)
    torch.save(network.state_dict(), tmp_path / "bare.pt")
    assert entry("ecg_fm").licence is not None
    config = config_of_weights("ecg_fm", tmp_path / "bare.pt")
    assert (config["license"], config["commercial_use"]) == ("unknown", None)
    assert config["provenance"]["contains_ptbxl"] is config["provenance"]["public_weights"] is None
    assert config["provenance"]["source"] == "bare weights file"
    assert derived_provenance(config)["contains_ptbxl"] is None
    options = {"weights": tmp_path / "bare.pt", "out": tmp_path / "model", **TINY}
    converted = convert_checkpoint("ecg_fm", **options)
    assert converted["commercial_use"] is converted["provenance"]["contains_ptbxl"] is None
    assert converted["provenance"]["initial_weights"]["source"] == "bare weights file"
    assert public_data("ecg_fm", tmp_path / "model") is None


def test_without_a_reader_no_file_is_a_public_one(
    ecg_fm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A licence in the catalogue is that of a published file, and any file may be named."""
    monkeypatch.setattr(entry("ecg_fm").network, "reader", "")
    assert public_data("ecg_fm", ecg_fm) is None
    assert config_of_weights("ecg_fm", ecg_fm)["commercial_use"] is None


@pytest.mark.parametrize(
    ("inside", "cohort", "warns"),
    [(True, "ptb-xl", True), (None, "ptb-xl", True), (False, "ptb-xl", False), (True, "x", False)],
)
def test_results_on_ptbxl_are_warned_of(inside: bool | None, cohort: str, warns: bool) -> None:
    data = {"backbone": "ecg_fm", "pretraining_data": "some data", "contains_ptbxl": inside}
    assert ("cohort" in data_on_cohort(data, cohort)) is warns
    assert data_on_cohort(data | {"file": "x"}, cohort).items() >= data.items()
