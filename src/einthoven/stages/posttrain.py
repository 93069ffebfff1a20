"""Post-training: probe, then finetune, from a recipe and a backbone to a trained classifier.

Plain fine-tuning, the linear probe and training from scratch are the same code with parts of the
recipe left out, so that a comparison differs in nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from einthoven.backbones.classifier import Classifier, start_at_prior
from einthoven.backbones.registry import catalogue, create_backbone, entry, seeded
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import RecipeError
from einthoven.files import file_sha256
from einthoven.models import is_model, model_path, weights_file
from einthoven.progress import Progress
from einthoven.signals.batches import SignalSource
from einthoven.signals.prepare import Preparation
from einthoven.signals.store import Store
from einthoven.stages.data import (
    Dataset,
    adapted,
    augmentation,
    check_fit,
    micro_batch,
    resolved,
    with_fraction,
)
from einthoven.stages.finetune import extractor_of, finetune, without_effect
from einthoven.stages.leakage import (
    check_initial_weights,
    check_public_weights,
    seen_in_training,
    seen_metadata,
    write_seen,
)
from einthoven.stages.probe import probe
from einthoven.stages.recipe import Recipe
from einthoven.stages.statistics import (
    STANDARDISER,
    Standardiser,
    fit_statistics,
    measured,
    recorded,
    with_scale,
)
from einthoven.training.distributed import Processes
from einthoven.training.loop import CHECKPOINT, Result
from einthoven.training.run import RunFolder, open_run
from einthoven.weights.load import load_backbone
from einthoven.weights.public import weights_licence


class RecipeWarning(UserWarning):
    """A network is trained by the recipe that was made for another."""


@dataclass(frozen=True, eq=False)
class Posttrained:
    """A trained classifier and how it came about.

    Attributes
    ----------
    run : RunFolder
        Its folder.
    classifier : Classifier
        In eval mode, on the device that it was trained on.
    preparation : Preparation
        What was done to signals, in training and for evaluation.
    data : Dataset
        Cohort (with the recipe's fraction), store and preparation.
    results : dict
        `stage1`, `stage2`: the history and the selected epoch of each stage that ran.
    fingerprints : dict of str to str
        Metadata of the weights file about the records seen; in the main process.
    """

    run: RunFolder
    classifier: Classifier
    preparation: Preparation
    data: Dataset
    results: dict[str, Result]
    fingerprints: dict[str, str] = field(default_factory=dict)


def posttrain(
    cohort: Cohort,
    store: Store,
    backbone: str,
    *,
    recipe: Recipe,
    out: str | Path,
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    allow_overlap: bool = False,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Posttrained:
    """Train a classifier on a cohort by a recipe. Nothing is learned from the test split; its
    signals are compared with those that an encoder or a bundle of ours has seen. Public weights
    that were pretrained on the cohort are warned of, and `run.json` says so.

    Parameters
    ----------
    cohort : Cohort
        Labels and splits.
    store : Store
        The packed cohort.
    backbone : str
        A registered name.
    recipe : Recipe
        What is done (see `einthoven.stages.recipe.load_recipe`).
    out : path
        Run folder; an unfinished run of the same request goes on where it stopped.
    weights : path, optional
        The pretrained backbone, a file or the folder of one. Required unless the recipe starts
        from random weights.
    options : mapping, optional
        Fields of the backbone's config, such as `leads`.
    allow_overlap : bool
        Go on, with a warning, when the weights have seen records of the test split.

    Raises
    ------
    RecipeError
        When the recipe needs weights and none are given, or the other way round, its batch does
        not divide over processes and micro-batches, or it scales twice.
    CohortError
        When the weights have seen records of the test split and nobody allowed it.
    PreparationError, BackboneError
        When the recipe's crop fits neither the records nor the backbone.
    TrainingError
        When the folder holds another run, another process trains in it, or the loss is not finite.
    """
    check_weights(recipe, weights, backbone)
    together = processes or Processes()
    chosen = with_fraction(cohort, recipe.data, seed=recipe.seed)
    head_init = recipe.stage2.head_init if recipe.stage2 else "stock"
    with seeded(recipe.seed):
        if weights is None:
            network = create_backbone(backbone, **(options or {}))
        else:
            network = load_backbone(backbone, weights=weights, **(options or {}))
        classifier = Classifier(network, cohort.labels, head_init=head_init).train()
    data, standardiser = _prepared(chosen, store, classifier, recipe, out, together)
    train, validation = data.source("train"), data.source("validation")
    data.check_lengths("train", "validation", "test")
    check_stages(classifier, train, recipe=recipe, processes=together)
    asked = _asked(chosen, store, backbone, recipe, weights, together)
    if options:
        asked["backbone_options"] = dict(options)
    if standardiser:
        asked[STANDARDISER] = asdict(standardiser)
    overlap = check_initial_weights(weights, (chosen, store), allow=allow_overlap)
    if overlap:
        asked["overlap"] = overlap
    asked["public_weights"] = check_public_weights(backbone, weights, chosen)
    fingerprints: dict[str, str] = {}
    with open_run(out, asked, together) as run:
        if together.is_main:
            seen = seen_in_training((chosen, store), weights)
            write_seen(run.path, seen)
            allowed = [overlap] if overlap else []
            fingerprints = seen_metadata(seen, allowed, weights=weights)
        common: Any = {"recipe": recipe, "run": run, "processes": together, "progress": progress}
        results = train_stages(classifier, train, validation, **common)
    return Posttrained(run, classifier.eval(), data.preparation, data, results, fingerprints)


def check_stages(
    classifier: Classifier, train: SignalSource, *, recipe: Recipe, processes: Processes
) -> None:
    """Refuse before anything is written what would be refused when a stage begins, and warn
    (`RecipeWarning`) where a network made for the task is trained by another one's own recipe, or
    lacks what the recipe would drop or freeze.

    Raises
    ------
    RecipeError
        When the batch does not divide over processes and micro-batches, or an extractor is to be
        frozen that the backbone does not have.
    PreparationError, BackboneError
        When the recipe's crop fits neither the records nor the backbone.
    """
    if recipe.stage2:
        micro_batch(recipe.stage2, records=len(train), world=processes.world)
        if recipe.stage2.freeze_extractor:
            extractor_of(classifier.backbone)
        for said in without_effect(classifier, recipe.stage2):
            warnings.warn(said, RecipeWarning, stacklevel=2)
    _check_own(classifier.backbone.name, recipe)
    check_fit(classifier.backbone, train)


def train_stages(
    classifier: Classifier,
    train: SignalSource,
    validation: SignalSource,
    *,
    recipe: Recipe,
    run: RunFolder,
    processes: Processes,
    progress: Progress | None = None,
) -> dict[str, Result]:
    """Train a classifier in place by the stages that a recipe has.

    Parameters
    ----------
    classifier : Classifier
        Backbone and head, as the first stage is to find them.
    train, validation : SignalSource
        The records, prepared as the recipe says.
    run : RunFolder
        Each stage has a folder in it, and goes on with what it finds there.

    Returns
    -------
    dict of str to Result
        `stage1`, `stage2`: those that ran.
    """
    results: dict[str, Result] = {}
    common: dict[str, Any] = {
        "seed": recipe.seed,
        "augment": augmentation(recipe.data),
        "aggregate": recipe.data.aggregate,
        "precision": resolved(recipe.precision, processes.device),
        "processes": processes,
        "progress": progress,
    }
    if recipe.stage1:
        folder = run.stage("stage1")
        results["stage1"] = probe(
            classifier, train, validation, settings=recipe.stage1, folder=folder, **common
        )
    if recipe.stage2:
        folder = run.stage("stage2")
        if recipe.stage2.head_bias == "prior":
            start_at_prior(classifier.head, train.targets)
        # A checkpoint holds what was measured.
        fits = recipe.initialise == "random" and classifier.backbone.fits_statistics
        if fits and not (folder / CHECKPOINT).is_file():
            fit_statistics(classifier.backbone, train, seed=recipe.seed)
        results["stage2"] = finetune(
            classifier, train, validation, settings=recipe.stage2, folder=folder, **common
        )
    return results


def _prepared(
    cohort: Cohort,
    store: Store,
    classifier: Classifier,
    recipe: Recipe,
    out: str | Path,
    processes: Processes,
) -> tuple[Dataset, Standardiser | None]:
    """What is trained on, and what was measured for its preparation where the recipe says so."""
    preparation = adapted(classifier.preparation, recipe.data)
    data = Dataset(cohort, store, preparation)
    if recipe.data.standardise == "none":
        return data, None
    found = recorded(out) or processes.gather(measured(data.source("train")))[0]
    return Dataset(cohort, store, with_scale(preparation, found)), found


def check_weights(recipe: Recipe, weights: str | Path | None, backbone: str = "") -> None:
    """Refuse a recipe and weights that do not belong together.

    Parameters
    ----------
    recipe : Recipe
        What is to be done.
    weights : path or None
        What it is to start from.
    backbone : str
        A registered name, where it is known: the remedy names the recipe that was made for it.

    Raises
    ------
    RecipeError
        When the recipe needs weights and none are given, or the other way round.
    """
    if recipe.initialise == "pretrained" and weights is None:
        own = catalogue()[backbone].recipe if backbone in catalogue() else ""
        raise RecipeError(
            f"recipe {recipe.name} starts from a pretrained backbone, and no weights are given",
            remedy=f"take the recipe `{own}`, {backbone}'s own, which starts from random weights"
            if own
            else "name a checkpoint (--weights), or take the recipe `scratch`",
        )
    if recipe.initialise == "random" and weights is not None:
        raise RecipeError(
            f"recipe {recipe.name} starts from random weights, and {weights} is given",
            remedy="leave --weights out, or take another recipe",
        )


def _check_own(backbone: str, recipe: Recipe) -> None:
    own = entry(backbone).recipe
    owners = [known.name for known in catalogue().values() if known.recipe == recipe.name]
    if own and owners and backbone not in owners:
        warnings.warn(
            f"the recipe {recipe.name} was made for {', '.join(owners)}, and {own} for {backbone}: "
            "learning rate, crops or epochs are another network's",
            RecipeWarning,
            stacklevel=3,
        )


def _asked(
    cohort: Cohort,
    store: Store,
    backbone: str,
    recipe: Recipe,
    weights: str | Path | None,
    processes: Processes,
) -> dict[str, Any]:
    return {
        "stage": "posttrain",
        "backbone": backbone,
        "weights": _described(backbone, weights) if weights else None,
        "recipe": recipe.to_dict(),
        "cohort": cohort.name,
        "version": cohort.version,
        "task": cohort.task,
        "labels": list(cohort.labels),
        "cohort_digest": cohort.digest,
        "records_digest": store.manifest["records_digest"],
        "world": processes.world,
    }


def _described(backbone: str, weights: str | Path) -> dict[str, Any]:
    return {
        "path": str(model_path(weights) if is_model(weights) else weights),
        "sha256": file_sha256(weights_file(weights)),
        **weights_licence(backbone, weights).to_dict(),
    }
