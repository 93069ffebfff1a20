"""Ensembles: the unweighted mean of the predictions of finished runs, as one more run.

Nothing is trained and no network is loaded: members are read as tables of predictions, and the
folder of an ensemble is that of a run without stages and without a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.errors import EvaluationError
from einthoven.experiment.run import MODEL, SPLITS, RunResult, score_splits
from einthoven.files import METRICS_FILE, RUN_FILE, Json, file_sha256, read_json, write_json
from einthoven.inference import CALIBRATED
from einthoven.licences import Licence, combined
from einthoven.models import is_model, read_config
from einthoven.predictions import Predictions
from einthoven.predictions.table import run_table, table_file
from einthoven.training.run import RunFolder

ENSEMBLE = "ensemble"
_SHARED = ("cohort", "version", "task", "split")  # keys of a table's metadata


def ensemble(runs: Sequence[str | Path], out: str | Path, *, resamples: int = 1000) -> RunResult:
    """Average the predictions of finished runs, and score the mean like any run.

    The members' probabilities are those of their tables: crops are aggregated, nothing is
    calibrated.

    Parameters
    ----------
    runs : sequence of path
        At least two run folders of classifiers, on the same records, task and labels.
    out : path
        Folder of the ensemble, for `run.json`, `predictions/` and `metrics.json`.
    resamples : int
        Bootstrap resamples.

    Returns
    -------
    RunResult
        The folder, and the score on the test split.

    Raises
    ------
    EvaluationError
        If a member is unfinished, is an ensemble or is repeated, or its records, targets, labels
        or task differ from those of the first one; the message names the member.
    TrainingError
        If the folder holds another run.
    """
    folders = [Path(run) for run in runs]
    if len(folders) < 2:
        raise EvaluationError(
            f"an ensemble of {len(folders)} runs", remedy="name at least two run folders"
        )
    requests = [_request_of(folder) for folder in folders]
    members = [_member(folder, request) for folder, request in zip(folders, requests, strict=True)]
    _check_distinct(folders, [member["predictions"]["test"] for member in members])
    names = [str(folder) for folder in folders]
    means = {
        split: mean_predictions([run_table(folder, split) for folder in folders], names)
        for split in SPLITS
    }
    run = RunFolder.begin(out, _request(members, requests) | _origin(folders))
    for split, table in means.items():
        table.save(table_file(run.path, split))
    by = "patient" if "folds" in means["test"].metadata else "record"  # as the members
    scores = score_splits(means, resamples=resamples, by=by)
    numbers: Json = {split: score.to_dict() for split, score in scores.items()}
    numbers["seconds"] = float(
        sum(read_json(folder / METRICS_FILE)["seconds"] for folder in folders)
    )
    numbers["predictions"] = {split: table.digest for split, table in means.items()}
    write_json(run.path / METRICS_FILE, numbers)
    return RunResult(run, scores["test"])


def mean_predictions(
    tables: Sequence[Predictions], names: Sequence[str] | None = None
) -> Predictions:
    """Average the probabilities of several models for the same records, without weights.

    Parameters
    ----------
    tables : sequence of Predictions
        With the same records, labels, targets and patients, in the same order.
    names : sequence of str, optional
        Names of the tables in error messages; numbers by default.

    Returns
    -------
    Predictions
        The mean, with the targets and patients of the first table.

    Raises
    ------
    EvaluationError
        If a table is calibrated or differs from the first; the message names table and difference.
    """
    titles = list(names or [f"table {number + 1}" for number in range(len(tables))])
    for table, title in zip(tables, titles, strict=True):
        _check_alike(tables[0], table, f"{title} and {titles[0]}")
        if table.metadata.get(CALIBRATED) == "yes":
            raise EvaluationError(
                f"{title}: its probabilities are calibrated",
                remedy="predict with calibrated=False: calibrations of members do not average",
            )
    mean = np.mean([table.probabilities for table in tables], axis=0)
    metadata = dict(tables[0].metadata) | {"backbone": ENSEMBLE, "recipe": ENSEMBLE}
    metadata["members"] = str(len(tables))
    return replace(tables[0], probabilities=mean, metadata=metadata)


def _check_alike(first: Predictions, other: Predictions, names: str) -> None:
    arrays = ("labels", "records", "patients", "targets")
    differences = [
        f"{key} ({other.metadata.get(key)} and {first.metadata.get(key)})"
        for key in _SHARED
        if other.metadata.get(key) != first.metadata.get(key)
    ]
    differences += [x for x in arrays if not _equal(getattr(other, x), getattr(first, x))]
    if differences:
        raise EvaluationError(
            f"{names} differ in {', '.join(differences)}",
            remedy="name runs on one cohort, of the same version, task and labels",
        )


def _equal(a: Any, b: Any) -> bool:
    """Whether arrays are equal, unknown targets among them."""
    numeric = all(getattr(x, "dtype", np.dtype(str)).kind == "f" for x in (a, b))
    return np.array_equal(a, b, equal_nan=numeric)


def _request_of(folder: Path) -> Json:
    """The request of a finished run of one classifier; refuses other folders."""
    if not (folder / RUN_FILE).is_file():
        raise EvaluationError(f"{folder} is not a run folder", remedy="name the folder of a run")
    request = RunFolder(folder).request
    if request.get("stage") != "posttrain":
        raise EvaluationError(
            f"{folder} is a run of {request.get('stage')}, not of one classifier",
            remedy="name the members of an ensemble rather than the ensemble"
            if request.get("stage") == ENSEMBLE
            else "name run folders of `einthoven posttrain`",
        )
    for file in (folder / METRICS_FILE, *(table_file(folder, split) for split in SPLITS)):
        if not file.is_file():
            raise EvaluationError(
                f"{folder} is not a finished run: {file.relative_to(folder)} is missing",
                remedy="repeat the posttrain command to finish it",
            )
    return request


def _member(folder: Path, request: Json) -> Json:
    """Describe a member for run.json, by digests rather than paths, as runs may move."""
    return {
        "run": folder.name,
        "backbone": request["backbone"],
        "recipe": request["recipe"]["name"],
        "seed": request["recipe"]["seed"],
        "predictions": {split: file_sha256(table_file(folder, split)) for split in SPLITS},
    }


def _check_distinct(folders: Sequence[Path], digests: Sequence[str]) -> None:
    for place, digest in enumerate(digests):
        if (first := digests.index(digest)) < place:
            raise EvaluationError(
                f"{folders[place]} and {folders[first]} hold the same predictions",
                remedy="name every member once",
            )


def _origin(folders: Sequence[Path]) -> Json:
    """What the members' weights have seen of PTB-XL, and the licence that follows from theirs."""
    models = [folder / MODEL for folder in folders]
    configs = [read_config(model) if is_model(model) else {} for model in models]
    seen = [(config.get("provenance") or {}).get("contains_ptbxl") for config in configs]
    contains = True if True in seen else None if None in seen else False
    return {"contains_ptbxl": contains, **combined(*map(Licence.from_dict, configs)).to_dict()}


def _request(members: Sequence[Json], requests: Sequence[Json]) -> Json:
    shared: Json = {key: requests[0].get(key) for key in ("cohort", "version", "task", "labels")}
    if requests[0].get("cohort_synthetic"):
        shared["cohort_synthetic"] = True
    # A member may have read the same records at another rate, and then has other digests.
    for key in ("cohort_digest", "records_digest"):
        digests = {request.get(key) for request in requests}
        shared |= {key: digests.pop()} if len(digests) == 1 else {}
    return {
        "stage": ENSEMBLE,
        "backbone": ENSEMBLE,
        "weights": None,
        "recipe": {
            "name": ENSEMBLE,
            "description": f"Unweighted mean of the probabilities of {len(members)} runs",
            "members": [f"{m['backbone']} ({m['recipe']}, seed {m['seed']})" for m in members],
        },
        **shared,
        "members": list(members),
        "world": 1,
    }
