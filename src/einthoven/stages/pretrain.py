"""Self-supervised pretraining on signals without labels."""

from __future__ import annotations

import math
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from einthoven.backbones.contract import Backbone, UnfittedWarning
from einthoven.backbones.registry import entry
from einthoven.cohorts.cohort import Cohort
from einthoven.errors import EinthovenError
from einthoven.files import Json
from einthoven.licences import combined
from einthoven.models import Model, is_model, save_model
from einthoven.models.provenance import contains_ptbxl
from einthoven.objectives.objective import (
    CuttingObjective,
    FittedObjective,
    SteppedObjective,
)
from einthoven.objectives.registry import create_pretraining
from einthoven.progress import Progress
from einthoven.signals.batches import Batch, SignalSource, TrainingBatches
from einthoven.signals.preparation import Preparation
from einthoven.signals.random import generator_for
from einthoven.signals.store import Store, check_amplitude
from einthoven.stages.data import Context, check_fit, loop_settings, micro_batch, resolve_precision
from einthoven.stages.leakage import check_pretraining_records, write_fingerprints
from einthoven.stages.pretraining_data import (
    Mixture,
    PackedCohort,
    PretrainingData,
    pretraining_data_of,
)
from einthoven.stages.recipe import Pretraining, load_pretraining, recipe_names
from einthoven.stages.validation import LOSS
from einthoven.training.distributed import Processes
from einthoven.training.loop import CHECKPOINT, Loop
from einthoven.training.optim import parameter_groups
from einthoven.training.run import RunFolder, open_run

MODEL, SNAPSHOTS, STAGE = "model", "snapshots", "pretrain"
_FIT_BATCH = 128


@dataclass(frozen=True)
class PretrainResult:
    """A finished run, the model folder of its encoder, and the lines of metrics.jsonl."""

    run: RunFolder
    encoder: Path
    history: list[Json]


