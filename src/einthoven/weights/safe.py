"""Read a checkpoint from a stranger without running anything in it.

Safetensors files hold no code. PyTorch files are pickles, which can run anything when they are
opened; here they are never opened that way. `torch_file` reads them as data, with a stack machine
of our own that can neither import nor call (`pickle_reader`) and a closed list of names
(`vocabulary`). What is not on the list is refused, and there is no other path.

Memory is bounded by the size of the file: nothing is decompressed, sizes that a file declares are
compared with what it holds before anything is allocated, and only the tensors that are wanted are
read.
"""

from __future__ import annotations

from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import safe_open

from einthoven.errors import WeightsError
from einthoven.weights.pickle_reader import AGAIN
from einthoven.weights.torch_file import read_archive, read_legacy

__all__ = ["read_checkpoint"]

MAX_BYTES = 16 * 2**30


def read_checkpoint(
    path: str | PathLike[str], *, parts: Collection[str] = (), max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Read a safetensors file or a PyTorch checkpoint.

    Parameters
    ----------
    path : path
        The file; its format is told from its first bytes, not from its name.
    parts : collection of str
        Entries of the outermost dict that are wanted, such as ``("model", "state_dict")``. Those
        that the file has as dicts are given and the rest is left on the disk, which may be the
        larger part of it (an optimiser's state). Where it has none, everything is given.
    max_bytes : int
        Largest file that is opened; 16 GiB unless said otherwise.

    Returns
    -------
    dict
        What the file holds: tensors, or a container with tensors inside. An argparse.Namespace
        and a config object come as dicts, an OrderedDict as a plain one, a parameter as its tensor.

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
        content = read_archive(path, parts=parts)
    elif head[:1] == b"\x80":  # a pickle without archive: PyTorch before 1.6
        content = read_legacy(path, parts=parts)
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
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise WeightsError(
            f"{path}: a damaged safetensors file ({first[0]})", remedy=AGAIN
        ) from error
