"""Terms that forbid commercial use reach whatever is made of the weights that carry them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from einthoven.backbones.registry import catalogue, create_backbone, entry
from einthoven.bundle import CARD, load_bundle
from einthoven.cohorts import Cohort
from einthoven.errors import WeightsError
from einthoven.estimator.encoder import terms_of_encoder
from einthoven.experiment.run import run_experiment
from einthoven.files import read_json, write_json
from einthoven.licences import LicenceWarning, is_non_commercial, joined, terms_of
from einthoven.report import write_report
from einthoven.signals.store import Store
from einthoven.stages.recipe import load_recipe
from einthoven.training.distributed import Processes
from einthoven.weights import to_public
from einthoven.weights.converted import convert_to_folder
from einthoven.weights.folder import licence_of_weights

NAME = "st_mem_tiny"
TINY: dict[str, Any] = {"depth": 1, "width": 24, "heads": 2}
NC = str(entry("st_mem_base").licence)
SHORT = (
    "precision=fp32", "data.crop_seconds=2.4", "data.evaluation_crops=1", "stage2.epochs=1",
    "stage2.batch_size=16", "data.augmentation=none", "stage2.warmup_epochs=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted public checkpoint under non-commercial terms."""
    folder = tmp_path_factory.mktemp("licence")
    torch.save({"model": to_public(create_backbone(NAME, seed=0, **TINY))}, folder / "public.pth")
    bound = replace(entry(NAME), licence=entry("st_mem_base").licence)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue(), NAME, bound)
        convert_to_folder(NAME, weights=folder / "public.pth", out=folder / "encoder", **TINY)
    return folder / "encoder"


@pytest.fixture(scope="module")
def run(
    encoder: Path,
    synthetic: Cohort,
    synthetic_store: Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Post-trained from it."""
    out = tmp_path_factory.mktemp("licence") / "run"
    with pytest.warns(LicenceWarning, match="non-commercial use only"):
        run_experiment(
            synthetic,
            synthetic_store,
            NAME,
            recipe=load_recipe("fine-tuning", list(SHORT)),
            out=out,
            weights=encoder,
            options=TINY,
            resamples=0,
            processes=Processes("cpu"),
        )
    return out


def test_what_forbids_commercial_use() -> None:
    assert is_non_commercial("CC BY-NC 4.0")
    assert is_non_commercial("for Non-Commercial use")
    for spelt in ("cc by nc 4.0", "CC-BY-NC-SA-4.0", "NonCommercial", "non commercial research"):
        assert is_non_commercial(spelt)
    assert not is_non_commercial("CC BY 4.0")
    assert not is_non_commercial("MIT for the code")
    assert not is_non_commercial(None)
    named = {name for name in catalogue() if is_non_commercial(entry(name).weights_licence)}
    assert {"st_mem_base", "hubert_ecg_base"} <= named
    assert "ecg_fm" not in named


def test_terms_are_joined_once() -> None:
    assert joined("own", None) == joined("own", "MIT") == "own"
    both = joined("own", NC)
    assert both == f"own; begun from weights under {NC}: this model is for non-commercial use only"
    assert terms_of({"licence": "own", "weights": {"licence": NC}}) == both
    assert terms_of({"licence": both, "weights": {"licence": NC}}) == both
    assert terms_of({"licence": "own", "weights": None}) == "own"
    assert is_non_commercial(terms_of({"weights": {"licence": NC}}))
    assert terms_of({}) == ""


def test_run_bundle_card_and_report_repeat_the_terms(run: Path, synthetic: Cohort) -> None:
    asked = json.loads((run / "run.json").read_text())["request"]
    assert asked["weights"]["licence"] == NC
    assert asked["weights"]["path"].endswith("weights.safetensors")
    with pytest.warns(LicenceWarning, match="VUNO"):
        bundle = load_bundle(run / "bundle")
    assert is_non_commercial(bundle.licence)
    assert "simulated ECGs" in bundle.licence
    assert bundle.about["weights"]["licence"] == NC
    page = write_report([run], run / "report.html", cohort=synthetic)
    assert "Not for commercial use." in page.read_text()
    card = (run / "bundle" / CARD).read_text()
    assert "**Not for commercial use.**" in card
    assert "CC-BY-NC" in card


def test_what_is_made_of_such_a_bundle_is_bound_too(run: Path, tmp_path: Path) -> None:
    assert is_non_commercial(licence_of_weights(NAME, run / "bundle"))
    assert is_non_commercial(licence_of_weights(NAME, run / "bundle" / "weights.safetensors"))
    best = next((run / "stage2").glob("*.safetensors"))
    assert licence_of_weights(NAME, best) == NC
    # A file on its own says nothing, and is nobody else's.
    shutil.copy(run / "bundle" / "weights.safetensors", tmp_path / "x.safetensors")
    assert licence_of_weights(NAME, tmp_path / "x.safetensors") == ""


def test_an_older_run_of_the_same_request_goes_on(
    run: Path, encoder: Path, synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    """What the catalogue says of the weights is no part of the request."""
    older = shutil.copytree(run, tmp_path / "run")
    about = read_json(older / "run.json")
    del about["request"]["weights"]["licence"]
    write_json(older / "run.json", about)
    with pytest.warns(LicenceWarning):
        run_experiment(
            synthetic, synthetic_store, NAME, recipe=load_recipe("fine-tuning", list(SHORT)),
            out=older, weights=encoder, options=TINY, resamples=0, processes=Processes("cpu"),
        )  # fmt: skip


def test_public_files_are_under_the_catalogue_s_terms(encoder: Path, tmp_path: Path) -> None:
    public = encoder.parent / "public.pth"
    assert licence_of_weights("st_mem_base", public) == NC
    assert licence_of_weights("mtecg_tiny_100hz", public) == ""  # none are public
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="in this folder"):
        licence_of_weights(NAME, tmp_path / "empty")


def test_an_estimator_s_encoder_has_terms(run: Path, encoder: Path) -> None:
    assert terms_of_encoder(NAME, encoder) == NC
    assert terms_of_encoder(encoder / "weights.safetensors") == NC
    assert is_non_commercial(terms_of_encoder(run / "bundle"))
    with pytest.warns(LicenceWarning):
        assert is_non_commercial(terms_of_encoder(load_bundle(run / "bundle")))
    assert terms_of_encoder(NAME) == terms_of_encoder(None) == ""
    assert terms_of_encoder(create_backbone(NAME, seed=0, **TINY)) == ""
