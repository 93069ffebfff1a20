"""PyTorch's checkpoint files, read without PyTorch's own loader.

Two layouts exist. Since PyTorch 1.6 a checkpoint is a zip archive: a pickle describes the content,
and every storage lies in a member of its own. Before, a file held five pickles one after the other
and then the storages. Either way the pickle is read as data (`pickle_reader`), the tensors in it
become descriptions, and only the storages of tensors that are asked for are read.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from einthoven.errors import WeightsError
from einthoven.weights.pickle_reader import AGAIN, read_pickle, refuse_object
from einthoven.weights.vocabulary import PyTorchNames, StorageRef, TensorRef

__all__ = ["read_archive", "read_legacy"]

MAX_PICKLE = 32 * 2**20  # bytes; one that describes 90 million parameters takes 0.1 MB
MAX_DEPTH = 32
# Tensors may share a storage, as tied weights do, but not without bound: each becomes one of its
# own when it is converted.
MAX_SHARING = 4
CHUNK = 2**20
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class _Storages(Protocol):
    """Where a file keeps its storages."""

    def read(self, storage: StorageRef) -> Tensor:
        """The bytes of a storage, uint8."""


def read_archive(path: Path, *, parts: Collection[str] = ()) -> object:
    """Read a zip archive as `torch.save` writes it; see `read_legacy` for the parameters."""
    with _opened(path) as archive:
        members = _members(archive, path)
        described = [name for name in members if PurePosixPath(name).name == "data.pkl"]
        if len(described) != 1:
            raise WeightsError(
                f"{path}: an archive with {len(described)} descriptions (data.pkl) of a checkpoint",
                remedy="give the file that torch.save wrote.",
            )
        folder = described[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in members:
            refuse_object(path, "a TorchScript program")
        storages = _Members(archive, members, folder=folder, file=path)
        names = PyTorchNames(path)
        content = read_pickle(io.BytesIO(storages.pickle()), names, file=path)
        return _with_tensors(_chosen(content, parts), storages, file=path)


def read_legacy(path: Path, *, parts: Collection[str] = ()) -> object:
    """Read a file of PyTorch before 1.6.

    Parameters
    ----------
    path : path
        The file.
    parts : collection of str
        Top-level entries that are wanted; the tensors of others stay on the disk, and the entries
        are left out. Where none of them is a dict, everything is wanted.

    Returns
    -------
    object
        The content.

    Raises
    ------
    WeightsError
        When the file is truncated or damaged, holds more than tensors and plain values, or is a
        pickle of something else.
    """
    with path.open("rb") as file:
        stream = io.BytesIO(file.read(MAX_PICKLE))
        names = PyTorchNames(path)
        first = read_pickle(stream, names, file=path)
        if first != _MAGIC:
            raise WeightsError(
                f"{path}: a pickle that holds a {type(first).__name__}, not a PyTorch file",
                remedy="save the network's state_dict() with torch.save or safetensors.",
            )
        if read_pickle(stream, names, file=path) != _PROTOCOL:
            raise WeightsError(f"{path}: written by an unknown version of PyTorch", remedy=AGAIN)
        _check_byte_order(read_pickle(stream, names, file=path), path)
        content = read_pickle(stream, names, file=path)
        keys = read_pickle(stream, names, file=path)
        storages = _Sequence(file, names.storages, keys, start=stream.tell(), path=path)
        return _with_tensors(_chosen(content, parts), storages, file=path)


# ------------------------------------------------------------------ zip archives


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except Exception as error:
        raise WeightsError(f"{path}: truncated or damaged ({error})", remedy=AGAIN) from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The archive's members by name; nothing that `torch.save` would not write."""
    members = archive.infolist()
    declared = sum(member.file_size for member in members)
    if declared > path.stat().st_size:
        raise WeightsError(
            f"{path}: declares {declared} bytes of content in a smaller file", remedy=AGAIN
        )
    for member in members:
        if wrong := _irregular(member):
            raise WeightsError(
                f"{path}: {member.filename!r} is {wrong}, which torch.save never writes",
                remedy="fetch the file from its publisher; do not unpack this one.",
            )
    named = {member.filename: member for member in members}
    if len(named) < len(members):
        raise WeightsError(f"{path}: two members of one name", remedy=AGAIN)
    return named


