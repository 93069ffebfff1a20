"""From finished runs to numbers: seeds pooled, models compared on the same resamples.

The JSON file beside a page is the results table of a study. Table 1 is made from it where a run's
folder is not at hand: `with_stored_rows` is the only reader of stored numbers.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Literal

import numpy as np

from einthoven.errors import EvaluationError, ReproduceError
from einthoven.evaluate.bootstrap import Draws
from einthoven.evaluate.comparison import Comparison, difference
from einthoven.evaluate.estimate import Estimate, Plan, Truth, draw, estimate
from einthoven.evaluate.metrics import f_max
from einthoven.evaluate.missing_classes import UndefinedLabels
from einthoven.evaluate.scores import Score, checked_truth, pair, plain, suitable_policy, summary
from einthoven.experiment.ensembles import mean_predictions
from einthoven.experiment.run import (
    METRICS,
    PREDICTIONS,
    parameters_of,
    predict_splits,
    score_splits,
)
from einthoven.files import Json, locked, read_json, read_lines, write_json
from einthoven.models import config_digest, is_model, load_model, model_path, read_config
from einthoven.predictions import Predictions
from einthoven.progress import Progress
from einthoven.reproduce.grid import Group
from einthoven.reproduce.run import RANDOM, RUNS, Reproduction, State, finished_runs, request_of
from einthoven.signals.store import Store
from einthoven.stages.leakage import check_scored
from einthoven.training.distributed import Processes
from einthoven.training.run import ABOUT

Metric = Literal["auroc", "auprc"]
Split = Literal["validation", "test"]
AUROC_AUPRC: tuple[Metric, Metric] = ("auroc", "auprc")
# Positives of rare, less rare and common labels: one record decides about the first.
STRATA = ((1, 9), (10, 49), (50, None))


@dataclass(frozen=True)
class Ensemble:
    """The mean prediction of several groups, seed by seed."""

    members: tuple[Group, ...]

    @property
    def task(self) -> str:
        """Task of all members."""
        return self.members[0].task


@dataclass(frozen=True)
class Candidate:
    """A post-trained model that table 1 compares with: finished runs, identified by their folders.

    Attributes
    ----------
    task, backbone, recipe : str
    folders : tuple of (seed, Path)
    validation : float
        Macro AUROC on fold 9, mean over seeds.
    weights : str or None
        SHA-256 of the initial weights; None for random ones.
    model : str
        Name of a model folder; empty for runs.
    """

    task: str
    backbone: str
    recipe: str
    folders: tuple[tuple[int, Path], ...]
    validation: float
    weights: str | None
    model: str = ""

    def to_dict(self) -> Json:
        """As a JSON-serialisable dict, without folders."""
        return {
            **({"model": self.model} if self.model else {}),
            "backbone": self.backbone,
            "recipe": self.recipe,
            "seeds": [seed for seed, _ in self.folders],
            "validation_auroc": self.validation,
            "weights_sha256": self.weights,
        }


Source = Group | Ensemble | Candidate
Folders = tuple[Path, ...]  # one run, or those whose mean prediction an ensemble is


@dataclass(frozen=True)
class Stratum:
    """Labels with `low` to `high` positives; without upper limit if `high` is None."""

    low: int
    high: int | None
    labels: tuple[str, ...]


@dataclass(eq=False)
class _Basis:
    """What every run of a task is scored on: records, truth, resamples, and how."""

    records: list[str]
    truth: Truth
    draws: Draws
    plan: Plan


@dataclass(eq=False)
class Results:
    """The finished runs of a reproduction, scored on demand.

    All variants and seeds of a task share one set of resamples (seed 0): every difference is
    paired.
    """

    reproduction: Reproduction
    _bases: dict[tuple[str, Split], _Basis] = field(default_factory=dict)
    _estimates: dict[tuple[Folders, Split], tuple[Estimate, Estimate]] = field(default_factory=dict)
    _folders: dict[Source, dict[int, Folders]] = field(default_factory=dict)

    def folders(self, source: Source) -> dict[int, Folders]:
        """Finished runs by seed: one folder, or those of an ensemble's members."""
        if source not in self._folders:
            self._folders[source] = dict(self._finished(source))
        return self._folders[source]

    def _finished(self, source: Source) -> Iterator[tuple[int, Folders]]:
        if isinstance(source, Candidate):
            yield from ((seed, (folder,)) for seed, folder in source.folders)
        elif isinstance(source, Ensemble):
            members = [self.folders(member) for member in source.members]
            for seed in sorted(set.intersection(*map(set, members))):
                yield seed, tuple(folder for member in members for folder in member[seed])
        else:
            experiment, reproduction = self.reproduction.experiment, self.reproduction
            for seed in experiment.seeds_of(source.variant, source.task, source.fraction):
                if reproduction.state(source.run(seed)) is State.DONE:
                    yield seed, (reproduction.folder(source.run(seed)),)

    def seeds(self, *sources: Source) -> tuple[int, ...]:
        """Seeds that are finished in every source."""
        return tuple(sorted(set.intersection(*(set(self.folders(each)) for each in sources))))

    def macro(
        self,
        source: Source,
        metric: Metric,
        split: Split = "test",
        *,
        minus: Source | None = None,
        among: Stratum | None = None,
    ) -> Json | None:
        """Macro value, or its paired difference to another source, over the shared seeds.

        Returns
        -------
        dict or None
            `seeds`; `values` and 95 % `intervals` of every seed; `mean`, `spread` (standard
            deviation over seeds), `interval` of the mean and its bootstrap `bias`. The interval of
            the mean resamples records, the same for every seed. None if no seed is finished.
        """
        seeds = self.seeds(source) if minus is None else self.seeds(source, minus)
        if not seeds:
            return None
        estimates = self._of_seeds(source, seeds, metric, split)
        if minus is not None:
            others = self._of_seeds(minus, seeds, metric, split)
            estimates = [a.minus(b) for a, b in zip(estimates, others, strict=True)]
        basis = self._bases[source.task, split]
        if among is not None:
            columns = [basis.truth.labels.index(label) for label in among.labels]
            estimates = [each.among(columns) for each in estimates]
        macros = [each.macro(basis.plan.undefined_labels) for each in estimates]
        values = [float(each.point[0]) for each in macros]
        pooled = _mean(macros)
        numbers: Json = plain(
            {
                "seeds": seeds,
                "values": values,
                "intervals": [pair(each, basis.plan) for each in macros],
                "mean": mean(values),
                "spread": stdev(values) if len(values) > 1 else None,
                "interval": pair(pooled, basis.plan),
                "bias": pooled.bias() if basis.plan.resamples else None,
            }
        )
        return numbers

    def gap(self, a: Source, b: Source, metric: Metric) -> Json | None:
        """Macro value of `a` minus that of `b` on test, each a mean over all of its seeds."""
        seeds, others = self.seeds(a), self.seeds(b)
        if not seeds or not others:
            return None
        first = _mean(self._of_seeds(a, seeds, metric, "test"))
        second = _mean(self._of_seeds(b, others, metric, "test"))
        plan = self._bases[a.task, "test"].plan
        whole = first.minus(second).macro(plan.undefined_labels)
        numbers: Json = plain(
            {
                "mean": float(whole.point[0]),
                "interval": pair(whole, plan),
                "seeds": seeds,
                "other_seeds": others,
            }
        )
        return numbers

    def comparison(self, a: Group, b: Group, split: Split = "test") -> Comparison | None:
        """Comparison with every label, as means over the seeds that both have."""
        seeds = self.seeds(a, b)
        if not seeds:
            return None
        means = [
            [_mean(self._of_seeds(group, seeds, metric, split)) for metric in AUROC_AUPRC]
            for group in (a, b)
        ]
        plan = self._bases[a.task, split].plan
        return Comparison(
            a=self._score(a, seeds, split, means[0]),
            b=self._score(b, seeds, split, means[1]),
            auroc=difference(means[0][0], means[1][0], plan),
            auprc=difference(means[0][1], means[1][1], plan),
        )

    def _score(
        self, group: Group, seeds: Sequence[int], split: Split, means: Sequence[Estimate]
    ) -> Score:
        basis, folders = self._bases[group.task, split], self.folders(group)
        tables = [_predictions(folders[seed], split).probabilities for seed in seeds]
        score = summary(basis.truth, tables[0], (means[0], means[1]), basis.draws, basis.plan)
        if math.isnan(score.f_max):
            return score
        return replace(score, f_max=mean(f_max(basis.truth.targets, table) for table in tables))

    def strata(self, source: Source) -> list[Stratum]:
        """Labels of a source's task by their number of positives on test; none without a run."""
        folders = list(self.folders(source).values())
        if not folders:
            return []
        self._estimate(folders[0], source.task, "test")
        truth = self._bases[source.task, "test"].truth
        counts = dict(zip(truth.labels, truth.targets.sum(axis=0, dtype=int), strict=True))
        strata = [
            Stratum(low, high, tuple(s for s, n in counts.items() if low <= n <= (high or n)))
            for low, high in STRATA
        ]
        return [stratum for stratum in strata if stratum.labels]

    def cost(self, source: Source) -> Json | None:
        """Parameters, seconds and training records a second (median epoch); means over seeds."""
        by_seed = list(self.folders(source).values())
        if not by_seed:
            return None
        numbers = [[read_json(folder / METRICS) for folder in folders] for folders in by_seed]
        parameters = [run.get("parameters") for run in numbers[0]]
        seconds = [[run["seconds"] for run in runs] for runs in numbers]
        epochs = [read_lines(folders[0] / "stage2" / "metrics.jsonl") for folders in by_seed]
        rates = [median(line["samples_per_second"] for line in lines) for lines in epochs if lines]
        return {
            "parameters": None if None in parameters else sum(parameters),
            "seconds": None if any(None in s for s in seconds) else mean(map(sum, seconds)),
            "rate": mean(rates) if rates and not isinstance(source, Ensemble) else None,
            "device": " and ".join(sorted({run["device"] for runs in numbers for run in runs})),
        }

    def _of_seeds(
        self, source: Source, seeds: Sequence[int], metric: Metric, split: Split
    ) -> list[Estimate]:
        folders, index = self.folders(source), AUROC_AUPRC.index(metric)
        return [self._estimate(folders[seed], source.task, split)[index] for seed in seeds]

    def _estimate(self, folders: Folders, task: str, split: Split) -> tuple[Estimate, Estimate]:
        if (folders, split) not in self._estimates:
            predictions = _predictions(folders, split)
            basis = self._basis(folders[0], task, split, predictions)
            self._estimates[folders, split] = estimate(
                basis.truth, predictions.probabilities, basis.draws, basis.plan
            )
        return self._estimates[folders, split]

    def _basis(self, folder: Path, task: str, split: Split, predictions: Predictions) -> _Basis:
        if predictions.targets is None:
            raise EvaluationError(f"{folder.name} has no targets", remedy="repeat that run")
        if (task, split) not in self._bases:
            truth = checked_truth(predictions.targets, predictions.labels)
            policy = UndefinedLabels.of(suitable_policy(predictions))
            plan = Plan(resamples=self.reproduction.experiment.resamples, undefined_labels=policy)
            self._bases[task, split] = _Basis(
                predictions.records.tolist(), truth, draw(truth, plan), plan
            )
        basis = self._bases[task, split]
        if (
            predictions.labels != basis.truth.labels
            or predictions.records.tolist() != basis.records
            or not np.array_equal(predictions.targets, basis.truth.targets)
        ):
            raise EvaluationError(
                f"{folder.name} was predicted for other records than the runs before it",
                remedy="use one cohort for all runs of a reproduction and its comparisons",
            )
        return basis


