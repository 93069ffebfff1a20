"""Bundles that table 1's rows are held against: predicted once, and then like any finished run.

Who post-trained a model elsewhere, or was given one, need not train it again to compare with it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from einthoven.errors import ReproduceError
from einthoven.experiment.run import METRICS, parameters_of, predict_splits, score_splits
from einthoven.files import lock_beside, locked, read_json, write_json
from einthoven.models import config_digest, is_model, load_model, model_path, read_config
from einthoven.progress import Progress
from einthoven.reproduce.folders import Request
from einthoven.signals.store import Store
from einthoven.stages.overlap import check_scored
from einthoven.training.distributed import Processes
from einthoven.training.run import ABOUT

AGAINST = "against"


def predicted_folder(request: Request, bundle: Path) -> Path:
    """Where a bundle's predictions are, or will be: `OUT/against/NAME--DIGEST`.

    Raises
    ------
    ModelError
        When the bundle is damaged.
    """
    folder = model_path(bundle)
    return request.out / AGAINST / f"{folder.name}--{config_digest(read_config(folder))[:12]}"


def predict_bundles(request: Request, progress: Progress | None = None) -> list[Path]:
    """Predict validation and test by every bundle of `--against`, where that is not done yet.

    Parameters
    ----------
    request : Request
    progress : callable, optional
        `(what, done, total)`.

    Returns
    -------
    list of Path
        Folders with `predictions/`, `metrics.json`, and a `run.json` that says what it is of.

    Raises
    ------
    ReproduceError
        When a bundle is of no task of the experiment.
    EvaluationError
        When its labels are not those of the cohort.
    """
    bundles = [place for place in request.against if is_model(place)]
    return [_predicted(request, bundle, progress) for bundle in bundles]


def check_bundle(request: Request, bundle: Path) -> None:
    """Refuse a bundle that answers none of the experiment's tasks.

    Raises
    ------
    ReproduceError
        Naming its task.
    """
    task = read_config(model_path(bundle)).get("provenance", {}).get("cohort", {}).get("task")
    if task not in request.experiment.tasks:
        raise ReproduceError(
            f"--against {bundle}: a bundle of the task {task}",
            remedy=f"name one of {', '.join(request.experiment.tasks)}",
        )


def _predicted(request: Request, place: Path, progress: Progress | None) -> Path:
    check_bundle(request, place)
    folder = predicted_folder(request, place)
    asked = _asked(request, place)
    with locked(lock_beside(folder)):
        about = folder / ABOUT
        if about.is_file() and read_json(about)["request"] != asked:
            shutil.rmtree(folder)  # of another cohort, or other labels
        if not (folder / METRICS).is_file():
            _predict(request, place, folder, asked, progress)
    return folder


def _predict(
    request: Request, place: Path, folder: Path, asked: dict[str, Any], progress: Progress | None
) -> None:
    bundle = load_model(place)
    cohort, store = request.opened(asked["task"]), Store.open(request.store)
    check_scored(place, (cohort, store))
    environment = bundle.config["provenance"].get("environment", {})
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / ABOUT, {"request": asked, "environment": environment})
    device = Processes(request.device).device
    predict_splits(bundle, cohort, store, folder, device=device, progress=progress)
    scores = score_splits(folder, resamples=0)
    numbers: dict[str, Any] = {split: score.to_dict() for split, score in scores.items()}
    numbers |= {"seconds": None, "parameters": parameters_of(bundle.classifier), "device": "–"}
    write_json(folder / METRICS, numbers)


def _asked(request: Request, place: Path) -> dict[str, Any]:
    """What its training asked for, as far as the bundle says so, and what it is predicted for."""
    folder = model_path(place)
    config = read_config(folder)
    provenance = config["provenance"]
    task = provenance["cohort"]["task"]
    return {
        "stage": "posttrain",
        "bundle": folder.name,
        "task": task,
        "backbone": config["backbone"],
        "backbone_options": config["backbone_options"],
        "recipe": provenance["recipe"],
        "weights": provenance["initial_weights"],
        "cohort_digest": request.opened(task).digest,
        "records_digest": request.records_digest,
    }
