"""Build a network's config from its preset and overrides."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from einthoven.errors import BackboneError

__all__ = ["check_choice", "fields_of", "override"]

Config = TypeVar("Config")


def override(preset: Config, overrides: Mapping[str, Any]) -> Config:
    """Copy a preset with some fields replaced.

    Parameters
    ----------
    preset : dataclass instance
        The preset of a registered name.
    overrides : mapping
        Field name to value; a list is accepted for a tuple.

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
            + f"choose among {', '.join(known)}",
        )
    hints = get_type_hints(type(preset))
    values = {}
    for field, value in overrides.items():
        adapter: TypeAdapter[Any] = TypeAdapter(hints[field], config=ConfigDict(strict=True))
        try:
            # JSON, because it has lists for tuples and whole numbers for floats.
            values[field] = adapter.validate_json(json.dumps(value, default=_plain))
        except (ValidationError, TypeError) as error:
            detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise BackboneError(
                f"{field} = {value!r} of {name}: {detail}",
                remedy=f"give a value of type {_text(hints[field])}",
            ) from error
    return dataclasses.replace(preset, **values)  # type: ignore[type-var]


def fields_of(config: Any) -> dict[str, Any]:
    """Fields of a config that can be overridden, with their values: all but `name`."""
    fields = [field.name for field in dataclasses.fields(config) if field.init]
    return {field: getattr(config, field) for field in fields if field != "name"}


def check_choice(field: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among the choices of a field.

    Raises
    ------
    BackboneError
        Naming the field, the value and the choices.
    """
    if value not in allowed:
        raise BackboneError(
            f"{field} = {value!r} is unknown", remedy=f"choose {' or '.join(map(repr, allowed))}"
        )


def _plain(value: Any) -> Any:
    """Value of a NumPy scalar or array as plain numbers and lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a plain value")


def _text(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