def _predictions(folders: Folders, split: Split) -> Predictions:
    tables = [Predictions.load(folder / PREDICTIONS / f"{split}.parquet") for folder in folders]
    if len(tables) == 1:
        return tables[0]
    return mean_predictions(tables, [folder.name for folder in folders])


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    return Estimate(
        np.mean([each.point for each in estimates], axis=0),
        np.mean([each.replicates for each in estimates], axis=0),
        None,
    )


def best_candidate(reproduction: Reproduction, task: str) -> Candidate | None:
    """The post-trained model of a task with the highest macro AUROC on fold 9.

    Raises
    ------
    ReproduceError
        If `--against` names a folder without a finished run, or two runs share model and seed.
    """
    candidates = candidates_of(reproduction, task)
    return max(candidates, key=lambda candidate: candidate.validation, default=None)


def candidates_of(reproduction: Reproduction, task: str) -> list[Candidate]:
    """Post-trained models of a task; runs that differ only in their seed are one model.

    Candidates are the finished post-training runs of the folder and of `--against`, and every run
    or model that `--against` names itself.
    """
    models: dict[str, dict[int, tuple[Path, Json]]] = {}
    for folder, request in dict(_candidate_runs(reproduction)).items():
        if request["task"] != task:
            continue
        seeds, seed = models.setdefault(_identity(folder, request), {}), request["recipe"]["seed"]
        if seed in seeds:
            raise ReproduceError(
                f"{seeds[seed][0]} and {folder} are runs of one model with the same seed, {seed}",
                remedy="move one of them to another folder",
            )
        seeds[seed] = folder, request
    candidates = []
    for runs in models.values():
        folders = tuple((seed, runs[seed][0]) for seed in sorted(runs))
        metrics = [read_json(folder / METRICS) for _, folder in folders]
        _, request = next(iter(runs.values()))
        candidates.append(
            Candidate(
                task,
                request["backbone"],
                request["recipe"]["name"],
                folders,
                mean(numbers["validation"]["macro_auroc"] for numbers in metrics),
                _weights(request),
                request.get("model", ""),
            )
        )
    return candidates


