"""A recorder of progress that can end a training as a killed process would."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass


class KilledError(Exception):
    """Stands in for the signal that ends a process."""


@dataclass
class Recorder:
    """Progress that keeps losses and rates by stage, and ends training at a step of one of them."""

    kill: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        self.losses: dict[str, list[float]] = defaultdict(list)
        self.rates: dict[str, list[float]] = defaultdict(list)

    def __call__(
        self, task: str, done: int, total: int, metrics: Mapping[str, float] | None = None
    ) -> None:
        if self.kill and task.startswith(self.kill[0]) and "train_loss" not in (metrics or {}):
            self.kill = (self.kill[0], self.kill[1] - 1)
            if self.kill[1] == 0:
                raise KilledError
        if metrics and "loss" in metrics:
            self.losses[task].append(metrics["loss"])
            self.rates[task].append(metrics["lr"])
