"""The names that a PyTorch checkpoint may use, and what each becomes here.

The list is short and closed: tensors, their types, plain containers, NumPy's scalars, and the
argparse.Namespace that fairseq writes, which is read as a dict of its attributes. So is an object
of a class called ...Config that is neither Python's nor PyTorch's, such as the one in HuBERT-ECG's
older files, whose module depends on who saved them: made from nothing and given attributes it is
data; called, made from arguments or given another state it is refused.
Anything else is refused. Nothing here imports by name.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from einthoven.weights.pickle_reader import (
    Attributes,
    Constructor,
    Stateful,
    plain_keys,
    refuse_object,
)

__all__ = ["PyTorchNames", "StorageRef", "TensorRef"]

MAX_AXES = 64

_CONFIG = re.compile(r"(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*Config", re.ASCII)
_NOT_OF_OTHERS = sys.stdlib_module_names | {"__builtin__", "torch", "numpy"}

_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,  # bytes, of which the tensor says what they are
}
_DTYPES = {
    str(dtype): dtype
    for dtype in (
        *_STORAGES.values(),
        *(torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2),
    )
}


@dataclass(frozen=True, slots=True)
class StorageType:
    """A class of storages."""

    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage that a file describes.

    Attributes
    ----------
    key : str
        Its name in the file, digits only.
    dtype : torch.dtype
        Of its values; uint8 where the tensors say it themselves.
    count : int
        Number of values.
    """

    key: str
    dtype: torch.dtype
    count: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor that a file describes: a view of a storage, which lies within it."""

    storage: StorageRef
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.size, *self.stride)
        if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
            raise ValueError("a tensor whose sizes are no numbers of at least 0")
        if len(self.size) != len(self.stride) or len(self.size) > MAX_AXES:
            raise ValueError(f"a tensor of {len(self.size)} axes and {len(self.stride)} strides")
        last = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        room = self.storage.nbytes // self.dtype.itemsize
        # The second catches tensors whose axes have stride 0: as large as they like, from nothing.
        if self.offset > room or (self.count and (self.offset + last >= room or self.count > room)):
            raise ValueError(f"a tensor of shape {self.size} in a storage of {room} values")

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.size)

    @property
    def nbytes(self) -> int:
        """Size in bytes when stored on its own."""
        return self.count * self.dtype.itemsize

    def view_of(self, buffer: Tensor) -> Tensor:
        """The tensor, in the bytes of its storage."""
        whole = len(buffer) // self.dtype.itemsize * self.dtype.itemsize
        values = buffer[:whole].view(self.dtype)
        return values.as_strided(self.size, self.stride, self.offset)


class PyTorchNames:
    """The vocabulary of one file.

    Attributes
    ----------
    storages : dict of str to StorageRef
        Those that were named so far.
    """

    def __init__(self, file: object) -> None:
        self.file = file
        self.storages: dict[str, StorageRef] = {}

    def resolve(self, name: str) -> object:
        """Ours in place of `module.name`."""
        if name in _DTYPES:
            return _DTYPES[name]
        if name in _CONSTRUCTORS:
            return _CONSTRUCTORS[name]
        if _CONFIG.fullmatch(name) and name.split(".")[0] not in _NOT_OF_OTHERS:
            return Constructor(name, _attributes, called=False)
        storage = re.fullmatch(r"torch\.(?:storage\.|cuda\.)?(\w+)Storage", name)
        if not storage or storage[1] not in _STORAGES:
            refuse_object(self.file, f"the object {name}")
        return StorageType(_STORAGES[storage[1]])

    def persistent(self, key: object) -> StorageRef:
        """A storage in place of ``("storage", type, key, device, count)``."""
        match key:
            case ("storage", StorageType(dtype=dtype), str(name), str(), int(count), *more) if (
                more in ([], [None])  # what follows in old files is a view of another storage
            ):
                pass
            case _:
                refuse_object(self.file, f"{_short(key)} as a persistent id")
        if not re.fullmatch(r"\d{1,20}", name, re.ASCII) or count < 0:
            refuse_object(self.file, f"a storage named {_short(name)}")
        found = StorageRef(name, dtype, count)
        if self.storages.setdefault(name, found) != found:
            raise ValueError(f"storage {name} is described in two ways")
        return found


def _short(value: object) -> str:
    """A text to show; of anything else, which may be endless, only its kind."""
    return repr(value[:60]) if isinstance(value, str) else f"a {type(value).__name__}"


# ------------------------------------------------------------------ what may be constructed


class _NumPyType(Stateful):
    """NumPy's name of a type of numbers; its byte order comes afterwards."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if not re.fullmatch(r"[<>=|]?[biufc]\d{1,2}", code, re.ASCII):
            raise ValueError(f"a NumPy type {_short(code)}, which is no number")
        self.code = code.lstrip("<>=|")

    def take_state(self, state: Any) -> None:
        if state[1] not in ("<", "|", "="):
            raise ValueError("a NumPy number stored most significant byte first")


def _numpy_scalar(kind: _NumPyType, content: bytes) -> Any:
    return np.frombuffer(content, dtype=f"<{kind.code}", count=1)[0].item()


def _tensor(storage: StorageRef, offset: int, size: Any, stride: Any, *_: object) -> TensorRef:
    return TensorRef(storage, storage.dtype, offset, tuple(size), tuple(stride))


def _typed_tensor(
    storage: StorageRef,
    offset: int,
    size: Any,
    stride: Any,
    requires_grad: object,
    hooks: object,
    dtype: torch.dtype,
    *_: object,
) -> TensorRef:
    return TensorRef(storage, dtype, offset, tuple(size), tuple(stride))


def _parameter(tensor: TensorRef, *_: object) -> TensorRef:
    if not isinstance(tensor, TensorRef):
        raise ValueError("a parameter that is no tensor")
    return tensor


def _text_as_bytes(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1" or not isinstance(text, str):
        raise ValueError(f"bytes in the encoding {_short(encoding)}")
    return text.encode("latin1")


def _bytes(content: Any = b"", encoding: str = "latin1") -> bytes:
    return _text_as_bytes(content, encoding) if isinstance(content, str) else bytes(list(content))


def _size(items: Any = ()) -> tuple[int, ...]:
    if not all(isinstance(item, int) for item in items):
        raise ValueError("a size that is no number")
    return tuple(items)


def _device(kind: str, index: int | None = None) -> str:
    if not isinstance(kind, str) or not isinstance(index, int | None):
        raise ValueError("a device without a name")
    return kind if index is None else f"{kind}:{index}"


def _plain_dict(pairs: Any = ()) -> dict[Any, Any]:
    plain_keys([key for key, _ in pairs])
    return dict(pairs)


def _plain_set(items: Any = ()) -> set[Any]:
    return set(plain_keys(items))


def _attributes() -> Attributes:
    return Attributes()


# Modules also as Python 2 and NumPy 1 called them.
_MAKERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "torch.device": _device,
    "collections.OrderedDict": _plain_dict,
    "__builtin__.set": _plain_set,
    "builtins.set": _plain_set,
    "__builtin__.frozenset": _plain_set,
    "builtins.frozenset": _plain_set,
    "__builtin__.complex": complex,
    "builtins.complex": complex,
    "__builtin__.bytearray": _bytes,
    "builtins.bytearray": _bytes,
    "_codecs.encode": _text_as_bytes,
    "numpy.dtype": _NumPyType,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    # Classes of others whose instances are nothing but attributes.
    "argparse.Namespace": _attributes,
}
_CONSTRUCTORS = {name: Constructor(name, make) for name, make in _MAKERS.items()}
