"""Numbers, durations and paths as text: the one formatting of the whole program."""

from __future__ import annotations

import re
from collections.abc import Sequence

NONE = "–"
"""Stands for a value that is not defined."""
MINUS = "−"

Number = float | int | None
Limits = Sequence[float | None] | None


def number(value: Number, *, signed: bool = False, places: int = 3) -> str:
    """`0.945`, signed `+0.047`."""
    if value is None or value != value:
        return NONE
    text = f"{abs(value):.{places}f}"
    if value < 0:
        # The sign is that of the value, not of the rounded text: a limit just below zero is −0.000.
        return MINUS + text
    return f"+{text}" if signed and value else text


def interval_text(limits: Limits, *, signed: bool = False, places: int = 3) -> str:
    """`0.931 to 0.946`, signed `+0.040 to +0.055`."""
    low, high = (None, None) if limits is None else limits
    if low is None or high is None:
        return NONE
    return " to ".join(number(limit, signed=signed, places=places) for limit in (low, high))


def with_interval(value: Number, limits: Limits, *, signed: bool = False, places: int = 3) -> str:
    """`0.939 (0.931 to 0.946)`; the value alone where there is no interval."""
    text = number(value, signed=signed, places=places)
    span = interval_text(limits, signed=signed, places=places)
    return text if span == NONE else f"{text} ({span})"


def percent(share: Number, *, signed: bool = False, places: int = 1) -> str:
    """`5.2 %`, of a share of 0.052."""
    if share is None:
        return NONE
    return f"{number(100 * share, signed=signed, places=places)} %"


def count(value: int | None) -> str:
    """`2,198`."""
    return NONE if value is None else f"{value:,}"


def counted(number: int, noun: str) -> str:
    """`1 label`, `39 labels`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def confidence(level: float) -> str:
    """`95 %`, of a confidence level of 0.95."""
    return f"{100 * level:g} %"


def duration(seconds: float | None) -> str:
    """`1 h 23 min`, `12 min 5 s` or `8.4 s`."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def minutes(seconds: float | None) -> str:
    """`45`, and `2.5` below ten minutes."""
    if seconds is None:
        return NONE
    return f"{seconds / 60:.0f}" if seconds >= 600 else f"{seconds / 60:.1f}"


def without_folder(argument: str) -> str:
    """The last part of a path; `--out=runs/mine` becomes `--out=mine`."""
    key, equals, path = argument.partition("=")
    if not equals or re.search(r"[/\\]", key):
        key, equals, path = "", "", argument
    return key + equals + re.split(r"[/\\]", path.rstrip("/\\"))[-1]
