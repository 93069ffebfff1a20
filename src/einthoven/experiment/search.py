"""Search of recipe keys on validation records, as an Optuna study that can be resumed.

Every trial trains by the recipe with other values of some keys, and is measured on validation
records by the criterion with which the stages choose epochs. Below 2,000 records of the training
and validation splits, they are cross-validated together. Test records are not part of the cohort
that the trials receive, and their signals are not read.

A trial's values follow from the seed and the finished trials before it, and so does the result of a
search that was interrupted: the trial that was killed is repeated.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from einthoven.cohorts.cohort import SMALL, Cohort, stratified_places
from einthoven.errors import CohortError, RecipeError, TrainingError
from einthoven.experiment.posttrain import plan_training
from einthoven.experiment.run import recipe_preparation, unscorable
from einthoven.files import Json, file_sha256, lock_for, locked, read_toml, replacing, write_text
from einthoven.models import SHIPPED, weights_file
from einthoven.progress import Progress, part_of
from einthoven.signals.batches import long_enough
from einthoven.signals.store import Store, check_amplitude
from einthoven.stages.leakage import check_duplicates, joined_duplicates
from einthoven.stages.posttrain import PosttrainResult, posttrain
from einthoven.stages.recipe import assignment, assignments
from einthoven.stages.validation import best_by
from einthoven.training.distributed import Processes

log = logging.getLogger(__name__)

STUDY, TRIALS, RECIPE, PLOT = "study.db", "trials.csv", "best.toml", "search.svg"
FOLDS = 5
"""Folds of a small cohort."""
RANDOM_TRIALS = 5
"""First trials, whose values are random, and which are not pruned."""
_REQUEST, _EPOCHS = "request", 10_000  # steps of a fold, more than it has epochs
_FORM = "write KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=VALUE,VALUE, such as"
_EXAMPLE = "stage2.base_lr=1e-4:1e-2:log"


@dataclass(frozen=True)
class Key:
    """Values of a recipe key: a range, or a list of choices.

    Attributes
    ----------
    name : str
        Such as `stage2.base_lr`.
    low, high : float or int
        Ends of a range, both included; integers are a range of integers.
    is_log : bool
        Whether the logarithm is uniform.
    choices : tuple
        Values to choose from; empty for a range.
    """

    name: str
    low: float = 0
    high: float = 0
    is_log: bool = False
    choices: tuple[Any, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Key:
        """Read `KEY=LOW:HIGH`, `KEY=LOW:HIGH:log` or `KEY=VALUE,VALUE`.

        Raises
        ------
        RecipeError
            If it is none of these.
        """
        name, _, values = (part.strip() for part in text.partition("="))
        low, *rest = (_value(part) for part in values.split(":"))
        if name and rest and rest[1:] in ([], ["log"]) and _are_numbers(low, rest[0]):
            is_log = len(rest) == 2
            if low < rest[0] and (low > 0 or not is_log):
                return cls(name, low, rest[0], is_log)
        choices = tuple(_value(part) for part in values.split(","))
        if name and not rest and len(set(choices)) > 1:
            return cls(name, choices=choices)
        raise RecipeError(f"`keys={[text]}` names no values", remedy=f"{_FORM} {_EXAMPLE}")

    @property
    def values(self) -> tuple[Any, ...]:
        """Its choices, or the ends of its range."""
        return self.choices or (self.low, self.high)

    def suggest(self, trial: Any) -> Any:
        """Draw a value for an Optuna trial."""
        if self.choices:
            return trial.suggest_categorical(self.name, self.choices)
        draw = trial.suggest_int if isinstance(self.low + self.high, int) else trial.suggest_float
        return draw(self.name, self.low, self.high, log=self.is_log)


def _value(text: str) -> Any:
    """A number or a truth value as in TOML, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def read_space(file: str | Path) -> list[Key]:
    """Read keys from a TOML file: ranges as text, choices as lists, in the tables of a recipe.

    Raises
    ------
    RecipeError
        If the file cannot be read, or a value is neither.
    """
    keys = []
    for name, value in assignments(read_toml(Path(file), RecipeError)):
        if isinstance(value, list) and len(value) > 1:
            keys.append(Key(name, choices=tuple(value)))
        else:
            keys.append(Key.parse(f"{name}={value}"))
    return keys


