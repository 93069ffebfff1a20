"""What estimators share that train a backbone with a head by a recipe."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.inference import probabilities
from einthoven.backbones.registry import seeded
from einthoven.cohorts.table import task_name
from einthoven.errors import EstimatorError
from einthoven.estimator.arrays import (
    ArrayEstimator,
    Targets,
    set_aside,
    source,
    with_known_target,
    without_gaps,
)
from einthoven.estimator.embedder import (
    Encoder,
    backbone_name,
    initial_config,
    initial_fingerprints,
    open_encoder,
)
from einthoven.evaluate.calibrate import best_thresholds
from einthoven.evaluate.conformal import fit_sets
from einthoven.files import Json
from einthoven.inference import on_device
from einthoven.licences import OWN_DATA, Licence, combined
from einthoven.models import Model, derived_provenance, initial_weights
from einthoven.predictions import Calibration, Predictions
from einthoven.progress import Progress, live_bars
from einthoven.signals.batches import SignalSource
from einthoven.stages.data import adapt_preparation
from einthoven.stages.policy import FEWEST_TUNED, resolve_auto
from einthoven.stages.posttrain import (
    RecipeWarning,
    check_stages,
    check_weights,
    criterion_of,
    resolve_recipe,
    train_stages,
)
from einthoven.stages.probe import out_of_fold_probabilities
from einthoven.stages.recipe import Recipe, keys_without_effect, load_recipe, recipe_for
from einthoven.stages.statistics import fit_standardiser, with_scale
from einthoven.tasks import Criterion, Task, positives
from einthoven.tasks.task import Matrix
from einthoven.training.distributed import Processes
from einthoven.training.loop import Result
from einthoven.training.run import RunFolder, environment

_COHORT = "own data"  # records in memory have no name

# Split, targets and probabilities.
_Unseen = tuple[str, Matrix, NDArray[np.float64]]


class TrainedEstimator(ArrayEstimator):
    """A backbone with a linear head; `EcgClassifier` describes the parameters."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ArrayEstimator._parameter_constraints,
        "backbone": [str, Path, Backbone, Classifier, Model],
        "recipe": [str, Path, Recipe],
        "validation_fraction": [Interval(Real, 0, 0.5, closed="right"), StrOptions({"auto"}), None],
        "verbose": ["verbose"],
        "random_state": [
            Interval(Integral, 0, 2**63 - 1, closed="both"),
            np.random.RandomState,
            None,
        ],
    }

    def __init__(
        self,
        backbone: Encoder | None = None,
        *,
        weights: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        rate: float | None = None,
        leads: Sequence[str] | None = None,
        samples: int | None = None,
        short: str = "refuse",
        recipe: str | Path | Recipe = "linear-probe",
        overrides: Sequence[str] = (),
        validation_fraction: float | str | None = "auto",
        batch_size: int = 64,
        device: str | torch.device = "cpu",
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 1,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.options = options
        self.rate = rate
        self.leads = leads
        self.samples = samples
        self.short = short
        self.recipe = recipe
        self.overrides = overrides
        self.validation_fraction = validation_fraction
        self.batch_size = batch_size
        self.device = device
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _targets(self, y: NDArray[Any], names: Sequence[Any] | None) -> Targets:
        """Read y."""
        raise NotImplementedError

    def _set_names(self, targets: Targets) -> None:
        """Set the attributes about y."""

    def fit(self, X: Any, y: Any, groups: Any = None, *, progress: Progress | None = None) -> Self:
        """Train by the recipe; temporary files are deleted at the end.

        Warns (`RecipeWarning`) if stage 2 of the recipe is left out, because there are few records.

        Parameters
        ----------
        X : array of shape (records, leads, samples) or (records, leads * samples), or list
            Millivolts; or a list of Records, of paths, or of arrays of different lengths.
        y : array of shape (records, labels) or (records,)
            Targets. NaN, or None, is not known; records without a known target are left out, and a
            UserWarning counts them.
        groups : array of shape (records,), optional
            Patient of each record, whose records are not divided between training and validation.
            Default: each record is a group.
        progress : callable, optional
            Called as ``progress(task, completed, total, metrics)`` after every step and every epoch
            instead of showing progress; see `einthoven.progress.Progress`. An exception in it ends
            training.

        Raises
        ------
        ValueError
            If a parameter is impossible, or X, y and the parameters do not match.
        EinthovenError
            If the backbone cannot be read or does not accept the records, or the recipe cannot be
            carried out.
        """
        self._validate_params()
        names, (filled, gaps) = _names(y), without_gaps(y)
        x, y = self._flat(X, filled, multi_output=True, ensure_min_samples=2)
        x, y, groups, gaps = with_known_target(x, y, groups, gaps)
        targets = self._targets(y, names).with_gaps(gaps)
        store, recipe = self._store(x), self._recipe()
        backbone, preparation = open_encoder(
            self.backbone,
            leads=store.leads,
            weights=self.weights,
            options=self.options,
            seed=recipe.seed if recipe.initialise == "random" else None,
        )
        recipe, fraction = self._validation(recipe, targets)
        init = recipe.stage2.head_init if recipe.stage2 else "stock"
        with seeded(recipe.seed):
            network = Classifier(backbone, targets.names, head=recipe.head, head_init=init)
        preparation = self._with_short(adapt_preparation(preparation, recipe.data))
        data = recipe.data.model_copy(update={"centre": preparation.is_centred})
        recipe = recipe.model_copy(update={"data": data})  # with the encoder's centring, as done
        sources = [
            source(store, preparation, rows=rows, targets=targets.matrix, groups=groups)
            for rows in set_aside(targets.strata, groups, fraction=fraction, seed=recipe.seed)
        ]
        if recipe.data.standardise == "scalar":
            preparation = with_scale(preparation, fit_standardiser(sources[0]))
            sources = [replace(item, preparation=preparation) for item in sources]
        criterion = criterion_of(recipe, targets.task, sources[0].targets)
        recipe, results, unseen = self._train(
            network, sources, recipe, criterion, fraction, progress
        )
        self.classifier_, self.preparation_ = network.cpu().eval(), preparation
        self._task = criterion.task
        self._set_names(targets)
        self.results_ = {stage: _summary(result) for stage, result in results.items()}
        self.history_ = {stage: result.history for stage, result in results.items()}
        self._aggregate = recipe.data.aggregate
        self._config = self._origin(recipe, results, targets.names, len(sources[0]))
        self._calibration, self._sets = None, None
        if unseen is not None:
            _, true, values = unseen
            kind = self._task.kind
            self._sets = fit_sets(Predictions.from_arrays(true, values, targets.names, kind=kind))
            if criterion.form == "labels":
                self._calibration = _with_thresholds(targets.names, *unseen)
        self._fingerprints = initial_fingerprints(self.backbone, self.weights)
        return self

    def _train(
        self,
        network: Classifier,
        sources: Sequence[SignalSource],
        recipe: Recipe,
        criterion: Criterion,
        fraction: float | None,
        progress: Progress | None,
    ) -> tuple[Recipe, dict[str, Result], _Unseen | None]:
        """Train the network.

        Returns the recipe without `auto` values, the result of each stage, and predictions of
        records that the network has not seen.
        """
        processes, stage2 = Processes(self._device()), recipe.stage2
        bars = live_bars() if self.verbose and progress is None else nullcontext(progress)
        with self._threads(), TemporaryDirectory(prefix="einthoven-") as folder, bars as progress:
            recipe, _ = resolve_recipe(
                recipe, sources[0].targets, sources[1].targets, processes, criterion.form
            )
            if stage2 and not recipe.stage2:
                warnings.warn(
                    f"stage 2 of the recipe {recipe.name} is left out with fewer than "
                    f"{FEWEST_TUNED:,} records; stage2.keep=better or always trains it",
                    RecipeWarning,
                    stacklevel=3,
                )
            check_stages(network, sources[0], recipe=recipe, processes=processes)
            results = train_stages(
                network,
                *sources,
                recipe=recipe,
                criterion=criterion,
                run=RunFolder(Path(folder)),
                processes=processes,
                progress=progress,
            )
            unseen = _unseen(network, sources, results, Path(folder), recipe, criterion, fraction)
        return recipe, results, unseen

    def to_model(self) -> Model:
        """The trained network with its preparation, which predicts ECG files and can be saved.

        Its thresholds of labels and its prediction sets are fitted to out-of-fold predictions of a
        logistic regression, or to records that were held out; without either, it has none.
        """
        check_is_fitted(self)
        calibration, fit = self._calibration or (None, {})
        task = {} if self._task.kind == Task.kind else {"task": self._task.to_dict()}
        return Model(
            self.classifier_,
            self.preparation_,
            aggregate=self._aggregate,
            calibration=calibration,
            sets=self._sets,
            config=self._config | fit | task,
            fingerprints=self._fingerprints,
        )

    def _recipe(self) -> Recipe:
        """The recipe with the settings of the backbone and this estimator's seed."""
        name = backbone_name(self.backbone)
        keys = {"seed"} if self.random_state is not None else set()
        if self.validation_fraction is None:
            keys |= {"stage1.select", "stage2.select"}
        for key in keys & {text.partition("=")[0].strip() for text in self.overrides}:
            raise EstimatorError(
                f"override {key} has no effect: random_state or validation_fraction decides it",
                remedy="leave one of the two out",
            )
        if not isinstance(self.recipe, Recipe):
            recipe = load_recipe(recipe_for(name, self.recipe), self.overrides, backbone=name)
        elif self.overrides:
            raise EstimatorError(
                "`overrides` do not apply to a Recipe", remedy="change the Recipe: model_copy"
            )
        else:
            recipe = self.recipe
        check_weights(recipe, self.weights if name == self.backbone else "a model", name)
        if recipe.data.fraction != 1:
            raise EstimatorError(
                f"data.fraction = {recipe.data.fraction}", remedy="pass fewer records"
            )
        if recipe.refit == "always":
            raise EstimatorError(
                "refit = always has no effect: records that are held out are not trained on",
                remedy="leave it out; `validation_fraction=None` trains on all records",
            )
        seed = recipe.seed if self.random_state is None else self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        return recipe.model_copy(update={"seed": int(seed), "refit": "never"})

    def _validation(self, recipe: Recipe, targets: Targets) -> tuple[Recipe, float | None]:
        """The recipe and the share of validation records; without any, it keeps the last epoch."""
        fraction: Any = self.validation_fraction
        if fraction == "auto":
            probe = resolve_auto(recipe, targets.matrix, targets.matrix, targets.form)[0].stage1
            is_solved = recipe.stage2 is None and probe is not None and probe.solver == "logistic"
            fraction = None if is_solved else 0.1
        if fraction is not None:
            return recipe, fraction
        last = {"stage1": {"select": "last"}, "stage2": {"select": "last", "keep": "always"}}
        changes = {
            stage: settings.model_copy(update=last[stage])
            for stage in last
            if (settings := getattr(recipe, stage)) is not None
        }
        return recipe.model_copy(update=changes), None

    def _origin(
        self, recipe: Recipe, results: Mapping[str, Result], labels: Sequence[str], records: int
    ) -> Json:
        """Licence and provenance of the trained model, with its number of training records."""
        initial = initial_config(self.backbone, self.weights)
        licences = [OWN_DATA] if initial is None else [OWN_DATA, Licence.from_dict(initial)]
        provenance = {
            "cohort": {"name": _COHORT, "task": task_name(labels), "training_records": records},
            "recipe": recipe.to_dict(),
            "without_effect": keys_without_effect(recipe),
            "penalty": next((r.history[-1].get("penalty") for r in results.values()), None),
            "selected_epoch": {stage: result.best_epoch for stage, result in results.items()},
            "kept_stage": [stage for stage, result in results.items() if result.is_kept][-1],
            **derived_provenance(initial),
            "environment": environment(),
        }
        if initial and "weights_sha256" in initial:
            provenance["initial_weights"] = initial_weights(initial)
        return combined(*licences).to_dict() | {"provenance": provenance}

    def _outputs(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        records = source(self._store(self._flat(X, reset=False)), self.preparation_)
        device = self._device()
        network: Any = on_device(self.classifier_, device)
        with self._threads():
            return probabilities(
                network,
                records,
                aggregate=self._aggregate,
                activate=partial(self._task.behaviour.activate, task=self._task),
                batch_size=self.batch_size,
                device=device,
            )


def _names(y: Any) -> Sequence[Any] | None:
    """Names of the labels in the columns of a data frame, or in a series."""
    if hasattr(y, "columns"):
        return list(y.columns)
    name = getattr(y, "name", None)
    return None if name is None else [name]


def _unseen(
    network: Classifier,
    sources: Sequence[SignalSource],
    results: Mapping[str, Result],
    folder: Path,
    recipe: Recipe,
    criterion: Criterion,
    fraction: float | None,
) -> _Unseen | None:
    """Split, targets and probabilities of records that the network predicts without having seen.

    Those of a logistic regression are out of fold, the others held out; None if there are none.
    """
    train, validation = sources
    values = out_of_fold_probabilities(folder / "stage1") if recipe.stage1 else None
    last = [stage for stage, result in results.items() if result.is_kept][-1]
    if values is not None and last == "stage1":
        return "out of fold", train.targets, values
    if fraction is None:
        return None
    rule, device = recipe.data.aggregate, next(network.parameters()).device
    values = probabilities(
        network.eval(), validation, aggregate=rule, activate=criterion.activate, device=device
    )
    return "validation", validation.targets, values


def _with_thresholds(
    labels: Sequence[str], split: str, targets: Matrix, values: NDArray[np.float64]
) -> tuple[Calibration, Json]:
    """A calibration that only has thresholds, and its entry in config.json."""
    counts = positives(targets).tolist()
    fit = {
        "split": split,
        "cohort": "",
        "records": len(targets),
        "positives": dict(zip(labels, counts, strict=True)),
        "temperatures": False,
        "bias": False,
    }
    count = len(labels)
    calibration = Calibration((1.0,) * count, (0.0,) * count, best_thresholds(targets, values))
    return calibration, {"calibration_fit": fit}


def _summary(result: Result) -> dict[str, float]:
    """A few numbers of a stage: its epochs, and the metrics of the selected one."""
    selected = next(line for line in result.history if line["epoch"] == result.best_epoch)
    names = ("train_loss", "validation_loss", "macro_auroc", "mae", "accuracy", "penalty")
    return {
        "epochs": len(result.history),
        "best_epoch": result.best_epoch,
        **{name: selected[name] for name in names if name in selected},
        "is_kept": int(result.is_kept),
    }
