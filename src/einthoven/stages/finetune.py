"""Stage 2, full fine-tuning, plain or regularised."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div

from einthoven.backbones.classifier import Classifier
from einthoven.backbones.contract import Backbone
from einthoven.backbones.inference import aggregate_crops, record_outputs
from einthoven.errors import RecipeError
from einthoven.signals.augment import Mixing
from einthoven.signals.batches import Batch, SignalSource, TrainingBatches
from einthoven.stages.data import Context, loop_settings, micro_batch
from einthoven.stages.pretrain import exempt_parameters, parts_of
from einthoven.stages.recipe import Stage2
from einthoven.stages.validation import LOSS, record_losses, validation_metrics
from einthoven.tasks import Criterion
from einthoven.tasks.kind import Form
from einthoven.training.checkpoint import load_weights
from einthoven.training.loop import BEST, Loop, Result
from einthoven.training.optim import parameter_groups


def finetune(
    classifier: Classifier,
    train: SignalSource,
    validation: SignalSource | None,
    settings: Stage2,
    folder: Path,
    context: Context,
    *,
    teacher: Classifier | None = None,
    name: str = "stage 2, fine-tuning",
) -> Result:
    """Train backbone and head in place; they end with the weights of the selected epoch.

    Nothing is measured without validation records. With a teacher, which is not trained, the loss
    is `distillation_loss`. The name is for progress.
    """
    regularise(classifier, settings)
    processes = context.processes
    micro = micro_batch(settings, records=len(train), world=processes.world)
    loop = Loop(
        name=name,
        model=classifier,
        loss=partial(
            _classifier_loss,
            criterion=context.criterion,
            settings=settings,
            teacher=teacher and deepcopy(teacher).eval().requires_grad_(False),
        ),
        batches=TrainingBatches(
            train,
            micro,
            context.seed,
            augment=context.augment,
            mixing=Mixing(settings.mixup, settings.cutmix)
            if settings.mixup or settings.cutmix
            else None,
            rank=processes.rank,
            world=processes.world,
            drop_last=settings.drop_last,
        ),
        groups=_groups(classifier, settings),
        settings=loop_settings(settings, micro=micro, context=context),
        folder=folder,
        validate=None
        if validation is None
        else partial(_validate, source=validation, context=context),
        processes=processes,
        progress=context.progress,
    )
    result = loop.run()
    load_weights(folder / BEST, classifier)
    return result


def _groups(classifier: Classifier, settings: Stage2) -> list[dict[str, Any]]:
    by_part = settings.part_decay != 1
    return parameter_groups(
        classifier,
        weight_decay=settings.weight_decay,
        # Norm and head, the last group, are the layer after the last one and keep the full rate.
        layers=parts_of(classifier) if by_part else classifier.layer_groups()[:-1],
        layer_decay=settings.part_decay if by_part else settings.layer_decay,
        exempt=exempt_parameters(classifier, settings.decay_exempt, prefix="backbone."),
    )


def regularise(classifier: Classifier, settings: Stage2) -> None:
    """Set drop rates, dropout, and frozen positions and extractor by the recipe."""
    set_drop_path(classifier.backbone, settings.drop_path, schedule=settings.drop_path_schedule)
    for dropout in classifier.backbone.feedforward_dropouts():
        dropout.p = settings.dropout
    for dropout in classifier.backbone.other_dropouts():
        dropout.p = settings.dropout if settings.dropout_where == "stmem-all" else 0.0
    classifier.head_dropout.p = settings.head_dropout
    if settings.freeze_positions:
        for name in classifier.backbone.position_parameters():
            classifier.backbone.get_parameter(name).requires_grad_(False)
    if settings.freeze_extractor:
        for name in extractor_of(classifier.backbone):
            classifier.backbone.get_parameter(name).requires_grad_(False)


def ineffective_settings(classifier: Classifier, settings: Stage2) -> list[str]:
    """Messages about settings that have no effect on a network."""
    backbone = classifier.backbone
    dropouts = len(classifier.backbone.feedforward_dropouts())
    if settings.dropout_where == "stmem-all":
        dropouts += len(classifier.backbone.other_dropouts())
    positions = backbone.position_parameters()
    affected = {
        "drop_path": (settings.drop_path, any(backbone.residual_branches()), "residual branches"),
        "dropout": (settings.dropout, dropouts, "adjustable dropout"),
        "freeze_positions": (settings.freeze_positions, positions, "positions"),
    }
    return [
        f"stage2.{key} = {value} has no effect: {backbone.name} has no {part}"
        for key, (value, parts, part) in affected.items()
        if value and not parts
    ]


def extractor_of(backbone: Backbone) -> list[str]:
    """Names of the parameters that `stage2.freeze_extractor` freezes; refuses if there are none."""
    names = backbone.extractor_parameters()
    if not names:
        raise RecipeError(
            f"stage2.freeze_extractor: {backbone.name} has no convolutional extractor",
            remedy="leave it out; HuBERT-ECG and ECG-FM have one",
        )
    return names


def set_drop_path(backbone: Backbone, rate: float, *, schedule: str = "linear") -> list[float]:
    """Set the drop rate of every residual branch, and return the rate of each block.

    `linear` rises from 0 in the first block to `rate` in the last (both branches of a block have
    the same rate and draw independently); `constant` is `rate` everywhere.
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