def _identity(folder: Path, request: Json) -> str:
    # The same recipe from another encoder is another model, and so is every model folder.
    recipe = {key: value for key, value in request["recipe"].items() if key != "seed"}
    place = folder if request.get("model") else folder.parent
    options = request.get("backbone_options")
    identity = [str(place), request["backbone"], options, _weights(request), recipe]
    return json.dumps(identity, sort_keys=True)


def _weights(request: Json) -> str | None:
    return (request.get("weights") or {}).get("sha256")


def _candidate_runs(reproduction: Reproduction) -> Iterator[tuple[Path, Json]]:
    for place in (reproduction.out, *reproduction.against):
        if place != reproduction.out and is_model(place):
            folder = _predicted_folder(reproduction, place)
            if (folder / METRICS).is_file():  # `predict_models` has run
                yield folder.resolve(), request_of(folder)
        elif (place / ABOUT).is_file():
            request = request_of(place)
            if request.get("stage") != "posttrain" or not (place / METRICS).is_file():
                raise ReproduceError(
                    f"--against {place} is not a finished run of a classifier",
                    remedy="repeat its posttrain command to finish it",
                )
            yield place.resolve(), request
        elif place == reproduction.out or (place / RUNS).is_dir():
            for folder, request in finished_runs(place):
                if is_post_training(request):
                    yield folder.resolve(), request
        else:
            raise ReproduceError(
                f"--against {place}: no run, reproduction or model",
                remedy="pass a run folder, the --out of another reproduction, or a model",
            )


