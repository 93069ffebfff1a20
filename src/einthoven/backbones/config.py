"""Building a network from its preset and the user's overrides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from einthoven.errors import BackboneError

__all__ = ["override"]

Config = TypeVar("Config")


def override(preset: Config, overrides: Mapping[str, Any]) -> Config:
    """A copy of a preset with some fields replaced.

    Parameters
    ----------
    preset : dataclass instance
        The preset of a registered name.
    overrides : mapping
        Field name to value.

    Raises
    ------
    BackboneError
        When an override is no field of the preset.
    """
    known = [field.name for field in dataclasses.fields(preset) if field.init]  # type: ignore[arg-type]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise BackboneError(
            f"unknown override {', '.join(unknown)} for {getattr(preset, 'name', preset)}",
            remedy=f"choose among {', '.join(known)}.",
        )
    return dataclasses.replace(preset, **overrides)  # type: ignore[type-var]
