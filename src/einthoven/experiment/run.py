"""One experiment, from a recipe to an evaluated model.

Training can be resumed at any step, prediction by split. The test split is predicted once; a run
whose predictions exist is not predicted again. Prediction tables are uncalibrated; the calibration
is part of the model, which applies it in later predictions.

If the recipe trains the model again on training and validation records, the validation predictions
are those of the first training and the test predictions those of the final model. The calibration
is fitted on the validation predictions, or, if the final model is a logistic regression, on its
out-of-fold predictions of training and validation records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from einthoven.backbones.registry import preparation_of
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import CohortError
from einthoven.evaluate.estimate import BootstrapSettings
from einthoven.evaluate.measures import ValueScore
from einthoven.evaluate.scores import Score, score_predictions
from einthoven.experiment.evaluation import (
    evaluation_of,
    fitted_entries,
    reusable_part,
)
from einthoven.experiment.population import population
from einthoven.experiment.refit import REFIT, refit_recipe
from einthoven.files import HISTORY_FILE, METRICS_FILE, Json, read_lines, write_json
from einthoven.inference import predict_cohort
from einthoven.licences import Licence, combined
from einthoven.models import (
    Model,
    derived_provenance,
    is_model,
    read_config,
    save_model,
    update_config,
    write_evaluation,
)
from einthoven.models.provenance import PTB_XL
from einthoven.predictions import Predictions
from einthoven.predictions.calibration import read_calibration
from einthoven.predictions.sets import read_sets
from einthoven.predictions.table import run_table, table_file
from einthoven.progress import Progress, part_of
from einthoven.report.format import counted
from einthoven.signals.batches import TOO_SHORT, long_enough
from einthoven.signals.preparation import Preparation
from einthoven.signals.store import Store, check_amplitude
from einthoven.stages.data import adapt_preparation
from einthoven.stages.leakage import check_duplicates, joined_duplicates
from einthoven.stages.posttrain import PosttrainResult, posttrain
from einthoven.stages.probe import out_of_fold_probabilities
from einthoven.stages.recipe import Recipe, keys_without_effect
from einthoven.tasks import Task
from einthoven.training.distributed import Processes
from einthoven.training.run import RunFolder
from einthoven.weights.public import config_of_weights

_NO_GAIN = "no better than the probe on the validation split"
MODEL = "model"
SPLITS = ("validation", "test")
HEADLINE = (
    "macro_auroc",
    "macro_auroc_interval",
    "macro_auprc",
    "macro_auprc_interval",
    "records",
    "defined_labels",
)
"""Metrics of the test split in a model's config.json."""


def headline(score: Score | ValueScore) -> Json:
    """Metrics of a score for a model's config.json."""
    values: Json = score.to_dict()
    areas: Json = {key: values[key] for key in HEADLINE if key in values}
    if isinstance(score, ValueScore):
        return areas | {"per_label": values["per_label"]}
    return {**areas, **values.get("measures", {})}


@dataclass(frozen=True)
class RunResult:
    """A finished experiment: its folder and its scores on the test split."""

    run: RunFolder
    test: Score | ValueScore


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
    by: str = "record",
    allow_leakage: bool = False,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> RunResult | None:
    """Post-train by a recipe, predict validation and test, calibrate, score, write the model.

    Parameters are those of `posttrain`; `allow_leakage` also allows recordings in two splits.
    `resamples` is the number of bootstrap resamples, `by` their unit. If there are several
    processes, only the main one continues after training; the others return None.

    Raises
    ------
    CohortError
        If validation or test has no records or no label that can be scored on them, or a recording
        is in two splits.
    EinthovenError
        If training, prediction or scoring is refused.
    """
    processes = processes or Processes()
    cohort = long_enough(cohort, store, recipe_preparation(backbone, options, recipe))
    cohort = joined_duplicates((cohort, store))
    check_cohort(cohort, store, resamples=resamples, allow_leakage=allow_leakage)
    settings: dict[str, Any] = {"weights": weights, "options": options, "processes": processes}
    settings |= {"allow_leakage": allow_leakage, "progress": progress}
    trained = final = posttrain(cohort, store, backbone, recipe=recipe, out=out, **settings)
    if trained.recipe.refit == "always":
        settings["progress"] = part_of(progress, "final training")
        final = _refitted(trained, store, backbone, **settings)
    if not processes.is_main:
        return None
    folder, device = trained.run.path, processes.device
    model = model_of(final, cohort, recipe)
    has_validation = len(final.data.usable.ids("validation")) > 0
    validated = model if has_validation else model_of(trained, cohort, recipe)
    models = {"validation": validated, "test": model}
    tables = predict_splits(models, cohort, store, folder, device=device, progress=progress)
    scores = score_splits(tables, resamples=resamples, by=by)
    metrics = metrics_of(final, scores, device)
    fitted = _out_of_fold(final, tables["validation"]) if final is not trained else None
    model = saved_model(model, folder / MODEL, fitted or tables["validation"], scores["test"])
    evaluation = evaluation_of(
        model, cohort, tables["test"], score=metrics["test"], resamples=resamples, by=by
    )
    evaluation["population"] = population(trained.data.cohort, store)
    evaluation["validation"] = metrics["validation"]
    evaluation["robustness"] = reusable_part(folder / MODEL, evaluation, "robustness")
    write_evaluation(folder / MODEL, evaluation)
    metrics["predictions"] = {split: table.digest for split, table in tables.items()}
    write_json(folder / METRICS_FILE, metrics)  # last: it makes the run complete
    return RunResult(trained.run, scores["test"])


