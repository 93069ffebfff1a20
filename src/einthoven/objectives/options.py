"""An objective's own settings, as a recipe or a caller gives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from einthoven.errors import RecipeError

__all__ = ["with_options"]

Config = TypeVar("Config")


def with_options(
    config: Config, options: Mapping[str, Any], *, objective: str, beside: Sequence[str] = ()
) -> Config:
    """A copy of an objective's config with some fields replaced.

    Parameters
    ----------
    config : dataclass instance
        What holds where nothing is said.
    options : mapping
        Field name to value; None leaves a field as it is, a list will do for a tuple.
    objective : str
        Named in errors.
    beside : sequence of str
        Options that the objective has beside those fields; only named in errors.

    Raises
    ------
    RecipeError
        For an option that is no field.
    """
    known = [field.name for field in fields(config)]  # type: ignore[arg-type]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise RecipeError(
            f"unknown option {', '.join(unknown)} for objective {objective}",
            remedy=f"choose among {', '.join([*beside, *known])}.",
        )
    given = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in options.items()
        if value is not None
    }
    return replace(config, **given)  # type: ignore[type-var]
