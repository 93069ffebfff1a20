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

from einthoven.errors import TrainingError


@dataclass(frozen=True)
class Processes:
    """Processes that train together, and the device of this one: `auto`, `cpu` or `cuda`."""

    device_name: str = "auto"

    @cached_property
    def accelerator(self) -> Any:
        """Accelerator of Accelerate, created on first use."""
        from accelerate import Accelerator

        if self.device_name == "cuda" and not torch.cuda.is_available():
            raise TrainingError("no CUDA device is available", remedy="use --device cpu or auto")
        return Accelerator(cpu=self.device_name == "cpu" or not torch.cuda.is_available())

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
