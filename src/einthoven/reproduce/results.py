"""From finished runs to numbers: seeds pooled, models compared on the same resamples.

The JSON file beside a page is the results table of a study. Table 1 is made from it where a run's
folder is not at hand: `with_stored_rows` is the only reader of stored numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Literal

import numpy as np

from einthoven.errors import EvaluationError
from einthoven.evaluate.comparison import Comparison, difference
from einthoven.evaluate.estimate import Bootstrap, Estimate, Plan
from einthoven.evaluate.metrics import f_max
from einthoven.evaluate.scores import Score, plain, summary
from einthoven.experiment.ensembles import mean_predictions
from einthoven.experiment.run import METRICS, PREDICTIONS
from einthoven.files import Json, read_json, read_lines
from einthoven.predictions import Predictions
from einthoven.reproduce.grid import Group
from einthoven.reproduce.run import RANDOM, Reproduction, State, finished_runs, request_of

Metric = Literal["auroc", "auprc"]
Split = Literal["validation", "test"]
AUROC_AUPRC: tuple[Metric, Metric] = ("auroc", "auprc")
# Positives of rare, less rare and common labels: one record decides about the first.
STRATA = ((1, 9), (10, 49), (50, None))


Source = Group | tuple[Group, ...]  # of several groups the mean prediction, seed by seed
Folders = tuple[Path, ...]  # one run, or those whose mean prediction is scored


def groups_of(source: Source) -> tuple[Group, ...]:
    """Groups of a source."""
    return source if isinstance(source, tuple) else (source,)


@dataclass(eq=False)
class _Basis:
    """What every run of a task is scored on: records, and their targets and resamples."""

    records: list[str]
    bootstrap: Bootstrap


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
        """Finished runs by seed: one folder, or those of several groups."""
        if source not in self._folders:
            members = [dict(self._finished(group)) for group in groups_of(source)]
            self._folders[source] = {
                seed: tuple(member[seed] for member in members)
                for seed in sorted(set.intersection(*map(set, members)))
            }
        return self._folders[source]

    def _finished(self, group: Group) -> Iterator[tuple[int, Path]]:
        experiment, reproduction = self.reproduction.experiment, self.reproduction
        if group.variant not in experiment.variants:  # of another experiment in the same folder
            yield from (
                (request["recipe"]["seed"], folder)
                for folder, request in self._post_trained(group.task)
                if _group_of(request) == group
            )
            return
        for seed in experiment.seeds_of(group.variant, group.task, group.fraction):
            if reproduction.state(group.run(seed)) is State.DONE:
                yield seed, reproduction.folder(group.run(seed))

    def _post_trained(self, task: str) -> Iterator[tuple[Path, Json]]:
        """Finished post-training runs of a task in the folder, of any experiment."""
        for folder, request in finished_runs(self.reproduction.out):
            if request["task"] == task and is_post_training(request):
                yield folder, request

    def best_post_trained(self, task: str) -> Group | None:
        """The post-trained group with the highest macro AUROC on fold 9, mean over seeds."""
        groups = dict.fromkeys(_group_of(request) for _, request in self._post_trained(task))
        finished = [group for group in groups if self.folders(group)]
        return max(finished, key=self.validation, default=None)

    def validation(self, group: Group) -> float:
        """Macro AUROC on fold 9, mean over seeds."""
        folders = [folder for (folder,) in self.folders(group).values()]
        scores = [read_json(folder / METRICS)["validation"] for folder in folders]
        return float(mean(score["macro_auroc"] for score in scores))

    def description(self, group: Group) -> Json:
        """A post-trained group in the numbers of table 1."""
        seeds = self.folders(group)
        weights = request_of(seeds[min(seeds)][0])["weights"]
        return {
            "backbone": group.backbone,
            "recipe": group.variant,
            "seeds": list(seeds),
            "validation_auroc": self.validation(group),
            "weights_sha256": weights["sha256"],
        }

    def seeds(self, *sources: Source) -> tuple[int, ...]:
        """Seeds that are finished in every source."""
        return tuple(sorted(set.intersection(*(set(self.folders(source)) for source in sources))))

    def macro(
        self,
        source: Source,
        metric: Metric,
        split: Split = "test",
        *,
        minus: Source | None = None,
        labels: Sequence[str] | None = None,
    ) -> Json | None:
        """Macro value, or its paired difference to another source, over the shared seeds.

        Parameters
        ----------
        source : Source
        metric : {"auroc", "auprc"}
        split : {"validation", "test"}
        minus : Source, optional
            The other source.
        labels : sequence of str, optional
            Some of the task's labels.

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
        basis = self._bases[groups_of(source)[0].task, split]
        if labels is not None:
            columns = [basis.bootstrap.labels.index(label) for label in labels]
            estimates = [each.among(columns) for each in estimates]
        macros = [each.macro() for each in estimates]
        values = [float(each.point[0]) for each in macros]
        pooled = _mean(macros)
        return plain(
            {
                "seeds": seeds,
                "values": values,
                "intervals": [each.interval() for each in macros],
                "mean": mean(values),
                "spread": stdev(values) if len(values) > 1 else None,
                "interval": pooled.interval(),
                "bias": pooled.bias(),
            }
        )

    def gap(self, a: Source, b: Source, metric: Metric) -> Json | None:
        """Macro value of `a` minus that of `b` on test, each a mean over all of its seeds."""
        seeds, others = self.seeds(a), self.seeds(b)
        if not seeds or not others:
            return None
        first = _mean(self._of_seeds(a, seeds, metric, "test"))
        second = _mean(self._of_seeds(b, others, metric, "test"))
        whole = first.minus(second).macro()
        return plain(
            {
                "mean": float(whole.point[0]),
                "interval": whole.interval(),
                "seeds": seeds,
                "other_seeds": others,
            }
        )

    def comparison(self, a: Group, b: Group, split: Split = "test") -> Comparison | None:
        """Comparison with every label, as means over the seeds that both have."""
        seeds = self.seeds(a, b)
        if not seeds:
            return None
        means = [
            [_mean(self._of_seeds(group, seeds, metric, split)) for metric in AUROC_AUPRC]
            for group in (a, b)
        ]
        return Comparison(
            a=self._score(a, seeds, split, means[0]),
            b=self._score(b, seeds, split, means[1]),
            auroc=difference(means[0][0], means[1][0]),
            auprc=difference(means[0][1], means[1][1]),
        )

    def _score(
        self, group: Group, seeds: Sequence[int], split: Split, means: Sequence[Estimate]
    ) -> Score:
        bootstrap, folders = self._bases[group.task, split].bootstrap, self.folders(group)
        tables = [_predictions(folders[seed], split).probabilities for seed in seeds]
        score = summary(bootstrap, tables[0], (means[0], means[1]))
        if math.isnan(score.f_max):
            return score
        return replace(score, f_max=mean(f_max(bootstrap.targets, table) for table in tables))

    def strata(self, group: Group) -> list[Json]:
        """Labels by their number of positives on test, `low` to `high`; none without a run."""
        folders = list(self.folders(group).values())
        if not folders:
            return []
        self._estimate(folders[0], group.task, "test")
        bootstrap = self._bases[group.task, "test"].bootstrap
        counts = dict(zip(bootstrap.labels, bootstrap.targets.sum(axis=0, dtype=int), strict=True))
        strata = [
            {
                "low": low,
                "high": high,
                "labels": [label for label, n in counts.items() if low <= n <= (high or n)],
            }
            for low, high in STRATA
        ]
        return [stratum for stratum in strata if stratum["labels"]]

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
            "rate": mean(rates) if rates and not isinstance(source, tuple) else None,
            "device": " and ".join(sorted({run["device"] for runs in numbers for run in runs})),
        }

    def _of_seeds(
        self, source: Source, seeds: Sequence[int], metric: Metric, split: Split
    ) -> list[Estimate]:
        folders, index = self.folders(source), AUROC_AUPRC.index(metric)
        return [
            self._estimate(folders[seed], groups_of(source)[0].task, split)[index] for seed in seeds
        ]

    def _estimate(self, folders: Folders, task: str, split: Split) -> tuple[Estimate, Estimate]:
        if (folders, split) not in self._estimates:
            predictions = _predictions(folders, split)
            basis = self._basis(folders[0], task, split, predictions)
            self._estimates[folders, split] = basis.bootstrap.estimate(predictions.probabilities)
        return self._estimates[folders, split]

    def _basis(self, folder: Path, task: str, split: Split, predictions: Predictions) -> _Basis:
        if predictions.targets is None:
            raise EvaluationError(f"{folder.name} has no targets", remedy="repeat that run")
        if (task, split) not in self._bases:
            plan = Plan(resamples=self.reproduction.experiment.resamples)
            bootstrap = Bootstrap.of(predictions, plan)
            self._bases[task, split] = _Basis(predictions.records.tolist(), bootstrap)
        basis = self._bases[task, split]
        if (
            predictions.labels != basis.bootstrap.labels
            or predictions.records.tolist() != basis.records
            or not np.array_equal(predictions.targets, basis.bootstrap.targets)
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
        estimates[0].plan,
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


def _group_of(request: Json) -> Group:
    return Group(request["backbone"], request["recipe"]["name"], request["task"])


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