def _irregular(member: zipfile.ZipInfo) -> str:
    name = PurePosixPath(member.filename)
    if name.is_absolute() or ".." in name.parts or "\\" in member.filename:
        return "a path out of the archive"
    if (member.external_attr >> 16) & 0o170000 not in (0, 0o100000):
        return "a link or another special file"
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        return f"compressed ({member.compress_size} bytes for {member.file_size})"
    return "encrypted" if member.flag_bits & 1 else ""


class _Members:
    """Storages as members of an archive: `data/KEY`, in the order of bytes of `byteorder`."""

    def __init__(
        self,
        archive: zipfile.ZipFile,
        members: dict[str, zipfile.ZipInfo],
        *,
        folder: str,
        file: Path,
    ) -> None:
        self.archive, self.members, self.folder, self.file = archive, members, folder, file
        if f"{folder}byteorder" in members and self._bytes("byteorder", 16) != b"little":
            raise _big_endian(file)

    def pickle(self) -> bytes:
        """The description of the content."""
        return self._bytes("data.pkl", MAX_PICKLE)

    def read(self, storage: StorageRef) -> Tensor:
        member = self.members.get(f"{self.folder}data/{storage.key}")
        if member is None or member.file_size != storage.nbytes:
            found = "nothing" if member is None else f"{member.file_size} bytes"
            raise WeightsError(
                f"{self.file}: storage {storage.key} declares {storage.nbytes} bytes, and there "
                f"are {found}",
                remedy=AGAIN,
            )
        buffer = torch.empty(storage.nbytes, dtype=torch.uint8)
        self._read_into(member, buffer.numpy().data)
        return buffer

    def _bytes(self, name: str, limit: int) -> bytes:
        member = self.members[self.folder + name]
        if member.file_size > limit:
            raise WeightsError(
                f"{self.file}: {name} has {member.file_size} bytes, more than the limit of {limit}",
                remedy="save the network's tensors alone, without the training state.",
            )
        buffer = bytearray(member.file_size)
        self._read_into(member, memoryview(buffer))
        return bytes(buffer)

    def _read_into(self, member: zipfile.ZipInfo, buffer: memoryview) -> None:
        # PyTorch does not verify the checksums of its own archives: a flipped bit would pass as a
        # slightly different weight. zipfile does, once a member was read to its end.
        try:
            with self.archive.open(member) as stream:
                whole = _read_exactly(stream, buffer) and stream.read(1) == b""
        except zipfile.BadZipFile as error:
            if "CRC" not in str(error):
                raise WeightsError(
                    f"{self.file}: truncated or damaged ({error})", remedy=AGAIN
                ) from error
            raise WeightsError(
                f"{self.file}: checksum of {member.filename} does not match", remedy=AGAIN
            ) from error
        except Exception as error:
            raise WeightsError(
                f"{self.file}: truncated or damaged ({error})", remedy=AGAIN
            ) from error
        if not whole:
            raise WeightsError(f"{self.file}: {member.filename} is cut short", remedy=AGAIN)


# ------------------------------------------------------------------ before the archives