def _refitted(
    trained: PosttrainResult, store: Store, backbone: str, **settings: Any
) -> PosttrainResult:
    """Train again with what was selected: a probe with the validation records, too.

    A fine-tuned network has a threshold of its own, which that of the first training does not suit
    (measured: docs/recipes.md), so that the validation records are left to its calibration. The
    run, its recipe and what was selected remain those of the first training.
    """
    data, folder = trained.data.cohort, trained.run.path
    recipe = refit_recipe(trained.recipe, [_selection(trained)], [folder])
    # `data` already has the share of the training records.
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"fraction": 1.0})})
    if recipe.stage2 is None:
        splits = data.table["split"].replace("validation", "train").to_numpy(dtype=str)
        data = data.with_splits(splits)
    again = posttrain(data, store, backbone, recipe=recipe, out=folder / REFIT, **settings)
    results = trained.results
    if recipe.stage1 and recipe.stage1.solver == "logistic":  # its penalty is searched again
        results = results | {"stage1": again.results["stage1"]}
    return replace(
        again, run=trained.run, recipe=trained.recipe, policy=trained.policy, results=results
    )


def _out_of_fold(refitted: PosttrainResult, validation: Predictions) -> Predictions | None:
    """Out-of-fold predictions of all records that the final model was trained on.

    None unless it is a logistic regression.
    """
    values = out_of_fold_probabilities(refitted.run.path / REFIT / "stage1")
    if values is None or _selection(refitted)["kept_stage"] != "stage1":
        return None
    records = refitted.data.usable
    return replace(
        validation,
        records=records.ids("train"),
        patients=records.patients("train"),
        targets=records.targets("train"),
        probabilities=values,
        metadata={**validation.metadata, "split": "out of fold"},
    )


def recipe_preparation(
    backbone: str, options: Mapping[str, Any] | None, recipe: Recipe
) -> Preparation:
    """Preparation of a backbone's records by a recipe."""
    return adapt_preparation(preparation_of(backbone, options or {}), recipe.data)


def predict_splits(
    models: Mapping[str, Model],
    cohort: Cohort,
    store: Store,
    folder: Path,
    *,
    device: torch.device,
    progress: Progress | None = None,
) -> dict[str, Predictions]:
    """Predict each split by its model, without calibration, and write the tables to a run folder.

    A table that exists is not predicted again.
    """
    options: dict[str, Any] = {"calibrated": False, "device": device, "progress": progress}
    tables = {}
    for split, model in models.items():
        file = table_file(folder, split)
        if file.is_file():
            tables[split] = run_table(folder, split)
        else:
            tables[split] = predict_cohort(model, cohort, store, split, **options)
            tables[split].save(file)
    return tables


def score_splits(
    tables: Mapping[str, Predictions], **settings: Any
) -> dict[str, Score | ValueScore]:
    """Scores of prediction tables, by split; settings are those of `score_predictions`."""
    return {split: score_predictions(table, **settings) for split, table in tables.items()}


def check_cohort(cohort: Cohort, store: Store, *, resamples: int, allow_leakage: bool) -> None:
    """Refuse before training what could not be scored after it, and another unit than mV."""
    BootstrapSettings(resamples=resamples)
    check_splits(cohort)
    usable = cohort.select(store.without_quarantined(cohort.ids()))
    for split in SPLITS:
        if problem := unscorable(usable, split):
            quarantined = len(cohort.ids(split)) - len(usable.ids(split))
            raise CohortError(
                f"{problem}; {counted(quarantined, 'other')} in quarantine",
                remedy="repair or leave out the files in quarantine (quarantine.csv of the store)",
            )
    check_amplitude(store, store.rows(usable.ids()))
    check_duplicates((usable, store), allow=allow_leakage)


