"""Plain files, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from einthoven.errors import FileError

if TYPE_CHECKING:
    from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows, where everybody holds every lock
    fcntl = None  # type: ignore[assignment]

METADATA = "einthoven"


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Where to write what becomes the file at the end; nothing becomes of it when that fails."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(file.name + ".writing")
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file for the block's length; the system lets go of it when the process dies.

    Yields
    ------
    bool
        False, without waiting, where another process holds it and `wait` is off. Where there are
        no locks, or no such file can be made, everybody holds it.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = open(file, "a")  # noqa: SIM115
    except OSError:
        yield True
        return
    with handle:
        yield _lock(handle, wait)


def lock_beside(path: Path) -> Path:
    """A lock file for what lies in a user's folder, away from it; of this machine and user."""
    place = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:24]
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"einthoven-{user}" / f"{place}.lock"


def _lock(handle: IO[str], wait: bool) -> bool:
    try:
        if fcntl:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        pass
    return True


def write_text(file: Path, text: str) -> None:
    """Write text atomically, as UTF-8."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(file: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(file, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(file: Path) -> Any:
    """Read JSON.

    Raises
    ------
    FileError
        When the file is missing or damaged.
    """
    try:
        return json.loads(file.read_text())
    except FileNotFoundError as error:
        raise FileError(f"{file} is missing", remedy="check the path") from error
    except json.JSONDecodeError as error:
        raise FileError(f"{file} is damaged: {error}", remedy="make it again") from error


def append_line(file: Path, entry: dict[str, Any]) -> None:
    """Add one JSON line."""
    with open(file, "a") as handle:
        handle.write(json.dumps(entry) + "\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """All JSON lines of a file, an unfinished last one left out; none without the file."""
    if not file.is_file():
        return []
    lines = file.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def keep_lines(file: Path, entries: list[dict[str, Any]]) -> None:
    """Replace a file's lines atomically."""
    write_text(file, "".join(json.dumps(entry) + "\n" for entry in entries))


def write_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically; the same content gives the same bytes.

    Metadata goes under one key, because safetensors writes several in random order.
    """
    from safetensors.torch import save_file

    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {METADATA: json.dumps(metadata, sort_keys=True)}
    with replacing(file) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(whole, str(temporary), metadata=about)
        temporary.chmod(mode)  # safetensors leaves a file that its owner alone may read


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises
    ------
    FileError
        When the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise FileError(f"{file} is missing", remedy="check the path, or make it again")
    try:
        with safe_open(str(file), framework="pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
            return tensors, json.loads((handle.metadata() or {}).get(METADATA, "{}"))
    except (SafetensorError, OSError) as error:
        raise FileError(
            f"{file} is damaged: {error}", remedy="delete it and make it again"
        ) from error


def read_metadata(file: Path) -> dict[str, str]:
    """Metadata of a safetensors file that einthoven wrote; none of any other file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as handle:
            found: dict[str, str] = json.loads((handle.metadata() or {}).get(METADATA, "{}"))
            return found
    except (SafetensorError, OSError):
        return {}
