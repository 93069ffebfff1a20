"""Evaluation of a model: the numbers of `evaluation.json` and of the model card.

Scores are those of the uncalibrated probabilities. Calibration is measured before and after, on
records that it was not fitted on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from einthoven.cohorts.cohort import ALL, Cohort
from einthoven.errors import EvaluationError
from einthoven.evaluate.calibrate import (
    MIN_FOR_TEMPERATURES,
    fit_calibration,
    fit_classes,
    has_enough,
    rarer_class,
)
from einthoven.evaluate.conformal import fit_sets, measure_coverage
from einthoven.evaluate.curves import curves
from einthoven.evaluate.reliability import calibration_report, class_report
from einthoven.evaluate.scores import score_predictions
from einthoven.evaluate.subgroups import demographics, score_subgroups, value_subgroups
from einthoven.experiment.population import population
from einthoven.experiment.robustness import measure_lead_accuracy, measure_robustness
from einthoven.files import EVALUATION_FILE, Json, read_json
from einthoven.inference import CALIBRATED, calibrate_table, check_uncalibrated, predict_cohort
from einthoven.inference.cohorts import calibration_of, sets_of
from einthoven.models import (
    Model,
    load_model,
    model_path,
    read_config,
    update_config,
    write_evaluation,
)
from einthoven.predictions import ClassCalibration, Predictions
from einthoven.progress import Progress
from einthoven.report.data import identity, mismatch
from einthoven.signals.store import Store
from einthoven.stages.leakage import (
    check_evaluation_records,
    evaluation_split,
    find_leakage,
    read_fingerprints,
)
from einthoven.tasks import positives
from einthoven.weights.public import data_on_cohort

log = logging.getLogger(__name__)


def fitted_entries(validation: Predictions) -> Json:
    """Fit calibration and prediction sets to validation predictions, for a model's config.json.

    Returns
    -------
    dict
        `calibration`, `sets` and `calibration_fit`, for `update_config`; numbers have sets only.

    Raises
    ------
    EvaluationError
        If the table is calibrated already, or has no targets.
    """
    if validation.metadata.get(CALIBRATED) == "yes":
        raise EvaluationError(
            "the validation predictions are calibrated already",
            remedy="predict with calibrated=False",
        )
    targets = validation.require_targets()
    if validation.form == "values":
        return {"calibration": None, "sets": fit_sets(validation).to_dict()}
    is_labels = validation.form == "labels"
    calibration = fit_calibration(validation) if is_labels else fit_classes(validation)
    counts = positives(targets).tolist()
    is_fitted = has_enough(targets)
    effect = "a temperature of each label is fitted" if is_labels else "a temperature is fitted"
    if not is_fitted and validation.weights:
        effect = "only the weights of the loss are divided out"
    elif not is_fitted:
        effect = "probabilities stay as they are"
    log.info(
        f"calibration: {effect} ({rarer_class(targets)} records of the "
        f"rarer class, summed over labels; limit {MIN_FOR_TEMPERATURES})",
        extra={"topic": ("calibration", effect)},
    )
    return {
        "calibration": calibration.to_dict(),
        "sets": fit_sets(validation.calibrated(calibration)).to_dict(),
        "calibration_fit": {
            "split": validation.metadata.get("split", ""),
            "cohort": validation.metadata.get("cohort", ""),
            "records": len(validation),
            "positives": dict(zip(validation.labels, counts, strict=True)),
            "temperatures": is_fitted,
            "bias": bool(validation.weights),
        },
    }


def evaluation_of(
    model: Model,
    cohort: Cohort,
    table: Predictions,
    *,
    score: Json | None = None,
    resamples: int = 1000,
    seed: int = 0,
    by: str = "record",
    folds: NDArray[np.intp] | None = None,
) -> Json:
    """Compute score, calibration, curves and subgroups of a split.

    Parameters
    ----------
    model : Model
    cohort : Cohort
        Source of the table's records, of their sex and age.
    table : Predictions
        Uncalibrated predictions of a split, of all labels of the model or some.
    score : dict, optional
        `Score.to_dict()` of the table, if it was computed before.
    resamples, seed, by
        Settings of every bootstrap.
    folds : array, shape (records,), optional
        Fold of each record of out-of-fold predictions, on which the calibration was fitted.

    Returns
    -------
    dict
        The content of `evaluation.json`; population, validation, leakage and robustness are None.

    Raises
    ------
    EvaluationError
        If the table is calibrated already, or has no targets.
    """
    check_uncalibrated(model, table)
    options: Json = {"resamples": resamples, "seed": seed, "by": by}
    groups = demographics(cohort.metadata().loc[table.records.tolist()])
    calibration, sets = calibration_of(model, table.labels), sets_of(model, table.labels)
    measured = _values(table, groups, **options)
    if table.form != "values":
        measured = _probabilities(model, table, groups, folds=folds, **options)
    # The cohort may differ from the one that the model was trained on.
    public = model.config.get("provenance", {}).get("public_weights")
    return {
        "split": table.metadata.get("split", ""),
        "cohort": _description(cohort),
        "measured_on": identity(model.config),
        "public_weights": data_on_cohort(public, cohort.name) if public else None,
        "leakage": None,
        "population": None,
        "score": score or score_predictions(table, **options).to_dict(),
        "validation": None,
        **measured,
        "coverage": sets
        and measure_coverage(table, calibration, sets, groups, folds=folds, **options),
        "robustness": None,
    }


def _probabilities(
    model: Model,
    table: Predictions,
    groups: Mapping[str, NDArray[np.str_]],
    *,
    folds: NDArray[np.intp] | None,
    **options: Any,
) -> Json:
    """Calibration, curves and subgroups of labels or classes."""
    fit = calibration_of(model, table.labels)
    if isinstance(fit, ClassCalibration):
        report, quality = calibration_report(table, **options), None
        extra = {"class_calibration": class_report(table, fit, folds=folds)}
    else:
        report, extra = calibration_report(table, fit, folds=folds, **options), {}
        quality = report.to_dict() | {"fit": model.config.get("calibration_fit")}
    drawn = curves(table, report, resamples=options["resamples"], seed=options["seed"])
    return {
        "calibration": quality,
        "curves": drawn.to_dict() if drawn else None,
        "subgroups": score_subgroups(table, groups, **options).to_dict() if groups else None,
        **extra,
    }


def _values(table: Predictions, groups: Mapping[str, NDArray[np.str_]], **options: Any) -> Json:
    """Subgroups of numbers, which have neither calibration nor curves."""
    subgroups = None
    if table.form == "values" and groups:
        subgroups = value_subgroups(table, groups, **options)
    return {"calibration": None, "curves": None, "subgroups": subgroups}


def is_of_records(stored: Json, evaluation: Json) -> bool:
    """Whether a stored evaluation is of the same split of the same cohort as another one.

    Out-of-fold results are of no split. Fields that the stored one lacks are not compared.
    """
    if stored.get("folds") or stored.get("split") != evaluation["split"]:
        return False
    cohort = stored.get("cohort") or {}
    return all(evaluation["cohort"].get(key) == value for key, value in cohort.items())


def reusable_part(folder: str | Path, evaluation: Json, part: str) -> Any:
    """Take a part of a model's stored evaluation that is still valid for a new one; else None.

    Cohort and split must be the same, and so must the weights; robustness depends on the
    calibration as well.
    """
    file = model_path(folder) / EVALUATION_FILE
    stored = read_json(file) if file.is_file() else {}
    same = is_of_records(stored, evaluation)
    measured, current = stored.get("measured_on"), evaluation.get("measured_on")
    if measured and current:
        key = "weights" if part == "validation" else "digest"
        same = same and measured[key] == current[key]
    return stored.get(part) if same else None


def evaluate_model(
    folder: str | Path,
    cohort: Cohort,
    store: Store,
    split: str | None = None,
    *,
    out: str | Path | None = None,
    robustness: bool = True,
    resamples: int = 1000,
    seed: int = 0,
    by: str = "record",
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Evaluate a model on a split of a cohort, and write its evaluation and its card.

    Parameters
    ----------
    folder : path
        A model folder. Its probabilities and thresholds do not change.
    cohort, store, split
        As in `predict_cohort`. The default split is that of `evaluation_split`. If the cohort has
        only some of the model's labels, the evaluation is of those.
    out : path, optional
        Folder for evaluation and card; by default the model folder. With it, the model folder
        keeps its own.
    robustness : bool
        Predict the split 16 times again, with fewer leads, noise and offsets. Unless all records
        are scored or the model was trained on the validation split, this split decides which labels
        or classes are answered with fewer leads (`lead_accuracy` of config.json; with `out` only if
        the model has none, and only if all of its labels are scored). Otherwise, earlier
        measurements that are still valid are kept.
    resamples, seed, by
        Settings of every bootstrap.
    progress : Progress, optional

    Returns
    -------
    Path
        The card.

    Raises
    ------
    EinthovenError
        If loading, prediction or scoring fails.
    EvaluationError
        If the model was refitted on all records of its folds, and has seen records of this split,
        or the folder has an evaluation on other records and there is no `out`.
    """
    model = load_model(folder)
    split = split or evaluation_split(folder, (cohort, store))
    leakage = check_evaluation_records(folder, (cohort, store), split)
    _check_stored(folder, cohort, split, leakage=leakage, replaces=out is None)
    options: Json = {"resamples": resamples, "seed": seed, "by": by}
    work: Json = {"device": device, "progress": progress}
    table = predict_cohort(model, cohort, store, split, calibrated=False, some_labels=True, **work)
    evaluation = evaluation_of(model, cohort, table, **options)
    evaluation["validation"] = reusable_part(folder, evaluation, "validation")
    evaluation["leakage"] = leakage
    evaluation["population"] = population(cohort, store)
    evaluation["robustness"] = reusable_part(folder, evaluation, "robustness")
    if robustness:
        clean = calibrate_table(model, table)
        evaluation["robustness"] = measure_robustness(
            model, cohort, store, split, clean, **options, **work
        )
        seen = find_leakage(read_fingerprints(folder), (cohort, store), "validation")
        is_apart = split != ALL and len(cohort.ids("validation")) and table.form != "values"
        is_kept = table.labels != model.labels or (
            out is not None and "lead_accuracy" in model.config
        )
        if is_apart and not is_kept and not (seen and seen.uses.get("training")):
            accuracy = measure_lead_accuracy(model, cohort, store, **work)
            update_config(folder, lead_accuracy=accuracy)
    return write_evaluation(folder, evaluation, out)


