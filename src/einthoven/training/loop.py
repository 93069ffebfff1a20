"""The only training loop.

Every random number of a step is a function of (seed, step), every batch of (seed, epoch,
position). A checkpoint is therefore weights, optimiser state and counters, and a run that was
killed anywhere goes on to the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from einthoven.backbones.layers.shared_batch_norm import shared_batch_norms
from einthoven.errors import TrainingError
from einthoven.files import append_line, read_lines, write_lines
from einthoven.signals.draws import ShareGenerator, generator_for
from einthoven.training.checkpoint import load_checkpoint, save_checkpoint, save_weights
from einthoven.training.optim import (
    OPTIMISERS,
    Cycle,
    OneCycle,
    OptimiserName,
    Schedule,
    scaled_lr,
    steer,
)
from einthoven.training.processes import Processes

Precision = Literal["fp32", "bf16"]
METRICS, CHECKPOINT, BEST = "metrics.jsonl", "checkpoint.safetensors", "best.safetensors"
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Batches(Protocol[T_co]):
    """Micro-batches of one process: how many an epoch has, and an epoch from a position on."""

    @property
    def per_epoch(self) -> int:
        """Micro-batches in an epoch."""

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[T_co]:
        """The micro-batches of an epoch from a position on."""


class Watcher(Protocol):
    """Who is told how training goes."""

    def began(self, stage: str, epochs: int, steps: int) -> None:
        """A stage of `epochs` epochs with `steps` optimiser steps each begins."""

    def stepped(self, epoch: int, step: int, loss: float, lr: float) -> None:
        """An optimiser step is done; `step` counts within the epoch, from 1."""

    def epoch_ended(self, entry: dict[str, Any]) -> None:
        """An epoch is done; `entry` is its line in metrics.jsonl."""

    def ended(self, stage: str) -> None:
        """The stage is done."""


@runtime_checkable
class SampleWatcher(Protocol):
    """A watcher that also wants to know how many samples a step is; optional."""

    def sized(self, samples: int) -> None:
        """Called after `began`: an optimiser step sees so many samples."""


@dataclass(frozen=True)
class Settings:
    """What the loop has to know.

    Attributes
    ----------
    epochs : int
        Passes over the data.
    base_lr : float
        Learning rate per 256 samples.
    batch_size : int
        Samples an optimiser step sees, over all processes and micro-batches.
    accumulation : int
        Micro-batches a step.
    warmup_epochs : float
        Linear warm-up.
    min_lr : float
        Learning rate at the end of the cosine.
    cycle : Cycle, optional
        One cycle instead of warm-up and cosine.
    optimiser : {"adamw", "adamax"}
        What updates the weights.
    betas : tuple of float
        The optimiser's; a cycle has a first one of its own for every step.
    clip : float or None
        Largest gradient norm.
    precision : {"fp32", "bf16"}
        Autocast type of the forward pass.
    select : str or None
        Validation metric whose highest value (the earliest, on a tie) decides which weights are
        kept as best; without one the last weights are.
    lowest : bool
        Whether the lowest value decides instead.
    checkpoint_seconds : float
        A checkpoint is written after every epoch, and within one after this many seconds.
    seed : int
        What dropout, drop path and masks are drawn from.
    shared_draws : bool
        Whether `loss` takes `generator`, a `ShareGenerator`: what an objective draws for a record
        does not depend on how many processes share the batch. Dropout and drop path are drawn by
        each process on its own.
    """

    epochs: int
    base_lr: float
    batch_size: int
    accumulation: int = 1
    warmup_epochs: float = 0.0
    min_lr: float = 0.0
    cycle: Cycle | None = None
    optimiser: OptimiserName = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None
    precision: Precision = "fp32"
    select: str | None = None
    lowest: bool = False
    checkpoint_seconds: float = 120.0
    seed: int = 0
    shared_draws: bool = False

    def schedule(self, steps_per_epoch: int) -> Schedule | OneCycle:
        """The learning rate over all steps."""
        peak, total = scaled_lr(self.base_lr, self.batch_size), self.epochs * steps_per_epoch
        if self.cycle is not None:
            return OneCycle(peak, total, self.cycle)
        return Schedule(
            peak_lr=peak,
            min_lr=self.min_lr,
            warmup_steps=round(self.warmup_epochs * steps_per_epoch),
            total_steps=total,
        )


@dataclass
class Counters:
    """Where a run is; all that a checkpoint holds beside tensors."""

    epoch: int = 0
    position: int = 0  # optimiser steps done in this epoch
    loss_sum: float = 0.0
    seconds: float = 0.0
    best: float = -math.inf
    best_epoch: int = -1


@dataclass(frozen=True)
class Result:
    """What a stage came to: its lines in metrics.jsonl, and which epoch was kept."""

    history: list[dict[str, Any]]
    best_epoch: int
    best: float = field(default=math.nan)


@dataclass
class Loop(Generic[T]):
    """A stage in training.

    Attributes
    ----------
    name : str
        Name of the stage.
    model : nn.Module
        What is trained, on the CPU; the loop moves it.
    loss : callable
        `(model, batch, device) -> scalar loss`; see `Settings.shared_draws`.
    batches : Batches
        Where micro-batches come from.
    groups : list of dict
        Parameter groups with `lr_scale` (see `optim.parameter_groups`).
    settings : Settings
        The numbers.
    folder : Path
        Where metrics and checkpoints go.
    validate : callable, optional
        `(model) -> metrics`, called after every epoch.
    processes : Processes
        Who trains together; batch norm's statistics are those of all of them.
    watcher : Watcher, optional
        Who is told.
    after_step : callable, optional
        `(optimiser steps done)`, called in every process after each of them.
    after_epoch : callable, optional
        `(lines of metrics.jsonl)`, called in the main process after an epoch's line is written
        and before its checkpoint is: when it is killed in between, the epoch is done again.
    """

    name: str
    model: nn.Module
    loss: Callable[..., Tensor]
    batches: Batches[T]
    groups: list[dict[str, Any]]
    settings: Settings
    folder: Path
    validate: Callable[[nn.Module], dict[str, float]] | None = None
    processes: Processes = field(default_factory=Processes)
    watcher: Watcher | None = None
    after_step: Callable[[int], None] | None = None
    after_epoch: Callable[[list[dict[str, Any]]], None] | None = None

    def run(self) -> Result:
        """Train to the end, from the checkpoint where there is one; the model keeps the weights
        of the last step, `best.safetensors` those of the best epoch.

        Raises
        ------
        TrainingError
            When the loss is not finite.
        """
        settings = self.settings
        steps = max(1, self.batches.per_epoch // settings.accumulation)
        schedule = settings.schedule(steps)
        self.model.to(self.processes.device)
        optimizer = OPTIMISERS[settings.optimiser](self.groups, betas=settings.betas)
        counters = self._resume(optimizer)
        wrapped = self.processes.wrap(self.model)
        if self.watcher:
            self.watcher.began(self.name, settings.epochs, steps)
            if isinstance(self.watcher, SampleWatcher):
                self.watcher.sized(settings.batch_size)
        shared = shared_batch_norms(self.model, processes=self.processes.world)
        with torch.random.fork_rng(), shared:
            while counters.epoch < settings.epochs:
                self._epoch(wrapped, optimizer, schedule, counters, steps)
        if self.watcher:
            self.watcher.ended(self.name)
        self.processes.wait()
        return Result(read_lines(self.folder / METRICS), counters.best_epoch, counters.best)

    def _epoch(
        self,
        wrapped: nn.Module,
        optimizer: Optimizer,
        schedule: Schedule | OneCycle,
        counters: Counters,
        steps: int,
    ) -> None:
        accumulation = self.settings.accumulation
        start = counters.position * accumulation
        micro_batches = self.batches.epoch(counters.epoch, start=start)
        began = saved = time.monotonic()
        wrapped.train()
        # The rate of the step before, should every step of the epoch be done already.
        lr = schedule.lr(counters.epoch * steps + max(counters.position - 1, 0))
        for position in range(counters.position, steps):
            step = counters.epoch * steps + position
            lr = steer(optimizer, schedule, step)
            loss, norm = self._step(wrapped, optimizer, micro_batches, step)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise self._not_finite(loss, norm, counters.epoch, position, lr)
            counters.position, counters.loss_sum = position + 1, counters.loss_sum + loss
            if self.watcher:
                self.watcher.stepped(counters.epoch, position + 1, loss, lr)
            if time.monotonic() - saved > self.settings.checkpoint_seconds:
                elapsed = time.monotonic() - began
                self._save(optimizer, replace(counters, seconds=counters.seconds + elapsed))
                saved = time.monotonic()
        counters.seconds += time.monotonic() - began
        self._end_epoch(wrapped, optimizer, counters, steps, lr)

    def _step(
        self, wrapped: nn.Module, optimizer: Optimizer, micro_batches: Iterator[T], step: int
    ) -> tuple[float, float]:
        """Loss and size of the gradient; where one of them is not finite, no step was made."""
        settings, device = self.settings, self.processes.device
        total = torch.zeros((), device=device)
        for micro in range(settings.accumulation):
            given = self._draws(step, micro)
            batch = next(micro_batches)
            last = micro == settings.accumulation - 1
            with self.processes.unsynchronised(wrapped, skip=not last):
                with autocast(device, settings.precision):
                    loss = self.loss(wrapped, batch, device, **given) / settings.accumulation
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        mean = float(self.processes.mean(total))
        gradients = [p.grad for p in wrapped.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if math.isfinite(mean) and math.isfinite(norm):
            if settings.clip is not None:
                nn.utils.clip_grads_with_norm_(wrapped.parameters(), settings.clip, norm)
            optimizer.step()
            if self.after_step is not None:
                self.after_step(step + 1)
        optimizer.zero_grad(set_to_none=True)
        return mean, float(norm)

    def _draws(self, step: int, micro: int) -> dict[str, Any]:
        """Seed torch for a micro-batch; and the generator that all processes share, if wanted."""
        seed, here = self.settings.seed, self.processes
        if not self.settings.shared_draws:
            seed_for(seed, step, micro, here.rank)
            return {}
        seed_for(seed, step, micro, 1 + here.rank)
        shared = ShareGenerator(seed, step, micro, 0, rank=here.rank, world=here.world)
        return {"generator": shared}

    def _end_epoch(
        self, wrapped: nn.Module, optimizer: Optimizer, counters: Counters, steps: int, lr: float
    ) -> None:
        began = time.monotonic()
        samples = steps * self.settings.batch_size
        entry: dict[str, Any] = {
            "epoch": counters.epoch + 1,
            "train_loss": counters.loss_sum / steps,
            "lr": lr,
            "seconds": round(counters.seconds, 3),
            "samples_per_second": round(samples / max(counters.seconds, 1e-9), 1),
        }
        if self.validate is not None:
            wrapped.eval()
            self.processes.share_buffers(self.model)
            entry |= self.validate(self.model)
            entry["validation_seconds"] = round(time.monotonic() - began, 3)
        is_best = self._is_best(entry, counters)
        if is_best:
            counters.best_epoch = counters.epoch + 1
            if self.settings.select:
                counters.best = entry[self.settings.select]
        counters.epoch, counters.position = counters.epoch + 1, 0
        counters.loss_sum = counters.seconds = 0.0
        if self.processes.is_main:
            if is_best:
                save_weights(self.folder / BEST, self.model)
            append_line(self.folder / METRICS, entry)
            if self.after_epoch is not None:
                self.after_epoch(read_lines(self.folder / METRICS))
        self._save(optimizer, counters)
        if self.watcher:
            self.watcher.epoch_ended(entry)

    def _is_best(self, entry: dict[str, Any], counters: Counters) -> bool:
        if self.settings.select is None:
            return counters.epoch + 1 == self.settings.epochs
        if counters.best_epoch < 0:
            return True
        value = entry[self.settings.select]
        return bool(value < counters.best if self.settings.lowest else value > counters.best)

    def _save(self, optimizer: Optimizer, counters: Counters) -> None:
        if self.processes.is_main:
            save_checkpoint(self.folder / CHECKPOINT, self.model, optimizer, vars(counters).copy())

    def _resume(self, optimizer: Optimizer) -> Counters:
        file = self.folder / CHECKPOINT
        counters = Counters()
        if file.is_file():
            counters = Counters(**load_checkpoint(file, self.model, optimizer))
        if self.processes.is_main:
            lines = [e for e in read_lines(self.folder / METRICS) if e["epoch"] <= counters.epoch]
            self.folder.mkdir(parents=True, exist_ok=True)
            write_lines(self.folder / METRICS, lines)
        self.processes.wait()
        return counters

    def _not_finite(
        self, loss: float, norm: float, epoch: int, position: int, lr: float
    ) -> TrainingError:
        file = self.folder / CHECKPOINT
        kept = f"; the last good checkpoint is {file}" if file.is_file() else ""
        what = f"the gradient's norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        return TrainingError(
            f"{self.name}: {what} in epoch {epoch + 1}, step {position + 1}, "
            f"at learning rate {lr:.2e} ({self.settings.precision})",
            remedy="lower base_lr, warm up for longer, clip gradients (clip = 1.0) or use "
            f"precision = 'fp32'{kept}",
        )


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The autocast context of a precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def seed_for(*key: int) -> None:
    """Seed torch's generators with nothing but a key.

    Not `torch.manual_seed`: without a device it queues its seeds, and a stack trace each, forever.
    """
    seed = generator_for(*key).initial_seed()
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)
