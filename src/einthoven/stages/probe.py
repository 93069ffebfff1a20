"""Stage 1, preview linear probing: train the head on features that are computed once.

The backbone is frozen and in eval mode, so a crop's features never change. They are computed for
`crops` augmented crops a record and cached in the run folder; an epoch then takes one of these
crops of every record at random.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from einthoven.backbones.classifier import Classifier, initialise_head
from einthoven.backbones.inference import Aggregate, aggregate_crops, record_outputs
from einthoven.files import append_line, replacing
from einthoven.progress import Progress
from einthoven.signals.augment import Augmentation
from einthoven.signals.batches import SignalSource, epoch_order
from einthoven.signals.random import generator_for
from einthoven.stages.recipe import Stage1
from einthoven.stages.validation import SELECT, validation_metrics
from einthoven.training.checkpoint import load_weights
from einthoven.training.distributed import Processes
from einthoven.training.loop import BEST, Loop, Result, autocast
from einthoven.training.optim import Precision, Settings, parameter_groups

_FEATURE_BATCH = 64
SECONDS, VALIDATION, OWNER = "seconds.jsonl", "validation.npy", "validation-owner.npy"


@dataclass(frozen=True)
class FeatureBatch:
    """`(batch, feature_dim)` features and `(batch, labels)` targets."""

    features: Tensor
    targets: Tensor


@dataclass(frozen=True)
class FeatureBatches:
    """Shuffled batches of cached features; a random one of each record's crops.

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
        """The batches of an epoch from a position on."""
        crops, records = self.features.shape[:2]
        order = torch.from_numpy(epoch_order(records, seed=self.seed, epoch=epoch))
        crop = torch.randint(crops, (records,), generator=generator_for(self.seed, epoch, 0xC809))
        for position in range(start, self.per_epoch):
            chosen = order[position * self.batch_size :][: self.batch_size]
            yield FeatureBatch(self.features[crop[chosen], chosen], self.targets[chosen])


@dataclass(frozen=True, eq=False)
class ProbeData:
    """What the head is trained and validated on."""

    features: Tensor
    targets: Tensor
    validation: Tensor
    validation_owner: Tensor
    validation_targets: NDArray[np.uint8]


