"""A bundle comes back as it went, or is refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from einthoven import load_bundle
from einthoven.backbones.classifier import create_classifier
from einthoven.backbones.config import fields_of, override
from einthoven.bundle import Bundle, digest_of, read_about, save_bundle, update_bundle
from einthoven.cohorts import Cohort
from einthoven.errors import BackboneError, BundleError
from einthoven.files import read_metadata
from einthoven.predict import predict_record
from einthoven.predictions import Calibration
from einthoven.records import read_record

TINY = {"depth": 1, "width": 32, "heads": 1}
LABELS = ("SR", "AFIB", "NORM")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    classifier = create_classifier("mtecg_tiny_100hz", labels=LABELS, seed=1, **TINY).eval()
    preparation = classifier.preparation.with_window(seconds=2.5).with_evaluation_crops(3)
    about = {"descriptions": {"SR": "sinus rhythm"}, "licence": "none"}
    return Bundle(classifier, LABELS, preparation, aggregate="logit", about=about)


@pytest.fixture
def saved(bundle: Bundle, tmp_path: Path) -> Path:
    return save_bundle(bundle, tmp_path / "bundle", backbone="mtecg_tiny_100hz")


def test_it_predicts_the_same_after_a_round_trip(
    bundle: Bundle, saved: Path, synthetic: Cohort
) -> None:
    record = read_record(synthetic.paths("test")[0])
    loaded = load_bundle(saved)
    assert predict_record(loaded, record).probabilities == (
        predict_record(bundle, record).probabilities
    )
    assert loaded.labels == LABELS
    assert loaded.preparation == bundle.preparation
    assert loaded.aggregate == "logit"
    assert loaded.descriptions == {"SR": "sinus rhythm"}


def test_it_is_ready_to_predict_and_nothing_else(saved: Path) -> None:
    loaded = load_bundle(saved)
    assert not loaded.classifier.training
    assert not any(parameter.requires_grad for parameter in loaded.classifier.parameters())


def test_loading_leaves_the_caller_s_random_state_alone(saved: Path) -> None:
    before = torch.get_rng_state()
    load_bundle(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_reduced_leads_are_part_of_it(tmp_path: Path) -> None:
    options = TINY | {"leads": ("II", "V1")}
    classifier = create_classifier("mtecg_tiny_100hz", labels=LABELS, seed=1, **options)
    bundle = Bundle(classifier, LABELS, classifier.preparation)
    loaded = load_bundle(save_bundle(bundle, tmp_path, backbone="mtecg_tiny_100hz"))
    assert loaded.preparation.leads == loaded.classifier.backbone.leads == ("II", "V1")


def test_it_holds_the_whole_config_and_so_outlives_a_preset(bundle: Bundle, saved: Path) -> None:
    config = bundle.classifier.backbone.config
    options = read_about(saved)["backbone_options"]
    assert options.keys() == fields_of(config).keys()
    assert override(replace(config, depth=7, heads=2), options) == config


def test_what_it_remembers_goes_along(bundle: Bundle, tmp_path: Path) -> None:
    memory = {"seen": "[]", "allowed_overlap": "[]"}
    told = replace(bundle, memory=memory)
    folder = save_bundle(told, tmp_path / "a", backbone="mtecg_tiny_100hz")
    assert load_bundle(folder).memory == memory
    assert read_metadata(folder / "weights.safetensors") == memory | {
        "format": "einthoven-bundle-1"
    }
    assert (
        load_bundle(save_bundle(bundle, tmp_path / "b", backbone="mtecg_tiny_100hz")).memory == {}
    )


def test_entries_are_added(saved: Path) -> None:
    update_bundle(saved, metrics={"macro_auroc": 0.9})
    assert read_about(saved)["metrics"] == {"macro_auroc": 0.9}
    assert load_bundle(saved).about["licence"] == "none"


CALIBRATION = Calibration((1.5, 0.8, 1.0), (0.0, 0.1, 0.0), (0.2, 0.5, 1 / 3))


def test_a_calibration_comes_along(bundle: Bundle, tmp_path: Path, synthetic: Cohort) -> None:
    calibrated = replace(bundle, calibration=CALIBRATION)
    folder = save_bundle(calibrated, tmp_path / "new", backbone="mtecg_tiny_100hz")
    loaded = load_bundle(folder)
    assert loaded.calibration == CALIBRATION
    record = read_record(synthetic.paths("test")[0])
    assert predict_record(loaded, record).probabilities == (
        predict_record(calibrated, record).probabilities
    )


def test_a_bundle_without_one_loads_and_may_be_given_one_later(saved: Path) -> None:
    assert "calibration" not in read_about(saved)
    assert load_bundle(saved).calibration is None
    update_bundle(saved, calibration=CALIBRATION.to_dict())
    assert load_bundle(saved).calibration == CALIBRATION


def test_a_calibration_is_not_kept_by_accident(saved: Path, tmp_path: Path) -> None:
    update_bundle(saved, calibration=CALIBRATION.to_dict())
    bare = replace(load_bundle(saved), calibration=None)
    folder = save_bundle(bare, tmp_path / "bare", backbone="mtecg_tiny_100hz")
    assert load_bundle(folder).calibration is None


def test_a_calibration_of_other_labels_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match="a calibration of 1 labels for a bundle of 3"):
        replace(bundle, calibration=Calibration((1.0,), (0.0,), (0.5,)))


def change(key: str, value: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        about = json.loads((folder / "bundle.json").read_text())
        (folder / "bundle.json").write_text(json.dumps(about | {key: value}))

    return damage


def shorten(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / name
        file.write_bytes(file.read_bytes()[:-20])

    return damage


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "weights.safetensors").write_bytes(data)


def earlier(damage: Callable[[Path], None]) -> Callable[[Path], None]:
    """Of a bundle of an earlier version, without a digest."""

    def both(folder: Path) -> None:
        without("digest")(folder)
        damage(folder)

    return both


def without(key: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        about = json.loads((folder / "bundle.json").read_text())
        del about[key]
        (folder / "bundle.json").write_text(json.dumps(about))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, r"weights.safetensors is damaged: SHA-256"),
        (shorten("weights.safetensors"), r"weights.safetensors is damaged: SHA-256"),
        (
            lambda folder: (folder / "weights.safetensors").unlink(),
            "weights.safetensors is missing",
        ),
        (lambda folder: (folder / "bundle.json").unlink(), "no bundle: bundle.json is missing"),
        (shorten("bundle.json"), "bundle.json is damaged"),
        (lambda folder: (folder / "bundle.json").write_bytes(b"\xff\x00"), "is damaged"),
        (lambda folder: (folder / "bundle.json").write_text("[1]"), "format None"),
        (change("format", "einthoven-bundle-99"), "'einthoven-bundle-99', this version reads"),
        (earlier(change("labels", ["SR"])), "weights do not fit"),
        (earlier(change("checksums", {})), "weights.safetensors is damaged"),
        (without("preparation"), "lacks preparation"),
        (earlier(change("calibration", {"temperatures": [1.0]})), "the calibration is damaged"),
        (
            earlier(change("calibration", {**CALIBRATION.to_dict(), "thresholds": [2.0] * 3})),
            "the calibration is damaged: thresholds",
        ),
    ],
)
def test_damage_is_refused(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(saved)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(saved)
    assert "What to do" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", ["AFIB", "SR", "NORM"]),
        ("aggregate", "max"),
        ("backbone", "mtecg_tiny"),
        ("calibration", CALIBRATION.to_dict()),
        ("checksums", {"weights.safetensors": "00" * 32}),
        ("digest", "00" * 32),
        ("digest", None),
    ],
)
def test_a_change_of_what_decides_is_refused(saved: Path, key: str, value: object) -> None:
    change(key, value)(saved)
    for use in (read_about, load_bundle, update_bundle):
        with pytest.raises(BundleError, match="was changed after it was written") as caught:
            use(saved)
    assert "copy the bundle again" in str(caught.value)
    assert "update_bundle" in str(caught.value)


@pytest.mark.parametrize("key", ["preparation", "backbone_options"])
def test_so_is_one_deep_inside(saved: Path, key: str) -> None:
    """The input scaled twice as much."""
    about = json.loads((saved / "bundle.json").read_text())
    if key == "preparation":
        about[key]["steps"][-1]["std"] *= 2
    else:
        about[key]["heads"] = 2
    (saved / "bundle.json").write_text(json.dumps(about))
    with pytest.raises(BundleError, match="preparation, calibration"):
        load_bundle(saved)


def test_a_bundle_of_an_earlier_version_has_no_digest(saved: Path, bundle: Bundle) -> None:
    without("digest")(saved)
    assert load_bundle(saved).labels == bundle.labels
    assert "digest" not in read_about(saved)
    update_bundle(saved, metrics={})
    assert load_bundle(saved).about["digest"] == digest_of(read_about(saved))


def test_what_decides_nothing_may_be_worded_anew(saved: Path) -> None:
    before = read_about(saved)["digest"]
    change("licence", "other terms")(saved)
    change("descriptions", {"SR": "sinus"})(saved)
    assert load_bundle(saved).about["digest"] == before
    update_bundle(saved, labels=["a", "b", "c"])
    assert load_bundle(saved).labels == ("a", "b", "c")
    assert read_about(saved)["digest"] != before


def test_what_this_version_does_not_know_is_refused(saved: Path) -> None:
    earlier(change("backbone", "mtecg_giant"))(saved)
    with pytest.raises(BackboneError, match="mtecg_giant"):
        load_bundle(saved)


def test_a_file_is_no_bundle(saved: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle"):
        load_bundle(saved / "weights.safetensors")


def test_a_bundle_that_was_not_finished_is_none(bundle: Bundle, tmp_path: Path) -> None:
    """`bundle.json` is written last."""
    folder = save_bundle(bundle, tmp_path, backbone="mtecg_tiny_100hz")
    written = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert written.keys() == {"bundle.json", "weights.safetensors"}
    assert written["bundle.json"] >= written["weights.safetensors"]
