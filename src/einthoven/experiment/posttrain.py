"""Post-training in one call, from a cohort to a finished run with its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pandas import DataFrame

from einthoven.backbones.registry import leads_of
from einthoven.cohorts import Cohort, open_cohort, without_labels
from einthoven.errors import CohortError
from einthoven.experiment.folds import run_folds
from einthoven.experiment.run import RunResult, check_splits, run_experiment
from einthoven.files import STORE_FILE
from einthoven.models import SHIPPED, Initialisation, initialisation_of
from einthoven.progress import Progress
from einthoven.report.page import write_report
from einthoven.signals.pack import leads_to_pack, pack
from einthoven.signals.store import Store
from einthoven.stages.posttrain import check_weights
from einthoven.stages.recipe import Recipe, load_recipe, prepared_alike, recipe_for
from einthoven.tasks import Task
from einthoven.training.distributed import Processes


class Plan(NamedTuple):
    """Initial weights and recipe of a run.

    `is_adapted` is true if the recipe subtracts means because the initial weights require it.
    """

    start: Initialisation
    name: str | Path
    recipe: Recipe
    is_adapted: bool


def plan_training(
    backbone: str = SHIPPED,
    weights: str | Path | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Plan:
    """Resolve backbone, weights and recipe, as `posttrain` describes them."""
    network = initialisation_of(backbone, random=True).backbone
    name = recipe_for(network, recipe)
    requested = load_recipe(name, overrides, backbone=network)
    start = initialisation_of(backbone, weights, random=requested.initialise == "random")
    check_weights(requested, start.weights, start.backbone)
    adapted = prepared_alike(requested, centred=start.centred)
    return Plan(start, name, adapted, adapted != requested)


def posttrain(
    cohort: Cohort | DataFrame | str | Path,
    out: str | Path,
    *,
    task: Task | str | Path | None = None,
    backbone: str = SHIPPED,
    weights: str | Path | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    store: Store | str | Path | None = None,
    folds: int | None = None,
    resamples: int = 1000,
    allow_leakage: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> RunResult | None:
    """Post-train a classifier and evaluate it, as the command `einthoven posttrain` does.

    An unfinished run of the same request is resumed, a finished one is returned.

    Parameters
    ----------
    cohort : Cohort, or a source that `open_cohort` accepts
    out : path
        Run folder.
    task : Task, str or path, optional
        What is predicted, as in `open_cohort`; a Cohort has its own.
    backbone, weights, recipe, overrides, options, folds, allow_leakage, resamples, device
        As the options of the command; `overrides` are those of `--set`, `options` is a mapping.
    store : Store or path, optional
        The packed cohort, or where to pack it. Default: `out` with the suffix `.store`.

    Returns
    -------
    RunResult
        Run folder and scores on the test split; None in other processes than the main one.

    Raises
    ------
    EinthovenError
        If cohort, store, recipe and weights do not match, or training is refused.
    """
    if task is not None and isinstance(cohort, Cohort):
        raise CohortError(
            f"{cohort.name} was opened with a task, and another is given",
            remedy="leave `task=...` out, or open the cohort with it",
        )
    plan = plan_training(backbone, weights, recipe, overrides)
    labelled = cohort if isinstance(cohort, Cohort) else open_cohort(cohort, task)
    if not labelled.labels:
        raise without_labels(labelled, labelled.name)
    if folds is None:
        check_splits(labelled)
    network = {**plan.start.options, **(options or {})}
    if not isinstance(store, Store):
        folder = Path(store or f"{out}.store")
        if (folder / STORE_FILE).is_file():
            leads = Store.open(folder).leads
        else:
            leads = leads_to_pack(labelled, leads_of(plan.start.backbone, network))
        # One process: others would import the calling script.
        store = pack(labelled, folder, leads=leads, workers=1, progress=progress)
    run = run_experiment if folds is None else partial(run_folds, folds=folds)
    result = run(
        labelled,
        store,
        plan.start.backbone,
        recipe=plan.recipe,
        out=out,
        weights=plan.start.weights,
        options=network,
        resamples=resamples,
        allow_leakage=allow_leakage,
        processes=Processes(device),
        progress=progress,
    )
    if result is not None:
        write_report([Path(out)], Path(out) / "report.html", cohort=labelled, resamples=resamples)
    return result
