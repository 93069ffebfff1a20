"""Read a public checkpoint without executing anything in it.

Safetensors files hold no code. PyTorch files are read by ``torch.load(weights_only=True)``, which
builds tensors and plain values only. Configuration objects that public files hold beside their
tensors are replaced by inert stand-ins; every other class or function is refused.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from einthoven.errors import WeightsError

_AGAIN = "download the file again"
# Entries under which a checkpoint keeps its tensors.
_CONTAINERS = ("model", "state_dict", "model_state_dict")
# Configuration objects: of argparse, OmegaConf and fairseq, and classes that are named so.
_CONFIGURATION = re.compile(
    r"argparse\.Namespace|omegaconf\.[\w.]+|fairseq[\w.]*|typing\.Any|([\w.]+\.)?\w*Config(uration)?"
)
# NumPy's numbers and arrays, such as a learning rate beside the tensors; their values are not kept.
_NUMPY = re.compile(r"numpy\.(dtype|ndarray|dtypes\.\w+|_?core\.multiarray\.(scalar|_reconstruct))")
_PLAIN = {f"builtins.{kind.__name__}": kind for kind in (dict, list, set, tuple, int, float, str)}


class _Inert:
    """Stand-in for a configuration object: keeps a dictionary of attributes and does nothing."""

    __slots__ = ("attributes",)

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise TypeError(f"the state of a configuration is a {type(state).__name__}")
        self.attributes = state


class _InertNumber(_Inert):
    """Stand-in for a number or array of NumPy, whose state is a tuple."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


def read_checkpoint(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a safetensors file or a PyTorch checkpoint, on the CPU.

    Parameters
    ----------
    path : path
        The file, or a folder with one such file, as the Hub's cache has it; the format is
        recognised by its first bytes.

    Raises
    ------
    WeightsError
        If the file is missing or damaged, is not a checkpoint, or contains objects other than
        tensors, plain values and configurations.
    """
    file = _file_of(Path(path))
    if not file.is_file():
        raise WeightsError(f"{file}: no such file", remedy="name a checkpoint or a model folder")
    with file.open("rb") as handle:
        head = handle.read(64)
    _refuse_other_files(file, head)
    content = _read_safetensors(file) if head[8:9] == b"{" else _read_torch(file, head)
    if not isinstance(content, dict) or not content:
        raise WeightsError(
            f"{file}: contains a {type(content).__name__}, expected a dict of tensors",
            remedy="save the state_dict() of the network",
        )
    return content


def _file_of(path: Path) -> Path:
    """The checkpoint in a folder: its only safetensors file, else its only PyTorch file."""
    for suffixes in ((".safetensors",), (".pt", ".pth", ".ckpt", ".bin")):
        files = sorted(x for x in path.glob("*") if x.suffix in suffixes and x.is_file())
        if len(files) > 1:
            raise WeightsError(
                f"{path} holds {len(files)} checkpoints: {', '.join(x.name for x in files[:4])}",
                remedy="name one of them",
            )
        if files:
            return files[0]
    return path


def read_state(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Named tensors of a checkpoint, in float32, without the prefixes of wrappers.

    Raises
    ------
    WeightsError
        As `read_checkpoint`, and if there are no tensors, or one holds NaN or infinity.
    """
    content = read_checkpoint(path)
    inner = next((content[k] for k in _CONTAINERS if isinstance(content.get(k), Mapping)), content)
    tensors = {key: value for key, value in inner.items() if isinstance(value, Tensor)}
    state = {str(key).replace("_orig_mod.", ""): value for key, value in tensors.items()}
    if not state:
        raise WeightsError(
            f"{path}: contains no named tensors, only {', '.join(map(str, list(content)[:8]))}",
            remedy="save the state_dict() of the network, alone or under 'model'",
        )
    while all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: _finite(key, value, path) for key, value in state.items()}


def _finite(key: str, tensor: Tensor, file: object) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    if not bool(tensor.isfinite().all()):
        raise WeightsError(
            f"{file}: {key} contains NaN or infinity",
            remedy="use another file; this one is damaged, or its training diverged",
        )
    return tensor.to(torch.float32)


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries with a prefix, without it; all entries if none has it."""
    entries = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return entries or dict(state)


def _refuse_other_files(file: Path, head: bytes) -> None:
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{file}: a Git LFS pointer, not the weights", remedy="run `git lfs pull`"
        )
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise WeightsError(
            f"{file}: an HTML page, not the weights", remedy="download the file itself"
        )
    if not (head[8:9] == b"{" or head.startswith(b"PK\x03\x04") or head[:1] == b"\x80"):
        raise WeightsError(
            f"{file}: neither a safetensors file nor a PyTorch checkpoint (it begins with "
            f"{head[:8]!r})",
            remedy=_AGAIN,
        )


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        with safe_open(str(file), framework="pt", device="cpu") as handle:
            return {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{file} is damaged: {error}", remedy=_AGAIN) from error


def _read_torch(file: Path, head: bytes) -> Any:
    archive = head.startswith(b"PK")
    try:
        stand_ins = _stand_ins(file) if archive else [(_Inert, "argparse.Namespace")]
        with safe_globals(stand_ins):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=archive or None)
    except WeightsError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged or unsafe file
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{file}: damaged, or contains objects that could execute code ({first})",
            remedy=f"{_AGAIN}, or ask its authors for safetensors",
        ) from error


def _stand_ins(file: Path) -> list[Any]:
    """What to allow while an archive is read: stand-ins by the names that it contains."""
    with zipfile.ZipFile(file) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise WeightsError(
                f"{file}: a TorchScript program, not weights",
                remedy="save the state_dict() of the network",
            )
    allowed: list[Any] = []
    for name in get_unsafe_globals_in_checkpoint(file):
        if name in _PLAIN:
            allowed.append((_PLAIN[name], name))
        elif _CONFIGURATION.fullmatch(name) or _NUMPY.fullmatch(name):
            kind = _InertNumber if _NUMPY.fullmatch(name) else _Inert
            stand_in = type(name.rpartition(".")[2], (kind,), {"__slots__": ()})
            allowed.append((stand_in, name))
        else:
            raise WeightsError(
                f"{file}: contains {name}, which could execute code",
                remedy="ask its authors for safetensors, or for a state_dict alone",
            )
    return allowed
