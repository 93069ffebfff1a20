"""A model to a folder and back, bit for bit; what is damaged or changed is refused."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from einthoven.backbones.classifier import Classifier, create_classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.errors import FileError, ModelError, WeightsError
from einthoven.evaluate.scores import score_predictions
from einthoven.experiment.run import RunResult
from einthoven.files import read_json, write_json
from einthoven.inference import predict_cohort
from einthoven.licences import CC_BY_4, OWN_DATA, SIMULATED, UNKNOWN, Licence, combined
from einthoven.models import (
    Model,
    config_digest,
    derived_provenance,
    initialisation_of,
    is_model,
    load_model,
    model_path,
    read_config,
    save_model,
    training_history,
    update_config,
)
from einthoven.predictions.calibration import Calibration
from einthoven.signals.store import Store
from einthoven.training.run import RunFolder
from einthoven.weights import load_backbone, load_classifier

NAME = "mtecg_tiny_100hz"
TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}
COHORT = {"name": "ptb-xl", "version": "1.0.3", "task": "all-71", "training_records": 9}
NON_COMMERCIAL = Licence("CC-BY-NC-4.0", "", False)


@pytest.fixture(params=["linear"])
def model(request: pytest.FixtureRequest) -> Model:
    classifier = create_classifier(
        NAME, labels=("A", "B"), seed=1, head=request.param, head_dropout=0.1, **TINY
    ).eval()
    provenance = {"cohort": COHORT, "recipe": {"name": "r"}, "pretraining": []}
    return Model(
        classifier,
        classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(3),
        aggregate=("max", "probability"),
        calibration=Calibration((1.0, 2.0), (0.0, 0.1), (0.5, 0.4)),
        config={**CC_BY_4.to_dict(), "descriptions": {"A": "a"}, "provenance": provenance},
        fingerprints={"seen": "[]"},
    )


@pytest.fixture
def saved(model: Model, tmp_path: Path) -> Path:
    return save_model(model, tmp_path / "model")


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("model", ["linear", "query-attention"], indirect=True)
def test_a_classifier_comes_back_bit_for_bit(model: Model, saved: Path) -> None:
    again = load_model(saved)
    assert same(again.network, model.network)
    assert isinstance(again.network, Classifier)
    assert not again.network.training
    for field in ("preparation", "aggregate", "calibration", "labels", "fingerprints", "licence"):
        assert getattr(again, field) == getattr(model, field), field
    assert again.descriptions == {"A": "a"}
    assert again.network.head_dropout.p == 0.1
    x = torch.randn(2, 12, 250)
    assert torch.equal(again.classifier(x), model.classifier(x))
    assert read_config(saved)["head"] == again.classifier.head_kind == model.classifier.head_kind
    for file in (saved, saved / "model.safetensors"):
        assert same(load_classifier(NAME, weights=file, **TINY), model.classifier)
        assert same(load_backbone(NAME, weights=file, **TINY), model.backbone)


def test_the_head_is_part_of_the_digest(saved: Path) -> None:
    config = read_config(saved)
    assert config_digest(config) == config_digest(config | {"head": None})  # of earlier versions
    assert config_digest(config) != config_digest(config | {"head": "query-attention"})


def test_an_encoder_has_no_labels_and_no_head(tmp_path: Path) -> None:
    network = create_backbone("s4_tiny", seed=0)
    again = load_model(save_model(Model(network, network.preparation), tmp_path / "model"))
    assert isinstance(again.network, Backbone)
    assert again.labels == ()
    with pytest.raises(ModelError):
        _ = again.classifier
    assert same(load_backbone("s4_tiny", weights=tmp_path / "model" / "model.safetensors"), network)
    with pytest.raises(WeightsError):
        load_classifier("s4_tiny", weights=tmp_path / "model")


def test_the_encoder_of_a_classifier_keeps_its_origin(saved: Path, tmp_path: Path) -> None:
    model = load_model(saved)
    encoder = replace(model, network=model.backbone, calibration=None, sets=None)
    again = load_model(save_model(encoder, tmp_path / "encoder"))
    assert again.labels == ()
    assert same(again.network, model.backbone)
    assert not again.descriptions
    assert again.fingerprints == model.fingerprints
    assert again.licence == CC_BY_4
    provenance = again.config["provenance"]
    assert provenance["contains_ptbxl"] is True
    assert provenance["initial_weights"] == {
        "name": NAME, "sha256": model.config["weights_sha256"], **CC_BY_4.to_dict(),
    }  # fmt: skip
    assert "Wagner" in (tmp_path / "encoder" / "README.md").read_text()


def test_saving_twice_gives_the_same_bytes(model: Model, saved: Path, tmp_path: Path) -> None:
    again = save_model(load_model(saved), tmp_path / "again")
    for file in saved.iterdir():
        assert (again / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_model_is_replaced_only_on_demand(model: Model, saved: Path) -> None:
    (saved / "evaluation.json").write_text("{}")
    with pytest.raises(ModelError):
        save_model(model, saved)
    save_model(model, saved, overwrite=True)
    assert not (saved / "evaluation.json").exists()


def test_a_folder_that_cannot_be_written_is_refused(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for place in ("/proc/einthoven", tmp_path / "file" / "model"):
        with pytest.raises(FileError, match=str(place)):
            save_model(model, place)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "nonsense"])
def test_damage_is_refused(name: str, damage: str, saved: Path) -> None:
    file = saved / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"\xff nonsense")
    with pytest.raises(ModelError) as caught:
        load_model(saved)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("key", "value"),
    [("aggregate", "logit"), ("id2label", {"0": "B", "1": "A"}), ("calibration", None)],
)
def test_changes_of_what_decides_a_prediction_are_refused(
    key: str, value: object, saved: Path
) -> None:
    config = read_json(saved / "config.json")
    write_json(saved / "config.json", config | {key: value})
    with pytest.raises(ModelError):
        load_model(saved)
    write_json(saved / "config.json", config | {"metrics": {"macro_auroc": 1.0}})
    assert load_model(saved).config["metrics"] == {"macro_auroc": 1.0}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *((key, None) for key in ("backbone", "backbone_options", "preparation", "aggregate")),
        *((key, None) for key in ("head_dropout", "weights_sha256")),
        *((key, 3) for key in ("backbone", "backbone_options", "aggregate", "calibration", "sets")),
        *((key, 3) for key in ("id2label", "preparation", "provenance", "descriptions")),
        *((key, "3") for key in ("head_dropout", "calibration", "id2label")),
        ("id2label", {"0": "A", "2": "B"}),
        ("id2label", {"0": "A", "1": 2}),
        ("backbone", "resnet1d_wong"),
        ("backbone_options", {"depth": "deep"}),
        ("preparation", {"leads": ["I"]}),
        ("preparation", {"leads": ["I"], "steps": [3]}),
        ("calibration", {}),
        ("sets", {}),
        ("sets", {"coverage": 0.9, "lowest": [0.5, 2.0], "highest": [0.1, 0.1]}),
        ("calibration", {"temperatures": "x", "biases": [0, 0], "thresholds": [1, 1]}),
    ],
)
def test_entries_of_other_types_are_refused(key: str, value: object, saved: Path) -> None:
    config = read_json(saved / "config.json") | {key: value}
    for damaged in [config] + [{k: v for k, v in config.items() if k != key}] * (value is None):
        write_json(saved / "config.json", damaged | {"digest": config_digest(damaged)})
        with pytest.raises(ModelError) as caught:
            load_model(saved)
        assert str(saved) in caught.value.problem
        assert any(word in caught.value.problem for word in re.findall(r"\w+", f"{key} {value}"))
        assert caught.value.remedy


def test_a_missing_calibration_is_refused(saved: Path) -> None:
    config = read_json(saved / "config.json")
    del config["calibration"]
    write_json(saved / "config.json", config | {"digest": config_digest(config)})
    with pytest.raises(ModelError, match=r"config\.json: calibration\b"):
        load_model(saved)


def test_entries_are_updated_with_their_digest(saved: Path) -> None:
    before = read_config(saved)["digest"]
    update_config(saved, metrics={"a": 1})
    assert read_config(saved)["digest"] == before
    update_config(saved, calibration=None)
    config = read_config(saved)
    assert config["digest"] == config_digest(config) != before
    assert load_model(saved).calibration is None


def test_a_calibration_of_other_labels_is_refused(model: Model) -> None:
    with pytest.raises(ModelError):
        replace(model, calibration=Calibration((1.0,), (0.0,), (0.5,)))


def test_weights_that_were_trained_further_say_so(saved: Path, tmp_path: Path) -> None:
    update_config(saved, metrics={"macro_auroc": 0.9})
    model = load_model(saved)
    with torch.no_grad():
        next(model.network.parameters()).add_(1)
    config = read_config(save_model(model, tmp_path / "trained"))
    assert "metrics" not in config
    assert config["provenance"]["initial_weights"]["sha256"] == read_config(saved)["weights_sha256"]
    assert training_history(config)[0]["cohort"] == "ptb-xl"
    assert config["provenance"]["contains_ptbxl"] is True


def test_provenance_of_unknown_weights_is_unknown() -> None:
    assert derived_provenance(None)["contains_ptbxl"] is False
    assert derived_provenance({})["contains_ptbxl"] is None


@pytest.mark.parametrize(
    ("licences", "use"),
    [
        ((CC_BY_4, SIMULATED), True),
        ((CC_BY_4, OWN_DATA), None),
        ((CC_BY_4, UNKNOWN), None),
        ((OWN_DATA, NON_COMMERCIAL), False),
        ((), None),
    ],
)
def test_licences_are_combined(licences: tuple[Licence, ...], use: bool | None) -> None:
    licence = combined(*licences)
    assert licence.commercial_use is use
    assert all(str(part) in str(licence) for part in licences)
    assert Licence.from_dict(licence.to_dict()) == licence
    assert combined(CC_BY_4, CC_BY_4) == CC_BY_4


def test_non_commercial_models_warn(model: Model, tmp_path: Path) -> None:
    config = {**model.config, **NON_COMMERCIAL.to_dict()}
    save_model(replace(model, config=config), tmp_path / "model")
    with pytest.warns(UserWarning, match="CC-BY-NC"):
        load_model(tmp_path / "model")
    assert read_config(tmp_path / "model")["commercial_use"] is False


def test_training_starts_from_a_model_with_its_config(saved: Path) -> None:
    start = initialisation_of(NAME, saved)
    assert start.options["depth"] == 1
    backbone: Any = load_backbone(NAME, weights=saved)
    assert backbone.config.width == 32
    with pytest.raises(WeightsError):
        load_backbone("s4_tiny", weights=saved)


def test_models_of_the_hub_are_downloaded(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = []

    def snapshot_download(**request: Any) -> str:
        requests.append(request)
        return str(saved)

    hub = ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.chdir(tmp_path)
    assert load_model("owner/some-model", revision="main").labels == ("A", "B")
    assert requests[0]["repo_id"] == "owner/some-model"
    assert not is_model("owner/some-model")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError) as caught:
        model_path("owner/some-model")
    assert "einthoven[hub]" in caught.value.remedy


def test_the_config_is_plain_json_in_the_form_of_the_hub(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "einthoven"
    assert config["id2label"] == {"0": "A", "1": "B"}
    assert config["license"] == "CC-BY-4.0"
    card = (saved / "README.md").read_text()
    assert 'license: "cc-by-4.0"' in card.split("---\n")[1]


def test_representations_are_short(synthetic: Cohort, synthetic_store: Store) -> None:
    model = load_model()
    table = predict_cohort(model, synthetic, synthetic_store, "test", some_labels=True)
    score = score_predictions(table, resamples=0)
    result = RunResult(RunFolder(Path("runs/first")), score)
    for value, content in (
        (model, f"einthoven-small.*{model.labels[0]}.*I II III.*{model.preparation.rate:g} Hz"),
        (synthetic, f"{len(synthetic)} records.*{len(synthetic.labels)} labels"),
        (synthetic_store, f"{len(synthetic_store)} records"),
        (table, f"{len(table)} records.*{table.labels[0]}"),
        (result, rf"runs/first.*{score.macro_auroc:.4f}"),
    ):
        assert len(repr(value)) < 300
        assert re.search(content, repr(value))
