"""Public weights that have seen the cohort they are tested on."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from public_names import to_public

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.models import Model, save_model
from einthoven.signals.store import Store
from einthoven.stages.leakage import LeakageWarning, check_public_weights
from einthoven.stages.posttrain import posttrain
from einthoven.stages.recipe import Data, Recipe, Stage1
from einthoven.training.distributed import Processes

TINY = {"width": 32, "depth": 1, "heads": 2, "conv_width": 16, "pos_kernel": 8, "pos_groups": 4}
RECIPE = Recipe(
    name="probe",
    precision="fp32",
    data=Data(crop_seconds=1, evaluation_crops=1, augmentation="none"),
    stage1=Stage1(epochs=1, batch_size=16, warmup_epochs=0),
)


@pytest.fixture
def ptbxl(synthetic: Cohort) -> Cohort:
    """Simulated records under PTB-XL's name."""
    return replace(synthetic, name="ptb-xl")


@pytest.fixture
def public(tmp_path: Path) -> Path:
    torch.save({"model": to_public(create_backbone("ecg_fm", seed=0, **TINY))}, tmp_path / "x.pt")
    return tmp_path / "x.pt"


def test_posttrain_warns_about_public_weights_and_records_it(
    ptbxl: Cohort, synthetic_store: Store, public: Path, tmp_path: Path
) -> None:
    parts: dict[str, Any] = {"recipe": RECIPE, "weights": public, "options": TINY}
    parts |= {"out": tmp_path / "run", "processes": Processes("cpu")}
    with pytest.warns(LeakageWarning, match="ecg_fm"):
        run = posttrain(ptbxl, synthetic_store, "ecg_fm", **parts).run
    record = run.request["public_weights"]
    assert record["cohort"] == "ptb-xl"
    assert "PTB-XL" in record["pretraining_data"]
    # The terms may be recorded differently by a later version: the run is the same.
    file = tmp_path / "run" / "run.json"
    file.write_text(file.read_text().replace('"pretraining_data": "', '"pretraining_data": "now '))
    with pytest.warns(LeakageWarning):
        posttrain(ptbxl, synthetic_store, "ecg_fm", **parts)


def test_public_weights_without_leakage_do_not_warn(
    ptbxl: Cohort, public: Path, tmp_path: Path
) -> None:
    network = create_backbone("ecg_fm", seed=0, **TINY)
    history = [{"cohort": "other", "version": "1", "records": 9}]
    config = {"provenance": {"pretraining": history, "public_weights": None}}
    own = save_model(Model(network, network.preparation, config=config), tmp_path / "own")
    st_mem = tmp_path / "st_mem.pt"
    torch.save({"model": to_public(create_backbone("st_mem_tiny", seed=0, depth=1))}, st_mem)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_public_weights("ecg_fm", None, ptbxl) is None
        elsewhere = check_public_weights("ecg_fm", public, replace(ptbxl, name="cart"))
        unseen = check_public_weights("st_mem_base", st_mem, ptbxl)
        assert check_public_weights("ecg_fm", own, ptbxl) is None
    # Recorded all the same: the model may be evaluated on PTB-XL later.
    assert elsewhere is not None
    assert elsewhere["contains_ptbxl"] is True
    assert unseen is not None
    assert unseen["contains_ptbxl"] is False
    assert "cohort" not in elsewhere | unseen
    with pytest.warns(LeakageWarning):
        assert check_public_weights("ecg_fm", public, ptbxl) is not None


def test_unknown_pretraining_data_warn(ptbxl: Cohort, tmp_path: Path) -> None:
    network = create_backbone("hubert_ecg_small", seed=0, **TINY)
    torch.save(to_public(network), tmp_path / "ssl.pt")
    with pytest.warns(LeakageWarning, match="hubert_ecg_small"):
        record = check_public_weights("hubert_ecg_small", tmp_path / "ssl.pt", ptbxl)
    assert record is not None
    assert record["contains_ptbxl"] is None
    assert record["cohort"] == "ptb-xl"
