"""A run folder: everything about one experiment, in plain files.

::

    run.json              what was asked: recipe, backbone, cohort, versions, command
    stage1/, stage2/      metrics.jsonl, checkpoint.safetensors, best.safetensors
    predictions/          validation.parquet, test.parquet
    metrics.json          the numbers
    bundle/               the model, ready to predict
    report.html           the page
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
from typing import Any

from einthoven.errors import TrainingError
from einthoven.files import locked, read_json, write_json
from einthoven.version import __version__

ABOUT, LOCK = "run.json", ".lock"
_ABSENT = "nothing"


@dataclass(frozen=True)
class RunFolder:
    """A run's folder."""

    path: Path

    @classmethod
    def begin(cls, path: str | Path, asked: dict[str, Any]) -> RunFolder:
        """Begin a run, or go on with one that asked for the same.

        Raises
        ------
        TrainingError
            When the folder holds a run that asked for something else, which names what differs,
            or cannot be written.
        """
        folder = Path(path)
        file = folder / ABOUT
        if file.is_file():
            _refuse_other(json.loads(file.read_text())["request"], asked, folder)
            return cls(folder)
        about = {"request": asked, "environment": environment(), "command": sys.argv}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(file, about)
        except OSError as error:
            raise TrainingError(
                f"{folder} cannot be a run folder: {error.strerror}", remedy="name another folder"
            ) from error
        return cls(folder)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process train in this folder for the block's length.

        Raises
        ------
        TrainingError
            When another one does.
        """
        with locked(self.path / LOCK, wait=False) as mine:
            if not mine:
                raise TrainingError(
                    f"another process is training in {self.path}",
                    remedy="let it finish, or name another folder",
                )
            yield

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        folder = self.path / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def about(self) -> dict[str, Any]:
        """The contents of `run.json`."""
        about: dict[str, Any] = read_json(self.path / ABOUT)
        return about


def environment() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = ("torch", "numpy", "scipy", "accelerate", "safetensors")
    return {
        "einthoven": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
    } | {name: metadata.version(name) for name in packages}


def _refuse_other(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    before, now = _comparable(before), _comparable(now)
    different = [
        key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)
    ]
    if different:
        key = different[0]
        where, was, asks = _first_difference(key, before.get(key), now.get(key))
        raise TrainingError(
            f"{folder} holds a run with another {', '.join(different)} "
            f"({where}: {_short(was)}; now {_short(asks)})",
            remedy="name another folder, or repeat the original command to go on with that run",
        )


def _comparable(asked: dict[str, Any]) -> dict[str, Any]:
    """What was asked, without where the weights lie: their hash says what they are, and what the
    catalogue says of them, their licence too, is worded anew in later versions."""
    plain: dict[str, Any] = json.loads(json.dumps(asked))
    plain.pop("public_weights", None)
    if plain.get("weights"):
        plain["weights"].pop("path", None)
        plain["weights"].pop("licence", None)
    return plain


def _first_difference(place: str, before: Any, now: Any) -> tuple[str, Any, Any]:
    """Of two tables the entry that differs, however deep."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return place, before, now
    for key in sorted(before.keys() | now.keys()):
        was, asks = before.get(key, _ABSENT), now.get(key, _ABSENT)  # null is another thing
        if was != asks:
            return _first_difference(f"{place}.{key}", was, asks)
    raise AssertionError(f"{place}: two equal tables")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 120 else text[:117] + "..."