def probe(
    classifier: Classifier,
    train: SignalSource,
    validation: SignalSource,
    *,
    settings: Stage1,
    folder: Path,
    seed: int,
    augment: Augmentation | None,
    aggregate: Aggregate = "probability",
    precision: Precision = "fp32",
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train the classifier's head in place, its backbone untouched.

    Parameters
    ----------
    classifier : Classifier
        Backbone and head; the head is started afresh by `settings.head_init`.
    train, validation : SignalSource
        The records.
    settings : Stage1
        The recipe's numbers.
    folder : Path
        Where features, metrics and checkpoints go.
    augment : callable, optional
        What is done to training crops.

    Returns
    -------
    Result
        Of the learning rate that was best on validation.
    """
    together = processes or Processes()
    data = probe_data(
        classifier,
        train,
        validation,
        crops=settings.crops,
        folder=folder / "features",
        seed=seed,
        augment=augment,
        precision=precision,
        processes=together,
        progress=progress,
    )
    rates = settings.base_lr_sweep or (settings.base_lr,)
    results = {}
    for rate in rates:
        where = folder / f"lr-{rate:g}"
        head = _fresh_head(classifier.head, settings.head_init, seed)
        results[rate] = train_head(
            head,
            data,
            settings=settings,
            base_lr=rate,
            folder=where,
            seed=seed,
            aggregate=aggregate,
            processes=together,
            progress=progress,
        )
    chosen = max(rates, key=lambda rate: _value(results[rate], settings.hand_on))
    load_weights(folder / f"lr-{chosen:g}" / BEST, classifier.head)
    return results[chosen]


def _value(result: Result, hand_on: str) -> float:
    return result.best if hand_on == "best" else float(result.history[-1][SELECT])


def _fresh_head(like: nn.Linear, init: str, seed: int) -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        head = nn.Linear(like.in_features, like.out_features)
        initialise_head(head, init)
    return head


def train_head(
    head: nn.Linear,
    data: ProbeData,
    *,
    settings: Stage1,
    base_lr: float,
    folder: Path,
    seed: int,
    aggregate: Aggregate,
    processes: Processes,
    progress: Progress | None = None,
) -> Result:
    """Train a head on cached features; `best.safetensors` in the folder is what is handed on."""

    def validate(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            device = next(model.parameters()).device
            logits = model(data.validation.to(device)).float().cpu()
        count = len(data.validation_targets)
        joined = aggregate_crops(logits, data.validation_owner, count, aggregate)
        return validation_metrics(data.validation_targets, joined.numpy())

    loop = Loop(
        name=f"stage 1, linear probe, base lr {base_lr:g}",
        model=head,
        loss=_head_loss,
        # Every process trains the same small head on the same batches: averaging changes nothing.
        batches=FeatureBatches(data.features, data.targets, settings.batch_size, seed),
        groups=parameter_groups(head, weight_decay=settings.weight_decay),
        settings=Settings(
            epochs=settings.epochs,
            base_lr=base_lr,
            batch_size=settings.batch_size,
            warmup_epochs=settings.warmup_epochs,
            min_lr=settings.min_lr,
            betas=settings.betas,
            select=SELECT if settings.hand_on == "best" else None,
            seed=seed,
        ),
        folder=folder,
        validate=validate,
        processes=processes,
        progress=progress,
    )
    return loop.run()


def _head_loss(model: nn.Module, batch: FeatureBatch, device: torch.device) -> Tensor:
    logits = model(batch.features.to(device))
    return binary_cross_entropy_with_logits(logits, batch.targets.to(device))


def probe_data(
    classifier: Classifier,
    train: SignalSource,
    validation: SignalSource,
    *,
    crops: int,
    folder: Path,
    seed: int,
    augment: Augmentation | None,
    precision: Precision,
    processes: Processes,
    progress: Progress | None = None,
) -> ProbeData:
    """Features of both splits, from the cache where they are there."""
    began = time.monotonic()
    classifier.to(processes.device).eval()
    encode = classifier.backbone.features
    folder.mkdir(parents=True, exist_ok=True)
    for crop in range(crops):
        file = folder / f"train-{crop}.npy"
        report = partial(progress, f"features of crop {crop + 1}") if progress else None
        if processes.is_main and not file.is_file():
            features = _training_features(
                encode, train, crop, seed, augment, precision, processes.device, report
            )
            save_array(file, features)
    if processes.is_main and not (folder / OWNER).is_file():
        _save_validation(encode, validation, folder, precision, processes.device)
    if processes.is_main and time.monotonic() - began > 0.1:
        append_line(folder / SECONDS, {"seconds": round(time.monotonic() - began, 3)})
    processes.wait()
    stacked = [torch.from_numpy(np.load(folder / f"train-{crop}.npy")) for crop in range(crops)]
    return ProbeData(
        features=torch.stack(stacked),
        targets=torch.from_numpy(train.targets.astype(np.float32)),
        validation=torch.from_numpy(np.load(folder / VALIDATION)),
        validation_owner=torch.from_numpy(np.load(folder / OWNER)),
        validation_targets=validation.targets,
    )


def _save_validation(
    encode: Any, source: SignalSource, folder: Path, precision: Precision, device: torch.device
) -> None:
    """Features of every evaluation crop; whose they are comes last and makes them complete."""
    parts = record_outputs(
        encode, source, batch_size=_FEATURE_BATCH, precision=precision, device=device
    )
    save_array(folder / VALIDATION, torch.cat([features for features, _ in parts]).numpy())
    owners = [owner + i * _FEATURE_BATCH for i, (_, owner) in enumerate(parts)]
    save_array(folder / OWNER, torch.cat(owners).numpy())


def _training_features(
    encode: Any,
    train: SignalSource,
    crop: int,
    seed: int,
    augment: Augmentation | None,
    precision: Precision,
    device: torch.device,
    progress: Callable[[int, int], None] | None,
) -> NDArray[np.float32]:
    parts = []
    with torch.no_grad():
        for start in range(0, len(train), _FEATURE_BATCH):
            chosen = np.arange(start, min(start + _FEATURE_BATCH, len(train)))
            generator = generator_for(seed, crop, start, 0xFEA7)
            batch = train.training_batch(chosen, generator, augment)
            with autocast(device, precision):
                parts.append(encode(batch.signals.to(device)).float().cpu())
            if progress:
                progress(int(chosen[-1]) + 1, len(train))
    return torch.cat(parts).numpy()


def save_array(file: Path, array: NDArray[Any]) -> None:
    """Write a `.npy` file atomically."""
    with replacing(file) as temporary, open(temporary, "wb") as handle:
        np.save(handle, array, allow_pickle=False)