def _check_stored(
    folder: str | Path, cohort: Cohort, split: str, *, leakage: Json | None, replaces: bool
) -> None:
    """Check a new evaluation against the one that the model folder has.

    Raises
    ------
    EvaluationError
        If a cross-validated model has seen some of the records (`leakage`), or the new evaluation
        replaces one on other records.
    """
    stored = _stored_evaluation(folder)
    if leakage and stored.get("folds"):
        raise EvaluationError(
            f"{folder} was refitted on all records of its folds: it has seen {leakage['seen']} "
            f"{split} records of {cohort.name}",
            remedy="read its card, which has the out-of-fold results, or name another cohort; for "
            "fewer leads, cross-validate a model of them: einthoven posttrain COHORT --folds 5 "
            "--leads I,II --out RUN",
        )
    records: Json = {"cohort": _description(cohort), "split": split}
    if stored and replaces and not is_of_records(stored, records):
        kind = "out-of-fold" if stored.get("folds") else stored["split"]
        raise EvaluationError(
            f"{folder} has an evaluation ({stored['cohort']['name']}, {kind}) that another one "
            f"({cohort.name}, {split}) would replace",
            remedy="name a folder for the new one with `out=...`",
        )


def _stored_evaluation(folder: str | Path) -> Json:
    """The evaluation in a model folder; empty if there is none, or it is of another model."""
    file = model_path(folder) / EVALUATION_FILE
    stored: Json = read_json(file) if file.is_file() else {}
    return {} if mismatch(read_config(folder), stored) else stored


def _description(cohort: Cohort) -> Json:
    return {
        "name": cohort.name,
        "version": cohort.version,
        "task": cohort.task,
        "digest": cohort.digest,
        "synthetic": cohort.is_synthetic,
    }
