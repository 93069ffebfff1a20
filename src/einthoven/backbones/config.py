"""Build a network's config from its preset and overrides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from einthoven.errors import BackboneError

__all__ = ["check_choice", "fields_of", "override"]

Config = TypeVar("Config")

# A type of a field: what its values are instances of, one of them and several of them in words.
_KINDS: dict[Any, tuple[Any, str, str]] = {
    bool: (bool, "true or false", "truth values"),
    int: (Integral, "a whole number", "whole numbers"),
    float: (Real, "a number", "numbers"),
    str: (str, "a text", "texts"),
    NoneType: (NoneType, "nothing", "nothings"),
}


def override(preset: Config, overrides: Mapping[str, Any]) -> Config:
    """Copy a preset with some fields replaced.

    Parameters
    ----------
    preset : dataclass instance
        The preset of a registered name.
    overrides : mapping
        Field name to value; a list will do for a tuple.

    Raises
    ------
    BackboneError
        If an override is not a field of the preset, or a value is of another type.
    """
    name, known = getattr(preset, "name", preset), fields_of(preset)
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        close = get_close_matches(unknown[0], known, n=3, cutoff=0.65)
        raise BackboneError(
            f"unknown option {', '.join(unknown)} of {name}",
            remedy=(f"did you mean {' or '.join(close)}? " if close else "")
            + f"Choose among {', '.join(known)}.",
        )
    hints = get_type_hints(type(preset))
    for field, value in overrides.items():
        if not _fits(value, hints[field]):
            raise BackboneError(
                f"{field} = {value!r} of {name}", remedy=f"give {_in_words(hints[field])}."
            )
    plain = {field: _with_tuples(value) for field, value in overrides.items()}
    return dataclasses.replace(preset, **plain)  # type: ignore[type-var]


def fields_of(config: Any) -> dict[str, Any]:
    """Fields of a config that can be overridden, with their values: all but `name`."""
    fields = [field.name for field in dataclasses.fields(config) if field.init]
    return {field: getattr(config, field) for field in fields if field != "name"}


def check_choice(field: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among the choices of a field.

    Raises
    ------
    BackboneError
        Naming the field, the value and what can be chosen.
    """
    if value not in allowed:
        raise BackboneError(
            f"{field} = {value!r} is unknown", remedy=f"choose {' or '.join(map(repr, allowed))}."
        )


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a field's type. Which one of some texts it is, the network checks."""
    inner = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, option) for option in inner)
    if get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            return False
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if get_origin(hint) is Literal:
        return isinstance(value, tuple({type(choice) for choice in inner}))
    if hint not in _KINDS:
        return True
    return isinstance(value, _KINDS[hint][0]) and (hint is bool or not isinstance(value, bool))


def _in_words(hint: Any) -> str:
    inner = get_args(hint)
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_in_words(option) for option in inner)
    if get_origin(hint) is tuple:
        plural = _KINDS[inner[0]][2] if inner[0] in _KINDS else "values"
        return f"a list of {plural}" if inner[1:] == (...,) else f"a list of {len(inner)} {plural}"
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, inner))
    return _KINDS[hint][1] if hint in _KINDS else "another value"