def check_splits(cohort: Cohort) -> None:
    """Refuse a cohort whose table shows that validation or test cannot be scored."""
    for split in SPLITS:
        if problem := unscorable(cohort, split):
            short = cohort.left_out.get(TOO_SHORT, 0)
            raise CohortError(
                problem + (f"; {counted(short, 'record')} {TOO_SHORT}" if short else ""),
                remedy=f"write `{split}` into the `split` column of more patients, add patients "
                "with and without the label, or cross-validate (`folds=5`)",
            )


def unscorable(cohort: Cohort, split: str) -> str:
    """The reason for which a split cannot be scored, or the empty string."""
    targets = cohort.targets(split)
    if not len(targets):
        return f"{cohort.name}: no records in {split}"
    problem = cohort.target.behaviour.unscorable(targets)
    return f"{cohort.name}: {problem} among the {len(targets)} {split} records" if problem else ""


def model_of(trained: PosttrainResult, cohort: Cohort, recipe: Recipe) -> Model:
    """Trained classifier as a model, with its provenance and licence."""
    request, task = trained.run.request, trained.criterion.task
    weights = request["weights"]
    terms = [cohort.licence, *([Licence.from_dict(weights)] if weights else [])]
    return Model(
        trained.classifier,
        trained.data.preparation,
        aggregate=recipe.data.aggregate,
        config={
            **combined(*terms).to_dict(),
            "descriptions": cohort.descriptions,
            **({} if task.kind == Task.kind else {"task": task.to_dict()}),
            "provenance": _provenance(trained, cohort),
        },
        fingerprints=trained.fingerprints,
    )


def _provenance(trained: PosttrainResult, cohort: Cohort) -> dict[str, Any]:
    request, weights_used = trained.run.request, trained.criterion.weights
    weights, public = request["weights"], request.get("public_weights")
    initial = config_of_weights(request["backbone"], weights["path"]) if weights else None
    before = derived_provenance(initial)
    if weights:  # without folders of this machine, because the model is shared
        weights = {"name": Path(weights["path"]).name} | weights
        del weights["path"]
    return {
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
        "compared_records": request.get("compared_records"),
        **_selection(trained),
        **({"pos_weight": list(weights_used)} if weights_used else {}),
        "environment": trained.run.environment,
    }


def _selection(trained: PosttrainResult) -> Json:
    """Selection of a training: recipe without `auto`, epoch of each stage, stage that is kept.

    `policy` has the reasons of what was decided by the size of the cohort, or by validation,
    `penalty` the penalty of the final logistic regression, and `without_effect` keys of the recipe.
    """
    results, policy = trained.results.items(), trained.policy
    kept_stage = [name for name, result in results if result.is_kept][-1]
    if kept_stage == "stage1" and "stage2" in trained.results:
        policy = [*policy, {"key": "stage2", "value": "discarded", "reason": _NO_GAIN}]
    return {
        "recipe": trained.recipe.to_dict(),
        "policy": policy,
        "without_effect": keys_without_effect(trained.recipe),
        "penalty": next((result.history[-1].get("penalty") for _, result in results), None),
        "selected_epoch": {name: result.best_epoch for name, result in results},
        "kept_stage": kept_stage,
    }


def metrics_of(
    trained: PosttrainResult, scores: Mapping[str, Score | ValueScore], device: torch.device
) -> Json:
    """Content of metrics.json: scores by split, training time, size."""
    return {
        **{split: score.to_dict() for split, score in scores.items()},
        "seconds": round(_training_seconds(trained.run.path), 1),
        "parameters": sum(p.numel() for p in trained.classifier.parameters()),
        "device": _device_name(device),
    }


def saved_model(
    model: Model, folder: Path, validation: Predictions, test: Score | ValueScore
) -> Model:
    """Save the model with its calibration and headline metrics; of a saved one, update these."""
    metrics = headline(test)
    if is_model(folder):
        update_config(folder, metrics=metrics)
    else:
        entries = fitted_entries(validation)
        config = model.config | entries | {"metrics": metrics}
        fitted = replace(_with_fitted(model, entries), config=config)
        save_model(fitted, folder, card=False)  # the evaluation comes with one
    config = read_config(folder)
    return replace(_with_fitted(model, config), config=config)


def _with_fitted(model: Model, entries: Json) -> Model:
    calibration, sets = entries["calibration"], entries["sets"]
    return replace(
        model,
        calibration=calibration and read_calibration(calibration),
        sets=sets and read_sets(sets),
    )


def _training_seconds(folder: Path) -> float:
    """Time of all stages, all learning rates that were tried, and cached features."""
    files = [*folder.glob(f"**/{HISTORY_FILE}"), *folder.glob("**/seconds.jsonl")]
    lines = [entry for file in files for entry in read_lines(file)]
    return float(sum(line["seconds"] + line.get("validation_seconds", 0.0) for line in lines))


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"CPU, {counted(torch.get_num_threads(), 'thread')}"
