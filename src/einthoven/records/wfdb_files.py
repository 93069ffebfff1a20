"""Bytes of WFDB files: regular files of the announced size, inside their folder."""

from __future__ import annotations

import math
import os
import stat

from einthoven.errors import RecordError


def signal_path(source: str, file: str) -> str:
    """Path of a signal file that the header at `source` names.

    Raises
    ------
    RecordError
        If a symbolic link leads out of the header's folder.
    """
    path = os.path.join(os.path.dirname(source), file)
    if os.path.basename(file) == file and not os.path.islink(path):
        return path
    folder, real = os.path.realpath(os.path.dirname(source)), os.path.realpath(path)
    if not real.startswith(os.path.join(folder, "")):
        raise RecordError(
            path,
            "signal file",
            real,
            f"lies outside {folder}",
            remedy="copy the signal file into the folder of its header",
        )
    return path


def read_file(path: str, field: str, *, least: int = 0, most: float = math.inf) -> bytes:
    """Read a file whose size lies between `least` and `most` bytes.

    `field` is what the file holds (`header`, `signal file`), for messages.

    Raises
    ------
    RecordError
        If it is missing, cannot be read, is not a regular file, or has another size.
    """
    try:
        # A named pipe is refused before it is opened, which would wait for its other end.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            reason = "is not a regular file"
            raise RecordError(path, field, path, reason, remedy="name a file, not a folder or pipe")
        size = status.st_size
        if least <= size <= most:
            with open(path, "rb") as handle:
                content = handle.read()
            size = len(content)  # the file may have changed
            if least <= size <= most:
                return content
        bound = f"at least {least}" if size < least else f"at most {most}"
        raise RecordError(
            path,
            f"size of the {field}",
            size,
            f"must be {least if least == most else bound} bytes: the file is cut off, or not the "
            "one that its header describes",
            remedy="fetch the record again from its source",
        )
    except (OSError, ValueError) as error:  # A path with a null byte is a ValueError.
        raise RecordError(
            path,
            field,
            None,
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            remedy="check the path and its permissions; a WFDB record needs its .hea and signal "
            "files",
        ) from None
