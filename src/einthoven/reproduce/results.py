"""From finished runs to numbers: seeds pooled, models compared on the same resamples.

The JSON file beside a page is the results table of a study. Table 1 is made from it where a run's
folder is not at hand: `with_stored_rows` is the only reader of stored numbers.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import mean, median, stdev
from typing import Literal

import numpy as np

from einthoven.cohorts.cohort import Split
from einthoven.errors import EvaluationError
from einthoven.evaluate.comparison import Comparison, difference
from einthoven.evaluate.estimate import Bootstrap, BootstrapSettings, Estimate
from einthoven.evaluate.metrics import f_max
from einthoven.evaluate.scores import Score, plain, summary
from einthoven.experiment.ensembles import mean_predictions
from einthoven.files import HISTORY_FILE, METRICS_FILE, Json, read_json, read_lines
from einthoven.predictions import Predictions
from einthoven.predictions.table import run_table
from einthoven.reproduce.grid import Group
from einthoven.reproduce.run import RUNS, Reproduction, State
from einthoven.training.run import RunFolder

Metric = Literal["auroc", "auprc"]
AUROC_AUPRC: tuple[Metric, Metric] = ("auroc", "auprc")
# Positives of rare, less rare and common labels: the first is determined by one record.
STRATA = ((1, 9), (10, 49), (50, None))

Groups = Group | tuple[Group, ...]  # of several groups the mean prediction, seed by seed
Folders = tuple[Path, ...]  # one run, or those whose mean prediction is scored


def groups_of(source: Groups) -> tuple[Group, ...]:
    """Groups of a source."""
    return source if isinstance(source, tuple) else (source,)


@dataclass(eq=False)
class Results:
    """The finished runs of a reproduction, scored on demand.

    All variants and seeds of a task share one set of resamples (seed 0): every difference is
    paired.
    """

    reproduction: Reproduction
    # The first table of every task and split, and its resamples, which all others share.
    _first: dict[tuple[str, Split], tuple[Predictions, Bootstrap]] = field(default_factory=dict)
    _estimates: dict[tuple[Folders, Split], tuple[Estimate, Estimate]] = field(default_factory=dict)
    _folders: dict[Groups, dict[int, Folders]] = field(default_factory=dict)

    def folders(self, source: Groups) -> dict[int, Folders]:
        """Finished runs by seed: one folder, or those of several groups."""
        if source not in self._folders:
            members = [self._finished(group) for group in groups_of(source)]
            self._folders[source] = {
                seed: tuple(member[seed] for member in members)
                for seed in sorted(set.intersection(*map(set, members)))
            }
        return self._folders[source]

    def _finished(self, group: Group) -> dict[int, Path]:
        reproduction, experiment = self.reproduction, self.reproduction.experiment
        if group.variant not in experiment.variants:  # of another experiment in the same folder
            return self._post_trained[group]
        seeds = experiment.seeds_of(group.variant, group.task, group.fraction)
        return {
            run.seed: reproduction.folder(run)
            for run in map(group.run, seeds)
            if reproduction.state(run) is State.DONE
        }

    @cached_property
    def _post_trained(self) -> dict[Group, dict[int, Path]]:
        """Finished post-training runs in the folder, of any experiment, by group and seed."""
        runs: dict[Group, dict[int, Path]] = defaultdict(dict)
        for file in sorted((self.reproduction.out / RUNS).glob(f"*/{METRICS_FILE}")):
            request = RunFolder(file.parent).request
            if is_post_training(request):
                recipe = request["recipe"]
                group = Group(request["backbone"], recipe["name"], request["task"])
                runs[group][recipe["seed"]] = file.parent
        return dict(runs)

    def best_post_trained(self, task: str) -> Group | None:
        """The post-trained group with the highest macro AUROC on fold 9, mean over seeds."""
        groups = [group for group in self._post_trained if group.task == task]
        return max(filter(self.folders, groups), key=self._validation, default=None)

    def _validation(self, group: Group) -> float:
        folders = [folder for (folder,) in self.folders(group).values()]
        scores = [read_json(folder / METRICS_FILE)["validation"] for folder in folders]
        return float(mean(score["macro_auroc"] for score in scores))

    def description(self, group: Group) -> Json:
        """A post-trained group in the numbers of table 1."""
        seeds = self.folders(group)
        return {
            "backbone": group.backbone,
            "recipe": group.variant,
            "seeds": list(seeds),
            "validation_auroc": self._validation(group),
            "weights_sha256": RunFolder(seeds[min(seeds)][0]).request["weights"]["sha256"],
        }

    def seeds(self, *sources: Groups) -> tuple[int, ...]:
        """Seeds that are finished in every source."""
        return tuple(sorted(set.intersection(*(set(self.folders(source)) for source in sources))))

    def macro(
        self,
        source: Groups,
        metric: Metric,
        split: Split = "test",
        *,
        minus: Groups | None = None,
        labels: Sequence[str] | None = None,
    ) -> Json | None:
        """Macro value, or its paired difference to `minus`, over shared seeds; of some `labels`.

        Returns `seeds`; `values` and 95 % `intervals` of every seed; `mean`, `spread` (standard
        deviation over seeds), `interval` of the mean and its bootstrap `bias`. The interval of the
        mean resamples records, the same for every seed. None if no seed is finished.
        """
        seeds = self.seeds(source) if minus is None else self.seeds(source, minus)
        if not seeds:
            return None
        estimates = self._of_seeds(source, seeds, metric, split)
        if minus is not None:
            others = self._of_seeds(minus, seeds, metric, split)
            estimates = [a.minus(b) for a, b in zip(estimates, others, strict=True)]
        if labels is not None:
            _, bootstrap = self._first[groups_of(source)[0].task, split]
            columns = [bootstrap.labels.index(label) for label in labels]
            estimates = [estimate.select_labels(columns) for estimate in estimates]
        macros = [estimate.macro() for estimate in estimates]
        values = [float(macro.point[0]) for macro in macros]
        pooled = _mean(macros)
        return plain(
            {
                "seeds": seeds,
                "values": values,
                "intervals": [macro.interval() for macro in macros],
                "mean": mean(values),
                "spread": stdev(values) if len(values) > 1 else None,
                "interval": pooled.interval(),
                "bias": pooled.bias(),
            }
        )

    def gap(self, a: Groups, b: Groups, metric: Metric) -> Json | None:
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
        ours, theirs = (
            [_mean(self._of_seeds(group, seeds, metric, split)) for metric in AUROC_AUPRC]
            for group in (a, b)
        )
        return Comparison(
            a=self._score(a, seeds, split, ours),
            b=self._score(b, seeds, split, theirs),
            auroc=difference(ours[0], theirs[0]),
            auprc=difference(ours[1], theirs[1]),
        )

    def _score(
        self, group: Group, seeds: Sequence[int], split: Split, means: Sequence[Estimate]
    ) -> Score:
        (_, bootstrap), folders = self._first[group.task, split], self.folders(group)
        tables = [_predictions(folders[seed], split).probabilities for seed in seeds]
        score = summary(bootstrap, tables[0], (means[0], means[1]))
        if math.isnan(score.f_max):
            return score
        return replace(score, f_max=mean(f_max(bootstrap.targets, table) for table in tables))

    def strata(self, group: Group) -> list[Json]:
        """Labels by their number of positives on test, `low` to `high`; none without a run."""
        seeds = self.seeds(group)
        if not seeds:
            return []
        self._of_seeds(group, seeds[:1], "auroc", "test")
        _, bootstrap = self._first[group.task, "test"]
        counts = dict(zip(bootstrap.labels, bootstrap.targets.sum(axis=0, dtype=int), strict=True))
        strata = []
        for low, high in STRATA:
            labels = [label for label, n in counts.items() if low <= n <= (high or n)]
            if labels:
                strata.append({"low": low, "high": high, "labels": labels})
        return strata

    def cost(self, source: Groups) -> Json | None:
        """Parameters, seconds and training records a second (median epoch); means over seeds."""
        by_seed = list(self.folders(source).values())
        if not by_seed:
            return None
        numbers = [[read_json(folder / METRICS_FILE) for folder in folders] for folders in by_seed]
        parameters = [run.get("parameters") for run in numbers[0]]
        seconds = [[run["seconds"] for run in runs] for runs in numbers]
        epochs = [read_lines(folders[0] / "stage2" / HISTORY_FILE) for folders in by_seed]
        rates = [median(line["samples_per_second"] for line in lines) for lines in epochs if lines]
        return {
            "parameters": None if None in parameters else sum(parameters),
            "seconds": None if any(None in s for s in seconds) else mean(map(sum, seconds)),
            "rate": mean(rates) if rates and not isinstance(source, tuple) else None,
            "device": " and ".join(sorted({run["device"] for runs in numbers for run in runs})),
        }

    def _of_seeds(
        self, source: Groups, seeds: Sequence[int], metric: Metric, split: Split
    ) -> list[Estimate]:
        task, folders = groups_of(source)[0].task, self.folders(source)
        index = AUROC_AUPRC.index(metric)
        return [self._estimate(folders[seed], task, split)[index] for seed in seeds]

    def _estimate(self, folders: Folders, task: str, split: Split) -> tuple[Estimate, Estimate]:
        if (folders, split) not in self._estimates:
            predictions = _predictions(folders, split)
            if (task, split) not in self._first:
                # As in the papers, and in the results that are stored beside the pages.
                resamples = self.reproduction.experiment.resamples
                settings = BootstrapSettings(resamples=resamples, interval="percentile")
                self._first[task, split] = predictions, Bootstrap.of(predictions, settings)
            first, bootstrap = self._first[task, split]
            if (
                predictions.labels != first.labels
                or not np.array_equal(predictions.records, first.records)
                or not np.array_equal(predictions.require_targets(), bootstrap.targets)
            ):
                raise EvaluationError(
                    f"{folders[0].name} was predicted for other records than the runs before it",
                    remedy="use one cohort for all runs of a reproduction and its comparisons",
                )
            self._estimates[folders, split] = bootstrap.estimate(predictions.probabilities)
        return self._estimates[folders, split]


def _predictions(folders: Folders, split: Split) -> Predictions:
    tables = [run_table(folder, split) for folder in folders]
    if len(tables) == 1:
        return tables[0]
    return mean_predictions(tables, [folder.name for folder in folders])


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    return replace(
        estimates[0],
        point=np.mean([estimate.point for estimate in estimates], axis=0),
        replicates=np.mean([estimate.replicates for estimate in estimates], axis=0),
    )


def is_post_training(request: Json) -> bool:
    """Whether a run is the strategy of arXiv 2509.12991 on all training records: pretrained
    weights, a linear probe, then fine-tuning with stochastic depth."""
    if request.get("stage") != "posttrain" or request["weights"] is None:
        return False
    recipe = request["recipe"]
    if request["weights"].get("is_random") or recipe["data"]["fraction"] < 1:
        return False
    return bool(recipe["stage1"] and recipe["stage2"] and recipe["stage2"]["drop_path"] > 0)


def with_stored_rows(numbers: Json, stored: Json) -> Json:
    """Table 1 with stored numbers of rows, and post-trained models, whose runs are not at hand.

    A row is the same if its name, backbone, variant, members and changes are. A stored lead of the
    best post-trained model stays only if that model is still the best. `stored` may be empty.
    """
    stored_best = stored.get("best_post_trained", {})
    added = [task for task in stored_best if task not in numbers["best_post_trained"]]
    merged = {
        key: numbers[key] | {task: stored[key][task] for task in added if task in stored[key]}
        for key in ("best_post_trained", "best_post_trained_on")
    }
    stored_rows = {_row_identity(row): row["tasks"] for row in stored.get("rows", [])}
    rows = []
    for row in numbers["rows"]:
        tasks = dict(row["tasks"])
        for task, entry in stored_rows.get(_row_identity(row), {}).items():
            if task in tasks and tasks[task]["auroc"] is None and entry["auroc"] is not None:
                same_best = stored_best.get(task) == merged["best_post_trained"].get(task)
                tasks[task] = entry if same_best else entry | {"post_trained_minus_this": {}}
        rows.append(row | {"tasks": tasks})
    return numbers | merged | {"rows": rows}


def _row_identity(row: Json) -> str:
    keys = ("name", "variant", "members", "backbone", "short_schedule", "changes")
    return json.dumps([row[key] for key in keys])
