"""Self-supervised pretraining: a backbone learns from signals without labels."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from einthoven.backbones.config import fields_of
from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import create_backbone
from einthoven.cohorts.cohort import Cohort
from einthoven.files import Json
from einthoven.licences import combined
from einthoven.models import Model, is_model, save_model
from einthoven.models.provenance import contains_ptbxl
from einthoven.objectives.objective import SteppedObjective
from einthoven.objectives.registry import create_objective
from einthoven.progress import Progress
from einthoven.signals.batches import Batch, TrainingBatches
from einthoven.signals.store import Store
from einthoven.stages.data import check_fit, loop_settings, micro_batch, resolved
from einthoven.stages.leakage import check_pretraining_records, seen_metadata, write_seen
from einthoven.stages.pretraining_data import Corpus, Member, corpus_of
from einthoven.stages.recipe import Pretraining
from einthoven.stages.validation import LOSS
from einthoven.training.distributed import Processes
from einthoven.training.loop import Loop
from einthoven.training.optim import parameter_groups
from einthoven.training.run import RunFolder, open_run

MODEL, SNAPSHOTS = "model", "snapshots"


@dataclass(frozen=True)
class Pretrained:
    """A finished pretraining: its run, and the encoder's model folder."""

    run: RunFolder
    encoder: Path
    history: list[dict[str, Any]]


