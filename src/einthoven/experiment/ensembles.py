"""Ensembles: the unweighted mean of the predictions of finished runs, as one more run.

Nothing is trained and no network is loaded: members are read as tables of predictions, and the
folder of an ensemble is that of a run without stages and without a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.errors import EvaluationError
from einthoven.experiment.run import METRICS, PREDICTIONS, SPLITS, Finished, score_splits
from einthoven.files import Json, file_sha256, read_json, write_json
from einthoven.predict import CALIBRATED
from einthoven.predictions import Predictions
from einthoven.training.run import ABOUT, RunFolder

ENSEMBLE = "ensemble"
_SHARED = ("cohort", "version", "task", "split")  # keys of a table's metadata


def ensemble(runs: Sequence[str | Path], out: str | Path, *, resamples: int = 1000) -> Finished:
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
    Finished
        The folder, and the score on the test split.

    Raises
    ------
    EvaluationError
        If a member is unfinished, is an ensemble or is named twice, or its records, targets,
        labels or task differ from those of the first one; the message names the member.
    TrainingError
        If the folder holds another run.
    """
    members = [_Member.open(Path(run)) for run in runs]
    _check_members(members)
    names = [str(member.folder) for member in members]
    means = {
        split: mean_predictions([Predictions.load(m.table(split)) for m in members], names)
        for split in SPLITS
    }
    run = RunFolder.begin(out, _request(members))
    for split, table in means.items():
        table.save(run.path / PREDICTIONS / f"{split}.parquet")
    scores = score_splits(means, resamples=resamples)
    numbers: Json = {split: score.to_dict() for split, score in scores.items()}
    numbers["seconds"] = sum(member.seconds for member in members)
    write_json(run.path / METRICS, numbers)
    return Finished(run, scores["test"])


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
        _check_alike(tables[0], table, titles[0], title)
    mean = np.mean([table.probabilities for table in tables], axis=0)
    metadata = dict(tables[0].metadata) | {"backbone": ENSEMBLE, "recipe": ENSEMBLE}
    metadata["members"] = str(len(tables))
    return replace(tables[0], probabilities=mean, metadata=metadata)


@dataclass(frozen=True)
class _Member:
    """A finished run: folder, request and training time."""

    folder: Path
    request: Json
    seconds: float

    @classmethod
    def open(cls, folder: Path) -> _Member:
        if not (folder / ABOUT).is_file():
            raise EvaluationError(
                f"{folder} is not a run folder", remedy="name the folder of a run"
            )
        request = read_json(folder / ABOUT)["request"]
        if request.get("stage") != "posttrain":
            raise EvaluationError(
                f"{folder} is a run of {request.get('stage')}, not of one classifier",
                remedy="name the members of an ensemble rather than the ensemble"
                if request.get("stage") == ENSEMBLE
                else "name run folders of `einthoven posttrain`",
            )
        needed = [METRICS, *(f"{PREDICTIONS}/{split}.parquet" for split in SPLITS)]
        missing = [name for name in needed if not (folder / name).is_file()]
        if missing:
            raise EvaluationError(
                f"{folder} is not a finished run: {missing[0]} is missing",
                remedy="repeat the posttrain command to finish it",
            )
        return cls(folder, request, float(read_json(folder / METRICS)["seconds"]))

    def describe(self) -> Json:
        """Describe the member for run.json, by digests rather than paths, as runs may move."""
        recipe = self.request["recipe"]
        return {
            "run": self.folder.name,
            "backbone": self.request["backbone"],
            "recipe": recipe["name"],
            "seed": recipe["seed"],
            "predictions": {split: file_sha256(self.table(split)) for split in SPLITS},
        }

    def table(self, split: str) -> Path:
        """Path of the predictions of a split."""
        return self.folder / PREDICTIONS / f"{split}.parquet"


def _check_members(members: Sequence[_Member]) -> None:
    if len(members) < 2:
        raise EvaluationError(
            f"an ensemble of {len(members)} runs", remedy="name at least two run folders"
        )
    folders: dict[str, Path] = {}
    for member in members:
        digest = file_sha256(member.table("test"))
        if digest in folders:
            raise EvaluationError(
                f"{member.folder} and {folders[digest]} hold the same predictions",
                remedy="name every member once",
            )
        folders[digest] = member.folder


def _check_alike(first: Predictions, other: Predictions, a: str, b: str) -> None:
    if other.targets is None:
        raise EvaluationError(f"{b} holds no targets", remedy="predict for a labelled cohort")
    if other.metadata.get(CALIBRATED) == "yes":
        raise EvaluationError(
            f"{b}: its probabilities are calibrated",
            remedy="predict with calibrated=False: calibrations of members do not average",
        )
    for key in _SHARED:
        _check_same(key, [first.metadata.get(key, "")], [other.metadata.get(key, "")], a, b)
    for name in ("labels", "records", "patients", "targets"):
        ours, theirs = (np.asarray(getattr(table, name)).tolist() for table in (first, other))
        _check_same(name, ours, theirs, a, b)


def _check_same(field: str, ours: Sequence[Any], theirs: Sequence[Any], a: str, b: str) -> None:
    """Refuse lists that differ; report the first difference."""
    if ours == theirs:
        return
    pairs = enumerate(zip_longest(ours, theirs, fillvalue="none"), start=1)
    place, (mine, other) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
    where = f", first in number {place}" if max(len(ours), len(theirs)) > 1 else ""
    raise EvaluationError(
        f"{b} and {a} differ in {field}{where}: {other} and {mine}",
        remedy="name runs on one cohort, of the same version, task and labels",
    )


def _request(members: Sequence[_Member]) -> Json:
    descriptions = [member.describe() for member in members]
    names = [f"{d['backbone']} ({d['recipe']}, seed {d['seed']})" for d in descriptions]
    return {
        "stage": ENSEMBLE,
        "backbone": ENSEMBLE,
        "weights": None,
        "recipe": {
            "name": ENSEMBLE,
            "description": f"Unweighted mean of the probabilities of {len(members)} runs",
            "members": names,
        },
        **{key: members[0].request.get(key) for key in ("cohort", "version", "task", "labels")},
        **_agreed(members, "cohort_digest", "records_digest"),
        "members": descriptions,
        "world": 1,
    }


def _agreed(members: Sequence[_Member], *keys: str) -> Json:
    """Entries equal in all members; a member may have read the same records at another rate."""
    entries = {key: {member.request.get(key) for member in members} for key in keys}
    return {key: values.pop() for key, values in entries.items() if len(values) == 1}
