"""Distributed training: a thin wrapper of Accelerate.

Under `torchrun` or `accelerate launch`, every process trains on its share of each batch and
gradients are averaged; otherwise there is one process.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from einthoven.backbones.inference import device_of
from einthoven.errors import TrainingError


@dataclass(frozen=True)
class Processes:
    """Processes that train together, and the device of this one, as `device_of` accepts it."""

    device_name: str = "auto"

    def __post_init__(self) -> None:
        device_of(self.device_name)  # refuses one that does not exist

    @cached_property
    def accelerator(self) -> Any:
        """Accelerator of Accelerate, created on first use."""
        from accelerate import Accelerator

        name = device_of(self.device_name)
        accelerator = Accelerator(cpu=name == "cpu")
        if ":" in name:  # Accelerate trains on the current GPU
            if accelerator.num_processes > 1:
                raise TrainingError(
                    f"device {name} for {accelerator.num_processes} processes",
                    remedy="choose cuda: each process takes its own GPU",
                )
            torch.cuda.set_device(name)
        return accelerator

    @property
    def device(self) -> torch.device:
        """Device of this process."""
        device: torch.device = self.accelerator.device
        return device

    @property
    def rank(self) -> int:
        """Rank of this process."""
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        """Number of processes."""
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """Move a model to the device and average its gradients over all processes."""
        prepared: nn.Module = self.accelerator.prepare_model(model)
        return prepared

    def unsynchronised(self, model: nn.Module, skip: bool) -> AbstractContextManager[Any]:
        """Skip the averaging of gradients, for all micro-batches but the last."""
        if skip and self.world > 1:
            context: AbstractContextManager[Any] = self.accelerator.no_sync(model)
            return context
        return nullcontext()

    def gather(self, value: Any) -> list[Any]:
        """Gather a value from every process, in order of rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(values, value)
        return values

    def mean(self, value: Tensor) -> Tensor:
        """Mean of a scalar over processes."""
        if self.world == 1:
            return value
        total: Tensor = self.accelerator.reduce(value, reduction="mean")
        return total

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the buffers of the main process, such as running statistics, to all processes."""
        if self.world > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Wait for all processes."""
        if self.world > 1:
            self.accelerator.wait_for_everyone()
