"""Fit a public state dict to one of our networks, tensor by tensor and strictly."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from einthoven.errors import WeightsError

__all__ = ["Parts", "convert", "own_parts", "renaming", "with_newer_weight_norm"]

Shape: TypeAlias = tuple[int, ...]
# Our name and shape -> names and shape of the public tensors that make it up, in order.
Parts: TypeAlias = Callable[[str, Shape], tuple[list[str], Shape]]


_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_WEIGHT_NORM = {
    "weight_g": "parametrizations.weight.original0",
    "weight_v": "parametrizations.weight.original1",
}


def own_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Our own naming: every tensor is itself."""
    return [key], shape


def renaming(names: Mapping[str, str]) -> Parts:
    """Public tensor names by a table of modules.

    Parameters
    ----------
    names : mapping of str to str
        Public module by our module, or public tensor by our tensor. `{}` stands for a number;
        `{qkv}` in a public name stands for the three tensors that are one of ours.
    """

    def parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
        numbers = _NUMBER.findall(key)
        tensor = _NUMBER.sub("{}", key)
        module, _, last = tensor.rpartition(".")
        public = names[tensor] if tensor in names else f"{names[module]}.{last}"
        if "{qkv}" not in public:
            return [public.format(*numbers)], shape
        three = [public.format(*numbers, qkv=letter) for letter in "qkv"]
        return three, (shape[0] // 3, *shape[1:])

    return parts


def with_newer_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, with PyTorch's newer names for those of a weight norm."""
    renamed = {}
    for key, tensor in state.items():
        module, _, last = key.rpartition(".")
        renamed[f"{module}.{_WEIGHT_NORM[last]}" if last in _WEIGHT_NORM else key] = tensor
    return renamed


def convert(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    parts: Parts,
    *,
    file: object,
    what: str,
    strict: bool = True,
) -> dict[str, Tensor]:
    """Tensors in our naming from tensors in a public one.

    Parameters
    ----------
    state : mapping
        The public tensors.
    expected : mapping
        Our names with tensors of the right shapes (on any device).
    parts : callable
        Public tensors that make up one of ours.
    file : object
        The file, for error messages.
    what : str
        The network, for error messages.
    strict : bool
        Refuse missing and unexpected names. Tensors of another shape are always refused.

    Raises
    ------
    WeightsError
        Listing what is missing, unexpected or reshaped, in the file's own names.
    """
    public = {key: parts(key, tuple(like.shape)) for key, like in expected.items()}
    shapes = {name: shape for names, shape in public.values() for name in names}
    missing = [name for name in shapes if name not in state]
    unexpected = [name for name in state if name not in shapes]
    reshaped = [
        f"{name} {tuple(state[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    if reshaped or (strict and (missing or unexpected)):
        raise WeightsError(
            f"{file} does not fit {what}: "
            + "; ".join(
                _listed("reshaped", reshaped, "missing", missing, "unexpected", unexpected)
            ),
            remedy="name the backbone that the file was made for",
        )
    return {
        key: torch.stack([state[name] for name in names]).reshape(expected[key].shape)
        for key, (names, _) in public.items()
        if all(name in state for name in names)
    }


def _listed(*pairs: str | list[str]) -> Iterable[str]:
    for title, names in zip(pairs[::2], pairs[1::2], strict=True):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            yield f"{len(names)} {title}: {', '.join(names[:5])}{more}"
