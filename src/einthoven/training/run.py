"""Run folder: everything about one experiment, in plain files.

::

    run.json              request (recipe, backbone, cohort), environment, command
    stage1/, stage2/      metrics.jsonl, checkpoint.safetensors, best.safetensors
    predictions/          validation.parquet, test.parquet
    metrics.json          scores, training time, size
    model/                the model folder
    .lock                 held by the process that trains
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from textwrap import shorten
from typing import Any

from einthoven import __version__
from einthoven.errors import TrainingError
from einthoven.files import (
    RUN_FILE,
    Json,
    check_output,
    delete_temporary,
    locked,
    read_json,
    write_json,
)
from einthoven.training.distributed import Processes

LOCK = ".lock"


@dataclass(frozen=True)
class RunFolder:
    """Folder of a run."""

    path: Path

    @classmethod
    def begin(cls, path: str | Path, request: Json) -> RunFolder:
        """Begin a run, or resume one of the same request; refuse a folder with another one."""
        folder = Path(path)
        if (folder / RUN_FILE).is_file():
            run = cls(folder)
            _refuse_other(run.request, request, folder)
            return run
        check_output(folder, folder=True)
        content = {"request": request, "environment": environment(), "command": sys.argv}
        write_json(folder / RUN_FILE, content)
        return cls(folder)

    def stage(self, name: str) -> Path:
        """Folder of a stage; made if missing."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def request(self) -> Json:
        """Request of the run."""
        return self._entry("request")

    @property
    def environment(self) -> dict[str, str]:
        """Versions that the run began with."""
        return self._entry("environment")

    def _entry(self, key: str) -> Json:
        content = read_json(self.path / RUN_FILE, object)
        if not isinstance(content, dict) or not isinstance(content.get(key), dict):
            raise TrainingError(
                f"{self.path / RUN_FILE} is not about a run: {key} is missing",
                remedy="choose another folder",
            )
        entry: Json = content[key]
        return entry


@contextmanager
def open_run(path: str | Path, request: Json, processes: Processes) -> Iterator[RunFolder]:
    """Begin or resume a run and hold its lock during the block.

    The main process writes the folder and holds the lock; the other processes wait for it.

    Raises
    ------
    TrainingError
        If the folder holds a run of another request or cannot be written, or if another process
        trains in it.
    """
    if not processes.is_main:
        processes.wait()
        yield RunFolder.begin(path, request)
        return
    run = RunFolder.begin(path, request)
    with locked(run.path / LOCK, wait=False) as acquired:
        if not acquired:
            raise TrainingError(
                f"another process is training in {run.path}",
                remedy="let it finish, or choose another folder",
            )
        delete_temporary(run.path)
        processes.wait()
        yield run


def environment() -> dict[str, str]:
    """Versions of everything that a result depends on."""
    packages = ("torch", "numpy", "scipy", "accelerate", "safetensors")
    return {
        "einthoven": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
    } | {name: metadata.version(name) for name in packages}


def _refuse_other(before: Json, now: Json, folder: Path) -> None:
    before, now = _comparable(before), _comparable(now)
    differences = [
        key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)
    ]
    if differences:
        place, old, new = _first_difference("", before, now)
        raise TrainingError(
            f"{folder} holds a run with another {', '.join(differences)} "
            f"({place}: {shorten(old, 120)}; now {shorten(new, 120)})",
            remedy="choose another folder, or repeat the original command to resume that run",
        )


def _comparable(request: Json) -> Json:
    """Request with the hash of the initial weights only: their folder may move, and the wording of
    their licence and origin may change."""
    plain: Json = json.loads(json.dumps(request))
    plain.pop("public_weights", None)
    if plain.get("weights"):
        plain["weights"] = {"sha256": plain["weights"]["sha256"]}
    return plain


def _first_difference(place: str, before: Any, now: Any) -> tuple[str, str, str]:
    """Innermost entry in which two tables differ, and its two values as JSON."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            old, new = before.get(key, "absent"), now.get(key, "absent")  # null is a value
            if old != new:
                return _first_difference(f"{place}.{key}".lstrip("."), old, new)
    return place, json.dumps(before), json.dumps(now)
