"""What the values of a step have to be, each refused with its unit."""

from __future__ import annotations

import math

from einthoven.errors import PreparationError

__all__ = ["check_choice", "finite", "positive", "whole"]


def finite(value: object, what: str, unit: str) -> float:
    """A finite number."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good:
        raise PreparationError(
            f"{what} = {value!r} is not a number", remedy=f"Give a finite number in {unit}."
        )
    return float(value)  # type: ignore[arg-type]


def positive(value: object, what: str, unit: str) -> float:
    """A finite number above 0."""
    number = finite(value, what, unit)
    if number <= 0:
        raise PreparationError(
            f"{what} = {value!r} must be above 0", remedy=f"Give a positive number in {unit}."
        )
    return number


def whole(value: object, least: int, what: str, remedy: str) -> None:
    """Refuse what is no whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise PreparationError(
            f"{what} = {value!r}, but it must be a whole number of at least {least}", remedy=remedy
        )


def check_choice(value: object, allowed: tuple[str, ...], what: str) -> None:
    """Refuse what is not among some names."""
    if value not in allowed:
        raise PreparationError(
            f"{what} = {value!r} is unknown", remedy=f"Use one of {', '.join(allowed)}."
        )
