"""Progress of long work: one callback for every verb."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Callback of a task that takes long: records read, steps trained, resamples drawn.

    The task calls it as `progress(task, completed, total, metrics)`. `task` names the work ("pack",
    "predict test", "stage 2"), `completed` of `total` items are finished, and `metrics` has numbers
    worth showing (loss, learning rate, validation AUROC), or None.
    """

    def __call__(
        self, task: str, completed: int, total: int, metrics: Mapping[str, float] | None = None, /
    ) -> None:
        """Show the progress of a task."""
