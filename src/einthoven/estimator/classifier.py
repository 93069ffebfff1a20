"""A recipe on a backbone as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.inference import probabilities
from einthoven.backbones.registry import seeded
from einthoven.errors import EstimatorError
from einthoven.estimator.arrays import ArrayEstimator, Targets, set_aside, source
from einthoven.estimator.embedder import Encoder, backbone_name, initial_config, open_encoder
from einthoven.files import Json
from einthoven.inference import on_device
from einthoven.licences import OWN_DATA, Licence, combined
from einthoven.models import Model, derived_provenance
from einthoven.stages.data import adapt_preparation
from einthoven.stages.policy import settle
from einthoven.stages.posttrain import check_stages, check_weights, settled, train_stages
from einthoven.stages.recipe import Recipe, load_recipe, recipe_for
from einthoven.stages.statistics import fit_standardiser, with_scale
from einthoven.training.distributed import Processes
from einthoven.training.run import RunFolder, environment

# Largest probability whose logit is finite: the last float64 below one.
_LARGEST = 1.0 - 2.0**-53


class EcgClassifier(ClassifierMixin, ArrayEstimator):  # type: ignore[misc]
    """A backbone with a linear head, trained by a recipe: the linear probe by default.

    y contains labels of 0 and 1, (records, labels), any number of which apply to a record; or one
    class a record, (records,). Every output is a sigmoid; with several classes, the probabilities
    are divided by their sum. Probabilities are not calibrated, and `predict` uses 0.5 for labels:
    for clinical thresholds, calibrate on records that were not trained on.

    Parameters
    ----------
    backbone, weights, options, rate, leads, samples, short
        As for `EcgEmbedder`. A registered name needs `weights`, unless the recipe starts from
        random ones (`scratch`).
    recipe : str, path or Recipe
        `linear-probe`, `post-training`, `fine-tuning`, `scratch`, each with the settings of the
        backbone; a `.toml` file, or a Recipe.
    overrides : sequence of str
        Keys of the recipe, such as ``["stage1.epochs=20", "data.crop_seconds=2.5"]``.
    validation_fraction : float, "auto" or None
        Share of the groups that is held out, at most 0.5: it selects epoch and learning rate if the
        recipe requires it. None trains on all records and keeps the last epoch, and the learning
        rate that is best on (some of) the training records. "auto" is None for a linear probe by
        logistic regression, which needs no validation, and otherwise 0.1.
    batch_size : int
        Records at a time in prediction; training batches are the recipe's.
    device : str or torch.device
        `cpu`, `auto`, `cuda`, ...
    n_jobs : int, optional
        Threads of PyTorch; -1 for all processors, None to leave them as they are.
    random_state : int, RandomState or None
        Seed of training. None is the recipe's seed, so that two fits give the same result.

    Attributes
    ----------
    classes_ : numpy.ndarray
        The classes, or the labels: the columns' names where y is a data frame, else numbers.
    classifier_ : Classifier
        The network, in eval mode, on the CPU.
    preparation_ : Preparation
        Preparation of a record.
    results_ : dict of str to Result
        `stage1`, `stage2`: the metrics of every epoch, and the selected epoch. `macro_auroc` is
        that of the records held out, or of training records if there are none.
    n_features_in_ : int
        Leads times samples.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **ArrayEstimator._parameter_constraints,
        "backbone": [str, Path, Backbone, Classifier, Model],
        "recipe": [str, Path, Recipe],
        "validation_fraction": [Interval(Real, 0, 0.5, closed="right"), StrOptions({"auto"}), None],
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

    def fit(self, X: Any, y: Any, groups: Any = None) -> EcgClassifier:
        """Train by the recipe; temporary files are deleted at the end.

        Parameters
        ----------
        X : array of shape (records, leads, samples) or (records, leads * samples), or list
            Millivolts; or a list of Records, of paths, or of arrays of different lengths.
        y : array of shape (records, labels) or (records,)
            Labels of 0 and 1, or classes.
        groups : array of shape (records,), optional
            Patient of each record, whose records are not divided between training and validation.
            Default: each record is a group.

        Raises
        ------
        ValueError
            If a parameter is impossible, or X, y and the parameters do not match.
        EinthovenError
            If the backbone cannot be read or does not accept the records, or the recipe cannot be
            carried out.
        """
        self._validate_params()
        names = getattr(y, "columns", None)
        x, y = self._flat(X, y, multi_output=True, ensure_min_samples=2)
        targets, store, recipe = Targets.of(y, names), self._store(x), self._recipe()
        backbone, preparation = open_encoder(
            self.backbone,
            leads=store.leads,
            weights=self.weights,
            options=self.options,
            seed=recipe.seed if recipe.initialise == "random" else None,
        )
        recipe, fraction = self._held_out(recipe, targets)
        init = recipe.stage2.head_init if recipe.stage2 else "stock"
        with seeded(recipe.seed):
            network = Classifier(backbone, targets.names, head_init=init)
        self.preparation_ = self._with_short(adapt_preparation(preparation, recipe.data))
        sources = [
            source(store, self.preparation_, rows=rows, targets=targets.matrix, groups=groups)
            for rows in set_aside(targets.matrix, groups, fraction=fraction, seed=recipe.seed)
        ]
        if recipe.data.standardise == "scalar":
            self.preparation_ = with_scale(self.preparation_, fit_standardiser(sources[0]))
            sources = [replace(item, preparation=self.preparation_) for item in sources]
        processes = Processes(self._device())
        recipe, _ = settled(recipe, sources[0], sources[1], processes)
        with self._threads(), TemporaryDirectory(prefix="einthoven-") as folder:
            check_stages(network, sources[0], recipe=recipe, processes=processes)
            self.results_ = train_stages(
                network, *sources, recipe=recipe, run=RunFolder(Path(folder)), processes=processes
            )
        self.classes_, self._kind = targets.classes, targets.kind
        self._aggregate = recipe.data.aggregate
        self._config = self._origin(recipe)
        self.classifier_ = network.cpu().eval()
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities, (records, classes) or (records, labels)."""
        outputs = self._outputs(X)
        if self._kind == "binary":
            return np.column_stack([1 - outputs[:, 0], outputs[:, 0]])
        if self._kind == "multilabel":
            return outputs
        total = outputs.sum(axis=1, keepdims=True)
        some = np.where(total > 0, outputs, 1.0)
        shares: NDArray[np.float64] = some / some.sum(axis=1, keepdims=True)
        return shares

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Logits of the probabilities: (records,) of two classes, otherwise (records, outputs)."""
        outputs = np.clip(self._outputs(X), np.finfo(float).tiny, _LARGEST)
        values: NDArray[np.float64] = logit(outputs)
        return values[:, 0] if self._kind == "binary" else values

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each record, or the labels with probabilities above 0.5."""
        shares = self.predict_proba(X)
        if self._kind == "multilabel":
            return (shares > 0.5).astype(int)
        return np.asarray(self.classes_[shares.argmax(axis=1)])

    def to_model(self) -> Model:
        """The trained network with its preparation, which predicts ECG files and can be saved.

        Probabilities of several classes are not divided by their sum: a model's labels do not
        exclude each other.
        """
        check_is_fitted(self)
        return Model(
            self.classifier_,
            self.preparation_,
            aggregate=self._aggregate,
            config=self._config,
        )

    def _recipe(self) -> Recipe:
        """The recipe with the settings of the backbone and this estimator's seed."""
        name = backbone_name(self.backbone)
        overruled = {"seed"} if self.random_state is not None else set()
        if self.validation_fraction is None:
            overruled |= {"stage1.select", "stage2.select"}
        for key in overruled & {text.partition("=")[0].strip() for text in self.overrides}:
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
        seed = recipe.seed if self.random_state is None else self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        return recipe.model_copy(update={"seed": int(seed)})

    def _held_out(self, recipe: Recipe, targets: Targets) -> tuple[Recipe, float | None]:
        """The share of validation records, and a recipe that keeps the last epoch without any."""
        fraction: Any = self.validation_fraction
        if fraction == "auto":
            probe = settle(recipe, targets.matrix, targets.matrix)[0].stage1
            solved = recipe.stage2 is None and probe is not None and probe.solver == "logistic"
            fraction = None if solved else 0.1
        if fraction is not None:
            return recipe, fraction
        last = {"stage1": {"select": "last"}, "stage2": {"select": "last", "keep": "always"}}
        changes = {
            stage: settings.model_copy(update=last[stage])
            for stage in last
            if (settings := getattr(recipe, stage)) is not None
        }
        return recipe.model_copy(update=changes), None

    def _origin(self, recipe: Recipe) -> Json:
        """Licence and provenance of the trained model."""
        initial = initial_config(self.backbone, self.weights)
        licences = [OWN_DATA] if initial is None else [OWN_DATA, Licence.from_dict(initial)]
        provenance = {
            "recipe": recipe.model_dump(mode="json"),
            **derived_provenance(initial),
            "environment": environment(),
        }
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
                batch_size=self.batch_size,
                device=device,
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
