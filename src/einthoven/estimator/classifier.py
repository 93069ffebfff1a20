"""A recipe on a backbone as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.inference import probabilities
from einthoven.backbones.registry import backbone_names, seeded
from einthoven.errors import EstimatorError
from einthoven.estimator.arrays import (
    Layout,
    Targets,
    flattened,
    lent,
    set_aside,
    threads,
    with_short,
)
from einthoven.estimator.embedder import Source, encoder_of, initial_config
from einthoven.licences import OWN_DATA, Licence, combined
from einthoven.models import Model, derived_provenance
from einthoven.stages.data import adapted
from einthoven.stages.posttrain import check_stages, check_weights, train_stages
from einthoven.stages.recipe import Recipe, load_recipe, recipe_for
from einthoven.stages.statistics import fit_standardiser, with_scale
from einthoven.training.distributed import Processes
from einthoven.training.run import RunFolder, environment

# Largest probability whose logit is finite: the last float64 below one.
_LARGEST = 1.0 - 2.0**-53


class EcgClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A backbone with a linear head, trained by a recipe: the linear probe by default.

    y may be labels of 0 and 1, (records, labels), where a record has any number of them; or one
    class a record, (records,). Every output is a sigmoid of its own; of several classes, their
    probabilities are divided by their sum.

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
    validation_fraction : float or None
        Share of the groups that is set aside: it chooses epoch and learning rate where the recipe
        says so. None trains on everything and keeps the last epoch; of several learning rates,
        the one that is best on (some of) the training records is then kept.
    batch_size : int
        Records at a time in prediction; training batches are the recipe's.
    device : str
        `cpu`, `auto` or `cuda`.
    n_jobs : int, optional
        Threads of PyTorch; -1 for all processors, None to leave them as they are.
    random_state : int, RandomState or None
        Seed of all that is drawn; None takes the recipe's, so that two fits are one.

    Attributes
    ----------
    classes_ : numpy.ndarray
        The classes, or the labels: the columns' names where y is a data frame, else numbers.
    classifier_ : Classifier
        The network, in eval mode, on the CPU.
    preparation_ : Preparation
        What is done to a record.
    results_ : dict of str to Result
        `stage1`, `stage2`: every epoch's line, and which one was kept. `macro_auroc` in them is of
        the records set aside, or of training records where there are none.
    n_features_in_ : int
        Leads times samples.
    """

    def __init__(
        self,
        backbone: Source | None = None,
        *,
        weights: str | Path | None = None,
        options: Mapping[str, Any] | None = None,
        rate: float | None = None,
        leads: Sequence[str] | None = None,
        samples: int | None = None,
        short: str = "refuse",
        recipe: str | Path | Recipe = "linear-probe",
        overrides: Sequence[str] = (),
        validation_fraction: float | None = 0.1,
        batch_size: int = 64,
        device: str = "cpu",
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
        """Train by the recipe; what it writes on the way is deleted at the end.

        Parameters
        ----------
        X : array of shape (records, leads, samples) or (records, leads * samples)
            Millivolts.
        y : array of shape (records, labels) or (records,)
            Labels of 0 and 1, or classes.
        groups : array of shape (records,), optional
            Patients: one of them is never trained and validated on. Each record is one without it.

        Raises
        ------
        EstimatorError
            When X, y and the parameters do not fit each other; a ValueError.
        EinthovenError
            When the backbone cannot be read or does not take the records, or the recipe cannot be
            carried out.
        """
        names = getattr(y, "columns", None)
        x, y = validate_data(
            self, flattened(X, self.leads), y, multi_output=True, ensure_min_samples=2
        )
        targets = Targets.of(y, names)
        layout, recipe = Layout.of(self, x.shape[1]), self._recipe()
        backbone, preparation = self._encoder(layout, recipe)
        recipe = self._with_backbone_settings(backbone, recipe)
        train, validation = set_aside(
            targets.matrix, groups, fraction=self.validation_fraction, seed=recipe.seed
        )
        init = recipe.stage2.head_init if recipe.stage2 else "stock"
        with seeded(recipe.seed):
            network = Classifier(backbone, targets.names, head_init=init)
        self.preparation_ = with_short(adapted(preparation, recipe.data), self.short)
        sources = [
            layout.source(x, self.preparation_, rows=rows, targets=targets.matrix)
            for rows in (train, validation)
        ]
        if recipe.data.standardise == "scalar":
            self.preparation_ = with_scale(self.preparation_, fit_standardiser(sources[0]))
            sources = [replace(source, preparation=self.preparation_) for source in sources]
        processes = Processes(self.device)
        with threads(self.n_jobs), TemporaryDirectory(prefix="einthoven-") as folder:
            check_stages(network, sources[0], recipe=recipe, processes=processes)
            self.results_ = train_stages(
                network, *sources, recipe=recipe, run=RunFolder(Path(folder)), processes=processes
            )
        self.classes_, self._kind, self._aggregate = (
            targets.classes,
            targets.kind,
            recipe.data.aggregate,
        )
        initial = initial_config(self.backbone, self.weights)
        licences = [OWN_DATA] if initial is None else [OWN_DATA, Licence.from_dict(initial)]
        self._config = {
            **combined(*licences).to_dict(),
            "provenance": {
                "recipe": recipe.model_dump(mode="json"),
                **derived_provenance(initial),
                "environment": environment(),
            },
        }
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
        outputs = self._outputs(X)
        if self._kind == "multilabel":
            return (outputs > 0.5).astype(int)
        chosen = (
            (outputs[:, 0] > 0.5).astype(int) if self._kind == "binary" else outputs.argmax(axis=1)
        )
        return np.asarray(self.classes_[chosen])

    def to_model(self) -> Model:
        """The trained network with its preparation, to be saved, served and given ECG files.

        `einthoven.save_model` writes it. Probabilities of several classes are not divided by
        their sum there: a model's labels do not exclude each other.
        """
        check_is_fitted(self)
        return Model(
            self.classifier_,
            self.preparation_,
            aggregate=self._aggregate,
            config=self._config,
        )

    def _recipe(self) -> Recipe:
        """The recipe with this estimator's seed; keeps the last epoch without validation."""
        recipe = self.recipe
        if not isinstance(recipe, Recipe):
            recipe = load_recipe(recipe, self.overrides)
        elif self.overrides:
            raise EstimatorError(
                "overrides are given beside a Recipe", remedy="change the Recipe: model_copy"
            )
        seed = recipe.seed if self.random_state is None else self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        return self._with_seed(recipe, int(seed))

    def _with_backbone_settings(self, backbone: Backbone, recipe: Recipe) -> Recipe:
        """The recipe of this name with the settings of the backbone, if it has any."""
        if isinstance(self.recipe, Recipe):
            return recipe
        name = recipe_for(backbone.name, self.recipe)
        if name == self.recipe:
            return recipe
        return self._with_seed(load_recipe(name, self.overrides), recipe.seed)

    def _with_seed(self, recipe: Recipe, seed: int) -> Recipe:
        if recipe.data.fraction != 1:
            raise EstimatorError(
                f"data.fraction = {recipe.data.fraction}", remedy="give fewer records"
            )
        changes: dict[str, Any] = {"seed": seed}
        if self.validation_fraction is None:
            last = {"stage1": "hand_on", "stage2": "select"}
            for stage, key in last.items():
                if (settings := getattr(recipe, stage)) is not None:
                    changes[stage] = settings.model_copy(update={key: "last"})
        return recipe.model_copy(update=changes)

    def _encoder(self, layout: Layout, recipe: Recipe) -> Any:
        name = self.backbone if isinstance(self.backbone, str) else ""
        named = name in backbone_names()
        weights = self.weights if named else "a model with weights of its own"
        check_weights(recipe, weights, name)
        return encoder_of(
            self.backbone,
            leads=layout.leads,
            weights=self.weights,
            options=self.options,
            seed=recipe.seed if recipe.initialise == "random" else None,
        )

    def _outputs(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        x = validate_data(self, flattened(X, self.leads), reset=False)
        source = Layout.of(self, x.shape[1]).source(x, self.preparation_)
        with lent(self.classifier_, self.device) as device, threads(self.n_jobs):
            return probabilities(
                self.classifier_,
                source,
                aggregate=self._aggregate,
                batch_size=self.batch_size,
                device=device,
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.input_tags.three_d_array = True
        return tags
