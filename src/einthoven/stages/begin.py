"""Beginning a run with several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from einthoven.training.processes import Processes
from einthoven.training.run import RunFolder


def begin_run(out: str | Path, asked: dict[str, Any], processes: Processes) -> RunFolder:
    """Begin a run, or go on with it: the main process writes the folder, the others follow.

    Raises
    ------
    TrainingError
        When the folder holds a run that asked for something else.
    """
    if not processes.is_main:
        processes.wait()
    run = RunFolder.begin(out, asked)
    if processes.is_main:
        processes.wait()
    return run
