"""Tensor names in the checkpoints of one family, and how a file is fitted to our network."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from einthoven.errors import WeightsError

State: TypeAlias = Mapping[str, Tensor]
Shape: TypeAlias = tuple[int, ...]

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def all_tensors(state: State, _: object = None) -> dict[str, Tensor]:
    """Every tensor of a file."""
    return dict(state)


@dataclass(frozen=True)
class Naming:
    """Tensor names in one kind of checkpoint.

    Attributes
    ----------
    names : mapping of str to str
        Module in the file by our module, or tensor in the file by our tensor; empty for our own
        names. `{}` stands for a number. `{qkv}` in a name of the file stands for the three tensors
        that are one of ours, `{lead}` for a tensor a lead.
    signature : str
        Ending of a tensor name that only this kind of file has.
    head : str
        Name of the linear head in the file.
    tensors : callable
        The tensors of encoder and head in a file, for a network of a given config.
    is_classifier : callable
        Whether tensor names are those of a fine-tuned classifier.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    signature: str = ""
    head: str = "head"
    tensors: Callable[[State, Any], dict[str, Tensor]] = all_tensors
    is_classifier: Callable[[Collection[str]], bool] = lambda names: False

    def matches(self, names: Collection[str]) -> bool:
        """Whether tensor names are those of such a file."""
        return any(name.endswith(self.signature) for name in names)

    def parts(self, key: str, shape: Shape) -> tuple[list[str], Shape]:
        """Names and shape of the tensors in a file that make up one of ours."""
        if not self.names:
            return [key], shape
        numbers = _NUMBER.findall(key)
        tensor = _NUMBER.sub("{}", key)
        module, _, last = tensor.rpartition(".")
        name = self.names[tensor] if tensor in self.names else f"{self.names[module]}.{last}"
        if "{qkv}" in name:
            parts = [name.format(*numbers, qkv=letter) for letter in "qkv"]
            return parts, (shape[0] // 3, *shape[1:])
        if "{lead}" in name:
            return [name.format(lead=row) for row in range(shape[0])], shape[1:]
        return [name.format(*numbers)], shape


def with_newer_weight_norm(state: State, _: object = None) -> dict[str, Tensor]:
    """The same tensors, with PyTorch's newer names for those of a weight norm."""
    renamed = {}
    for key, tensor in state.items():
        module, _, last = key.rpartition(".")
        renamed[f"{module}.{_WEIGHT_NORM[last]}" if last in _WEIGHT_NORM else key] = tensor
    return renamed


def convert(
    state: State, expected: State, naming: Naming, *, file: object, what: str
) -> dict[str, Tensor]:
    """Tensors in our naming from those of a file.

    `expected` has our names with tensors of the right shapes (on any device); `file` and `what`
    name the file and the network in error messages. Raises WeightsError, listing what is missing,
    unexpected or reshaped, in the file's own names.
    """
    parts = {key: naming.parts(key, tuple(like.shape)) for key, like in expected.items()}
    shapes = {name: shape for names, shape in parts.values() for name in names}
    faults = {
        "reshaped": [
            f"{name} {tuple(state[name].shape)} instead of {shape}"
            for name, shape in shapes.items()
            if name in state and tuple(state[name].shape) != shape
        ],
        "not of floating point": [
            f"{name} {state[name].dtype}"
            for key, (names, _) in parts.items()
            for name in state.keys() & names
            if expected[key].is_floating_point() > state[name].is_floating_point()
        ],
        "missing": [name for name in shapes if name not in state],
        "unexpected": [name for name in state if name not in shapes],
    }
    if any(faults.values()):
        listed = [
            f"{len(names)} {fault}: {', '.join(names[:5])}"
            + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            for fault, names in faults.items()
            if names
        ]
        raise WeightsError(
            f"{file} does not fit {what}: {'; '.join(listed)}",
            remedy="name the backbone that the file was made for",
        )
    return {
        key: torch.stack([state[name] for name in names]).reshape(expected[key].shape)
        for key, (names, _) in parts.items()
    }
