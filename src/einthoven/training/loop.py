"""The training loop.

Random numbers of a step are a function of (seed, step), batches of (seed, epoch, position). A
checkpoint therefore holds weights, optimiser state and counters only, and a run that was killed
resumes to the same weights, bit for bit on a CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from einthoven.backbones.inference import Precision
from einthoven.backbones.layers.shared_batch_norm import shared_batch_norms
from einthoven.errors import TrainingError
from einthoven.files import HISTORY_FILE, append_line, read_lines, write_lines
from einthoven.progress import Progress
from einthoven.signals.random import ShareGenerator, generator_for
from einthoven.training.checkpoint import load_checkpoint, save_checkpoint, save_weights
from einthoven.training.distributed import Processes
from einthoven.training.optim import OPTIMISERS, Settings, set_learning_rate, update_average

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Batches(Protocol[T_co]):
    """Micro-batches of one process."""

    @property
    def per_epoch(self) -> int:
        """Micro-batches in an epoch."""

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[T_co]:
        """Yield the micro-batches of an epoch from a position on."""


@dataclass
class Counters:
    """Position of a run, and its best epoch so far."""

    epoch: int = 0
    position: int = 0  # optimiser steps done in this epoch
    loss_sum: float = 0.0
    seconds: float = 0.0
    best: float = -math.inf
    best_epoch: int = -1


@dataclass(frozen=True)
class Result:
    """Lines of metrics.jsonl of a stage, and the epoch that was selected.

    `is_kept` is False for a fine-tuning that was no better than the probe it started from.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    best: float = math.nan
    is_kept: bool = True


