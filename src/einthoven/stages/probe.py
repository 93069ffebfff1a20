"""Stage 1, probing: train the head on what a frozen backbone makes of each crop, computed once.

The backbone is in eval mode, so the features and tokens of a crop never change. They are computed
once and cached in the run folder (`frozen.py`). The logistic solver uses the evaluation crops of
the training records, which have no augmentation; an epoch of AdamW uses one of `crops` random
crops of every record, of which the first is not augmented.

Features stay in the folder. Tokens, which a head of query attention reads, are many times larger
(records x crops x tokens x width x 4 bytes); they are deleted when the stage is finished.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from einthoven.backbones.classifier import Classifier, Head, create_head, initialise_head
from einthoven.backbones.inference import aggregate_crops
from einthoven.backbones.layers.query_attention import QueryAttention
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
from einthoven.stages.frozen import EvaluationInputs, Inputs, evaluation_inputs, training_inputs
from einthoven.stages.logistic import fit_logistic, search_penalty
from einthoven.stages.recipe import Stage1
from einthoven.stages.validation import LOSS, best_by, record_losses, validation_metrics
from einthoven.tasks import Criterion
from einthoven.tasks.task import Matrix
from einthoven.training.checkpoint import load_weights, save_weights
from einthoven.training.loop import BEST, Loop, Result
from einthoven.training.optim import Settings, parameter_groups

SECONDS = "seconds.jsonl"
_NORM_EPS = 1e-6  # MAE's
_VALUES_AT_ONCE = 2**24  # of cached inputs, in validation
_NAMES = {nn.Linear: "linear probe", QueryAttention: "query-attention probe"}
LOGISTIC, FEATURES = "logistic", "features"
OUT_OF_FOLD = "out_of_fold.safetensors"


# Inputs of the head for a batch of crops, and (batch, labels) targets
FeatureBatch = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class ProbeData:
    """Records of both splits, and the cached inputs of the head for them.

    Attributes
    ----------
    crops : int
        Random crops of each training record.
    folder : Path
        Folder of the cache. It is filled when an input is first read.
    """

    classifier: Classifier
    train: SignalSource
    validation: SignalSource
    crops: int
    folder: Path
    context: Context

    @cached_property
    def training(self) -> list[Inputs]:
        """For each crop, the inputs of all training records."""
        return [
            training_inputs(
                self.classifier, self.train, crop, self._file(f"train-{crop}"), self.context
            )
            for crop in range(self.crops)
        ]

    @cached_property
    def evaluation(self) -> EvaluationInputs:
        """Inputs for the evaluation crops of the validation records."""
        return evaluation_inputs(
            self.classifier, self.validation, self._file("validation"), self.context
        )

    def inputs(self, crops: NDArray[np.int64], records: NDArray[np.intp]) -> Tensor:
        """Inputs of the head, `(records, ...)`, for one crop of each of some training records."""
        inputs = np.empty((len(records), *self.training[0].shape[1:]), dtype=np.float32)
        for number, cached in enumerate(self.training):
            inputs[crops == number] = cached[records[crops == number]]
        return torch.from_numpy(inputs)

    def fill(self) -> None:
        """Fill the cache, and write the time that it took."""
        start = time.monotonic()
        _ = self.evaluation, self.training
        seconds = round(time.monotonic() - start, 3)
        if self.context.processes.is_main and seconds > 0.1:
            append_line(self.folder / SECONDS, {"seconds": seconds})

    def delete(self) -> None:
        """Delete the cache, once no process reads it."""
        for name in ("training", "evaluation"):
            self.__dict__.pop(name, None)
        self.context.processes.wait()
        if self.context.processes.is_main:
            for file in self.folder.glob("*.npy"):
                file.unlink()

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


@dataclass(frozen=True)
class FeatureBatches:
    """Shuffled batches of cached inputs of the head, with a random crop of each record."""

    data: ProbeData
    batch_size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return max(1, len(self.data.train) // self.batch_size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[FeatureBatch]:
        """Yield the batches of an epoch from a position on."""
        data, records = self.data, len(self.data.train)
        order = epoch_order(records, seed=self.seed, epoch=epoch)
        generator = generator_for(self.seed, epoch, 0xC809)
        crop = torch.randint(data.crops, (records,), generator=generator).numpy()
        for position in range(start, self.per_epoch):
            rows = order[position * self.batch_size :][: self.batch_size]
            yield data.inputs(crop[rows], rows), data.train.targets_of(rows)


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
    data = ProbeData(classifier, train, validation, settings.crops, folder / FEATURES, context)
    rates = settings.base_lr_sweep or (settings.base_lr,)
    files = [folder / f"lr-{rate:g}" / HISTORY_FILE for rate in rates]
    if any(len(read_lines(file)) < settings.epochs for file in files):
        data.fill()
    results, values = {}, {}
    key, is_lowest = best_by(context.criterion.form)
    kind, outputs = classifier.head_kind, classifier.head.out_features
    for rate in rates:
        with seeded(context.seed):
            head = create_head(kind, classifier.backbone, outputs)
            initialise_head(head, settings.head_init)
        result = train_head(head, data, rate, settings, folder / f"lr-{rate:g}", context)
        best = settings.select == "best"
        results[rate], values[rate] = result, result.best if best else result.history[-1][key]
    selected = (min if is_lowest else max)(rates, key=lambda rate: values[rate])
    load_head(folder / f"lr-{selected:g}" / BEST, classifier.head, settings)
    if kind != "linear":
        data.delete()
    return results[selected]


def trained_head(head: Head, settings: Stage1) -> nn.Module:
    """What stage 1 trains: the head, or batch norm and a linear head."""
    if not settings.batch_norm:
        return head
    return nn.Sequential(nn.BatchNorm1d(head.in_features, eps=_NORM_EPS, affine=False), head)


def load_head(file: Path, head: Head, settings: Stage1) -> None:
    """Load what stage 1 has trained into a head; batch norm is folded into its weights."""
    trained: Any = trained_head(head, settings)
    load_weights(file, trained)
    if not settings.batch_norm:
        return
    norm = trained[0]
    with torch.no_grad():
        head.weight *= (norm.running_var + norm.eps).rsqrt()
        head.bias -= head.weight @ norm.running_mean


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
    crops = evaluation_inputs(classifier, train, features / "train.npy", context)
    measured = crops
    if validation is not train:
        measured = evaluation_inputs(classifier, validation, features / "validation.npy", context)
    if context.processes.is_main and not (solved / HISTORY_FILE).is_file():
        owner = crops.owner.numpy()
        rows = crops.inputs, train.targets[owner].astype(np.float64)
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
    head: nn.Module, crops: EvaluationInputs, targets: Matrix, context: Context
) -> dict[str, float]:
    """Metrics and loss of a head on cached inputs for records with these targets."""
    device = next(head.parameters()).device
    rows = max(1, _VALUES_AT_ONCE // crops.inputs[0].size)
    parts = (crops.inputs[start:][:rows] for start in range(0, len(crops.inputs), rows))
    with torch.no_grad():
        logits = torch.cat([head(_tensor(part).to(device)).float().cpu() for part in parts])
    criterion, count = context.criterion, len(targets)
    values = aggregate_crops(logits, crops.owner, count, context.aggregate, criterion.activate)
    losses = record_losses(logits, crops.owner, torch.from_numpy(targets), criterion)
    metrics = validation_metrics(targets, values.numpy(), criterion.task.behaviour)
    return metrics | {LOSS: float(losses.mean())}


def _tensor(inputs: Inputs) -> Tensor:
    return torch.from_numpy(np.array(inputs))  # a copy, because the file is mapped read-only


def train_head(
    head: Head,
    data: ProbeData,
    base_lr: float,
    settings: Stage1,
    folder: Path,
    context: Context,
) -> Result:
    """Train a head on cached inputs; the selected one is `best.safetensors` in the folder."""
    key, is_lowest = best_by(context.criterion.form)
    model = trained_head(head, settings)
    loop = Loop(
        name=f"stage 1, {_NAMES[type(head)]}, base lr {base_lr:g}",
        model=model,
        loss=partial(_head_loss, criterion=context.criterion),
        # Every process trains the same small head on the same batches; averaging has no effect.
        batches=FeatureBatches(data, settings.batch_size, context.seed),
        groups=parameter_groups(model, weight_decay=settings.weight_decay),
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
        validate=lambda model: validate_head(
            model, data.evaluation, data.validation.targets, context
        ),
        processes=context.processes,
        progress=context.progress,
    )
    return loop.run()


def _head_loss(
    model: nn.Module, batch: FeatureBatch, device: torch.device, *, criterion: Criterion
) -> Tensor:
    inputs, targets = batch
    return criterion.mean(model(inputs.to(device)), targets.to(device))
