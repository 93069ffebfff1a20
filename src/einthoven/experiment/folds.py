"""Cross-validation of an experiment, and a model of all records.

Every fold is an experiment of its own, in `folds/1` and so on: its model has not seen the patients
that it tests. Their predictions together are those of the run, one out-of-fold prediction for
every record. The model of the run is trained on all records, in `refit`, with what the folds
chose: nothing is left to select it by or to test it on, and the out-of-fold results, which are
those of models with fewer training records, stand for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from einthoven.cohorts.cohort import FEWEST_FOLDS, Cohort
from einthoven.errors import CohortError
from einthoven.experiment.evaluation import evaluation_of
from einthoven.experiment.population import QUARANTINED, population
from einthoven.experiment.refit import REFIT, joint_policy, refit_recipe
from einthoven.experiment.run import (
    HEADLINE,
    MODEL,
    SPLITS,
    RunResult,
    check_cohort,
    metrics_of,
    model_of,
    recipe_preparation,
    run_experiment,
    saved_model,
    score_splits,
    unscorable,
)
from einthoven.files import METRICS_FILE, Json, read_json, write_json
from einthoven.models import read_config, write_evaluation
from einthoven.predictions import Predictions
from einthoven.predictions.table import run_table, table_file
from einthoven.progress import Progress, part_of
from einthoven.signals.batches import long_enough
from einthoven.signals.preparation import Preparation
from einthoven.signals.store import Store
from einthoven.stages.data import with_fraction
from einthoven.stages.leakage import (
    check_initial_weights,
    check_public_weights,
    compared_records,
    joined_duplicates,
)
from einthoven.stages.policy import Decision
from einthoven.stages.posttrain import (
    PosttrainResult,
    check_weights,
    posttrain,
    request_of,
    resolve_recipe,
)
from einthoven.stages.recipe import Recipe
from einthoven.training.distributed import Processes
from einthoven.training.run import open_run

FOLDS = "folds"
UNIT = "patient"  # of the bootstrap
AREAS = ("macro_auroc", "macro_auprc")


def run_folds(
    cohort: Cohort,
    store: Store,
    backbone: str,
    *,
    folds: int,
    recipe: Recipe,
    out: str | Path,
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    resamples: int = 1000,
    allow_leakage: bool = False,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> RunResult | None:
    """Cross-validate an experiment, then train a model on all records.

    The folder is that of an experiment: its test predictions are out of fold, its validation
    predictions those of the model that was selected by them. `metrics.json` also has the scores of
    each fold. The calibration is fitted on the out-of-fold predictions, and measured on each fold
    by one that is fitted on the others.

    Parameters
    ----------
    folds : int
        Number of folds (`Cohort.folds`), which may be those of the column `fold`; the cohort's own
        splits are not used. Records in quarantine are left out before patients are divided.
    cohort, store, backbone, recipe, out, weights, options, resamples, allow_leakage
        As in `run_experiment`. Resamples are drawn by patient.

    Returns
    -------
    RunResult
        The folder and the score of the out-of-fold predictions; None in other processes than the
        main one.

    Raises
    ------
    CohortError
        If there are too few patients, a fold has no label that can be scored, or the weights have
        seen any record.
    EinthovenError
        If an experiment is refused.
    """
    processes = processes or Processes()
    check_weights(recipe, weights, backbone)
    cohort = _usable(cohort, store, recipe_preparation(backbone, options, recipe), folds)
    cohort = joined_duplicates((replace(cohort, has_splits=False), store))
    parts, everyone = cohort.folds(folds), cohort.with_splits("train")
    _check_folds(cohort, folds)
    for part in parts:
        check_cohort(part, store, resamples=resamples, allow_leakage=allow_leakage)
    tested = cohort.with_splits("test"), store
    leakage = check_initial_weights(weights, tested, allow=allow_leakage)
    settings: dict[str, Any] = {"weights": weights, "options": options, "processes": processes}
    request = request_of(
        (everyone, store), backbone, recipe, weights,
        options=options, leakage=leakage, world=processes.world,
    )  # fmt: skip
    request |= {"folds": folds, "public_weights": check_public_weights(backbone, weights, cohort)}
    if cohort.has_folds(folds):
        request["fold_column"] = [part.digest for part in parts]
    request["compared_records"] = compared_records(weights, tested)
    resolved, policy = _resolved(recipe, parts, processes)
    request |= {"policy": {each.key: each.value for each in policy}} if policy else {}
    settings |= {"allow_leakage": allow_leakage}
    with open_run(out, request, processes) as run:
        folders = [run.path / FOLDS / str(number) for number in range(1, folds + 1)]
        bootstrap: dict[str, Any] = {"resamples": resamples, "by": UNIT}
        for number, (part, folder) in enumerate(zip(parts, folders, strict=True), 1):
            settings["progress"] = part_of(progress, f"fold {number} of {folds}")
            run_experiment(
                part, store, backbone, recipe=resolved, out=folder, **bootstrap, **settings
            )
        processes.wait()  # for the predictions of the last fold
        settings["progress"] = part_of(progress, "all records")
        selections = [read_config(folder / MODEL)["provenance"] for folder in folders]
        final = refit_recipe(resolved, selections, folders)
        trained = posttrain(
            everyone, store, backbone, recipe=final, out=run.path / REFIT, **settings
        )
        if not processes.is_main:
            return None
        decisions = [*map(asdict, policy), *joint_policy(selections)]
        refit = selections[0]["recipe"]["refit"]  # of each fold; it makes no difference here
        described = trained.recipe.model_copy(update={"refit": refit})
        trained = replace(trained, run=run, recipe=described, policy=decisions)
        return _join(
            trained, final, cohort, store, dict(zip(folders, parts, strict=True)),
            device=processes.device, **bootstrap,
        )  # fmt: skip


def _join(
    trained: PosttrainResult,
    recipe: Recipe,
    cohort: Cohort,
    store: Store,
    parts: Mapping[Path, Cohort],
    *,
    device: torch.device,
    **bootstrap: Any,
) -> RunResult:
    """Write the predictions, model, evaluation and metrics of all folds.

    Parameters
    ----------
    trained : PosttrainResult
        Training on all records by `recipe`; its run receives the files.
    cohort, store : Cohort, Store
        All records.
    parts : mapping of Path to Cohort
        Folders and cohorts of the folds.
    bootstrap
        `resamples` and `by`, as in `score_splits`.
    """
    run, everyone, folders = trained.run, cohort.with_splits("train"), list(parts)
    tables = {split: out_of_fold(folders, split, cohort.ids()) for split in SPLITS}
    for split, table in tables.items():
        table.save(table_file(run.path, split))
    scores, table = score_splits(tables, **bootstrap), tables["test"]
    metrics = metrics_of(trained, scores, device) | {"folds": fold_scores(folders)}
    model = model_of(trained, everyone, recipe)
    model.config["selection"] = (
        f"stages, epochs, calibration and thresholds from {len(parts)} folds"
    )
    fitted = replace(table, metadata={**table.metadata, "split": "out of fold"})
    model = saved_model(model, run.path / MODEL, fitted, scores["test"])
    tested = [np.isin(table.records, part.ids("test")) for part in parts.values()]
    evaluation = evaluation_of(
        model, cohort, table,
        score=metrics["test"], folds=np.argmax(tested, axis=0), **bootstrap,
    )  # fmt: skip
    evaluation |= {"validation": metrics["validation"], "folds": metrics["folds"]}
    evaluation["population"] = population(everyone, store)
    write_evaluation(run.path / MODEL, evaluation)
    metrics["predictions"] = {split: part.digest for split, part in tables.items()}
    write_json(run.path / METRICS_FILE, metrics)  # last: it makes the run complete
    return RunResult(run, scores["test"])


def _usable(cohort: Cohort, store: Store, preparation: Preparation, folds: int) -> Cohort:
    """The records among which folds are drawn: neither too short nor in quarantine.

    Raises CohortError if a fold of the column `fold` has no such record.
    """
    usable = long_enough(cohort, store, preparation)
    usable = usable.select(store.without_quarantined(usable.ids()), reason=QUARANTINED)
    if cohort.has_folds(folds) and not usable.has_folds(folds):
        raise CohortError(
            f"`folds={folds}`: all records of a fold of the column `fold` are in quarantine or "
            "shorter than a crop",
            remedy="repair the files in quarantine (quarantine.csv of the store), or leave out "
            "the column",
        )
    return usable


def _check_folds(cohort: Cohort, folds: int) -> None:
    """Refuse a number of folds of which one cannot be scored; the remedy is one that works."""

    def problem(count: int) -> str:
        parts = cohort.folds(count)
        problems = (unscorable(part, split) for part in parts for split in SPLITS)
        return next(filter(None, problems), "")

    if reason := problem(folds):
        fewer = next((n for n in range(folds - 1, FEWEST_FOLDS - 1, -1) if not problem(n)), None)
        remedy = f"use fewer folds, such as {fewer}" if fewer else "add patients of that class"
        raise CohortError(f"`folds={folds}`: {reason}", remedy=remedy)


def _resolved(
    recipe: Recipe, parts: Sequence[Cohort], processes: Processes
) -> tuple[Recipe, list[Decision]]:
    """The recipe and policy of all folds, those of the fold with the fewest training records.

    Folds differ by some records, and those on the two sides of a limit would train by different
    solvers and stages.
    """
    used = [with_fraction(part, recipe.data, seed=recipe.seed) for part in parts]
    smallest = min(used, key=lambda part: len(part.ids("train")))
    targets = smallest.targets("train"), smallest.targets("validation")
    return resolve_recipe(recipe, *targets, processes, smallest.target.behaviour.form)


def out_of_fold(folders: Sequence[Path], split: str, ids: NDArray[np.str_]) -> Predictions:
    """Join the predictions of a split of all folds, in the order of `ids`.

    Records without a prediction are left out.
    """
    tables = [run_table(folder, split) for folder in folders]
    columns = {
        name: np.concatenate([getattr(table, name) for table in tables])
        for name in ("records", "patients", "targets", "probabilities")
    }
    place = pd.Index(columns["records"]).get_indexer(pd.Index(ids))
    joined = {name: values[place[place >= 0]] for name, values in columns.items()}
    metadata = {**tables[0].metadata, "folds": str(len(tables))}
    return replace(tables[0], metadata=metadata, **joined)


def fold_scores(folders: Sequence[Path]) -> Json:
    """Scores of each fold on its test records, and their mean and standard deviation."""
    scores = [read_json(folder / METRICS_FILE)["test"] for folder in folders]
    keys = [key for key in HEADLINE if key in scores[0]]
    summary: Json = {"scores": [{key: score[key] for key in keys} for score in scores]}
    values = {name: [score[name] for score in scores] for name in AREAS if name in keys}
    for name in scores[0].get("measures", {}):  # of classes
        values[name] = [score["measures"][name] for score in scores]
    for label, entry in scores[0]["per_label"].items() if "agreement" in scores[0] else ():
        for name in entry:  # of numbers
            values[f"{label}: {name}"] = [score["per_label"][label][name] for score in scores]
    for name, numbers in values.items():
        if all(isinstance(number, float) for number in numbers):
            summary[name] = {"mean": mean(numbers), "sd": stdev(numbers)}
    return summary
