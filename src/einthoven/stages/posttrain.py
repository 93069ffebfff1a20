"""Post-training: a linear probe, then fine-tuning.

Plain fine-tuning, the linear probe and training from scratch are the same code with parts of the
recipe left out, so that comparisons differ in nothing else.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from einthoven.backbones.classifier import Classifier, start_at_prior
from einthoven.backbones.registry import catalogue, create_backbone, entry, seeded
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import RecipeError
from einthoven.files import Json, file_sha256, read_json, write_json
from einthoven.licences import Licence
from einthoven.models import derived_provenance, is_model, model_path, weights_file
from einthoven.progress import Progress
from einthoven.signals.batches import SignalSource
from einthoven.signals.preparation import Preparation
from einthoven.signals.store import Store
from einthoven.stages.data import (
    Context,
    Dataset,
    adapt_preparation,
    augmentation,
    check_fit,
    micro_batch,
    resolve_precision,
    with_fraction,
)
from einthoven.stages.finetune import (
    extractor_of,
    finetune,
    ineffective_settings,
    validation_outputs,
)
from einthoven.stages.leakage import (
    check_initial_weights,
    check_public_weights,
    compared_records,
    training_fingerprints,
    write_fingerprints,
)
from einthoven.stages.policy import Decision, resolve_auto
from einthoven.stages.pretraining_data import PackedCohort
from einthoven.stages.probe import probe
from einthoven.stages.recipe import Recipe
from einthoven.stages.statistics import (
    STANDARDISER,
    Standardiser,
    fit_standardiser,
    fit_statistics,
    recorded_standardiser,
    with_scale,
)
from einthoven.tasks import Criterion, Task
from einthoven.tasks.kind import Form
from einthoven.tasks.task import Matrix
from einthoven.training.distributed import Processes
from einthoven.training.loop import CHECKPOINT, Result
from einthoven.training.run import RunFolder, open_run
from einthoven.weights.load import load_backbone
from einthoven.weights.public import config_of_weights

log = logging.getLogger(__name__)
GAIN = "gain.json"
TEACHER = "teacher"  # folder in that of stage 2


class RecipeWarning(UserWarning):
    """A recipe does not match the network or the cohort that it is applied to."""


@dataclass(frozen=True, eq=False)
class PosttrainResult:
    """A trained classifier and its run.

    The classifier is in eval mode, on the device that it was trained on. `data` has the cohort with
    the recipe's fraction of the training records, `recipe` no `auto` values, and `results` the
    stages that ran, by `stage1` and `stage2`. `fingerprints` is the metadata of the weights file
    about the records seen, empty except in the main process. `policy` has the `key`, `value` and
    `reason` of every value that was left to `auto`, `criterion` the loss and its task.
    """

    run: RunFolder
    classifier: Classifier
    data: Dataset
    recipe: Recipe
    results: dict[str, Result]
    fingerprints: dict[str, str] = field(default_factory=dict)
    policy: list[Json] = field(default_factory=list)
    criterion: Criterion = field(default_factory=Criterion)


def posttrain(
    cohort: Cohort,
    store: Store,
    backbone: str,
    *,
    recipe: Recipe,
    out: str | Path,
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    allow_leakage: bool = False,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> PosttrainResult:
    """Train a classifier on a cohort by a recipe.

    The test split is not used, except that its signals are compared with those that the initial
    weights have seen. Validation may be empty if the recipe chooses nothing by it; the metrics of
    a probe are then those of the training records. A warning is issued, and recorded in
    `run.json`, if public weights were pretrained on the cohort.

    Parameters
    ----------
    cohort, store : Cohort, Store
        Labels and splits, and the packed cohort.
    backbone : str
        Registered name.
    out : path
        Run folder; an unfinished run of the same request is resumed.
    weights : path, optional
        Weights file or model folder of the pretrained backbone. Required unless the recipe starts
        from random weights.
    options : mapping, optional
        Fields of the backbone's config, such as `leads`.
    allow_leakage : bool
        Warn instead of refusing if the weights have seen records of the test split.

    Raises
    ------
    RecipeError
        If the recipe needs weights and there are none, or the other way round, its batch does not
        divide over processes and micro-batches, or it scales twice.
    CohortError
        If the weights have seen records of the test split and it is not allowed.
    PreparationError, BackboneError
        If the records are too short for the recipe's crop, or the backbone does not accept it.
    TrainingError
        If the folder holds another run, another process trains in it, or the loss is not finite.
    """
    check_weights(recipe, weights, backbone)
    processes = processes or Processes()
    cohort_used = with_fraction(cohort, recipe.data, seed=recipe.seed)
    packed_cohort = cohort_used, store
    head_init = recipe.stage2.head_init if recipe.stage2 else "stock"
    with seeded(recipe.seed):
        if weights is None:
            network = create_backbone(backbone, **(options or {}))
        else:
            network = load_backbone(backbone, weights=weights, **(options or {}))
        classifier = Classifier(network, cohort.labels, head=recipe.head, head_init=head_init)
        classifier.train()
    data, standardiser = _dataset(packed_cohort, classifier.preparation, recipe, out, processes)
    train = data.source("train")
    fixed = not recipe.uses_validation and not len(data.usable.ids("validation"))
    validation = None if fixed else data.source("validation")
    data.check_lengths("train", "validation", "test")
    requested = recipe
    held_out = train.targets[:0] if validation is None else validation.targets
    criterion = criterion_of(requested, cohort.target, train.targets)
    recipe, policy = resolve_recipe(requested, train.targets, held_out, processes, criterion.form)
    check_stages(classifier, train, recipe=recipe, processes=processes)
    leakage = check_initial_weights(weights, packed_cohort, allow=allow_leakage)
    request = request_of(
        packed_cohort,
        backbone,
        requested,
        weights,
        options=options,
        leakage=leakage,
        world=processes.world,
    )
    request |= {STANDARDISER: asdict(standardiser)} if standardiser else {}
    request |= {"policy": {each.key: each.value for each in policy}} if policy else {}
    request["compared_records"] = compared_records(weights, packed_cohort)
    request["public_weights"] = check_public_weights(backbone, weights, cohort_used)
    fingerprints: dict[str, str] = {}
    with open_run(out, request, processes) as run:
        if processes.is_main:
            parts = training_fingerprints(packed_cohort, weights)
            allowed = [leakage] if leakage else []
            fingerprints = write_fingerprints(run.path, parts, allowed, weights=weights)
        results = train_stages(
            classifier,
            train,
            validation,
            recipe=recipe,
            criterion=criterion,
            run=run,
            processes=processes,
            progress=progress,
        )
    decisions = [asdict(each) for each in policy]
    return PosttrainResult(
        run, classifier.eval(), data, recipe, results, fingerprints, decisions, criterion
    )


def criterion_of(recipe: Recipe, task: Task, targets: Matrix) -> Criterion:
    """Loss of a recipe for a task, fitted to the targets of the training records.

    Raises
    ------
    RecipeError
        If the weights do not match the targets, or the loss, the aggregation of crops or
        distillation is one of another kind of target.
    """
    if recipe.data.aggregate == "max" and task.behaviour.form != "labels":
        raise RecipeError(
            f"data.aggregate = max does not apply to {task.kind}",
            remedy="set data.aggregate=probability, the mean over crops",
        )
    if recipe.stage2 and recipe.stage2.distillation and task.behaviour.form == "values":
        raise RecipeError(
            "stage2.distillation does not apply to numbers: they have no probabilities",
            remedy="leave it out",
        )
    loss, weights = recipe.regression_loss, recipe.pos_weight
    if loss != "l2" and task.behaviour.form != "values":
        raise RecipeError(
            f"regression_loss = {loss} has no effect on {task.kind}", remedy="leave it out"
        )
    return Criterion.of(task, targets, loss=loss, pos_weight=weights)


def resolve_recipe(
    recipe: Recipe,
    train: Matrix,
    validation: Matrix,
    processes: Processes,
    form: Form = "labels",
) -> tuple[Recipe, list[Decision]]:
    """Replace the `auto` values of a recipe for the `(records, labels)` targets of both splits.

    Returns the recipe and the decisions, which are logged with their reasons.
    """
    recipe, decisions = resolve_auto(recipe, train, validation, form)
    if decisions and processes.is_main:
        topic = [(decision.key, decision.value) for decision in decisions]
        log.info("policy: " + "; ".join(map(str, decisions)), extra={"topic": topic})
    return recipe, decisions


def request_of(
    packed_cohort: PackedCohort,
    backbone: str,
    recipe: Recipe,
    weights: str | Path | None,
    *,
    options: Mapping[str, Any] | None,
    leakage: Json | None,
    world: int,
) -> Json:
    """The request of a run, for `run.json`."""
    cohort, store = packed_cohort
    optional = {
        "backbone_options": dict(options or {}),
        "leakage": leakage,
        "cohort_synthetic": cohort.is_synthetic,
        "target": cohort.target.to_dict() if cohort.target.kind != Task.kind else None,
    }
    return {
        "stage": "posttrain",
        "backbone": backbone,
        "weights": _describe(backbone, weights) if weights else None,
        "recipe": recipe.to_dict(),
        "cohort": cohort.name,
        "version": cohort.version,
        "task": cohort.task,
        "labels": list(cohort.labels),
        "cohort_digest": cohort.digest,
        "records_digest": store.manifest["records_digest"],
        "world": world,
        **{key: value for key, value in optional.items() if value},
    }


def check_stages(
    classifier: Classifier, train: SignalSource, *, recipe: Recipe, processes: Processes
) -> None:
    """Refuse before training what a stage would refuse when it begins.

    Warns (`RecipeWarning`) if the recipe was made for another network, or if the network lacks
    what the recipe would drop or freeze.
    """
    if recipe.stage2:
        micro_batch(recipe.stage2, records=len(train), world=processes.world)
        if recipe.stage2.freeze_extractor:
            extractor_of(classifier.backbone)
        for message in ineffective_settings(classifier, recipe.stage2):
            warnings.warn(message, RecipeWarning, stacklevel=2)
    _check_recipe(classifier.backbone.name, recipe)
    check_fit(classifier.backbone, train)


def train_stages(
    classifier: Classifier,
    train: SignalSource,
    validation: SignalSource | None,
    *,
    recipe: Recipe,
    run: RunFolder,
    processes: Processes,
    criterion: Criterion | None = None,
    progress: Progress | None = None,
) -> dict[str, Result]:
    """Train a classifier in place by the stages of a recipe; each resumes from its folder.

    Without `validation`, which a recipe with `uses_validation` needs, nothing is measured while
    fine-tuning. Returns the results of the stages that ran, by `stage1` and `stage2`.
    """
    results: dict[str, Result] = {}
    context = Context(
        seed=recipe.seed,
        augment=augmentation(recipe.data),
        aggregate=recipe.data.aggregate,
        criterion=criterion or Criterion(),
        precision=resolve_precision(recipe.precision, processes.device),
        processes=processes,
        progress=progress,
    )
    if recipe.stage1:
        folder = run.stage("stage1")
        held_out = train if validation is None else validation
        results["stage1"] = probe(classifier, train, held_out, recipe.stage1, folder, context)
    if recipe.stage2:
        folder = run.stage("stage2")
        if recipe.stage2.head_bias == "prior":
            start_at_prior(classifier.head, train.targets, context.criterion.form)
        # A checkpoint contains the fitted statistics.
        fits = recipe.initialise == "random" and classifier.backbone.fits_statistics
        if fits and not (folder / CHECKPOINT).is_file():
            fit_statistics(classifier.backbone, train, seed=recipe.seed)
        probed = {name: value.clone() for name, value in classifier.state_dict().items()}
        teacher = None
        if recipe.stage2.distillation:
            parts = classifier, train, validation, recipe.stage2
            finetune(*parts, folder / TEACHER, context, name="teacher, fine-tuning")
            teacher = deepcopy(classifier)
            classifier.load_state_dict(probed)
        result = finetune(
            classifier, train, validation, recipe.stage2, folder, context, teacher=teacher
        )
        if recipe.stage1 and recipe.stage2.keep != "always" and validation is not None:
            is_kept = _keep_better(classifier, probed, validation, folder, context)
            result = replace(result, is_kept=is_kept)
        results["stage2"] = result
    return results


def _keep_better(
    classifier: Classifier,
    probed: dict[str, Tensor],
    validation: SignalSource,
    folder: Path,
    context: Context,
) -> bool:
    """Whether fine-tuning gains (`gains`); if not, the classifier has the probe's weights again.

    The losses of validation records are compared, and the outcome is written to `folder/gain.json`.
    """
    file, main = folder / GAIN, context.processes.is_main
    if not file.is_file():
        _, tuned = validation_outputs(classifier.eval(), validation, context)
        reference = deepcopy(classifier)
        reference.load_state_dict(probed)
        _, before = validation_outputs(reference.eval(), validation, context)
        falls = before - tuned
        gain, error = falls.mean(), falls.std(ddof=1) / len(falls) ** 0.5
        outcome = {"probe_loss": before.mean(), "gain": gain, "standard_error": error}
        outcome["records"] = len(falls)
        if main:
            write_json(file, {name: float(value) for name, value in outcome.items()})
    context.processes.wait()
    outcome, is_kept = read_json(file), gains([file])
    if not is_kept:
        classifier.load_state_dict(probed)
    if main:
        text = "is kept" if is_kept else "gains nothing here, and the probe is kept"
        before, gain = outcome["probe_loss"], outcome["gain"]
        log.info(
            f"fine-tuning {text}: validation loss {before - gain:.4f} after, {before:.4f} before "
            f"(standard error of the difference {outcome['standard_error']:.4f})"
        )
    return is_kept


def gains(files: Sequence[Path]) -> bool:
    """Whether fine-tuning gains, by the outcomes (`gain.json`) of one or more trainings.

    It gains if the mean loss of their validation records falls by more than the standard error of
    the mean. The validation records of all folds are all records.
    """
    outcomes = [read_json(file) for file in files]
    total = sum(outcome["records"] * outcome["gain"] for outcome in outcomes)
    errors = [outcome["records"] * outcome["standard_error"] for outcome in outcomes]
    return bool(total > math.hypot(*errors))


def check_weights(recipe: Recipe, weights: str | Path | None, backbone: str = "") -> None:
    """Refuse initial weights for a recipe that starts from random ones, and their absence.

    If the backbone is known, the remedy names its recipe.
    """
    if recipe.initialise == "pretrained" and weights is None:
        specific = catalogue()[backbone].recipe if backbone in catalogue() else ""
        raise RecipeError(
            f"recipe {recipe.name} starts from a pretrained backbone, and no weights are given",
            remedy=f"use {backbone}'s recipe `{specific}`, which starts from random weights"
            if specific
            else "name a checkpoint (`weights=...`), or use the recipe `scratch`",
        )
    if recipe.initialise == "random" and weights is not None:
        raise RecipeError(
            f"recipe {recipe.name} starts from random weights, and {weights} is given",
            remedy="leave `weights=...` out, or use another recipe",
        )


def _dataset(
    packed_cohort: PackedCohort,
    preparation: Preparation,
    recipe: Recipe,
    out: str | Path,
    processes: Processes,
) -> tuple[Dataset, Standardiser | None]:
    """Training data by the recipe, and the standardiser that its preparation was fitted with."""
    preparation = adapt_preparation(preparation, recipe.data)
    data = Dataset(*packed_cohort, preparation)
    if recipe.data.standardise == "none":
        return data, None
    fitted = recorded_standardiser(out)
    if fitted is None:
        fitted = processes.gather(fit_standardiser(data.source("train")))[0]
    return Dataset(*packed_cohort, with_scale(preparation, fitted)), fitted


def _check_recipe(backbone: str, recipe: Recipe) -> None:
    """Warn if the recipe was made for other networks and this one has its own."""
    specific = entry(backbone).recipe
    owners = [other.name for other in catalogue().values() if other.recipe == recipe.name]
    if specific and owners and backbone not in owners:
        warnings.warn(
            f"recipe {recipe.name} was made for {', '.join(owners)}, and {specific} for "
            f"{backbone}: learning rate, crops or epochs may not suit it",
            RecipeWarning,
            stacklevel=3,
        )


def _describe(backbone: str, weights: str | Path) -> Json:
    """Initial weights for the request: path, checksum, licence, whether they saw PTB-XL or are
    random."""
    config = config_of_weights(backbone, weights)
    return {
        "path": str(model_path(weights) if is_model(weights) else weights),
        "sha256": file_sha256(weights_file(weights)),
        "contains_ptbxl": derived_provenance(config)["contains_ptbxl"],
        "is_random": (config.get("provenance") or {}).get("initialisation") == "random",
        **Licence.from_dict(config).to_dict(),
    }
