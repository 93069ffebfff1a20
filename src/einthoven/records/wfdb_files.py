"""Bytes of WFDB files: regular files of the announced size, inside their folder."""

from __future__ import annotations

import errno
import os
import stat

from einthoven.errors import RecordError

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
# Opening a named pipe would wait for ever; not blocking changes nothing for a regular file.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_LARGEST_HEADER = 4 << 20


def read_bytes(path: str) -> bytes:
    """Read a header.

    Parameters
    ----------
    path : str
        Path of the `.hea` file.

    Raises
    ------
    RecordError
        If it is missing, cannot be read, is not a regular file, or is larger than 4 MiB.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:  # A path with a null byte is a ValueError.
        raise _unreadable(path, "header", error) from None
    return _read(descriptor, path, "header", most=_LARGEST_HEADER)


def read_signal_bytes(
    source: str,
    file: str,
    *,
    root: str | os.PathLike[str] | None,
    exactly: int | None = None,
    least: int = 0,
) -> bytes:
    """Read a signal file that a header names.

    Parameters
    ----------
    source : str
        Path of the header.
    file : str
        Name that the header gives; already free of `..` and absolute paths.
    root : path-like or None
        Folder that the file may not leave through a link; by default the header's.
    exactly : int, optional
        Size in bytes that the header announces.
    least : int, optional
        Smallest size in bytes, for formats without an exact one.

    Raises
    ------
    RecordError
        If it is missing, cannot be read, leaves `root`, or has another size.
    """
    folder = os.path.dirname(source)
    path = os.path.join(folder, file)
    base = folder if root is None else os.fspath(root)
    descriptor = _open_inside(path, base)
    return _read(descriptor, path, "signal file", exactly=exactly, least=least)


def _open_inside(path: str, base: str) -> int:
    """Open without following a link; only where there is one is the path resolved and checked."""
    try:
        if _NOFOLLOW and os.path.dirname(path) == base:
            return os.open(path, _FLAGS | _NOFOLLOW)
        return os.open(_resolved(path, base), _FLAGS)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK):
            raise _unreadable(path, "signal file", error) from None
    try:
        return os.open(_resolved(path, base), _FLAGS)
    except OSError as error:
        raise _unreadable(path, "signal file", error) from None


def _resolved(path: str, base: str) -> str:
    real, folder = os.path.realpath(path), os.path.realpath(base)
    try:
        within = os.path.commonpath([real, folder]) == folder
    except ValueError:  # Two drives.
        within = False
    if not within:
        raise RecordError(
            path,
            "signal file",
            real,
            f"lies outside {folder}",
            remedy="copy the file there, or name a folder that holds both as `root`",
        )
    return real


def _read(
    descriptor: int,
    path: str,
    field: str,
    *,
    exactly: int | None = None,
    least: int = 0,
    most: int | None = None,
) -> bytes:
    """Read all of an open file, after its size has been checked; closes it."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            reason = "is not a regular file"
            raise RecordError(path, field, path, reason, remedy="name a file, not a folder or pipe")
        size = status.st_size
        if (exactly is not None and size != exactly) or size < least or size > (most or size):
            raise _wrong_size(path, field, size, exactly, most or least)
        data = os.read(descriptor, size)
        while len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
    except OSError as error:
        raise _unreadable(path, field, error) from None
    finally:
        os.close(descriptor)
    if len(data) != size:
        raise _wrong_size(path, field, len(data), size, 0)
    return data


def _wrong_size(path: str, field: str, size: int, exactly: int | None, bound: int) -> RecordError:
    expected = f"at least {bound}" if exactly is None else str(exactly)
    if exactly is None and size > bound:
        expected = f"at most {bound}"
    return RecordError(
        path,
        f"size of the {field}",
        size,
        f"must be {expected} bytes: the file is cut off, or not the one that its header describes",
        remedy="fetch the record again from its source",
    )


def _unreadable(path: str, field: str, error: Exception) -> RecordError:
    return RecordError(
        path,
        field,
        getattr(error, "strerror", None) or str(error),
        "cannot be read",
        remedy="check the path and its permissions; a WFDB record needs its .hea and signal files",
    )
