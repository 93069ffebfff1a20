"""What a reader receives: an ECG file, on disk or in memory."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

from einthoven.errors import RecordError

PathLike = str | os.PathLike[str]

SEPARATOR = "::"
"""Between the path of a file of many records and the name of one of them: `exams.hdf5::1234`."""
FOLDER_SIDECAR = "ecg.toml"
"""Sidecar of all files of its folder; `name.toml` is that of one file (`records.sidecar`)."""
_HEAD = 4096
_HELD: ContextVar[Mapping[str, bytes] | None] = ContextVar("files in memory", default=None)


def is_file_like(value: object) -> bool:
    """Whether a value is a path, bytes, or an open file, which `EcgFile` refuses."""
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(
        value, "read"
    )


@dataclass(frozen=True)
class EcgFile:
    """An ECG file, or a record in a file of many.

    Attributes
    ----------
    name : str
        Path of the file, for messages and as `Record.source`; `memory` for bytes without one.
    member : str
        Name of a record in a file of many; empty for the only one.
    data : bytes or None
        Content of a file in memory. None for a file on disk.
    root : str
        Folder of the cohort, in which links between the files of a record may lead; empty without
        a cohort.
    """

    name: str
    member: str = ""
    data: bytes | None = None
    root: str = ""

    @classmethod
    def of(cls, source: object, root: PathLike | None = None) -> EcgFile:
        """File of a path, which may end with `::` and the name of a record, or of bytes.

        An EcgFile is returned as it is. RecordError for anything else, such as an open file.
        """
        if isinstance(source, EcgFile):
            return source
        if isinstance(source, bytes):
            return cls("memory", data=source)
        if not isinstance(source, str | os.PathLike):
            is_open = hasattr(source, "read")
            raise RecordError(
                "memory",
                "source",
                type(source).__name__,
                "is neither a path nor bytes",
                remedy="pass its path, or its bytes: file.read()" if is_open else "pass bytes(...)",
            )
        folder = "" if root is None else os.fspath(root)
        path, separator, member = os.fspath(source).rpartition(SEPARATOR)
        if separator and not os.path.lexists(source):
            return cls(path, member, root=folder)
        return cls(os.fspath(source), root=folder)

    @property
    def label(self) -> str:
        """Name of the record: that of its member, or the file's without folder and suffix.

        Digits are no suffix: DICOM files are called by identifiers such as `1.2.840.17`.
        """
        name = os.path.basename(self.name)
        stem, suffix = os.path.splitext(name)
        return self.member or (name if suffix[1:].isdecimal() else stem)

    @property
    def suffix(self) -> str:
        """Suffix of the file in lower case, with the dot; empty without one."""
        return os.path.splitext(self.name)[1].lower()

    @cached_property
    def content(self) -> bytes:
        """All bytes. RecordError if the file cannot be read or is not a regular file."""
        return read_file(self.name, "") if self.data is None else self.data

    @cached_property
    def head(self) -> bytes:
        """First 4,096 bytes, by which a format is recognised. RecordError as for `content`."""
        return self.content[:_HEAD] if self.data is not None else read_file(self.name, "", _HEAD)

    @cached_property
    def size(self) -> int:
        """Number of bytes. RecordError as for `content`."""
        if self.data is not None:
            return len(self.data)
        self.part(0, 0)
        return os.stat(self.name).st_size

    def part(self, start: int, stop: int) -> bytes:
        """Bytes from one offset to another, the end excluded; fewer at the end of the file.

        The rest of a file on disk is not read. RecordError as for `content`.
        """
        if self.data is not None:
            return self.data[start:stop]
        return read_file(self.name, "", stop - start, start=start)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the content, and of the member's name if there is one; hexadecimal."""
        if self.data is None and "content" not in self.__dict__:
            try:
                with open(self.name, "rb") as handle:  # of a long recording, in pieces
                    digest = hashlib.file_digest(handle, "sha256")
            except OSError:
                digest = hashlib.sha256(self.content)  # raises the RecordError
        else:
            digest = hashlib.sha256(self.content)
        if self.member:
            digest.update(self.member.encode())
        return digest.hexdigest()

    def beside(self, suffix: str) -> EcgFile | None:
        """File of the same name with another suffix, such as a sidecar; None if there is none."""
        path = os.path.splitext(self.name)[0] + suffix
        return EcgFile(path) if self.data is None and os.path.isfile(path) else None

    def refusal(self, field: str, value: object, reason: str, *, remedy: str) -> RecordError:
        """RecordError about this file; the arguments are those of `RecordError`."""
        place = self.name + (SEPARATOR + self.member if self.member else "")
        return RecordError(place, field, value, reason, remedy=remedy)

    def unknown_member(self, count: int, *, example: str) -> RecordError:
        """RecordError for a member that is not one of `count` records, or was not named.

        `example` is the name of a record.
        """
        if count == 1:
            return self.refusal(
                "record", self.member, "the file is one record", remedy="name the file only"
            )
        reason = f"the file holds {count} records"
        if not self.member:
            reason = f"must be named: {reason}"
        remedy = f"name one of them: {os.path.basename(self.name)}{SEPARATOR}{example}"
        if self.data is not None:
            remedy = f"write the bytes to a file, and name one of them: FILE{SEPARATOR}{example}"
        return self.refusal("record", self.member or None, reason, remedy=remedy)