@dataclass(frozen=True)
class SearchResult:
    """A finished search.

    Attributes
    ----------
    folder : Path
        Holds `best.toml`, `trials.csv`, `search.svg` and the study, `study.db`.
    trials : pandas.DataFrame
        A row a trial: `trial`, `state` (complete or pruned), the criterion, `seconds`, and the
        searched keys.
    criterion : str
        The metric of the validation records, such as `macro_auroc`.
    best : dict
        Values of the best trial by key.
    value : float
        Its criterion.
    """

    folder: Path
    trials: pd.DataFrame
    criterion: str
    best: Json
    value: float


def search(
    cohort: Cohort,
    store: Store,
    out: str | Path,
    keys: Sequence[Key],
    *,
    trials: int,
    backbone: str = SHIPPED,
    weights: str | Path | None = None,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Search values of recipe keys; a search of the same request goes on where it ended.

    Parameters
    ----------
    cohort, store : Cohort, Store
        Labels and splits, and the packed records. Test records are left out.
    out : path
        Folder of the search.
    keys : sequence of Key
        Keys to search.
    trials : int
        Number of trials, those of an earlier call included.
    backbone, weights, recipe, overrides, options
        As in `einthoven.posttrain`.

    Raises
    ------
    RecipeError
        If optuna is not installed, a key is not one of the recipe, or has an impossible value.
    TrainingError
        If the folder holds another search, or no trial was completed.
    CohortError
        If there are no training or validation records.
    """
    optuna = _optuna()
    names = [key.name for key in keys]
    if not keys or len(set(names)) < len(names):
        problem = "a key is named twice" if keys else "no key to search"
        raise RecipeError(problem, remedy=f"name each key once: `keys={[_EXAMPLE]}`")
    plan = plan_training(backbone, weights, recipe, overrides)
    for place in range(max(len(key.values) for key in keys)):
        # Unknown keys and impossible values are refused before the first trial.
        values = {key.name: key.values[min(place, len(key.values) - 1)] for key in keys}
        plan_training(backbone, weights, recipe, [*overrides, *_settings(values)])
    network = {**plan.start.options, **(options or {})}
    parts = _parts(cohort, store, recipe_preparation(plan.start.backbone, network, plan.recipe))
    check_amplitude(store, store.rows(parts[0].ids()))
    folder = Path(out)
    request = {
        "backbone": plan.start.backbone,
        "weights": file_sha256(weights_file(plan.start.weights)) if plan.start.weights else "",
        "recipe": str(plan.name),
        "overrides": list(overrides),
        "options": network,
        "keys": [repr(key) for key in keys],
        "cohort": cohort.digest,
        "records": store.manifest["records_digest"],
        "parts": len(parts),
    }
    key, is_lowest = best_by(cohort.target.behaviour.form)

    def train(part: Cohort, values: Json, place: Path, watch: Progress) -> float:
        trial_plan = plan_training(backbone, weights, recipe, [*overrides, *_settings(values)])
        result = posttrain(
            part,
            store,
            trial_plan.start.backbone,
            recipe=trial_plan.recipe,
            out=place,
            weights=trial_plan.start.weights,
            options=network,
            processes=processes,
            progress=watch,
        )
        return _measured(result, key)

    with locked(lock_for(folder)):
        study = _open_study(optuna, folder, request, is_lowest)
        _Runner(optuna, study, folder / "trial", key, keys, parts, train, progress).run(
            trials, seed=plan.recipe.seed
        )
        table = _table(_finished(optuna, study), key, names)
        with replacing(folder / TRIALS) as file:
            table.to_csv(file, index=False)
        if not (table["state"] == "complete").any():
            raise TrainingError(
                f"none of {len(table)} trials was completed", remedy="search other values"
            )
        best = dict(study.best_params)
        text = f"Best of {len(table)} trials by {key} of validation records: {study.best_value:.4f}"
        _write_recipe(folder / RECIPE, plan.name, [*overrides, *_settings(best)], text)
        _draw(folder / PLOT, table, key, names, is_lowest)
    return SearchResult(folder, table, key, best, float(study.best_value))


def _optuna() -> ModuleType:
    try:
        import optuna
    except ImportError as error:
        raise RecipeError(
            "optuna, which chooses the values to try, is not installed",
            remedy="pip install 'einthoven[search]'",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _settings(values: Json) -> list[str]:
    """Values by key as `--set` has them."""
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]


def _parts(cohort: Cohort, store: Store, preparation: Any) -> list[Cohort]:
    """Cohorts to train and validate: the splits, or folds of a small cohort; none has a test."""
    cohort = cohort.select((cohort.table["split"] != "test").to_numpy())
    cohort = cohort.select(store.without_quarantined(cohort.ids()))
    cohort = long_enough(cohort, store, preparation)
    is_small = len(cohort) < SMALL
    cohort = joined_duplicates((replace(cohort, has_splits=not is_small), store))
    check_duplicates((cohort, store))
    parts = _folds(cohort) if is_small else [cohort]
    for problem in filter(None, (unscorable(part, "validation") for part in parts)):
        raise CohortError(
            problem, remedy="add patients with the label, or search with more records"
        )
    return parts


def _folds(cohort: Cohort) -> list[Cohort]:
    """Folds of all records of a small cohort, each with training and validation records."""
    places = stratified_places(cohort.patients(), cohort.strata(), count=FOLDS, seed=0)
    log.info("policy: %d-fold cross-validation (%d records, limit %d)", FOLDS, len(cohort), SMALL)
    splits = [np.where(places == fold, "validation", "train") for fold in range(FOLDS)]
    return [cohort.with_splits(split) for split in splits]


def _measured(result: PosttrainResult, key: str) -> float:
    """The criterion at the selected epoch of the last stage that was kept."""
    stage = [stage for stage in result.results.values() if stage.is_kept][-1]
    (entry,) = [line for line in stage.history if line["epoch"] == stage.best_epoch]
    return float(entry[key])


def _open_study(optuna: ModuleType, folder: Path, request: Json, is_lowest: bool) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{(folder / STUDY).absolute()}",
        study_name="search",
        direction="minimize" if is_lowest else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=RANDOM_TRIALS),
        load_if_exists=True,
    )
    before = study.user_attrs.get(_REQUEST)
    if before is not None and before != request:
        different = [name for name in request if before.get(name) != request[name]]
        raise TrainingError(
            f"{folder} holds another search: {', '.join(different)} differ",
            remedy="name another folder (`out=...`), or delete this one",
        )
    study.set_user_attr(_REQUEST, request)
    return study


@dataclass(eq=False)
class _Runner:
    """Trials of a study, one after the other."""

    optuna: ModuleType
    study: Any
    folder: Path
    criterion: str
    keys: Sequence[Key]
    parts: Sequence[Cohort]
    train: Callable[[Cohort, Json, Path, Progress], float]
    progress: Progress | None

    def run(self, trials: int, *, seed: int) -> None:
        """Run the trials that are missing; pruned ones count."""
        running = self.optuna.trial.TrialState.RUNNING
        for trial in self.study.get_trials(states=(running,)):  # of a process that was killed
            self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
            self.study.enqueue_trial(trial.params)
        for number in range(len(_finished(self.optuna, self.study)), trials):
            if self.progress:
                self.progress("trials", number, trials)
            self.study.sampler = self.optuna.samplers.TPESampler(
                seed=seed + number, n_startup_trials=RANDOM_TRIALS
            )
            run = partial(self._trial, name=f"trial {number + 1} of {trials}")
            self.study.optimize(run, n_trials=1)
        if self.progress:
            self.progress("trials", trials, trials)

    def _trial(self, trial: Any, *, name: str) -> float:
        values = {key.name: key.suggest(trial) for key in self.keys}
        results: list[float] = []
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            for number, part in enumerate(self.parts):
                title = f"{name}, fold {number + 1}" if len(self.parts) > 1 else name
                watch = self._watch(trial, title, number, results)
                results.append(self.train(part, values, self.folder / str(number), watch))
        except TrainingError as error:  # such as a loss that is not finite
            log.info("%s with %s: %s", name, values, error.problem)
            raise self.optuna.TrialPruned from error
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        return float(np.mean(results))

    def _watch(self, trial: Any, name: str, number: int, results: Sequence[float]) -> Progress:
        """Progress that reports every epoch of fine-tuning, and ends a trial that is behind."""
        show = part_of(self.progress, name)

        def watch(
            task: str, done: int, total: int, metrics: Mapping[str, float] | None = None, /
        ) -> None:
            if show:
                show(task, done, total, metrics)
            if metrics and "train_loss" in metrics and task.startswith("stage 2"):
                epoch = int(metrics["epoch"])
                value = float(np.mean([*results, metrics[self.criterion]]))
                trial.report(value, number * _EPOCHS + epoch)
                if trial.should_prune():
                    raise self.optuna.TrialPruned

        return watch


def _finished(optuna: ModuleType, study: Any) -> list[Any]:
    """Trials that count; failed ones were killed."""
    states = optuna.trial.TrialState
    trials: list[Any] = study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED))
    return trials


def _table(trials: Sequence[Any], criterion: str, names: Sequence[str]) -> pd.DataFrame:
    rows = []
    for number, trial in enumerate(trials, 1):
        is_complete = trial.state.name == "COMPLETE"
        row = {
            "trial": number,
            "state": trial.state.name.lower(),
            # The value of a pruned trial is that of its last epoch.
            criterion: trial.value if is_complete else np.nan,
            "seconds": round(trial.duration.total_seconds(), 1),
        }
        rows.append(row | {name: trial.params.get(name) for name in names})
    return pd.DataFrame(rows)


def _write_recipe(file: Path, base: str | Path, overrides: Sequence[str], text: str) -> None:
    """Write a recipe as what it extends and the keys that differ; of a key, the last one counts."""
    extended = str(Path(base).absolute()) if str(base).endswith(".toml") else str(base)
    table = {"extends": extended, "name": file.stem, "description": text}
    for override in overrides:
        table |= dict(assignments(assignment(override)))
    write_text(file, "".join(f"{name} = {json.dumps(v)}\n" for name, v in table.items()))


def _draw(
    file: Path, table: pd.DataFrame, criterion: str, names: Sequence[str], is_lowest: bool
) -> None:
    """Draw the criterion by trial, with the best so far, and by the values of each key."""
    from matplotlib.figure import Figure

    from einthoven.report.figures import add_title_and_grid, drawing, standing_alone, to_svg

    done = table[table["state"] == "complete"]
    with drawing():
        figure = Figure(figsize=(3.4 * (1 + len(names)), 3.2), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, 1 + len(names), sharey=True))
        best = done[criterion].cummin() if is_lowest else done[criterion].cummax()
        axes[0].step(done["trial"], best, where="post", color="0.6")
        for axis, name in zip(axes, ["trial", *names], strict=True):
            values = done[name]
            is_text = not pd.api.types.is_numeric_dtype(values)
            axis.plot(values.astype(str) if is_text else values, done[criterion], "o", ms=4)
            axis.set_xlabel(name)
            add_title_and_grid(axis, "")
            if not is_text and name != "trial" and values.min() > 0:
                axis.set_xscale("log" if values.max() / values.min() > 20 else "linear")
        axes[0].set_ylabel(criterion)
    alt = f"{criterion} of validation records by trial and by {', '.join(names)}"
    write_text(file, standing_alone(to_svg(figure, name="search", alt=alt)))


__all__ = ["Key", "SearchResult", "read_space", "search"]
