"""Stage 2, full fine-tuning; regularised or plain by the same code."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.inference import Aggregate, aggregate_crops, record_outputs
from einthoven.errors import RecipeError
from einthoven.progress import Progress
from einthoven.signals.augment import Augmentation
from einthoven.signals.batches import Batch, SignalSource, TrainingBatches
from einthoven.stages.data import loop_settings, micro_batch
from einthoven.stages.pretrain import exempt_parameters, parts_of
from einthoven.stages.recipe import Stage2
from einthoven.stages.validation import LOSS, record_losses, validation_metrics
from einthoven.training.checkpoint import load_weights
from einthoven.training.distributed import Processes
from einthoven.training.loop import BEST, Loop, Result
from einthoven.training.optim import Precision, parameter_groups


def finetune(
    classifier: Classifier,
    train: SignalSource,
    validation: SignalSource,
    *,
    settings: Stage2,
    folder: Path,
    seed: int,
    augment: Augmentation | None,
    aggregate: Aggregate = "probability",
    precision: Precision = "fp32",
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train backbone and head in place; at the end they hold the selected epoch's weights.

    Raises
    ------
    RecipeError
        When the batch does not divide over processes and micro-batches, or is accumulated from
        more records than there are.
    TrainingError
        When the loss is not finite.
    """
    together = processes or Processes()
    regularise(classifier, settings)
    micro = micro_batch(settings, records=len(train), world=together.world)
    loop = Loop(
        name="stage 2, fine-tuning",
        model=classifier,
        loss=_classifier_loss,
        batches=TrainingBatches(
            train,
            micro,
            seed,
            augment=augment,
            rank=together.rank,
            world=together.world,
            drop_last=settings.drop_last,
        ),
        groups=_groups(classifier, settings),
        settings=loop_settings(
            settings, micro=micro, world=together.world, precision=precision, seed=seed
        ),
        folder=folder,
        validate=partial(
            _validate,
            source=validation,
            aggregate=aggregate,
            precision=precision,
            processes=together,
        ),
        processes=together,
        progress=progress,
    )
    result = loop.run()
    load_weights(folder / BEST, classifier)
    return result


def _groups(classifier: Classifier, settings: Stage2) -> list[dict[str, Any]]:
    by_part = settings.part_decay != 1
    return parameter_groups(
        classifier,
        weight_decay=settings.weight_decay,
        # Norm and head, the last group, are the layer after the last one: their rate is whole.
        layers=parts_of(classifier) if by_part else classifier.layer_groups()[:-1],
        layer_decay=settings.part_decay if by_part else settings.layer_decay,
        exempt=exempt_parameters(classifier, settings.decay_exempt, prefix="backbone."),
    )


def regularise(classifier: Classifier, settings: Stage2) -> None:
    """Set drop rates, dropouts, frozen positions and extractor as the recipe says."""
    set_drop_path(classifier.backbone, settings.drop_path, schedule=settings.drop_path_schedule)
    for dropout in classifier.feedforward_dropouts():
        dropout.p = settings.dropout
    for dropout in classifier.other_dropouts():
        dropout.p = settings.dropout if settings.dropout_where == "stmem-all" else 0.0
    classifier.head_dropout.p = settings.head_dropout
    if settings.freeze_positions:
        for name in classifier.backbone.position_parameters():
            classifier.backbone.get_parameter(name).requires_grad_(False)
    if settings.freeze_extractor:
        for name in extractor_of(classifier.backbone):
            classifier.backbone.get_parameter(name).requires_grad_(False)


def without_effect(classifier: Classifier, settings: Stage2) -> list[str]:
    """Settings that find nothing to act on in a network, a sentence each."""
    backbone = classifier.backbone
    dropouts = len(classifier.feedforward_dropouts())
    if settings.dropout_where == "stmem-all":
        dropouts += len(classifier.other_dropouts())
    positions = backbone.position_parameters()
    found = {
        "drop_path": (settings.drop_path, any(backbone.residual_branches()), "residual branches"),
        "dropout": (settings.dropout, dropouts, "dropout for a recipe to set"),
        "freeze_positions": (settings.freeze_positions, positions, "positions"),
    }
    return [
        f"stage2.{key} = {value} does nothing: {backbone.name} has no {what}"
        for key, (value, there, what) in found.items()
        if value and not there
    ]


def extractor_of(backbone: Backbone) -> list[str]:
    """Names of what `stage2.freeze_extractor` keeps as it is.

    Raises
    ------
    RecipeError
        When the backbone has no such part.
    """
    names = backbone.extractor_parameters()
    if not names:
        raise RecipeError(
            f"stage2.freeze_extractor: {backbone.name} has no convolutional extractor",
            remedy="leave it out; HuBERT-ECG and ECG-FM have one",
        )
    return names


def set_drop_path(backbone: Backbone, rate: float, *, schedule: str = "linear") -> list[float]:
    """Give every residual branch its drop rate; returns the rate of each block.

    `linear` rises from 0 in the first block to `rate` in the last (both branches of a block
    share a rate and draw independently); `constant` is `rate` everywhere.
    """
    blocks = backbone.residual_branches()
    if schedule == "constant" or len(blocks) < 2:  # a single block is the last one
        rates = [rate] * len(blocks)
    else:
        rates = np.linspace(0, rate, len(blocks)).tolist()
    for branches, value in zip(blocks, rates, strict=True):
        for branch in branches:
            branch.rate = value
    return rates


def _classifier_loss(model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    logits = model(batch.signals.to(device))
    # In fp32 whatever the autocast: the sum over 71 rare labels is small.
    return binary_cross_entropy_with_logits(logits.float(), batch.targets.to(device))


def _validate(
    model: nn.Module,
    *,
    source: SignalSource,
    aggregate: Aggregate,
    precision: Precision,
    processes: Processes,
) -> dict[str, float]:
    rows = np.array_split(np.arange(len(source)), processes.world)[processes.rank]
    answers = record_outputs(model, source, precision=precision, device=processes.device, rows=rows)
    said, losses, done = [], [], 0
    for logits, owner in answers:
        count = int(owner.max()) + 1
        targets = source.targets_of(rows[done : done + count])
        said.append(aggregate_crops(logits, owner, count, aggregate))
        losses.append(record_losses(logits, owner, targets))
        done += count
    none = torch.zeros(0, source.targets.shape[1]), torch.zeros(0, dtype=torch.float64)
    # A process has none of the records where there are fewer than processes.
    mine = torch.cat([none[0], *said]).numpy(), torch.cat([none[1], *losses]).numpy()
    values, each = map(np.concatenate, zip(*processes.gather(mine), strict=True))
    return validation_metrics(source.targets, values) | {LOSS: float(each.mean())}
