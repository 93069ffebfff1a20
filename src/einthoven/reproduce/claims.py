"""Who is at work on what: lock files that several processes and machines agree on.

A claim is a file, made in one step, that names its process. A process on the same machine that no
longer lives holds nothing; one elsewhere holds its claim for as long as it keeps touching it.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from einthoven.errors import FileError, ReproduceError
from einthoven.files import read_json

try:
    import fcntl
except ImportError:  # Windows: claims are still made in one step, only taking over is not
    fcntl = None  # type: ignore[assignment]

BEAT, SILENCE = 20.0, 600.0
"""Seconds between two heartbeats, and without one until a claim made elsewhere has lapsed."""


@dataclass(eq=False)
class Claim:
    """A claim that this process holds.

    Attributes
    ----------
    file : Path
    token : str
        Tells this claim from later ones of the same name.
    """

    file: Path
    token: str
    _over: threading.Event = field(default_factory=threading.Event)

    def is_held(self) -> bool:
        """Whether nobody took it over; a process that was asleep for long may find that out."""
        return _read(self.file).get("token") == self.token

    def refuse_if_lost(self) -> None:
        """Stop here when another process took over.

        Raises
        ------
        ReproduceError
            Then, before both write to one folder.
        """
        if not self.is_held():
            raise ReproduceError(
                f"{self.file.stem} was taken over by another process",
                remedy="this process was silent for too long; let the other one finish",
            )

    def keep_beating(self) -> None:
        """Touch the claim until it is released."""
        while not self._over.wait(BEAT):
            if self.is_held():
                os.utime(self.file)

    def release(self) -> None:
        """Give it up."""
        self._over.set()
        if self.is_held():
            self.file.unlink(missing_ok=True)


@contextmanager
def claim(folder: Path, name: str) -> Iterator[Claim | None]:
    """Claim a name for the block's length; None where another living process has it."""
    taken = _take(folder, name)
    if taken is None:
        yield None
        return
    threading.Thread(target=taken.keep_beating, daemon=True, name=f"claim {name}").start()
    try:
        yield taken
    finally:
        taken.release()


def holder(folder: Path, name: str) -> dict[str, Any] | None:
    """Who holds a name now: `pid`, `host`; None where nobody living does."""
    file = _file(folder, name)
    found = _read(file)
    return found if found and _is_alive(file, found) else None


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.lock"


def _take(folder: Path, name: str) -> Claim | None:
    file = _file(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(folder):
        found = _read(file)
        if file.is_file():
            if _is_alive(file, found):
                return None
            file.unlink(missing_ok=True)
        token = secrets.token_hex(8)
        try:
            with open(file, "x") as handle:
                handle.write(json.dumps({"token": token, **_self()}))
        except FileExistsError:
            return None
    return Claim(file, token)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    # Between judging a claim dead and replacing it, nobody else may do the same.
    with open(folder / ".guard", "a") as guard:
        if fcntl:
            fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = read_json(file)
    except (FileError, OSError):  # gone, or just being written
        return {}
    return found


def _self() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "place": _place(), "born": _born()}


def _is_alive(file: Path, found: dict[str, Any]) -> bool:
    if found and found["place"] == _place():
        return _lives(found["pid"]) and found["born"] in (None, _born(found["pid"]))
    try:
        return _now(file.parent) - file.stat().st_mtime < SILENCE
    except FileNotFoundError:
        return False


def _now(folder: Path) -> float:
    # The clock of the file system, which may be another machine's.
    probe = folder / ".clock"
    probe.touch()
    os.utime(probe)
    return probe.stat().st_mtime


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _place() -> str:
    """Where process ids mean the same: a machine since it was started, and its container."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    except OSError:
        pass
    return " ".join(parts)


def _born(pid: int | None = None) -> str | None:
    """When a process was started, where the system tells: process ids are used again."""
    try:
        stat = Path(f"/proc/{pid or os.getpid()}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return "dead" if fields[0] == "Z" else fields[19]