def is_post_training(request: Json) -> bool:
    """Whether a run is the strategy of arXiv 2509.12991 on all training records: pretrained
    weights, a linear probe, then fine-tuning with stochastic depth."""
    recipe, weights = request["recipe"], request.get("weights")
    if request.get("stage") != "posttrain" or weights is None:
        return False
    if Path(weights["path"]).name.startswith(RANDOM) or recipe["data"]["fraction"] < 1:
        return False
    return bool(recipe["stage1"] and recipe["stage2"] and recipe["stage2"]["drop_path"] > 0)


def predict_models(reproduction: Reproduction, progress: Progress | None = None) -> None:
    """Predict validation and test by every model folder of `--against`, once, into `OUT/against`.

    Raises
    ------
    ReproduceError
        If a model's task is not among those of the experiment.
    EvaluationError
        If its labels are not those of the cohort.
    """
    for place in filter(is_model, reproduction.against):
        folder, request = _predicted_folder(reproduction, place), _request(reproduction, place)
        with locked(reproduction.lock(folder.name)):
            if (folder / ABOUT).is_file() and request_of(folder) != request:
                shutil.rmtree(folder)  # of another cohort, or other labels
            if not (folder / METRICS).is_file():
                _predict(reproduction, place, folder, request, progress)


def _predicted_folder(reproduction: Reproduction, model: Path) -> Path:
    path = model_path(model)
    return reproduction.out / "against" / f"{path.name}--{config_digest(read_config(path))[:12]}"


