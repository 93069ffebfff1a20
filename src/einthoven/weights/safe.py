"""Read a checkpoint from a stranger without running anything in it.

Safetensors files hold no code. PyTorch files are pickles, which can run anything when they are
opened; they are read by PyTorch's weights-only unpickler and by nothing else, and when that
refuses, so do we.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from einthoven.errors import WeightsError

__all__ = ["read_checkpoint"]

MAX_BYTES = 16 * 2**30
_AGAIN = "fetch the file again and compare its size and checksum with the publisher's."
_RESAVE = (
    "do not open it with any other loader unless you trust who made it; if you do, save its "
    "tensors alone there, with safetensors.torch.save_file."
)


def read_checkpoint(path: str | PathLike[str], *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read a safetensors file or a PyTorch checkpoint.

    Parameters
    ----------
    path : path
        The file; its format is told from its first bytes, not from its name.
    max_bytes : int
        Largest file that is opened; 16 GiB unless said otherwise.

    Returns
    -------
    dict
        What the file holds: tensors, or a container with tensors inside.

    Raises
    ------
    WeightsError
        When the file is absent, too large, truncated or damaged, holds more than tensors and
        plain values, or is no checkpoint.
    """
    path = Path(path)
    _check_file(path, max_bytes)
    with path.open("rb") as file:
        head = file.read(16)
    if head[8:9] == b"{":
        content: Any = _read_safetensors(path)
    elif head[:4] == b"PK\x03\x04":
        _check_archive(path)
        content = _read_pickle(path)
    elif head[:1] == b"\x80":  # a pickle without archive: PyTorch before 1.6
        content = _read_pickle(path)
    else:
        raise WeightsError(
            f"{path}: neither a safetensors nor a PyTorch file (it starts with {head[:8]!r})",
            remedy="give the checkpoint itself, not an archive or a web page that was saved "
            "in its place.",
        )
    if not isinstance(content, dict) or not content:
        raise WeightsError(
            f"{path}: holds a {type(content).__name__} where a checkpoint holds a filled dict",
            remedy="save the network's state_dict().",
        )
    return content


def _check_file(path: Path, max_bytes: int) -> None:
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such file", remedy="give the path of a checkpoint on this machine."
        )
    size = path.stat().st_size
    if size > max_bytes:
        raise WeightsError(
            f"{path}: {size} bytes, more than the limit of {max_bytes}",
            remedy="give the encoder alone, or raise max_bytes.",
        )


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise WeightsError(
            f"{path}: a damaged safetensors file ({_first_line(error)})", remedy=_AGAIN
        ) from error


def _check_archive(path: Path) -> None:
    # PyTorch does not verify the checksums of its own archives: a flipped bit would pass as a
    # slightly different weight. It stores members uncompressed, so sizes must add up as well.
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            declared = sum(member.file_size for member in members)
            if declared > path.stat().st_size:
                raise WeightsError(
                    f"{path}: declares {declared} bytes of content in a smaller file",
                    remedy=_AGAIN,
                )
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(
            f"{path}: truncated or damaged ({_first_line(error)})", remedy=_AGAIN
        ) from error
    if damaged is not None:
        raise WeightsError(f"{path}: checksum of {damaged} does not match", remedy=_AGAIN)


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about storage classes of old files
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every kind is possible with hostile bytes
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if refused or "Weights only load failed" in str(error):
            what = f"the object {refused[1]}" if refused else "something"
            raise WeightsError(
                f"{path}: holds {what} besides tensors and plain values, which could run code",
                remedy=_RESAVE,
            ) from error
        raise WeightsError(
            f"{path}: truncated or damaged ({_first_line(error)})", remedy=_AGAIN
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