def pretrain(
    cohort: Cohort | Sequence[Cohort],
    store: Store | Sequence[Store],
    backbone: str,
    *,
    recipe: Pretraining,
    out: str | Path,
    mix: Sequence[float] | None = None,
    protect: Sequence[Member] = (),
    allow_overlap: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Pretrained:
    """Pretrain a backbone on the training split of one or several cohorts; labels are never read.

    An epoch is as many draws as there are training records. The loss on at most 1,024 validation
    records, under masks that stay the same, is logged; it chooses nothing but snapshots.

    Parameters
    ----------
    cohort : Cohort, or a sequence of them
        Whose `train` records are used.
    store : Store, or as many as cohorts
        The packed cohorts; of any rate, with the leads that the backbone reads.
    backbone : str
        A registered name.
    recipe : Pretraining
        Objective and schedule.
    out : path
        Run folder; an unfinished run of the same request goes on.
    mix : sequence of float, optional
        Each cohort's share of an epoch's draws, in ratio to the others'; without it every record
        is drawn once an epoch (see `einthoven.signals.batches`).
    protect : sequence of (Cohort, Store)
        Cohorts whose test splits must not be seen, beside those of the labelled ones given.
    allow_overlap : sequence of str
        Names of cohorts whose test splits may be seen all the same; the encoder's file says so.
    options : mapping, optional
        Fields of the backbone's config, such as `leads`.

    Raises
    ------
    CohortError
        When records or patients of a protected test split would be trained on.
    PreparationError, StoreError
        When records are too short for the crop, or lack a lead.
    RecipeError
        When the batch does not divide over processes and micro-batches, or is accumulated from
        more records than there are; when weights and cohorts do not fit each other.
    TrainingError
        When the folder holds another run, or one with other training records, another process
        trains in it, or the loss is not finite.
    """
    together = processes or Processes()
    objective, changed = _objective(backbone, recipe, options or {})
    preparation = objective.backbone.preparation
    if recipe.crop_seconds is not None:
        preparation = preparation.with_window(seconds=recipe.crop_seconds)
    corpus = corpus_of(cohort, store, preparation, weights=mix)
    asked = _asked(backbone, recipe, corpus, together)
    if options or changed:
        asked["backbone_options"] = {**(options or {}), **changed}
    if allow_overlap:
        asked["allow_overlap"] = sorted(set(allow_overlap))
    micro = micro_batch(recipe, records=len(corpus.train), world=together.world)
    check_fit(objective.backbone, corpus.train)
    config: Json = {}
    fingerprints: dict[str, str] = {}
    if together.is_main:
        seen, allowed = check_pretraining_records(
            corpus.members, protect=protect, allow=allow_overlap
        )
        fingerprints = seen_metadata([seen], [leakage.to_dict() for leakage in allowed])
    with open_run(out, asked, together) as run:
        encoder = run.path / MODEL
        if together.is_main:
            write_seen(run.path, [seen])
            config = _config(recipe, corpus, run)
        snapshots = Snapshots(
            run.path / SNAPSHOTS, objective.backbone, recipe, config, fingerprints
        )
        result = _loop(objective, corpus, recipe, micro, run, together, progress, snapshots).run()
        # Written once: its checksum is part of what later runs asked for.
        if together.is_main and not is_model(encoder):
            network = objective.backbone
            model = Model(network, network.preparation, config=config, fingerprints=fingerprints)
            save_model(model, encoder)
    together.wait()
    return Pretrained(run, encoder, result.history)


def _asked(
    backbone: str, recipe: Pretraining, corpus: Corpus, processes: Processes
) -> dict[str, Any]:
    return {
        "stage": "pretrain",
        "backbone": backbone,
        "recipe": recipe.to_dict(),
        **corpus.describe(),
        "world": processes.world,
    }


def _loop(
    objective: Any,
    corpus: Corpus,
    recipe: Pretraining,
    micro: int,
    run: RunFolder,
    together: Processes,
    progress: Progress | None,
    snapshots: Snapshots,
) -> Loop[Batch]:
    return Loop(
        name="pretrain",
        model=objective,
        loss=_objective_loss,
        batches=TrainingBatches(
            corpus.train, micro, recipe.seed, rank=together.rank, world=together.world
        ),
        groups=parameter_groups(
            objective,
            weight_decay=recipe.weight_decay,
            exempt=exempt_parameters(objective, recipe.decay_exempt, prefix="backbone."),
            layers=parts_of(objective),
            layer_decay=recipe.part_decay,
        ),
        settings=loop_settings(
            recipe,
            micro=micro,
            world=together.world,
            precision=resolved(recipe.precision, together.device),
            seed=recipe.seed,
            shared_draws=True,
        ),
        folder=run.stage("pretrain"),
        validate=corpus.held_out(together),
        processes=together,
        progress=progress,
        after_step=objective.after_step if isinstance(objective, SteppedObjective) else None,
        after_epoch=snapshots.update,
    )


def _objective(
    backbone: str, recipe: Pretraining, options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The objective, and what it has changed in the backbone's config, such as its `scale`."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network = create_backbone(backbone, **{"init": "pretraining", **options})
        before = fields_of(network.config)
        objective = create_objective(recipe.objective, network, **recipe.options)
    after = fields_of(network.config)
    return objective, {key: value for key, value in after.items() if value != before[key]}


def _objective_loss(
    model: nn.Module, batch: Batch, device: torch.device, *, generator: torch.Generator
) -> Tensor:
    loss: Tensor = model(batch.signals.to(device), generator=generator).loss
    return loss


def exempt_parameters(model: nn.Module, rule: str, *, prefix: str) -> Sequence[str]:
    """Names of parameters without weight decay under a rule of the recipe."""
    if rule == "1d":
        return [name for name, value in model.named_parameters() if value.ndim <= 1]
    if rule == "backbone":
        backbone: Any = model.backbone
        return [prefix + name for name in backbone.no_weight_decay()]
    return []


def parts_of(model: nn.Module) -> list[list[str]]:
    """Names of the backbone's first layers (stem, embeddings), and of the rest of it."""
    backbone: Any = model.backbone
    first, *others = ([f"backbone.{name}" for name in group] for group in backbone.layer_groups())
    return [first, [name for group in others for name in group]]


def _config(recipe: Pretraining, corpus: Corpus, run: RunFolder) -> Json:
    """Descriptive entries of the encoder's config."""
    history = corpus.history(recipe.name, recipe.objective)
    return {
        "provenance": {
            "recipe": recipe.model_dump(mode="json"),
            "cohort": None,
            "initial_weights": None,
            "pretraining": history,
            "public_weights": None,
            "contains_ptbxl": contains_ptbxl(history, None),
            "environment": run.environment,
        },
        **combined(*(cohort.licence for cohort, _ in corpus.members)).to_dict(),
    }


@dataclass(frozen=True)
class Snapshots:
    """Encoders of earlier epochs, as many as the recipe keeps; others are deleted.

    Which epochs are kept is a function of the losses alone. A run that was killed between a
    deletion and the next file repeats the epoch, and so writes the file again.

    Attributes
    ----------
    folder : Path
        Folder of the model folders `epoch-0010` and so on.
    backbone : Backbone
        Backbone in training.
    recipe : Pretraining
        Recipe with `keep_every`, `keep_last` and `keep_best`.
    config : dict
        Descriptive entries of every model, beside its epoch.
    fingerprints : dict of str to str
        Fingerprints of the training records.
    """

    folder: Path
    backbone: Backbone
    recipe: Pretraining
    config: Json
    fingerprints: dict[str, str]

    def update(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Update the folder after the last epoch of `history`."""
        kept = kept_epochs(history, self.recipe)
        names = {f"epoch-{epoch:04d}" for epoch in kept}
        for place in self.folder.glob("epoch-*"):
            if place.name not in names:
                shutil.rmtree(place)
        now = history[-1]["epoch"]
        if now in kept:
            config = {**self.config, "epoch": now}
            network = self.backbone
            model = Model(
                network, network.preparation, config=config, fingerprints=self.fingerprints
            )
            save_model(model, self.folder / f"epoch-{now:04d}", overwrite=True)


def kept_epochs(history: Sequence[Mapping[str, Any]], recipe: Pretraining) -> set[int]:
    """Epochs whose encoders are kept after those of `history`."""
    epochs = [line["epoch"] for line in history]
    kept = set(epochs[len(epochs) - recipe.keep_last :])
    if recipe.keep_every:
        kept |= {epoch for epoch in epochs if epoch % recipe.keep_every == 0}
    scored = [line for line in history if math.isfinite(line.get(LOSS, math.nan))]
    if recipe.keep_best and scored:
        kept.add(min(scored, key=lambda line: float(line[LOSS]))["epoch"])
    return kept
