"""A model comes back from its folder as it went, or is refused with the reason."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from einthoven import create_backbone, create_classifier, from_pretrained, save_pretrained
from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import backbone_names
from einthoven.bundle import Bundle, save_bundle
from einthoven.cohorts import Cohort
from einthoven.errors import HubError
from einthoven.estimator.encoder import terms_of_encoder
from einthoven.files import read_metadata, write_tensors
from einthoven.licences import is_non_commercial
from einthoven.predict import predict_record
from einthoven.predictions import Calibration
from einthoven.records import read_record
from einthoven.version import __version__
from einthoven.weights import load_backbone, to_public
from einthoven.weights.converted import convert_checkpoint
from einthoven.weights.folder import licence_of_weights
from einthoven.weights.public import PublicData, public_data

TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}
# One of each class of network, as small as its config allows.
SMALL: dict[str, dict[str, Any]] = {
    "st_mem_tiny": {**TINY, "leads": ("II", "V1")},
    "mtecg_tiny_100hz": {**TINY, "window": 500},
    "s4_small": {"width": 8, "depth": 2},
    "ecg_cpc": {"width": 8, "depth": 1, "causal": False, "corrected_tokens": 40},
    "hubert_ecg_small": {**TINY, "conv_width": 16, "pos_groups": 4, "layerdrop": 0.1},
    "ecgfounder_12lead": {"stem_width": 16, "widths": (16, 16), "depths": (1, 1), "use_bn": True},
    "ecg_fm": {**TINY, "conv_width": 16, "pos_groups": 4},
    "fcn_wang": {"widths": (8, 4), "kernels": (8, 3), "standardiser": (-0.1, 0.2)},
    "resnet1d_wang": {"width": 8},
    "xresnet1d50": {"stem_widths": (4, 4, 4), "width": 4, "depths": (1, 2)},
    "inception1d": {"width": 4, "kernels": (9, 3)},
    "lstm": {"width": 8, "bidirectional": True},
    "multiresnet": {"width": 8, "depth": 1, "scales": 3},
    "wavelet_nn": {"width": 8},
    "spacetime": {"width": 8, "depth": 2, "state": 8, "shared": 2},
    "chimera": {"width": 8, "depth": 1, "modes": 2, "features": 8},
    "msw_transformer": {"width": 8, "heads": 2},
}
LABELS = ("NORM", "AFIB", "1°AVB")


def same_tensors(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in ours
    )


def test_every_class_of_network_is_tried() -> None:
    def kinds(names: Any) -> set[type]:
        with torch.device("meta"):
            return {type(create_backbone(name)) for name in names}

    assert kinds(SMALL) == kinds(backbone_names())


@pytest.mark.parametrize("name", SMALL)
def test_a_backbone_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    net = create_backbone(name, seed=1, **SMALL[name]).eval()
    net.fit_statistics([torch.randn(4, len(net.leads), net.preparation.window)])
    state = torch.get_rng_state()
    again = from_pretrained(save_pretrained(net, tmp_path / "model"))
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(again, Backbone)
    assert type(again) is type(net)
    assert same_tensors(net, again)
    assert (again.config, again.leads, again.preparation) == (
        net.config,
        net.leads,
        net.preparation,
    )
    assert not again.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in again.parameters())
    assert not any(buffer.is_meta for buffer in again.buffers())
    assert not any(tensor.data_ptr() % 64 for tensor in again.state_dict().values())
    x = torch.randn(1, len(net.leads), net.preparation.window)
    with torch.no_grad():
        assert torch.equal(net(x), again(x))


@pytest.mark.parametrize("labels", [LABELS, 4])
def test_a_classifier_comes_back_with_its_labels(labels: Any, tmp_path: Path) -> None:
    net = create_classifier(
        "mtecg_tiny_100hz", labels=labels, seed=2, head_dropout=0.25, **TINY
    ).half()
    again = from_pretrained(save_pretrained(net, tmp_path))
    assert isinstance(again, Classifier)
    assert same_tensors(net, again)
    assert again.labels == net.labels
    assert again.head_dropout.p == 0.25
    config = json.loads((tmp_path / "config.json").read_text())
    names = LABELS if labels == LABELS else tuple(f"LABEL_{i}" for i in range(4))
    assert config["id2label"] == {str(i): name for i, name in enumerate(names)}
    assert config["label2id"] == {name: i for i, name in enumerate(names)}


@pytest.fixture
def bundle() -> Bundle:
    net = create_classifier("mtecg_tiny_100hz", labels=LABELS, seed=3, **TINY).eval()
    calibration = Calibration(
        temperatures=(1.5, 0.7, 1.0), biases=(0.1, 0.0, -0.2), thresholds=(0.5, 0.3, 0.9)
    )
    return Bundle(
        net,
        LABELS,
        net.preparation.with_window(seconds=2.5),
        aggregate="max",
        about={"licence": "weights of nobody", "descriptions": {"NORM": "normal ECG"}},
        calibration=calibration,
    )


def test_a_bundle_predicts_the_same(bundle: Bundle, synthetic: Cohort, tmp_path: Path) -> None:
    record = read_record(synthetic.paths("test")[0])
    again = from_pretrained(save_pretrained(bundle, tmp_path))
    assert isinstance(again, Bundle)
    assert predict_record(again, record) == replace(
        predict_record(bundle, record), record=predict_record(again, record).record
    )
    assert (again.about, again.calibration) == (bundle.about, bundle.calibration)
    assert (again.preparation, again.aggregate) == (bundle.preparation, "max")
    assert not any(p.requires_grad for p in again.classifier.parameters())


def test_a_bundle_s_memory_goes_along(bundle: Bundle, tmp_path: Path) -> None:
    told = replace(bundle, memory={"seen": "[]"})
    folder = save_pretrained(told, tmp_path)
    assert read_metadata(folder / "model.safetensors")["seen"] == "[]"
    assert from_pretrained(folder).memory == {"seen": "[]"}  # type: ignore[union-attr]


def test_a_bundle_s_own_folder_is_read_too(bundle: Bundle, tmp_path: Path) -> None:
    folder = save_bundle(bundle, tmp_path, backbone="mtecg_tiny_100hz")
    again = from_pretrained(folder)
    assert isinstance(again, Bundle)
    assert same_tensors(again.classifier, bundle.classifier)


def test_the_card_has_the_hub_s_metadata(bundle: Bundle, tmp_path: Path) -> None:
    net = create_backbone("st_mem_tiny", seed=0, **TINY)

    def metadata(folder: Path) -> Any:
        return yaml.safe_load((folder / "README.md").read_text().split("---")[1])

    card = metadata(save_pretrained(net, tmp_path / "a", licence="cc-by-4.0", tags=["x: [y"]))
    assert card == {
        "license": "cc-by-4.0",
        "library_name": "einthoven",
        "tags": [
            "ecg", "electrocardiogram", "einthoven", "st-mem", "feature-extraction", "x: [y",
        ],
    }  # fmt: skip
    assert metadata(save_pretrained(net, tmp_path / "b"))["license"] == "unknown"
    folder = save_pretrained(bundle, tmp_path / "c")
    assert metadata(folder)["license"] == "other"
    text = (folder / "README.md").read_text()
    assert "Of these weights: weights of nobody" in text
    assert "`1°AVB`" in text
    assert "window of 250 samples" in text


def test_the_folder_says_how_signals_are_prepared(bundle: Bundle, tmp_path: Path) -> None:
    save_pretrained(bundle, tmp_path)
    said = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (said["sampling_rate"], said["window"], said["unit"]) == (100, 250, "mV")
    assert said["steps"] == bundle.preparation.to_dict()["steps"]


def test_what_the_source_says_of_itself_goes_along(tmp_path: Path) -> None:
    net = create_backbone("mtecg_tiny_100hz", seed=0, **TINY)
    about = {"backbone": net.name, "seen": '{"leads": []}', "pretraining_data": "600 simulated"}
    write_tensors(tmp_path / "encoder.safetensors", net.state_dict(), about)
    folder = save_pretrained(net, tmp_path / "model", source=tmp_path / "encoder.safetensors")
    said = read_metadata(folder / "model.safetensors")
    assert said.items() >= about.items()
    assert "600 simulated" in (folder / "README.md").read_text()
    other = load_backbone(net.name, weights=folder / "model.safetensors", **TINY)
    assert same_tensors(net, other)


def test_a_converted_checkpoint_s_card_says_whose_it_was(tmp_path: Path) -> None:
    source = create_backbone("ecg_fm", seed=0, **SMALL["ecg_fm"])
    torch.save({"model": to_public(source)}, tmp_path / "public.pt")
    out = tmp_path / "encoder.safetensors"
    convert_checkpoint("ecg_fm", weights=tmp_path / "public.pt", out=out, **SMALL["ecg_fm"])
    net = load_backbone("ecg_fm", weights=out, **SMALL["ecg_fm"])
    text = (save_pretrained(net, tmp_path / "model", source=out) / "README.md").read_text()
    assert "Converted from the public public.pt (SHA-256 " in text
    assert "Of these weights: MIT" in text
    assert "MIMIC-IV-ECG" in text


def test_a_model_is_replaced_only_when_asked(tmp_path: Path) -> None:
    first, second = (create_backbone("mtecg_tiny_100hz", seed=s, **TINY) for s in (1, 2))
    save_pretrained(first, tmp_path)
    with pytest.raises(HubError, match="holds a model already"):
        save_pretrained(second, tmp_path)
    assert same_tensors(first, from_pretrained(tmp_path))  # type: ignore[arg-type]
    save_pretrained(second, tmp_path, overwrite=True)
    assert same_tensors(second, from_pretrained(tmp_path))  # type: ignore[arg-type]


def test_nothing_is_pickled(tmp_path: Path) -> None:
    net = create_backbone("mtecg_tiny_100hz", seed=1, **TINY)
    folder = save_pretrained(net, tmp_path / "model")
    assert {file.name for file in folder.iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json", "README.md",
    }  # fmt: skip
    assert load_file(folder / "model.safetensors").keys() == net.state_dict().keys()
    torch.save({"x": torch.ones(1)}, folder / "pytorch_model.bin")  # there, and never opened
    (folder / "pytorch_model.bin").chmod(0)
    from_pretrained(folder)


# ---------------------------------------------------------------------- refusals

Damage = Callable[[Path], Any]


def change(key: str, value: Any) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))

    return damage


def without(key: str) -> Damage:
    def damage(folder: Path) -> None:
        file = folder / "config.json"
        kept = {k: v for k, v in json.loads(file.read_text()).items() if k != key}
        file.write_text(json.dumps(kept))

    return damage


def other_preparation(folder: Path) -> None:
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"leads": ["II"]}))


def one_lead(folder: Path) -> None:
    saved = json.loads((folder / "config.json").read_text())["preparation"]
    change("preparation", saved | {"leads": ["II"]})(folder)


def other_weights(folder: Path) -> None:
    save_file({"x": torch.ones(2)}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "is no model: config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is damaged"),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), "config.json is damaged"),
        (lambda f: (f / "config.json").write_text("[1]"), "holds no table"),
        (change("format", "bert"), "format 'bert', this version reads"),
        (without("backbone_options"), "lacks backbone_options"),
        (without("id2label"), "config.json is damaged: KeyError"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (other_weights, "its checksum is another"),
        (change("id2label", {"0": "A", "1": "B"}), "the weights do not fit mtecg_tiny_100hz"),
        (change("backbone_options", {"depth": 1, "width": 16, "heads": 1}), "do not fit"),
        (other_preparation, "name different preparations"),
        (one_lead, "prepares signals for mtecg_tiny_100hz otherwise than version"),
    ],
)  # fmt: skip
def test_damage_is_refused(damage: Damage, message: str, tmp_path: Path) -> None:
    net = create_classifier("mtecg_tiny_100hz", labels=LABELS, seed=2, **TINY)
    save_pretrained(net, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(HubError, match=message) as refusal:
        from_pretrained(tmp_path / "model")
    assert "What to do" in str(refusal.value)


def test_an_unknown_backbone_is_refused(tmp_path: Path) -> None:
    save_pretrained(create_backbone("mtecg_tiny_100hz", seed=0, **TINY), tmp_path)
    change("backbone", "mtecg_giant")(tmp_path)
    with pytest.raises(HubError, match="unknown backbone 'mtecg_giant'") as refusal:
        from_pretrained(tmp_path)
    assert f"the version that saved it, {__version__}" in refusal.value.remedy


def test_an_option_of_a_later_version_is_refused(tmp_path: Path) -> None:
    save_pretrained(create_backbone("mtecg_tiny_100hz", seed=0, **TINY), tmp_path)
    change("backbone_options", {**TINY, "rotary": True})(tmp_path)
    with pytest.raises(HubError, match="unknown option rotary of mtecg_tiny_100hz") as refusal:
        from_pretrained(tmp_path)
    assert "load it with the version that saved it" in refusal.value.remedy


def test_terms_and_what_was_seen_stay_with_the_weights(tmp_path: Path) -> None:
    """They bind, and concern, whoever trains from the folder."""
    net = create_backbone("ecg_fm", seed=0, **SMALL["ecg_fm"])
    bound = save_pretrained(net, tmp_path / "encoder", licence="cc-by-nc-4.0")
    assert is_non_commercial(licence_of_weights("ecg_fm", bound))
    assert terms_of_encoder(bound) == "cc-by-nc-4.0"
    classifier = create_classifier("ecg_fm", labels=LABELS, seed=0, **SMALL["ecg_fm"])
    seen = {"pretraining_data": "a list", "contains_ptbxl": None}
    about = {
        "backbone": "ecg_fm",
        "licence": "own",
        "weights": {"licence": "CC BY-NC 4.0"},
        "public_weights": seen,
    }
    bundle = Bundle(classifier.eval(), LABELS, classifier.preparation, about=about)
    folder = save_pretrained(bundle, tmp_path / "bundle")
    assert is_non_commercial(licence_of_weights("ecg_fm", folder))
    assert public_data("ecg_fm", folder) == PublicData("ecg_fm", "a list", None)
    card = (folder / "README.md").read_text()
    assert "pretrained on: a list. PTB-XL inside: unknown." in card
    assert "non-commercial use only" in card


# ---------------------------------------------------------------------- the hub


def test_a_path_that_is_not_there_is_no_name_on_the_hub(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", "absent", "./absent/model/x"):
        with pytest.raises(HubError, match="is no folder"):
            from_pretrained(path)


def test_a_hub_name_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubError, match=r"huggingface_hub.*is not installed") as refusal:
        from_pretrained("someone/ecg-model")
    assert "einthoven[hub]" in refusal.value.remedy


def test_a_name_is_fetched_without_anything_but_the_four_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net = create_backbone("mtecg_tiny_100hz", seed=1, **TINY)
    cached = save_pretrained(net, tmp_path / "cache")
    asked: dict[str, Any] = {}

    def download(**given: Any) -> str:
        asked.update(given)
        return str(cached)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    again = from_pretrained("someone/ecg-model", revision="abc")
    assert same_tensors(net, again)  # type: ignore[arg-type]
    assert (asked["repo_id"], asked["revision"]) == ("someone/ecg-model", "abc")
    assert sorted(asked["allow_patterns"]) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip


def test_what_cannot_be_fetched_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    def download(**_: Any) -> str:
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(HubError, match="could not be fetched"):
        from_pretrained("someone/ecg-model")


def test_a_local_folder_comes_before_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    net = create_backbone("mtecg_tiny_100hz", seed=1, **TINY)
    save_pretrained(net, "someone/ecg-model")
    assert same_tensors(net, from_pretrained("someone/ecg-model"))  # type: ignore[arg-type]
