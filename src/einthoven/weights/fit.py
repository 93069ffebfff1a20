"""Fit a public state dict to one of our networks, tensor by tensor and strictly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from einthoven.errors import WeightsError

__all__ = ["Parts", "convert", "own_parts"]

Shape: TypeAlias = tuple[int, ...]
# Our name and shape -> names and shape of the public tensors that make it up, in order.
Parts: TypeAlias = Callable[[str, Shape], tuple[list[str], Shape]]


def own_parts(key: str, shape: Shape) -> tuple[list[str], Shape]:
    """Our own naming: every tensor is itself."""
    return [key], shape


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
        Says which public tensors make up one of ours.
    file : object
        Named in errors.
    what : str
        The network, named in errors.
    strict : bool
        Refuse missing and unexpected names; a reshaped tensor is always refused.

    Raises
    ------
    WeightsError
        Listing what is missing, unexpected or reshaped, in the file's own names.
    """
    wanted = {key: parts(key, tuple(like.shape)) for key, like in expected.items()}
    shapes = {name: shape for names, shape in wanted.values() for name in names}
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
            remedy="name the backbone that the file was made for.",
        )
    return {
        key: torch.stack([state[name] for name in names]).reshape(expected[key].shape)
        for key, (names, _) in wanted.items()
        if all(name in state for name in names)
    }


def _listed(*pairs: str | list[str]) -> Iterable[str]:
    for title, names in zip(pairs[::2], pairs[1::2], strict=True):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            yield f"{len(names)} {title}: {', '.join(names[:5])}{more}"