class _Sequence:
    """Storages one after the other: their number of values (int64), then the values."""

    def __init__(
        self,
        file: BinaryIO,
        storages: dict[str, StorageRef],
        keys: object,
        *,
        start: int,
        path: Path,
    ) -> None:
        self.file, self.path = file, path
        self.places: dict[str, int] = {}
        listed: list[Any] = keys if isinstance(keys, list) else []
        texts = [key for key in listed if isinstance(key, str)]
        if len(texts) < len(listed) or sorted(texts) != sorted(storages):
            raise WeightsError(
                f"{path}: the list of storages does not match its content", remedy=AGAIN
            )
        for key in texts:
            file.seek(start)
            found = int.from_bytes(file.read(8), "little", signed=True)
            if found != storages[key].count:
                raise WeightsError(
                    f"{path}: storage {key} has {found} values where {storages[key].count} are "
                    "described",
                    remedy=AGAIN,
                )
            self.places[key] = start + 8
            start += 8 + storages[key].nbytes
        if path.stat().st_size < start:
            raise WeightsError(
                f"{path}: truncated: {path.stat().st_size} bytes of {start}", remedy=AGAIN
            )

    def read(self, storage: StorageRef) -> Tensor:
        self.file.seek(self.places[storage.key])
        buffer = torch.empty(storage.nbytes, dtype=torch.uint8)
        if not _read_exactly(self.file, buffer.numpy().data):
            raise WeightsError(f"{self.path}: storage {storage.key} is cut short", remedy=AGAIN)
        return buffer


def _read_exactly(stream: Any, buffer: memoryview) -> bool:
    done = 0
    while done < len(buffer):
        count = stream.readinto(buffer[done : done + CHUNK])
        if not count:
            return False
        done += count
    return True


def _check_byte_order(system: object, path: Path) -> None:
    if not isinstance(system, dict) or not system.get("little_endian", False):
        raise _big_endian(path)


def _big_endian(path: Path) -> WeightsError:
    return WeightsError(
        f"{path}: its numbers are stored most significant byte first",
        remedy="save the tensors again on an ordinary (little-endian) machine.",
    )


# ------------------------------------------------------------------ tensors


def _chosen(content: object, parts: Collection[str]) -> object:
    if not isinstance(content, dict):
        return content
    wanted = {key: content[key] for key in parts if isinstance(content.get(key), dict)}
    return wanted or content


def _with_tensors(content: object, storages: _Storages, *, file: Path) -> object:
    """The content with tensors in place of their descriptions."""
    return _Filling(storages, file).filled(content, 0)


class _Filling:
    """Reads the storages of the tensors that a content describes, each once."""

    def __init__(self, storages: _Storages, file: Path) -> None:
        self.storages, self.file = storages, file
        self.left = MAX_SHARING * file.stat().st_size
        self.buffers: dict[str, Tensor] = {}
        # By identity, so that what is shared stays shared and cycles end; the originals are kept
        # lest another object gets their identity.
        self.done: dict[int, tuple[Any, Any]] = {}

    def filled(self, value: Any, depth: int) -> Any:
        """The same value with its tensors; dicts and lists are changed in place."""
        if (
            isinstance(value, (str, bytes, bytearray, int, float, complex, torch.dtype))
            or value is None
        ):
            return value
        if id(value) in self.done:
            return self.done[id(value)][1]
        if depth == MAX_DEPTH:
            raise WeightsError(
                f"{self.file}: nested more than {MAX_DEPTH} levels deep",
                remedy="save the network's state_dict() alone.",
            )
        made = value
        if isinstance(value, TensorRef):
            made = self._tensor(value)
        elif isinstance(value, tuple):
            made = tuple(self.filled(item, depth + 1) for item in value)
        elif not isinstance(value, (dict, list, set, frozenset)):
            refuse_object(self.file, f"a bare {type(value).__name__}")
        self.done[id(value)] = value, made
        if isinstance(value, dict):
            value.update({key: self.filled(item, depth + 1) for key, item in value.items()})
        elif isinstance(value, list):
            value[:] = [self.filled(item, depth + 1) for item in value]
        return made

    def _tensor(self, tensor: TensorRef) -> Tensor:
        self.left -= tensor.nbytes
        if self.left < 0:
            raise WeightsError(
                f"{self.file}: describes more than {MAX_SHARING} times as many bytes of tensors "
                "as the file has",
                remedy="do not use it: no honest checkpoint shares storage to that extent.",
            )
        storage = tensor.storage
        if storage.key not in self.buffers:
            self.buffers[storage.key] = self.storages.read(storage)
        try:
            return tensor.view_of(self.buffers[storage.key])
        except Exception as error:  # sizes beyond 64 bits
            raise WeightsError(f"{self.file}: damaged ({error})", remedy=AGAIN) from error
