"""One experiment from a recipe to its evaluation: train, bundle, predict, score.

The test split is predicted once, after training has ended; a run whose test predictions exist is
never evaluated again. A run's tables hold what the network says; the calibration that is fitted on
the validation table goes into the bundle, which applies it to whatever it predicts later.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import CohortError
from einthoven.evaluate.estimate import Plan
from einthoven.evaluate.scores import Score, score_predictions, suitable_policy
from einthoven.experiment.evaluation import (
    evaluation_of,
    fitted_calibration,
    reusable_part,
    write_evaluation,
)
from einthoven.files import read_lines, write_json
from einthoven.licences import Licence, combined
from einthoven.models import (
    Model,
    derived_provenance,
    is_model,
    load_model,
    save_model,
    update_config,
)
from einthoven.models.provenance import PTB_XL
from einthoven.predict import predict_cohort
from einthoven.predictions import Predictions
from einthoven.progress import Progress
from einthoven.signals.fingerprint import signal_fingerprints
from einthoven.signals.store import Store
from einthoven.stages.leakage import LeakageWarning
from einthoven.stages.posttrain import Posttrained, posttrain
from einthoven.stages.recipe import Recipe
from einthoven.training.distributed import Processes
from einthoven.training.run import RunFolder
from einthoven.weights.public import config_of_weights

__all__ = [
    "METRICS",
    "MODEL",
    "PREDICTIONS",
    "Finished",
    "model_of",
    "parameters_of",
    "predict_splits",
    "run_experiment",
    "score_predictions",
    "score_splits",
    "suitable_policy",
]

METRICS, MODEL, PREDICTIONS = "metrics.json", "model", "predictions"


@dataclass(frozen=True)
class Finished:
    """A finished experiment: its folder and its numbers on the test split."""

    run: RunFolder
    test: Score


def run_experiment(
    cohort: Cohort,
    store: Store,
    backbone: str,
    *,
    recipe: Recipe,
    out: str | Path,
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    resamples: int = 1000,
    allow_overlap: bool = False,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Finished | None:
    """Post-train by a recipe, write the bundle, predict validation and test, calibrate, score.

    Parameters are those of `posttrain`; `allow_overlap` allows recordings in two splits as well.
    `resamples` is the bootstrap's. Among several processes only the main one goes on after
    training; the others return None.

    Raises
    ------
    CohortError
        When validation or test has no records, or no label that can be scored on them, or one
        recording is in two splits.
    EinthovenError
        Whatever else training, prediction or scoring refuses.
    """
    Plan(resamples=resamples)
    together = processes or Processes()
    usable = cohort.select(store.without_quarantined(cohort.ids()))
    _check(usable, store, allow_overlap=allow_overlap)
    trained = posttrain(
        cohort,
        store,
        backbone,
        recipe=recipe,
        out=out,
        weights=weights,
        options=options,
        allow_overlap=allow_overlap,
        processes=together,
        progress=progress,
    )
    if not together.is_main:
        return None
    folder = trained.run.path
    if not is_model(folder / MODEL):
        save_model(model_of(trained, cohort, recipe), folder / MODEL)
    bundle = load_model(folder / MODEL)
    predict_splits(bundle, cohort, store, folder, device=together.device, progress=progress)
    if bundle.calibration is None:
        validation = Predictions.load(folder / PREDICTIONS / "validation.parquet")
        update_config(folder / MODEL, **fitted_calibration(validation))
    return _scored(trained, cohort, resamples, device=together.device)


def predict_splits(
    bundle: Model,
    cohort: Cohort,
    store: Store,
    folder: Path,
    *,
    device: torch.device,
    progress: Progress | None = None,
) -> None:
    """Write what a bundle's network says of validation and test into `folder/predictions`; a table
    that is there already stays."""
    for split in ("validation", "test"):
        file = folder / PREDICTIONS / f"{split}.parquet"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            predict_cohort(
                bundle,
                cohort,
                store,
                split,
                calibrated=False,
                device=device,
                progress=partial(progress, f"predict {split}") if progress else None,
            ).save(file)


def _check(cohort: Cohort, store: Store, *, allow_overlap: bool) -> None:
    """Refuse before hours of training what could not be scored after them."""
    for split in ("validation", "test"):
        _check_split(cohort, split)
    _check_recordings(cohort, store, allow=allow_overlap)


def _check_split(cohort: Cohort, split: str) -> None:
    targets = cohort.targets(split)
    if not len(targets):
        raise CohortError(
            f"{cohort.name}: no records in {split}",
            remedy=f"write `{split}` into the `split` column of some patients, or bring more of "
            "them",
        )
    positives = targets.sum(axis=0)
    if not ((positives > 0) & (positives < len(targets))).any():
        raise CohortError(
            f"{cohort.name}: none of {targets.shape[1]} labels has both positives and negatives "
            f"among the {len(targets)} {split} records",
            remedy="use a larger cohort, or folds stratified by label",
        )


def _check_recordings(cohort: Cohort, store: Store, *, allow: bool) -> None:
    """One recording under two names, and two patients, would be learned by heart and tested on."""
    known = signal_fingerprints(store, store.rows(cohort.ids()), store.leads)
    table = pd.DataFrame({"signal": known, "split": cohort.table["split"].to_numpy()}, cohort.ids())
    table = table[table["signal"] != 0]
    twice = table[table.groupby("signal")["split"].transform("nunique") > 1].sort_values("signal")
    if len(twice):
        same = twice[twice["signal"] == twice["signal"].iloc[0]]
        named = " and ".join(f"{name!r} ({split})" for name, split in same["split"].items())
        said = (
            f"{cohort.name}: {twice['signal'].nunique()} recordings are in more than one split, "
            f"such as {named}, which are the same sample for sample"
        )
        if allow:
            warnings.warn(f"{said}: results on them are too good", LeakageWarning, stacklevel=3)
            return
        old = (cohort.name, cohort.version) == ("ptb-xl", "1.0.1")
        newer = ", or take PTB-XL 1.0.3, which removed some" if old else ""
        raise CohortError(
            said,
            remedy=f"leave one of each out, or give them one patient{newer}; with --allow-overlap "
            "it is trained all the same",
        )


def model_of(trained: Posttrained, cohort: Cohort, recipe: Recipe) -> Model:
    """The trained classifier as a model, with its provenance and licence."""
    request = trained.run.request
    weights = request["weights"]
    terms = [cohort.licence, *([Licence.from_dict(weights)] if weights else [])]
    return Model(
        trained.classifier,
        trained.preparation,
        aggregate=recipe.data.aggregate,
        config={
            **combined(*terms).to_dict(),
            "descriptions": cohort.descriptions,
            "provenance": _provenance(trained, cohort, recipe),
        },
        fingerprints=trained.fingerprints,
    )


def _provenance(trained: Posttrained, cohort: Cohort, recipe: Recipe) -> dict[str, Any]:
    request = trained.run.request
    weights, public = request["weights"], request.get("public_weights")
    initial = config_of_weights(request["backbone"], weights["path"]) if weights else None
    before = derived_provenance(initial)
    if weights:  # without folders of this machine, because the model is shared
        weights = {"name": Path(weights["path"]).name} | weights
        del weights["path"]
    return {
        "recipe": recipe.model_dump(mode="json"),
        "cohort": {
            "name": cohort.name,
            "version": cohort.version,
            "task": cohort.task,
            "digest": cohort.digest,
            "synthetic": cohort.is_synthetic,
            "training_records": len(trained.data.usable.ids("train")),
        },
        "initial_weights": weights,
        **before,
        "public_weights": public,
        "contains_ptbxl": True if cohort.name == PTB_XL else before["contains_ptbxl"],
        "overlap": request.get("overlap"),
        "selected_epoch": {name: result.best_epoch for name, result in trained.results.items()},
        "environment": trained.run.environment,
    }


def _scored(
    trained: Posttrained, cohort: Cohort, resamples: int, *, device: torch.device
) -> Finished:
    folder = trained.run.path
    scores = score_splits(folder, resamples=resamples)
    numbers: dict[str, Any] = {name: found.to_dict() for name, found in scores.items()}
    numbers["seconds"] = round(_trained_seconds(trained), 1)
    numbers["parameters"] = parameters_of(trained.classifier)
    numbers["device"] = _named_device(device)
    write_json(folder / METRICS, numbers)
    update_config(folder / MODEL, metrics=_headline(scores["test"]))
    evaluation = evaluation_of(
        load_model(folder / MODEL),
        cohort,
        Predictions.load(folder / PREDICTIONS / "test.parquet"),
        score=numbers["test"],
        validation=numbers["validation"],
        resamples=resamples,
    )
    evaluation["robustness"] = reusable_part(folder / MODEL, evaluation, "robustness")
    write_evaluation(folder / MODEL, evaluation)
    return Finished(trained.run, scores["test"])


def parameters_of(network: nn.Module) -> int:
    """Numbers that training may change; running statistics are none of them."""
    return sum(parameter.numel() for parameter in network.parameters())


def _named_device(device: torch.device) -> str:
    # Without it a time means nothing.
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def score_splits(folder: Path, *, resamples: int) -> dict[str, Score]:
    """Scores of the two tables of a run folder, by split."""
    tables = {
        split: Predictions.load(folder / PREDICTIONS / f"{split}.parquet")
        for split in ("validation", "test")
    }
    return {split: score_predictions(table, resamples=resamples) for split, table in tables.items()}


def _trained_seconds(trained: Posttrained) -> float:
    """Of every stage, every learning rate that was tried, and the cached features."""
    folder = trained.run.path
    files = [*folder.glob("**/metrics.jsonl"), *folder.glob("**/seconds.jsonl")]
    lines = [entry for file in files for entry in read_lines(file)]
    spent = [entry["seconds"] + entry.get("validation_seconds", 0.0) for entry in lines]
    return float(sum(spent))


def _headline(found: Score) -> dict[str, Any]:
    return {
        "macro_auroc": found.macro_auroc,
        "macro_auroc_interval": found.macro_auroc_interval,
        "macro_auprc": found.macro_auprc,
        "macro_auprc_interval": found.macro_auprc_interval,
        "records": found.records,
        "defined_labels": found.defined_labels,
    }
