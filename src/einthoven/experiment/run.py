"""One experiment, from a recipe to an evaluated model.

Training can be resumed at any step, prediction by split. The test split is predicted once; a run
whose predictions exist is not predicted again. Prediction tables are uncalibrated; the calibration
fitted on the validation table is part of the model, which applies it in later predictions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from einthoven.cohorts.cohort import Cohort
from einthoven.errors import CohortError
from einthoven.evaluate.estimate import Plan
from einthoven.evaluate.scores import Score, score_predictions
from einthoven.experiment.evaluation import (
    evaluation_of,
    fitted_calibration,
    reusable_part,
    write_evaluation,
)
from einthoven.files import Json, read_lines, write_json
from einthoven.licences import Licence, combined
from einthoven.models import (
    Model,
    derived_provenance,
    is_model,
    read_config,
    save_model,
    update_config,
)
from einthoven.models.provenance import PTB_XL
from einthoven.predict import predict_cohort
from einthoven.predictions import Predictions
from einthoven.predictions.calibration import Calibration
from einthoven.progress import Progress
from einthoven.signals.store import Store
from einthoven.stages.leakage import check_duplicates
from einthoven.stages.posttrain import Posttrained, posttrain
from einthoven.stages.recipe import Recipe
from einthoven.training.distributed import Processes
from einthoven.training.run import RunFolder
from einthoven.weights.public import config_of_weights

METRICS, MODEL, PREDICTIONS = "metrics.json", "model", "predictions"
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Finished:
    """A finished experiment: its folder and its scores on the test split."""

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
    allow_leakage: bool = False,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Finished | None:
    """Post-train by a recipe, predict validation and test, calibrate, score, write the model.

    Parameters are those of `posttrain`; `allow_leakage` also allows recordings in two splits.
    `resamples` is the number of bootstrap resamples. If there are several processes, only the main
    one continues after training; the others return None.

    Raises
    ------
    CohortError
        If validation or test has no records or no label that can be scored on them, or a recording
        is in two splits.
    EinthovenError
        If training, prediction or scoring is refused.
    """
    processes = processes or Processes()
    _check(cohort, store, resamples=resamples, allow_leakage=allow_leakage)
    trained = posttrain(
        cohort,
        store,
        backbone,
        recipe=recipe,
        out=out,
        weights=weights,
        options=options,
        allow_leakage=allow_leakage,
        processes=processes,
        progress=progress,
    )
    if not processes.is_main:
        return None
    folder, device = trained.run.path, processes.device
    model = model_of(trained, cohort, recipe)
    tables = predict_splits(model, cohort, store, folder, device=device, progress=progress)
    scores = score_splits(tables, resamples=resamples)
    metrics = _metrics(trained, scores, device)
    model = _write_model(model, folder / MODEL, tables["validation"], scores["test"])
    _write_evaluation(model, folder / MODEL, cohort, tables["test"], metrics, resamples)
    write_json(folder / METRICS, metrics)  # last: it makes the run complete
    return Finished(trained.run, scores["test"])


def predict_splits(
    model: Model,
    cohort: Cohort,
    store: Store,
    folder: Path,
    *,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Predictions]:
    """Write uncalibrated predictions of validation and test to `folder/predictions` and read them.

    A table that exists is not predicted again.
    """
    for split in SPLITS:
        file = folder / PREDICTIONS / f"{split}.parquet"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            predict_cohort(
                model,
                cohort,
                store,
                split,
                calibrated=False,
                device=device,
                progress=progress,
            ).save(file)
    return read_splits(folder)


def read_splits(folder: Path) -> dict[str, Predictions]:
    """Prediction tables of a run folder, by split."""
    return {split: Predictions.load(folder / PREDICTIONS / f"{split}.parquet") for split in SPLITS}


def score_splits(tables: Mapping[str, Predictions], *, resamples: int) -> dict[str, Score]:
    """Scores of prediction tables, by split."""
    return {split: score_predictions(table, resamples=resamples) for split, table in tables.items()}


def parameters_of(network: nn.Module) -> int:
    """Number of parameters, without running statistics."""
    return sum(parameter.numel() for parameter in network.parameters())


def _check(cohort: Cohort, store: Store, *, resamples: int, allow_leakage: bool) -> None:
    """Refuse before training what could not be scored after it."""
    Plan(resamples=resamples)
    usable = cohort.select(store.without_quarantined(cohort.ids()))
    for split in SPLITS:
        _check_split(usable, split)
    check_duplicates((usable, store), allow=allow_leakage)


def _check_split(cohort: Cohort, split: str) -> None:
    targets = cohort.targets(split)
    if not len(targets):
        raise CohortError(
            f"{cohort.name}: no records in {split}",
            remedy=f"write `{split}` into the `split` column of some patients, or add patients",
        )
    positives = targets.sum(axis=0)
    if not ((positives > 0) & (positives < len(targets))).any():
        raise CohortError(
            f"{cohort.name}: none of {targets.shape[1]} labels has both positives and negatives "
            f"among the {len(targets)} {split} records",
            remedy="use a larger cohort, or folds stratified by label",
        )


def model_of(trained: Posttrained, cohort: Cohort, recipe: Recipe) -> Model:
    """Trained classifier as a model, with its provenance and licence."""
    request = trained.run.request
    weights = request["weights"]
    terms = [cohort.licence, *([Licence.from_dict(weights)] if weights else [])]
    return Model(
        trained.classifier,
        trained.data.preparation,
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
        "leakage": request.get("leakage"),
        "selected_epoch": {name: result.best_epoch for name, result in trained.results.items()},
        "environment": trained.run.environment,
    }


def _metrics(trained: Posttrained, scores: Mapping[str, Score], device: torch.device) -> Json:
    return {
        **{split: score.to_dict() for split, score in scores.items()},
        "seconds": round(_training_seconds(trained.run.path), 1),
        "parameters": parameters_of(trained.classifier),
        "device": _device_name(device),
    }


def _write_model(model: Model, folder: Path, validation: Predictions, test: Score) -> Model:
    """Write the model with its calibration and headline metrics; update metrics if it exists."""
    metrics = {
        "macro_auroc": test.macro_auroc,
        "macro_auroc_interval": test.macro_auroc_interval,
        "macro_auprc": test.macro_auprc,
        "macro_auprc_interval": test.macro_auprc_interval,
        "records": test.records,
        "defined_labels": test.defined_labels,
    }
    entries = fitted_calibration(validation)
    calibration = Calibration(**entries.pop("calibration"))
    config = model.config | entries | {"metrics": metrics}
    model = replace(model, calibration=calibration, config=config)
    if is_model(folder):
        update_config(folder, metrics=metrics)
    else:
        save_model(model, folder)
    return replace(model, config=read_config(folder))


def _write_evaluation(
    model: Model, folder: Path, cohort: Cohort, test: Predictions, metrics: Json, resamples: int
) -> None:
    evaluation = evaluation_of(
        model,
        cohort,
        test,
        score=metrics["test"],
        validation=metrics["validation"],
        resamples=resamples,
    )
    evaluation["robustness"] = reusable_part(folder, evaluation, "robustness")
    write_evaluation(folder, evaluation)


def _training_seconds(folder: Path) -> float:
    """Time of all stages, all learning rates that were tried, and cached features."""
    files = [*folder.glob("**/metrics.jsonl"), *folder.glob("**/seconds.jsonl")]
    lines = [entry for file in files for entry in read_lines(file)]
    return float(sum(line["seconds"] + line.get("validation_seconds", 0.0) for line in lines))


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"
