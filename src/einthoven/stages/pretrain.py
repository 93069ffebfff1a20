"""Self-supervised pretraining: a backbone learns from signals without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from einthoven.backbones.registry import create_backbone
from einthoven.cohorts.cohort import UNLABELLED, Cohort
from einthoven.files import write_tensors
from einthoven.objectives.registry import create_objective
from einthoven.signals.batches import Batch, SignalSource, TrainingBatches, generator_for
from einthoven.signals.store import Store
from einthoven.stages.begin import begin_run, check_fit
from einthoven.stages.data import Dataset, micro_batch, resolved, without_targets
from einthoven.stages.recipe import Pretraining
from einthoven.stages.schedule import loop_settings
from einthoven.training.loop import Loop, Watcher
from einthoven.training.optim import parameter_groups
from einthoven.training.processes import Processes
from einthoven.training.run import RunFolder

ENCODER = "encoder.safetensors"
_VALIDATION_RECORDS = 1024


@dataclass(frozen=True)
class Pretrained:
    """What pretraining left: the encoder's file, for `load_backbone(name, weights=...)`."""

    run: RunFolder
    encoder: Path
    history: list[dict[str, Any]]


def pretrain(
    cohort: Cohort,
    store: Store,
    backbone: str,
    *,
    recipe: Pretraining,
    out: str | Path,
    options: Mapping[str, Any] | None = None,
    processes: Processes | None = None,
    watcher: Watcher | None = None,
) -> Pretrained:
    """Pretrain a backbone on the training split of a cohort; labels are never read.

    The loss on at most 1,024 validation records, under masks that stay the same, is logged; it
    chooses nothing.

    Parameters
    ----------
    cohort : Cohort
        Whose `train` records are used.
    store : Store
        The packed cohort.
    backbone : str
        A registered name.
    recipe : Pretraining
        Objective and schedule.
    out : path
        Run folder; an unfinished run of the same request goes on.
    options : mapping, optional
        Fields of the backbone's config, such as `leads`.

    Raises
    ------
    RecipeError
        When the batch does not divide over processes and micro-batches, or is accumulated from
        more records than there are.
    TrainingError
        When the folder holds another run, or the loss is not finite.
    """
    together = processes or Processes()
    objective, source, validation = _parts(cohort, store, backbone, recipe, options or {})
    asked = {
        "stage": "pretrain",
        "backbone": backbone,
        "recipe": recipe.model_dump(mode="json"),
        "cohort": cohort.name,
        "version": cohort.version,
        "records_digest": store.manifest["records_digest"],
        "records": len(source),
        "world": together.world,
    }
    if options:
        asked["backbone_options"] = dict(options)
    micro = micro_batch(recipe, records=len(source), world=together.world)
    check_fit(objective.backbone, source)
    run = begin_run(out, asked, together)
    loop = Loop(
        name="pretrain",
        model=objective,
        loss=_objective_loss,
        batches=TrainingBatches(
            source, micro, recipe.seed, rank=together.rank, world=together.world
        ),
        groups=parameter_groups(
            objective,
            weight_decay=recipe.weight_decay,
            exempt=exempt_parameters(objective, recipe.decay_exempt, prefix="backbone."),
        ),
        settings=loop_settings(
            recipe,
            micro=micro,
            world=together.world,
            precision=resolved(recipe.precision, together.device),
            seed=recipe.seed,
        ),
        folder=run.stage("pretrain"),
        validate=partial(_reconstruction, source=validation, device=together.device)
        if validation
        else None,
        processes=together,
        watcher=watcher,
    )
    result = loop.run()
    encoder = run.path / ENCODER
    # Written once: its checksum is part of what later runs asked for.
    if together.is_main and not encoder.is_file():
        _write_encoder(encoder, objective.backbone, backbone, asked)
    together.wait()
    return Pretrained(run, encoder, result.history)


def _parts(
    cohort: Cohort,
    store: Store,
    backbone: str,
    recipe: Pretraining,
    options: Mapping[str, Any],
) -> tuple[Any, SignalSource, SignalSource | None]:
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network = create_backbone(backbone, **{"init": "pretraining", **options})
        objective = create_objective(recipe.objective, network, **recipe.options)
    preparation = network.preparation
    if recipe.crop_seconds is not None:
        preparation = preparation.with_window(seconds=recipe.crop_seconds)
    data = Dataset(cohort, store, preparation)
    source = without_targets(data.source("train"))
    if cohort.task == UNLABELLED or not len(data.usable.ids("validation")):
        return objective, source, None
    validation = without_targets(data.source("validation"))
    kept = validation.rows[:_VALIDATION_RECORDS]
    return (
        objective,
        source,
        replace(validation, rows=kept, targets=validation.targets[: len(kept)]),
    )


def _objective_loss(model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    loss: Tensor = model(batch.signals.to(device)).loss
    return loss


def _reconstruction(
    model: nn.Module, *, source: SignalSource, device: torch.device
) -> dict[str, float]:
    losses = []
    with torch.no_grad(), torch.random.fork_rng():
        for start in range(0, len(source), 128):
            torch.manual_seed(generator_for(start, 0x5EED).initial_seed())
            chosen = np.arange(start, min(start + 128, len(source)))
            batch = source.training_batch(chosen, generator_for(start, 0x5EED), None)
            losses.append(float(model(batch.signals.to(device)).loss) * len(chosen))
    return {"validation_loss": sum(losses) / len(source)}


def exempt_parameters(model: nn.Module, rule: str, *, prefix: str) -> Sequence[str]:
    """Names of parameters without weight decay under a rule of the recipe."""
    if rule == "1d":
        return [name for name, value in model.named_parameters() if value.ndim <= 1]
    if rule == "backbone":
        backbone: Any = model.backbone
        return [prefix + name for name in backbone.no_weight_decay()]
    return []


def _write_encoder(file: Path, network: nn.Module, name: str, asked: dict[str, Any]) -> None:
    metadata = {
        "format": "einthoven-backbone",
        "backbone": name,
        "pretraining_data": f"{asked['cohort']} {asked['version']}, training split, "
        f"{asked['records']} records",
        "recipe": str(asked["recipe"]["name"]),
    }
    write_tensors(file, network.state_dict(), metadata)
