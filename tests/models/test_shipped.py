"""The model that comes with einthoven."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import einthoven
from einthoven.cohorts import Cohort, open_cohort
from einthoven.errors import CohortError, ModelError
from einthoven.inference import predict_cohort, predict_record
from einthoven.licences import CC_BY_4
from einthoven.models import (
    SHIPPED,
    config_digest,
    initialisation_of,
    is_model,
    load_model,
    model_path,
    read_config,
)
from einthoven.records import read_record
from einthoven.records.wfdb import write_wfdb
from einthoven.report.data import identity, read_evaluation
from einthoven.signals.pack import pack
from einthoven.stages.leakage import check_initial_weights, find_leakage, read_fingerprints
from einthoven.stages.recipe import load_recipe, prepared_alike

LARGEST = 10_000_000  # bytes


def test_it_is_small_complete_and_calibrated() -> None:
    folder = model_path(SHIPPED)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LARGEST
    assert {file.name for file in folder.iterdir()} == {
        "README.md", "config.json", "curves.svg", "evaluation.json", "model.safetensors",
        "reliability.svg",
    }  # fmt: skip
    model = einthoven.load_model()
    assert len(model.labels) == 71
    assert model.calibration is not None
    assert all(model.descriptions[label] for label in model.labels)
    assert model.licence == CC_BY_4


def test_its_card_has_every_part_and_no_path_of_this_machine() -> None:
    card = (model_path(SHIPPED) / "README.md").read_text()
    for part in ("Macro AUROC", "Calibration", "By sex", "Fewer leads", "Noise"):
        assert part.lower() in card.lower(), part
    text = card + (model_path(SHIPPED) / "config.json").read_text()
    assert "/work/" not in text
    assert "/home/" not in text


def test_checksums_and_evaluation_belong_to_the_model() -> None:
    about, found = read_config(model_path(SHIPPED)), read_evaluation(model_path(SHIPPED))
    assert found is not None
    assert about["digest"] == config_digest(about)
    assert found["measured_on"] == identity(about)


def test_an_offset_of_the_recorder_changes_no_prediction(synthetic: Cohort) -> None:
    model = einthoven.load_model()
    record = read_record(synthetic.paths("test")[0])
    offsets = np.linspace(-2, 2, 12, dtype=np.float32)[:, None]
    moved = replace(record, signal=record.signal + offsets)
    plain, shifted = predict_record(model, record), predict_record(model, moved)
    assert shifted.probabilities == pytest.approx(plain.probabilities, abs=1e-4)
    assert not shifted.warnings


def test_it_holds_fingerprints_of_ptb_xl() -> None:
    """Folds 1 to 8, without labels and with them, and fold 9; never fold 10."""
    assert {part.use: len(part.signals) for part in read_fingerprints(SHIPPED)} == {
        "pretraining": 17_418,
        "training": 17_418,
        "validation": 2_183,
    }


@pytest.mark.parametrize("split", ["train", "test"])
def test_its_records_cannot_become_the_test_of_another_table(
    ptbxl_60: Path, tmp_path: Path, split: str
) -> None:
    """A table of PTB-XL's files: those of folds 1 to 8 are refused, fold 10 is not."""
    public = open_cohort(ptbxl_60)
    lines = ["path,patient,split,AFIB"]
    for place, path in enumerate(public.table["path"]):
        name = "test" if public.table["split"].iloc[place] == split else "train"
        lines.append(f"{path},q{place},{name},{place % 2}")
    (ptbxl_60 / f"own-{split}.csv").write_text("\n".join(lines))
    own = open_cohort(ptbxl_60 / f"own-{split}.csv")
    member = own, pack(own, tmp_path / "store", workers=1)
    weights = model_path(SHIPPED) / "model.safetensors"
    if split == "test":
        assert check_initial_weights(weights, member) is None
        return
    count = len(public.ids("train"))
    with pytest.raises(CohortError, match=rf"{count}\D*pretraining\D*{count}\D*training"):
        check_initial_weights(weights, member)


