"""An ensemble: the unweighted mean of what finished runs predict, as one more run.

Nothing is trained and no network is opened: members are known by their tables of predictions, and
the folder that is left holds what a run's does but for the stages and the bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from einthoven.errors import EvaluationError
from einthoven.experiment.run import METRICS, PREDICTIONS, Finished, score_splits
from einthoven.files import read_json, write_json
from einthoven.predict import CALIBRATED
from einthoven.predictions import Predictions, listed
from einthoven.stages.posttrain import file_digest
from einthoven.training.run import ABOUT, RunFolder

__all__ = ["ENSEMBLE", "ensemble", "mean_predictions"]

ENSEMBLE = "ensemble"
_SPLITS = ("validation", "test")
_SHARED = ("cohort", "version", "task", "split")  # keys of a table's metadata


def ensemble(runs: Sequence[str | Path], out: str | Path, *, resamples: int = 1000) -> Finished:
    """Average finished runs, and score the mean as any run is scored.

    Every member's probabilities are those of its tables: its crops are joined, nothing is
    calibrated. The mean is unweighted, record by record and label by label.

    Parameters
    ----------
    runs : sequence of path
        Run folders of classifiers: at least two, on the same records, task and labels.
    out : path
        Folder of the ensemble: `run.json`, `predictions/`, `metrics.json`.
    resamples : int
        Of the bootstrap.

    Returns
    -------
    Finished
        The folder, and the score on the test split.

    Raises
    ------
    EvaluationError
        When a member is not finished, is an ensemble itself or comes twice, or was predicted for
        other records, targets, labels or another task than the first one; names the member.
    TrainingError
        When the folder holds another run.
    """
    members = [_Member.open(Path(run)) for run in runs]
    _check_members(members)
    means = {split: mean_predictions(*_tables(members, split)) for split in _SPLITS}
    run = RunFolder.begin(out, _asked(members))
    for split, table in means.items():
        table.save(run.path / PREDICTIONS / f"{split}.parquet")
    scores = score_splits(run.path, resamples=resamples)
    numbers: dict[str, Any] = {split: found.to_dict() for split, found in scores.items()}
    numbers["seconds"] = sum(member.seconds for member in members)
    write_json(run.path / METRICS, numbers)
    return Finished(run, scores["test"])


def mean_predictions(
    tables: Sequence[Predictions], names: Sequence[str] | None = None
) -> Predictions:
    """The unweighted mean of several models' probabilities for the same records.

    Parameters
    ----------
    tables : sequence of Predictions
        With the same records, labels, targets and patients, in the same order.
    names : sequence of str, optional
        What a refusal calls them; their numbers without.

    Returns
    -------
    Predictions
        With the targets and patients of the first.

    Raises
    ------
    EvaluationError
        When a table is calibrated, or differs from the first; says which one and in what.
    """
    called = list(names or [f"table {number + 1}" for number in range(len(tables))])
    for table, name in zip(tables, called, strict=True):
        _check_alike(tables[0], table, called[0], name)
    mean = np.mean([table.probabilities for table in tables], axis=0)
    about = dict(tables[0].metadata) | {"backbone": ENSEMBLE, "recipe": ENSEMBLE}
    return replace(tables[0], probabilities=mean, metadata=about | {"members": str(len(tables))})


@dataclass(frozen=True)
class _Member:
    """A finished run: its folder, what it asked for, and how long it was trained."""

    folder: Path
    asked: dict[str, Any]
    seconds: float

    @classmethod
    def open(cls, folder: Path) -> _Member:
        if not (folder / ABOUT).is_file():
            raise EvaluationError(f"{folder} is no run folder", remedy="name a run's folder")
        asked = read_json(folder / ABOUT)["request"]
        if asked.get("stage") != "posttrain":
            raise EvaluationError(
                f"{folder} is a run of {asked.get('stage')}, not of one classifier",
                remedy="name the members of an ensemble rather than the ensemble"
                if asked.get("stage") == ENSEMBLE
                else "name run folders of `einthoven posttrain`",
            )
        needed = [METRICS, *(f"{PREDICTIONS}/{split}.parquet" for split in _SPLITS)]
        missing = [name for name in needed if not (folder / name).is_file()]
        if missing:
            raise EvaluationError(
                f"{folder} is no finished run: {missing[0]} is missing",
                remedy="let it finish: the same posttrain command goes on",
            )
        return cls(folder, asked, float(read_json(folder / METRICS)["seconds"]))

    def describe(self) -> dict[str, Any]:
        """For run.json. Digests and not paths: a run may be moved."""
        recipe = self.asked["recipe"]
        return {
            "run": self.folder.name,
            "backbone": self.asked["backbone"],
            "recipe": recipe["name"],
            "seed": recipe["seed"],
            "predictions": {split: file_digest(self.table(split)) for split in _SPLITS},
        }

    def table(self, split: str) -> Path:
        """Its predictions of a split."""
        return self.folder / PREDICTIONS / f"{split}.parquet"


def _check_members(members: Sequence[_Member]) -> None:
    if len(members) < 2:
        raise EvaluationError(
            f"an ensemble of {len(members)} runs", remedy="name two run folders or more"
        )
    seen: dict[str, Path] = {}
    for member in members:
        digest = file_digest(member.table("test"))
        if digest in seen:
            raise EvaluationError(
                f"{member.folder} and {seen[digest]} hold the same predictions: a member that "
                "comes twice counts twice",
                remedy="name every member once",
            )
        seen[digest] = member.folder


def _tables(members: Sequence[_Member], split: str) -> tuple[list[Predictions], list[str]]:
    return [Predictions.load(m.table(split)) for m in members], [str(m.folder) for m in members]


def _check_alike(first: Predictions, other: Predictions, a: str, b: str) -> None:
    if other.targets is None:
        raise EvaluationError(f"{b} holds no targets", remedy="predict for a labelled cohort")
    if other.metadata.get(CALIBRATED) == "yes":
        raise EvaluationError(
            f"{b}: its probabilities are calibrated, each label by a curve of its own",
            remedy="average what networks say: predict with calibrated=False",
        )
    for key in _SHARED:
        _check_same(a, b, key, first.metadata.get(key, ""), other.metadata.get(key, ""))
    ours, theirs = set(first.labels), set(other.labels)
    only = [listed(sorted(some)) or "none" for some in (ours - theirs, theirs - ours)]
    _check_same(a, b, "labels that only one of them has", *only)
    _check_same(a, b, "the order of labels", first.labels, other.labels)
    _check_same(a, b, "records", first.records.tolist(), other.records.tolist())
    _check_same(a, b, "patients", first.patients.tolist(), other.patients.tolist())
    for row, column in np.argwhere(first.require_targets() != other.targets)[:1]:
        what = f"the target {first.labels[column]} of record {first.records[row]}"
        values = (int(table[row, column]) for table in (first.require_targets(), other.targets))
        _check_same(a, b, what, *values)


def _check_same(a: str, b: str, what: str, ours: Any, theirs: Any) -> None:
    """Refuse what differs, with the first difference of two lists."""
    if ours == theirs:
        return
    if isinstance(ours, list | tuple):
        pairs = enumerate(zip_longest(ours, theirs, fillvalue="nothing"))
        place, (ours, theirs) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
        what += f", first in number {place + 1}"
    raise EvaluationError(
        f"{b} and {a} differ in {what}: {theirs} and {ours}",
        remedy="name runs on one cohort, of the same version, task and labels",
    )


def _asked(members: Sequence[_Member]) -> dict[str, Any]:
    described = [member.describe() for member in members]
    names = [f"{one['backbone']} ({one['recipe']}, seed {one['seed']})" for one in described]
    return {
        "stage": ENSEMBLE,
        "backbone": ENSEMBLE,
        "weights": None,
        "recipe": {
            "name": ENSEMBLE,
            "description": f"Unweighted mean of the probabilities of {len(members)} runs",
            "members": names,
        },
        **{key: members[0].asked.get(key) for key in ("cohort", "version", "task", "labels")},
        **_agreed(members, "cohort_digest", "records_digest"),
        "members": described,
        "world": 1,
    }


def _agreed(members: Sequence[_Member], *keys: str) -> dict[str, Any]:
    """What all members say alike; one may have seen the same records at another rate."""
    said = {key: {member.asked.get(key) for member in members} for key in keys}
    return {key: values.pop() for key, values in said.items() if len(values) == 1}