def _classifier_loss(
    model: nn.Module,
    batch: Batch,
    device: torch.device,
    *,
    criterion: Criterion,
    settings: Stage2,
    teacher: Classifier | None,
) -> Tensor:
    signals = batch.signals.to(device)
    # In fp32 under autocast as well: the sum over 71 rare labels is small.
    logits = model(signals).float()
    loss = criterion.mean(logits, batch.targets.to(device))
    if teacher is None:
        return loss
    with torch.no_grad():
        teacher_logits = teacher(signals).float()
    return distillation_loss(
        loss,
        logits,
        teacher_logits,
        form=criterion.form,
        share=settings.distillation,
        temperature=settings.temperature,
    )


def distillation_loss(
    loss: Tensor, student: Tensor, teacher: Tensor, *, form: Form, share: float, temperature: float
) -> Tensor:
    """Loss of a student: part the task's loss, part the divergence from the teacher's predictions.

    The divergence is the squared temperature times that of Kullback and Leibler from the teacher's
    tempered probabilities to the student's, a mean over records and labels, or over records for
    exclusive classes (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; for
    labels as in the release of MTECG).

    Parameters
    ----------
    loss : Tensor
        Mean loss of the task for the student.
    student, teacher : Tensor
        Logits, `(records, outputs)`.
    form : {"labels", "classes"}
        Form of the task.
    share : float
        Weight of the divergence; the rest is that of the loss.
    temperature : float
        Divisor of the logits.
    """
    student, teacher = student / temperature, teacher / temperature
    if form == "labels":
        targets = teacher.sigmoid()
        entropies = binary_cross_entropy_with_logits(teacher, targets)
        divergence = binary_cross_entropy_with_logits(student, targets) - entropies
    else:
        logs = student.log_softmax(1), teacher.log_softmax(1)
        divergence = kl_div(*logs, log_target=True, reduction="batchmean")
    return share * temperature**2 * divergence + (1 - share) * loss


def _validate(model: nn.Module, *, source: SignalSource, context: Context) -> dict[str, float]:
    """Metrics and loss on validation records."""
    probabilities, losses = validation_outputs(model, source, context)
    metrics = validation_metrics(source.targets, probabilities, context.criterion.task.behaviour)
    return metrics | {LOSS: float(losses.mean())}


def validation_outputs(
    model: nn.Module, source: SignalSource, context: Context
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predictions `(records, labels)` and losses `(records,)`; processes share the records."""
    processes = context.processes
    rows = np.array_split(np.arange(len(source)), processes.world)[processes.rank]
    # Empty parts, because a process has no records if there are more processes than records.
    values = [np.zeros((0, source.targets.shape[1]), dtype=np.float32)]
    losses = [np.zeros(0)]
    start = 0
    for logits, owner in record_outputs(
        model, source, precision=context.precision, device=processes.device, rows=rows
    ):
        count = int(owner.max()) + 1
        targets = source.targets_of(rows[start : start + count])
        rule, criterion = context.aggregate, context.criterion
        values.append(aggregate_crops(logits, owner, count, rule, criterion.activate).numpy())
        losses.append(record_losses(logits, owner, targets, criterion).numpy())
        start += count
    parts = processes.gather((np.concatenate(values), np.concatenate(losses)))
    probabilities, record_loss = map(np.concatenate, zip(*parts, strict=True))
    return probabilities, record_loss