@contextmanager
def held_files(files: Mapping[str, bytes]) -> Iterator[None]:
    """Let `read_file` read these files by their paths, and none on disk, in this thread.

    For records of several files that are in memory, such as a WFDB header and its signals.
    """
    token = _HELD.set(files)
    try:
        yield
    finally:
        _HELD.reset(token)


def exists(path: str) -> bool:
    """Whether there is a file of this path, or a link; in `held_files` among these only."""
    held = _HELD.get()
    return os.path.lexists(path) if held is None else path in held


def read_file(
    path: str,
    field: str,
    length: int = -1,
    *,
    start: int = 0,
    least: int = 0,
    most: float = math.inf,
) -> bytes:
    """Read a regular file whose size lies between `least` and `most` bytes.

    `field` is what the file holds (`header`, `signal file`), for messages. With `length`, at most
    so many bytes are read, from offset `start`.

    Raises
    ------
    RecordError
        If it is missing, cannot be read, is not a regular file, or has another size.
    """
    held = _HELD.get()
    try:
        if held is not None:
            size = len(held.get(path, b""))
            if path not in held:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            if least <= size <= most:
                stop = None if length < 0 else start + length
                return held[path][start:stop]
            raise _wrong_size(path, field, size, least, most)
        # A named pipe is refused before it is opened, which would wait for its other end.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            reason = "is not a regular file"
            raise RecordError(path, field, path, reason, remedy="name a file, not a folder or pipe")
        size = status.st_size
        if least <= size <= most:
            with open(path, "rb") as handle:
                handle.seek(start)
                content = handle.read(length)
            size = len(content) if length < 0 else size  # the file may have changed
            if least <= size <= most:
                return content
        raise _wrong_size(path, field, size, least, most)
    except (OSError, ValueError) as error:  # A path with a null byte is a ValueError.
        raise RecordError(
            path,
            field,
            None,
            f"cannot be read: {getattr(error, 'strerror', None) or error}",
            remedy="check the path and its permissions; a WFDB record needs its .hea and signal "
            "files",
        ) from None


def _wrong_size(path: str, field: str, size: int, least: int, most: float) -> RecordError:
    bound = f"at least {least}" if size < least else f"at most {most}"
    return RecordError(
        path,
        f"size of the {field}",
        size,
        f"must be {least if least == most else bound} bytes: the file is cut off, or not the "
        "one that its header describes",
        remedy="fetch the record again from its source",
    )