def _request(reproduction: Reproduction, model: Path) -> Json:
    """The request of a model's training, as far as the model records it, and of its predictions."""
    path = model_path(model)
    config = read_config(path)
    provenance = config["provenance"]
    task = (provenance.get("cohort") or {}).get("task")
    if task not in reproduction.experiment.tasks:
        raise ReproduceError(
            f"--against {model}: a model of the task {task}",
            remedy=f"use one of {', '.join(reproduction.experiment.tasks)}",
        )
    return {
        "stage": "posttrain",
        "model": path.name,
        "task": task,
        "backbone": config["backbone"],
        "backbone_options": config["backbone_options"],
        "recipe": provenance["recipe"],
        "weights": provenance["initial_weights"],
        "cohort_digest": reproduction.open_cohort(task).digest,
        "records_digest": reproduction.records_digest,
    }


def _predict(
    reproduction: Reproduction,
    place: Path,
    folder: Path,
    request: Json,
    progress: Progress | None,
) -> None:
    model = load_model(place)
    cohort = reproduction.open_cohort(request["task"])
    store = Store.open(reproduction.store)
    check_scored(place, (cohort, store))
    write_json(folder / ABOUT, {"request": request})
    device = Processes(reproduction.device).device
    tables = predict_splits(model, cohort, store, folder, device=device, progress=progress)
    scores = score_splits(tables, resamples=0)
    numbers: Json = {split: score.to_dict() for split, score in scores.items()}
    numbers |= {"seconds": None, "parameters": parameters_of(model.classifier), "device": "–"}
    write_json(folder / METRICS, numbers)


def with_stored_rows(numbers: Json, stored: Json) -> Json:
    """Table 1 with stored numbers of rows, and post-trained models, whose runs are not at hand.

    A row is the same if its name, backbone, variant, members and changes are. A stored lead of the
    best post-trained model stays only if that model is still the best.

    Parameters
    ----------
    numbers : dict
        Table 1 of the runs at hand.
    stored : dict
        Table 1 of the results file; may be empty.
    """
    best, best_on = dict(numbers["best_post_trained"]), dict(numbers["best_post_trained_on"])
    stored_best = stored.get("best_post_trained", {})
    for task, candidate in stored_best.items():
        if task not in best:
            best[task] = candidate
            if task in stored["best_post_trained_on"]:
                best_on[task] = stored["best_post_trained_on"][task]
    stored_rows = {_row_identity(row): row["tasks"] for row in stored.get("rows", [])}
    rows = []
    for row in numbers["rows"]:
        tasks = dict(row["tasks"])
        for task, entry in stored_rows.get(_row_identity(row), {}).items():
            if task in tasks and tasks[task]["auroc"] is None and entry["auroc"] is not None:
                same_best = stored_best.get(task) == best.get(task)
                tasks[task] = entry if same_best else entry | {"post_trained_minus_this": {}}
        rows.append(row | {"tasks": tasks})
    return numbers | {"best_post_trained": best, "best_post_trained_on": best_on, "rows": rows}


def _row_identity(row: Json) -> str:
    keys = ("name", "variant", "members", "backbone", "short_schedule", "changes")
    return json.dumps([row[key] for key in keys])