@dataclass
class Loop(Generic[T]):
    """Training of one stage.

    Attributes
    ----------
    model : nn.Module
        Model on the CPU; the loop moves it to the device.
    loss : callable
        `(model, batch, device) -> scalar loss`; see `Settings.shared_draws`.
    groups : list of dict
        Parameter groups with `lr_scale` (see `optim.parameter_groups`).
    folder : Path
        Folder of metrics and checkpoints.
    validate : callable, optional
        `(model) -> metrics`, called after every epoch.
    processes : Processes
        Processes of this training; they share the statistics of batch normalisation.
    progress : Progress, optional
        Called after every step with `epoch`, `loss` and `lr`, and after every epoch with its line
        of metrics.jsonl.
    after_step : callable, optional
        `(optimiser steps done)`, called in every process after each step.
    after_epoch : callable, optional
        `(lines of metrics.jsonl)`, called in the main process between an epoch's line and its
        checkpoint: if the run is killed in between, the epoch is repeated.
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
    progress: Progress | None = None
    after_step: Callable[[int], None] | None = None
    after_epoch: Callable[[list[dict[str, Any]]], None] | None = None
    average: nn.Module | None = field(default=None, init=False)

    @property
    def selected(self) -> nn.Module:
        """Network that is validated and kept: the model, or its moving average."""
        return self.model if self.average is None else self.average

    def run(self) -> Result:
        """Train to the end, from the checkpoint if there is one.

        The model keeps the weights of the last step; `best.safetensors` holds those of the
        selected epoch, or their average (`Settings.ema`).

        Raises
        ------
        TrainingError
            If the loss or a gradient is not finite.
        """
        settings, processes = self.settings, self.processes
        steps = max(1, self.batches.per_epoch // settings.accumulation)
        schedule, total = settings.schedule(steps), settings.epochs * steps
        self.model.to(processes.device)
        self.average = deepcopy(self.model).requires_grad_(False).eval() if settings.ema else None
        optimiser = OPTIMISERS[settings.optimiser](
            self.groups, betas=settings.betas, eps=settings.eps
        )
        state = self._resume(optimiser)
        network = processes.wrap(self.model)
        shared = shared_batch_norms(self.model, processes=processes.world)
        with torch.random.fork_rng(), shared:
            while state.epoch < settings.epochs:
                network.train()
                now = last_save = time.monotonic()
                batches = self.batches.epoch(
                    state.epoch, start=state.position * settings.accumulation
                )
                # Rate of the step before, if a checkpoint was written after the last step.
                lr = schedule.lr(state.epoch * steps + max(state.position - 1, 0))
                while state.position < steps:
                    step = state.epoch * steps + state.position
                    lr = set_learning_rate(optimiser, schedule, step)
                    loss = self._backward(network, batches, step)
                    norm = self._clip(network)
                    if not (math.isfinite(loss) and math.isfinite(norm)):
                        raise self._not_finite(loss, norm, state, lr)
                    optimiser.step()
                    optimiser.zero_grad(set_to_none=True)
                    if self.average is not None:
                        update_average(self.average, self.model, settings.ema, step)
                    if self.after_step is not None:
                        self.after_step(step + 1)
                    state.position, state.loss_sum = state.position + 1, state.loss_sum + loss
                    if self.progress:
                        metrics = {"epoch": state.epoch + 1, "loss": loss, "lr": lr}
                        self.progress(self.name, step + 1, total, metrics)
                    before, now = now, time.monotonic()
                    state.seconds += now - before
                    if now - last_save > settings.checkpoint_seconds:
                        self._save(optimiser, state)
                        last_save = time.monotonic()
                entry = self._end_epoch(network, state, steps, lr)
                self._save(optimiser, state)
                if self.progress:
                    self.progress(self.name, state.epoch * steps, total, entry)
        processes.wait()
        return Result(read_lines(self.folder / HISTORY_FILE, least=1), state.best_epoch, state.best)

    def _backward(self, network: nn.Module, batches: Iterator[T], step: int) -> float:
        """Accumulate gradients of a step; return the mean loss over all processes."""
        accumulation, device = self.settings.accumulation, self.processes.device
        total = torch.zeros((), device=device)
        for micro in range(accumulation):
            options = self._seed(step, micro)
            batch = next(batches)
            with self.processes.unsynchronised(network, skip=micro < accumulation - 1):
                with autocast(device, self.settings.precision):
                    loss = self.loss(network, batch, device, **options) / accumulation
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return float(self.processes.mean(total))

    def _clip(self, network: nn.Module) -> float:
        """Clip gradients; return their norm before clipping."""
        norm = nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
        if self.settings.clip is not None:
            nn.utils.clip_grads_with_norm_(network.parameters(), self.settings.clip, norm)
        return float(norm)

    def _seed(self, step: int, micro: int) -> dict[str, Any]:
        """Seed torch for a micro-batch; return the shared generator if the loss takes it."""
        seed, rank, world = self.settings.seed, self.processes.rank, self.processes.world
        if not self.settings.shared_draws:
            seed_for(seed, step, micro, rank)
            return {}
        seed_for(seed, step, micro, 1 + rank)
        return {"generator": ShareGenerator(seed, step, micro, 0, rank=rank, world=world)}

    def _end_epoch(
        self, network: nn.Module, state: Counters, steps: int, lr: float
    ) -> dict[str, Any]:
        """Validate, write the epoch's line, keep the best weights, and count the epoch."""
        settings = self.settings
        speed = steps * settings.batch_size / max(state.seconds, 1e-9)
        entry: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "train_loss": state.loss_sum / steps,
            "lr": lr,
            "seconds": round(state.seconds, 3),
            "samples_per_second": round(speed, 1),
        }
        if self.validate is not None:
            started = time.monotonic()
            network.eval()
            for module in filter(None, (self.model, self.average)):
                self.processes.share_buffers(module)
            entry |= self.validate(self.selected)
            entry["validation_seconds"] = round(time.monotonic() - started, 3)
        is_best = self._is_best(entry, state)
        if is_best:
            state.best_epoch = entry["epoch"]
            state.best = entry[settings.select] if settings.select else state.best
        state.epoch, state.position, state.loss_sum, state.seconds = state.epoch + 1, 0, 0.0, 0.0
        if self.processes.is_main:
            if is_best:
                save_weights(self.folder / BEST, self.selected)
            append_line(self.folder / HISTORY_FILE, entry)
            if self.after_epoch is not None:
                self.after_epoch(read_lines(self.folder / HISTORY_FILE))
        return entry

    def _is_best(self, entry: dict[str, Any], state: Counters) -> bool:
        select = self.settings.select
        if select is None:
            return entry["epoch"] == self.settings.epochs  # type: ignore[no-any-return]
        if state.best_epoch < 0:
            return True
        return bool(
            entry[select] < state.best if self.settings.lowest else entry[select] > state.best
        )

    def _save(self, optimiser: Optimizer, state: Counters) -> None:
        if self.processes.is_main:
            counters, file = asdict(state), self.folder / CHECKPOINT
            save_checkpoint(file, self.model, optimiser, counters, self.average)

    def _resume(self, optimiser: Optimizer) -> Counters:
        """Load the checkpoint if there is one; drop metrics of epochs after it."""
        file, state = self.folder / CHECKPOINT, Counters()
        if file.is_file():
            state = Counters(**load_checkpoint(file, self.model, optimiser, self.average))
        if self.processes.is_main:
            lines = read_lines(self.folder / HISTORY_FILE, least=state.epoch)
            write_lines(self.folder / HISTORY_FILE, [e for e in lines if e["epoch"] <= state.epoch])
        self.processes.wait()
        return state

    def _not_finite(self, loss: float, norm: float, state: Counters, lr: float) -> TrainingError:
        what = f"the gradient norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        file = self.folder / CHECKPOINT
        good = f"; the last good checkpoint is {file}" if file.is_file() else ""
        return TrainingError(
            f"{self.name}: {what} in epoch {state.epoch + 1}, step {state.position + 1}, "
            f"at learning rate {lr:.2e} ({self.settings.precision})",
            remedy="lower base_lr, warm up for longer, clip gradients (clip = 1.0) or use "
            f"precision = 'fp32'{good}",
        )


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Autocast context of a precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def seed_for(*key: int) -> None:
    """Seed torch's global generators by a key.

    `torch.manual_seed` is avoided: without CUDA it queues every seed with a stack trace.
    """
    seed = generator_for(*key).initial_seed()
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)