def test_it_has_seen_records_of_which_eight_leads_are_left(ptbxl_60: Path, tmp_path: Path) -> None:
    public = open_cohort(ptbxl_60)
    eight = ("II", "III", "V1", "V2", "V3", "V4", "V5", "V6")
    frame = pd.DataFrame({"patient": public.patients("train"), "split": "test", "AFIB": 0})
    frame["path"] = [f"{name}.hea" for name in public.ids("train")]
    for name, path in zip(public.ids("train"), public.paths("train"), strict=True):
        record = read_record(path).select(eight)
        write_wfdb(tmp_path / str(name), record.signal, rate=record.rate, leads=eight)
    own = open_cohort(frame, root=tmp_path)
    leakage = find_leakage(read_fingerprints(SHIPPED), (own, pack(own, tmp_path / "s", workers=1)))
    assert leakage is not None
    assert len(leakage.ways["signal"]) == len(frame)


def test_the_test_fold_of_ptb_xl_may_be_scored(ptbxl_60: Path, tmp_path: Path) -> None:
    cohort = open_cohort(ptbxl_60)
    store = pack(open_cohort(ptbxl_60, empty_rows="keep"), tmp_path / "store", workers=1)
    assert len(cohort.ids("test"))
    assert check_initial_weights(model_path(SHIPPED) / "model.safetensors", (cohort, store)) is None


def test_a_folder_of_the_same_name_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_path(SHIPPED) != Path(SHIPPED)
    assert is_model(SHIPPED)
    assert not is_model("other")
    (tmp_path / SHIPPED).mkdir()
    assert model_path(SHIPPED) == Path(SHIPPED)
    assert not is_model(SHIPPED)


def test_training_starts_from_it() -> None:
    start = initialisation_of(SHIPPED)
    assert start.weights == model_path(SHIPPED)
    assert initialisation_of(SHIPPED, random=True).weights is None
    assert initialisation_of("mtecg_tiny", "some.pt") == type(start)("mtecg_tiny", "some.pt")
    # The config of a model is used with its weights, if they are of that backbone.
    assert initialisation_of("s4_small", SHIPPED) == start
    assert initialisation_of("s4_small", str(model_path(SHIPPED))) == start
    assert initialisation_of("s4_tiny", SHIPPED) == type(start)("s4_tiny", start.weights)
    assert start.centred
    assert initialisation_of(SHIPPED, random=True).centred
    with pytest.raises(ModelError, match="some"):
        initialisation_of(SHIPPED, "some.pt")
    with pytest.raises(ModelError, match="einthoven-large"):
        model_path("einthoven-large")


def test_its_encoder_is_that_of_its_classifier() -> None:
    start = initialisation_of(SHIPPED)
    assert start.weights is not None
    encoder = einthoven.load_backbone(start.backbone, weights=start.weights, **start.options)
    inside = load_model(SHIPPED).classifier.backbone.state_dict()
    assert all((encoder.state_dict()[key] == value).all() for key, value in inside.items())


def test_leads_are_centred_as_in_the_initial_model_unless_the_recipe_decides() -> None:
    default = load_recipe("post-training")
    assert prepared_alike(default, centred=True).data.centre
    assert prepared_alike(default, centred=False) == default
    explicit = load_recipe("post-training", ["data.centre=false"])
    assert prepared_alike(explicit, centred=True) == explicit


@pytest.mark.slow
def test_the_numbers_of_its_card_are_reproduced(shared: Path, tmp_path: Path) -> None:
    """All of fold 10 is predicted again."""
    unpack = shared / "data" / "ptbxl" / "unpack.py"
    subprocess.run([sys.executable, unpack, tmp_path / "data"], check=True, capture_output=True)
    cohort = open_cohort(tmp_path / "data")
    store = pack(cohort, tmp_path / "store", workers=2)
    found = predict_cohort(load_model(SHIPPED), cohort, store, "test")
    score = einthoven.evaluate.score(
        found.targets, found.probabilities, labels=found.labels, resamples=0
    )
    kept = read_evaluation(model_path(SHIPPED))
    assert kept is not None
    assert score.records == kept["score"]["records"] == 2198
    assert score.macro_auroc == pytest.approx(kept["score"]["macro_auroc"], abs=5e-4)
    assert score.macro_auprc == pytest.approx(kept["score"]["macro_auprc"], abs=2e-3)
