"""The final training of a small cohort, on training and validation records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts import Cohort
from einthoven.evaluate import fit_calibration
from einthoven.experiment.refit import REFIT, joint_policy, refit_recipe
from einthoven.experiment.run import run_experiment
from einthoven.files import read_json, read_lines, write_json, write_tensors
from einthoven.inference import predict_cohort
from einthoven.models import load_model
from einthoven.predictions import Predictions
from einthoven.signals.store import Store
from einthoven.stages.leakage import find_leakage, read_fingerprints
from einthoven.stages.posttrain import GAIN
from einthoven.stages.probe import out_of_fold_probabilities
from einthoven.stages.recipe import Data, Recipe, Stage1, Stage2
from einthoven.training.distributed import Processes

TINY: dict[str, Any] = {"depth": 1, "width": 32, "heads": 1}
DATA = Data(crop_seconds=2.5, evaluation_crops=2, augmentation="none")


@pytest.mark.parametrize(
    ("falls", "epochs"),
    [
        ((0.02, -0.005, 0.01), 3),  # 0.0083 in the mean, standard error 0.0058
        ((0.02, -0.02, 0.01), None),
        ((-0.01, -0.01, 0.05), 3),  # most folds kept the probe, all records together gain
        (None, 3),
    ],
)
def test_fine_tuning_is_trained_if_it_gains_on_all_records_together(
    falls: tuple[float, ...] | None, epochs: int | None, tmp_path: Path
) -> None:
    recipe = Recipe(
        name="r",
        refit="always",
        stage1=Stage1(),
        stage2=Stage2(epochs=50, warmup_epochs=5, min_steps=500, select="auto", keep="auto"),
    )
    folders = [tmp_path / str(number) for number in range(3)]
    selections = [
        {
            "recipe": {"stage1": {"solver": "logistic"}},
            "selected_epoch": {"stage1": 1, "stage2": 2 + number},
        }
        for number in range(3)
    ]
    for folder, gain in zip(folders, falls or (), strict=falls is not None):
        write_json(folder / "stage2" / GAIN, {"gain": gain, "standard_error": 0.01, "records": 40})
    final = refit_recipe(recipe, selections, folders)
    assert final.stage1 is not None
    assert (final.stage1.solver, final.refit) == ("logistic", "never")
    assert not final.uses_validation
    assert (final.stage2.epochs if final.stage2 else None) == epochs
    if final.stage2 and epochs:
        assert (final.stage2.keep, final.stage2.select, final.stage2.min_steps) == (
            "always",
            "last",
            0,
        )
        assert final.stage2.warmup_epochs == pytest.approx(epochs / 10)  # 5 of 50 epochs
    without = [{**s, "selected_epoch": {"stage1": 1}} for s in selections]
    assert refit_recipe(recipe, without, folders).stage2 is None


def run(cohort: Cohort, store: Store, folder: Path, **recipe: Any) -> Path:
    encoder = folder / "encoder"
    if not encoder.is_file():
        network = create_backbone("mtecg_tiny_100hz", seed=0, init="pretraining", **TINY)
        write_tensors(encoder, network.state_dict(), {})
    out = folder / "run"
    run_experiment(
        cohort,
        store,
        "mtecg_tiny_100hz",
        recipe=Recipe(name="tiny", precision="fp32", data=DATA, refit="auto", **recipe),
        out=out,
        weights=encoder,
        options=TINY,
        resamples=0,
        processes=Processes("cpu"),
    )
    return out


def test_a_probe_of_a_small_cohort_is_solved_on_all_but_the_test_records(
    synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    out = run(synthetic, synthetic_store, tmp_path, stage1=Stage1())
    model = load_model(out / "model")
    assert read_json(out / "run.json")["request"]["policy"]["refit"] == "always"
    first, final = (
        Predictions.load(out / "predictions" / f"{split}.parquet")
        for split in ("validation", "test")
    )
    expected = predict_cohort(model, synthetic, synthetic_store, "test", calibrated=False)
    assert final.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    again = predict_cohort(model, synthetic, synthetic_store, "validation", calibrated=False)
    # The validation predictions are those of a model that has not seen these records.
    assert np.abs(first.probabilities - again.probabilities).max() > 1e-3

    seen = read_fingerprints(out / "model")
    assert find_leakage(seen, (synthetic, synthetic_store), "test") is None
    assert find_leakage(seen, (synthetic, synthetic_store), "validation") is not None

    splits = np.isin(synthetic.table["split"], ["train", "validation"])
    fitted = synthetic.select(splits)
    left_out = out_of_fold_probabilities(out / REFIT / "stage1")
    assert left_out is not None
    table = Predictions(
        labels=synthetic.labels,
        records=fitted.ids(),
        patients=fitted.patients(),
        targets=fitted.targets(),
        probabilities=left_out,
    )
    assert model.calibration == fit_calibration(table)
    assert model.config["calibration_fit"]["records"] == len(fitted)
    provenance = model.config["provenance"]
    assert provenance["cohort"]["training_records"] == len(fitted)
    (line,) = read_lines(out / REFIT / "stage1" / "logistic" / "metrics.jsonl")
    assert provenance["penalty"] == line["penalty"]
    assert {entry["key"]: entry["value"] for entry in provenance["policy"]} == {
        "stage1.solver": "logistic",
        "refit": "always",
    }
    assert all(re.search(r"\d", entry["reason"]) for entry in provenance["policy"])
    assert {"stage1.base_lr", "data.augmentation"} <= set(provenance["without_effect"])


def test_decisions_of_several_trainings_are_stated_once() -> None:
    probe = {"key": "stage2", "value": "none", "reason": "499 records"}
    tuned = {"key": "stage2", "value": "discarded", "reason": "no gain"}
    refit = {"key": "refit", "value": "always", "reason": "few"}
    policies = [[probe, refit], [tuned, refit], [{**probe, "reason": "498 records"}, refit]]
    assert joint_policy([{"policy": policy} for policy in policies]) == [
        {**probe, "folds": [1, 3]},
        {**refit, "folds": [1, 2, 3]},
        {**tuned, "folds": [2]},
    ]


def test_fine_tuning_lasts_as_many_epochs_as_were_selected(
    synthetic: Cohort, synthetic_store: Store, tmp_path: Path
) -> None:
    tuning = Stage2(epochs=3, batch_size=16, base_lr=1e-2, warmup_epochs=1, select="best")
    out = run(synthetic, synthetic_store, tmp_path, stage2=tuning)
    model = load_model(out / "model")
    epoch = model.config["provenance"]["selected_epoch"]["stage2"]
    recipe = read_json(out / REFIT / "run.json")["request"]["recipe"]
    assert (recipe["stage2"]["epochs"], recipe["stage2"]["select"]) == (epoch, "last")
    lines = read_lines(out / REFIT / "stage2" / "metrics.jsonl")
    assert len(lines) == epoch
    assert model.config["calibration_fit"]["split"] == "validation"
    # Its threshold is its own: the validation records are predicted, not learned.
    table = Predictions.load(out / "predictions" / "validation.parquet")
    expected = predict_cohort(model, synthetic, synthetic_store, "validation", calibrated=False)
    assert table.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    assert (
        find_leakage(read_fingerprints(out / "model"), (synthetic, synthetic_store), "test") is None
    )
    # Stage 2 on another cohort: no out-of-fold predictions to calibrate by.
    assert out_of_fold_probabilities(out / REFIT / "stage1") is None