def pretrain(
    cohort: Cohort | Sequence[Cohort],
    store: Store | Sequence[Store],
    backbone: str,
    *,
    recipe: Pretraining,
    out: str | Path,
    shares: Sequence[float] | None = None,
    protect: Sequence[PackedCohort] = (),
    allow_leakage: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> PretrainResult:
    """Pretrain a backbone on the training split of one or several cohorts, without labels.

    An epoch has as many draws as there are training records. The loss on at most 1,024 validation
    records, with fixed masks, is logged after every epoch; it selects nothing but snapshots.

    Parameters
    ----------
    cohort : Cohort, or a sequence of them
        Cohorts whose `train` records are used.
    store : Store, or as many as cohorts
        Packed cohorts, of any rate, with the leads that the backbone reads.
    out : path
        Run folder; an unfinished run of the same request is resumed.
    shares : sequence of float, optional
        Relative share of each cohort in the draws of an epoch. Default: every record is drawn once
        per epoch.
    protect : sequence of (Cohort, Store)
        Other cohorts whose test splits must not be seen; those of `cohort` with labels are
        protected anyway.
    allow_leakage : sequence of str
        Names of cohorts whose test splits may be seen; the encoder records it.
    options : mapping, optional
        Fields of the backbone's config, such as `leads`.

    Raises
    ------
    CohortError
        If records or patients of a protected test split would be trained on.
    PreparationError, StoreError
        If records are too short for the crop, or lack a lead.
    RecipeError
        If the batch does not divide over processes and micro-batches, is accumulated from more
        records than there are, or the number of shares is not the number of cohorts.
    TrainingError
        If the folder holds another run, or one with other training records, another process trains
        in it, or the loss is not finite.
    """
    processes = processes or Processes()
    objective, network = _objective(backbone, recipe, options or {})
    cohorts = [cohort] if isinstance(cohort, Cohort) else cohort
    if recipe.fraction < 1:
        cohorts = [c.fraction(recipe.fraction, seed=recipe.seed, labelled=False) for c in cohorts]
    data = pretraining_data_of(cohorts, store, _preparation(objective, recipe), shares=shares)
    request = {
        "stage": "pretrain",
        "backbone": backbone,
        "recipe": recipe.to_dict(),
        **data.describe(),
        "world": processes.world,
    }
    if options or network:
        request["backbone_options"] = {**(options or {}), **network}
    if allow_leakage:
        request["allow_leakage"] = sorted(set(allow_leakage))
    precision = resolve_precision(recipe.precision, processes.device)
    context = Context(seed=recipe.seed, precision=precision, processes=processes)
    micro = micro_batch(recipe, records=len(data.train), world=processes.world)
    schedule = with_epochs(recipe, records=len(data.train))
    check_fit(objective.backbone, data.train, _encoded_samples(objective, recipe))
    _check_loss(objective, data.train)
    for member, packed in data.members:
        check_amplitude(packed, packed.rows(member.ids()))
    config: Json = {}
    fingerprints: dict[str, str] = {}
    if processes.is_main:
        parts, leakages = check_pretraining_records(
            data.members, protect=protect, allow=allow_leakage
        )
    with open_run(out, request, processes) as run:
        if processes.is_main:
            allowed = [leakage.to_dict() for leakage in leakages]
            fingerprints = write_fingerprints(run.path, [parts], allowed)
            config = _config(recipe, data, run)
        encoders = Encoders(run.path, objective.backbone, recipe, config, fingerprints)
        if isinstance(objective, FittedObjective) and not (run.stage(STAGE) / CHECKPOINT).exists():
            objective.fit(_crops(data.train, objective.fit_records, recipe.seed))
        loop = Loop(
            name=STAGE,
            model=objective,
            loss=_objective_loss,
            batches=TrainingBatches(
                data.train, micro, recipe.seed, rank=processes.rank, world=processes.world
            ),
            groups=parameter_groups(
                objective,
                weight_decay=recipe.weight_decay,
                exempt=exempt_parameters(objective, recipe.decay_exempt, prefix="backbone."),
                layers=parts_of(objective),
                layer_decay=recipe.part_decay,
            ),
            settings=loop_settings(schedule, micro=micro, context=context, shared_draws=True),
            folder=run.stage(STAGE),
            validate=data.validation_loss(processes),
            processes=processes,
            progress=progress,
            after_step=objective.after_step if isinstance(objective, SteppedObjective) else None,
            after_epoch=encoders.update_snapshots,
        )
        result = loop.run()
        # Written once, because later runs record its checksum.
        if processes.is_main and not is_model(encoders.final):
            encoders.save(encoders.final)
    processes.wait()
    return PretrainResult(run, encoders.final, result.history)


def with_epochs(recipe: Pretraining, *, records: int) -> Pretraining:
    """Recipe with the epochs, at least one, that come closest to its `steps`, if it has any."""
    if recipe.steps is None:
        return recipe
    epochs = max(1, round(recipe.steps / max(1, records // recipe.batch_size)))
    warmup_epochs = recipe.warmup_epochs * epochs / recipe.epochs
    return recipe.model_copy(update={"epochs": epochs, "warmup_epochs": warmup_epochs})


def check_pretraining(
    recipe: Pretraining, backbone: str, options: Mapping[str, Any] | None = None
) -> None:
    """Refuse an objective that the backbone does not support, or a crop that it does not accept.

    The network is built without storage, and no random number is drawn.

    Raises
    ------
    BackboneError
        If they do not match; `suitable_recipes` lists presets that do.
    PreparationError, RecipeError
        If the crop, or an option of the objective, is impossible.
    """
    with torch.device("meta"):
        objective, _ = _objective(backbone, recipe, options or {})
    objective.backbone.check_samples(_encoded_samples(objective, recipe))


def suitable_recipes(backbone: str, options: Mapping[str, Any] | None = None) -> list[str]:
    """Presets of pretraining that `check_pretraining` accepts, the backbone's default first."""
    default, suitable = entry(backbone).pretraining_recipe, []
    for name in sorted(recipe_names(Pretraining), key=lambda name: name != default):
        with suppress(EinthovenError):
            check_pretraining(load_pretraining(name), backbone, options)
            suitable.append(name)
    return suitable


def _objective(
    backbone: str, recipe: Pretraining, options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Objective, and fields of the backbone's config that it changed, such as `scale`."""
    before = entry(backbone).config.override({"init": "pretraining", **options}).options
    objective: Any = create_pretraining(
        backbone,
        objective=recipe.objective,
        seed=recipe.seed,
        backbone_options=options,
        **recipe.options,
    )
    after = objective.backbone.config.options
    return objective, {key: value for key, value in after.items() if value != before[key]}


def _preparation(objective: Any, recipe: Pretraining) -> Preparation:
    preparation: Preparation = objective.backbone.preparation
    if recipe.crop_seconds is None:
        return preparation
    return preparation.with_window(seconds=recipe.crop_seconds)


def _encoded_samples(objective: Any, recipe: Pretraining) -> int:
    """Samples of what the backbone encodes: the crop, or a part that the objective cuts."""
    window = _preparation(objective, recipe).window
    if isinstance(objective, CuttingObjective):
        return objective.encoded_samples(window)
    return window


def _check_loss(objective: Any, train: SignalSource | Mixture) -> None:
    """Compute the loss of a record, so that a window or layer that cannot be is refused early."""
    crop = train.crops(np.arange(1), torch.zeros(1, dtype=torch.long))
    was_training = objective.training
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfittedWarning)  # fitted later
        objective.eval()(crop, generator=generator_for(0))
    objective.train(was_training)


def _crops(train: SignalSource | Mixture, count: int, seed: int) -> Iterator[Tensor]:
    """One crop, not augmented, of some training records, in random order."""
    rows = np.random.default_rng([seed, 0xF17]).permutation(len(train))[:count]
    for start in range(0, len(rows), _FIT_BATCH):
        part = np.sort(rows[start : start + _FIT_BATCH])
        yield train.crops(part, train.crop_starts(part, generator_for(seed, start, 0xF17)))


def _objective_loss(
    model: nn.Module, batch: Batch, device: torch.device, *, generator: torch.Generator
) -> Tensor:
    loss: Tensor = model(batch.signals.to(device), generator=generator).loss
    return loss


def exempt_parameters(model: nn.Module, rule: str, *, prefix: str) -> Sequence[str]:
    """Names of parameters without weight decay by the recipe's `decay_exempt`."""
    if rule == "1d":
        return [name for name, value in model.named_parameters() if value.ndim <= 1]
    if rule == "backbone":
        backbone: Any = model.backbone
        return [prefix + name for name in backbone.no_weight_decay()]
    return []


def parts_of(model: nn.Module) -> list[list[str]]:
    """Parameter names of the backbone's first layers (stem, embeddings), and of the others."""
    backbone: Any = model.backbone
    first, *others = ([f"backbone.{name}" for name in group] for group in backbone.layer_groups())
    return [first, [name for group in others for name in group]]


def _config(recipe: Pretraining, data: PretrainingData, run: RunFolder) -> Json:
    """Descriptive entries of the encoder's config."""
    history = data.history(recipe.name, recipe.objective)
    return {
        "provenance": {
            "recipe": recipe.to_dict(),
            "cohort": None,
            "initial_weights": None,
            "pretraining": history,
            "public_weights": None,
            "contains_ptbxl": contains_ptbxl(history),
            "environment": run.environment,
        },
        **combined(*(cohort.licence for cohort, _ in data.members)).to_dict(),
    }


@dataclass(frozen=True)
class Encoders:
    """Encoders that a run saves: the final one, and snapshots of epochs that the recipe selects.

    The epochs are a function of the losses alone. A run that is killed between deleting and
    writing a snapshot repeats the epoch, and so writes it again. `config` and `fingerprints` are
    those of every model folder.
    """

    run: Path
    backbone: Backbone
    recipe: Pretraining
    config: Json
    fingerprints: dict[str, str]

    @property
    def final(self) -> Path:
        """Model folder of the final encoder."""
        return self.run / MODEL

    def save(self, folder: Path, **entries: Any) -> None:
        """Write the current encoder with further descriptive entries."""
        config, preparation = self.config | entries, self.backbone.preparation
        model = Model(self.backbone, preparation, config=config, fingerprints=self.fingerprints)
        save_model(model, folder, overwrite=True)

    def update_snapshots(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Delete and write snapshots after the last epoch of `history`."""
        epochs = snapshot_epochs(history, self.recipe)
        folders = {epoch: self.run / SNAPSHOTS / f"epoch-{epoch:04d}" for epoch in epochs}
        for folder in (self.run / SNAPSHOTS).glob("epoch-*"):
            if folder not in folders.values():
                shutil.rmtree(folder)
        epoch = history[-1]["epoch"]
        if epoch in epochs:
            self.save(folders[epoch], epoch=epoch)


def snapshot_epochs(history: Sequence[Mapping[str, Any]], recipe: Pretraining) -> set[int]:
    """Epochs whose encoders are saved after those of `history`."""
    epochs = [line["epoch"] for line in history]
    selected = set(epochs[len(epochs) - recipe.keep_last :])
    if recipe.keep_every:
        selected |= {epoch for epoch in epochs if epoch % recipe.keep_every == 0}
    finite = [line for line in history if math.isfinite(line.get(LOSS, math.nan))]
    if recipe.keep_best and finite:
        selected.add(min(finite, key=lambda line: float(line[LOSS]))["epoch"])
    return selected
