"""Stage 1, linear probing: train the head on features that are computed once.

The backbone is frozen and in eval mode, so the features of a crop never change. They are computed
once and cached in the run folder. The logistic solver uses the evaluation crops of the training
records, which have no augmentation; an epoch of AdamW uses one of `crops` augmented crops of every
record.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from einthoven.backbones.classifier import Classifier, initialise_head
from einthoven.backbones.contract import Backbone
from einthoven.backbones.inference import aggregate_crops, record_outputs
from einthoven.backbones.registry import seeded
from einthoven.files import (
    HISTORY_FILE,
    append_line,
    read_lines,
    read_tensors,
    write_lines,
    write_tensors,
)
from einthoven.signals.batches import SignalSource, epoch_order
from einthoven.signals.random import generator_for
from einthoven.stages.data import Context
from einthoven.stages.logistic import fit_logistic, search_penalty
from einthoven.stages.recipe import Stage1
from einthoven.stages.validation import LOSS, best_by, record_losses, validation_metrics
from einthoven.tasks import Criterion
from einthoven.tasks.task import Matrix
from einthoven.training.checkpoint import load_weights, save_weights
from einthoven.training.loop import BEST, Loop, Result, autocast
from einthoven.training.optim import Settings, parameter_groups

_FEATURE_BATCH = 64
SECONDS = "seconds.jsonl"
LOGISTIC, FEATURES = "logistic", "features"
OUT_OF_FOLD = "out_of_fold.safetensors"


# (batch, feature_dim) features and (batch, labels) targets
FeatureBatch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class FeatureBatches:
    """Shuffled batches of cached features, with a random crop of each record.

    Attributes
    ----------
    features : Tensor
        `(crops, records, feature_dim)`.
    targets : Tensor
        `(records, labels)` float32.
    """

    features: Tensor
    targets: Tensor
    batch_size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return max(1, self.features.shape[1] // self.batch_size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[FeatureBatch]:
        """Yield the batches of an epoch from a position on."""
        crops, records = self.features.shape[:2]
        order = torch.from_numpy(epoch_order(records, seed=self.seed, epoch=epoch))
        crop = torch.randint(crops, (records,), generator=generator_for(self.seed, epoch, 0xC809))
        for position in range(start, self.per_epoch):
            rows = order[position * self.batch_size :][: self.batch_size]
            yield self.features[crop[rows], rows], self.targets[rows]


@dataclass(frozen=True, eq=False)
class EvaluationFeatures:
    """Features `(crops, feature_dim)` of evaluation crops, and the record `(crops,)` of each."""

    features: Tensor
    owner: Tensor


@dataclass(frozen=True, eq=False)
class ProbeData:
    """Features and targets of training and validation records.

    Training features and targets are those of `FeatureBatches`; `validation_targets` are
    `(records, labels)`.
    """

    features: Tensor
    targets: Tensor
    validation: EvaluationFeatures
    validation_targets: Matrix


def probe(
    classifier: Classifier,
    train: SignalSource,
    validation: SignalSource,
    settings: Stage1,
    folder: Path,
    context: Context,
) -> Result:
    """Train the classifier's head in place; the backbone is not changed.

    AdamW starts from a head initialised by `settings.head_init`, and the result is that of the
    learning rate that was best on validation. Features, metrics and checkpoints are written to
    `folder`.
    """
    if settings.solver == "logistic":
        return solve_head(classifier, train, validation, settings, folder, context)
    data = probe_data(classifier, train, validation, settings.crops, folder / FEATURES, context)
    rates = settings.base_lr_sweep or (settings.base_lr,)
    results, values = {}, {}
    key, is_lowest = best_by(context.criterion.form)
    for rate in rates:
        with seeded(context.seed):
            head = nn.Linear(classifier.head.in_features, classifier.head.out_features)
            initialise_head(head, settings.head_init)
        result = train_head(head, data, rate, settings, folder / f"lr-{rate:g}", context)
        best = settings.select == "best"
        results[rate], values[rate] = result, result.best if best else result.history[-1][key]
    selected = (min if is_lowest else max)(rates, key=lambda rate: values[rate])
    load_weights(folder / f"lr-{selected:g}" / BEST, classifier.head)
    return results[selected]


def solve_head(
    classifier: Classifier,
    train: SignalSource,
    validation: SignalSource,
    settings: Stage1,
    folder: Path,
    context: Context,
) -> Result:
    """Solve the head as a penalised linear model, with its one line of metrics.

    Every evaluation crop of a training record is a row, of weight one over their number. If the
    penalty is searched, `out_of_fold_probabilities` are written to the folder.
    """
    solved, features = folder / LOGISTIC, folder / FEATURES
    solved.mkdir(parents=True, exist_ok=True)
    start, criterion = time.monotonic(), context.criterion
    crops = evaluation_features(classifier, train, features / "train.safetensors", context)
    measured = crops
    if validation is not train:
        file = features / "validation.safetensors"
        measured = evaluation_features(classifier, validation, file, context)
    if context.processes.is_main and not (solved / HISTORY_FILE).is_file():
        owner = crops.owner.numpy()
        rows = crops.features.numpy(), train.targets[owner].astype(np.float64)
        weights = 1 / np.bincount(owner)[owner]
        penalty = settings.penalty
        entry: dict[str, float] = {"epoch": 1}
        if penalty is None:
            patients = np.arange(len(train)) if train.patients is None else train.patients
            groups = patients.astype(str)[owner]
            search = search_penalty(
                *rows, groups, criterion=criterion, seed=context.seed, row_weights=weights
            )
            penalty, entry["out_of_fold_loss"] = search.penalty, min(search.losses.values())
            logits = torch.from_numpy(search.logits)
            left_out = aggregate_crops(
                logits, crops.owner, len(train), context.aggregate, criterion.activate
            )
            write_tensors(solved / OUT_OF_FOLD, {"probabilities": left_out}, {})
        fitted = fit_logistic(*rows, penalty, criterion=criterion, row_weights=weights)
        classifier.head.load_state_dict(
            {"weight": torch.from_numpy(fitted.weight), "bias": torch.from_numpy(fitted.bias)}
        )
        save_weights(solved / BEST, classifier.head)
        scores = validate_head(classifier.head, measured, validation.targets, context)
        entry |= {"penalty": penalty} | scores
        entry["seconds"] = round(time.monotonic() - start, 3)
        write_lines(solved / HISTORY_FILE, [entry])
    context.processes.wait()
    load_weights(solved / BEST, classifier.head)
    history = read_lines(solved / HISTORY_FILE, least=1)
    return Result(history, best_epoch=1, best=history[0][best_by(criterion.form)[0]])


def out_of_fold_probabilities(folder: Path) -> NDArray[np.float64] | None:
    """Predictions `(records, labels)` of the training records by heads that have not seen them.

    None if the folder of stage 1 has no solved head with a searched penalty.
    """
    file = folder / LOGISTIC / OUT_OF_FOLD
    return read_tensors(file)[0]["probabilities"].numpy() if file.is_file() else None


def validate_head(
    head: nn.Module, crops: EvaluationFeatures, targets: Matrix, context: Context
) -> dict[str, float]:
    """Metrics and loss of a head on the cached features of records with these targets."""
    with torch.no_grad():
        device = next(head.parameters()).device
        logits = head(crops.features.to(device)).float().cpu()
    criterion, count = context.criterion, len(targets)
    values = aggregate_crops(logits, crops.owner, count, context.aggregate, criterion.activate)
    losses = record_losses(logits, crops.owner, torch.from_numpy(targets), criterion)
    metrics = validation_metrics(targets, values.numpy(), criterion.task.behaviour)
    return metrics | {LOSS: float(losses.mean())}


def train_head(
    head: nn.Linear,
    data: ProbeData,
    base_lr: float,
    settings: Stage1,
    folder: Path,
    context: Context,
) -> Result:
    """Train a head on cached features; the selected one is `best.safetensors` in the folder."""
    key, is_lowest = best_by(context.criterion.form)
    loop = Loop(
        name=f"stage 1, linear probe, base lr {base_lr:g}",
        model=head,
        loss=partial(_head_loss, criterion=context.criterion),
        # Every process trains the same small head on the same batches; averaging has no effect.
        batches=FeatureBatches(data.features, data.targets, settings.batch_size, context.seed),
        groups=parameter_groups(head, weight_decay=settings.weight_decay),
        settings=Settings(
            epochs=settings.epochs,
            base_lr=base_lr,
            batch_size=settings.batch_size,
            warmup_epochs=settings.warmup_epochs,
            min_lr=settings.min_lr,
            betas=settings.betas,
            select=key if settings.select == "best" else None,
            lowest=is_lowest,
            seed=context.seed,
        ),
        folder=folder,
        validate=partial(
            validate_head,
            crops=data.validation,
            targets=data.validation_targets,
            context=context,
        ),
        processes=context.processes,
        progress=context.progress,
    )
    return loop.run()


def _head_loss(
    model: nn.Module, batch: FeatureBatch, device: torch.device, *, criterion: Criterion
) -> Tensor:
    features, targets = batch
    return criterion.mean(model(features.to(device)), targets.to(device))


def probe_data(
    classifier: Classifier,
    train: SignalSource,
    validation: SignalSource,
    crops: int,
    folder: Path,
    context: Context,
) -> ProbeData:
    """Features of both splits, from the cache if they are in it."""
    start = time.monotonic()
    files = [folder / f"train-{crop}.safetensors" for crop in range(crops)]
    measured = evaluation_features(
        classifier, validation, folder / "validation.safetensors", context
    )
    if context.processes.is_main:
        for crop, file in enumerate(files):
            if not file.is_file():
                features = _training_features(classifier.backbone, train, crop, context)
                write_tensors(file, {"features": features}, {})
        if time.monotonic() - start > 0.1:
            append_line(folder / SECONDS, {"seconds": round(time.monotonic() - start, 3)})
    context.processes.wait()
    return ProbeData(
        features=torch.stack([read_tensors(file)[0]["features"] for file in files]),
        targets=torch.from_numpy(train.targets.astype(np.float32)),
        validation=measured,
        validation_targets=validation.targets,
    )


def evaluation_features(
    classifier: Classifier, source: SignalSource, file: Path, context: Context
) -> EvaluationFeatures:
    """Features of the evaluation crops of all records, from the file if it exists."""
    classifier.to(context.processes.device).eval()
    if context.processes.is_main and not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        parts = record_outputs(
            classifier.backbone.features,
            source,
            batch_size=_FEATURE_BATCH,
            precision=context.precision,
            device=context.processes.device,
            task=f"features, {file.stem}",
            progress=context.progress,
        )
        owners = [owner + i * _FEATURE_BATCH for i, (_, owner) in enumerate(parts)]
        features = torch.cat([part for part, _ in parts])
        write_tensors(file, {"features": features, "owner": torch.cat(owners)}, {})
    context.processes.wait()
    tensors, _ = read_tensors(file)
    return EvaluationFeatures(tensors["features"], tensors["owner"])


def _training_features(
    backbone: Backbone, train: SignalSource, crop: int, context: Context
) -> Tensor:
    """Features of one augmented crop of every training record."""
    device = context.processes.device
    parts = []
    with torch.no_grad():
        for start in range(0, len(train), _FEATURE_BATCH):
            rows = np.arange(start, min(start + _FEATURE_BATCH, len(train)))
            generator = generator_for(context.seed, crop, start, 0xFEA7)
            batch = train.training_batch(rows, generator, context.augment)
            with autocast(device, context.precision):
                parts.append(backbone.features(batch.signals.to(device)).float().cpu())
            if context.progress:
                context.progress(f"features of crop {crop + 1}", int(rows[-1]) + 1, len(train))
    return torch.cat(parts)
