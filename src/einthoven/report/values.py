"""Numbers as people read them, and as `<data>` elements that keep their full precision."""

from __future__ import annotations

from collections.abc import Sequence

from einthoven.report.markup import Html, element, fragment

NONE = "–"
MINUS = "−"

Number = float | int | None
Limits = Sequence[float | None] | None


def decimal(value: Number, *, signed: bool = False, places: int = 3) -> str:
    """`0.945`, signed `+0.047`; a dash for what is undefined."""
    if value is None:
        return NONE
    text = f"{abs(value):.{places}f}"
    if not signed or not value:
        return text if value >= 0 else MINUS + text
    # The sign is the value's, not the rounded text's: a limit just below zero shows as −0.000.
    return (MINUS if value < 0 else "+") + text


def percent(share: Number, *, signed: bool = False, places: int = 1) -> str:
    """`5.2 %` of a share of 0.052."""
    return NONE if share is None else f"{decimal(100 * share, signed=signed, places=places)} %"


def count(value: int | None) -> str:
    """`2,198`."""
    return NONE if value is None else f"{value:,}"


def limits_text(limits: Limits, *, signed: bool = False, places: int = 3) -> str:
    """`0.938–0.951`, signed `+0.040 to +0.055`; a dash without limits."""
    low, high = limits or (None, None)
    if low is None or high is None:
        return NONE
    between = " to " if signed else "–"
    return between.join(decimal(each, signed=signed, places=places) for each in (low, high))


def with_limits(value: Number, limits: Limits, *, signed: bool = False, places: int = 3) -> str:
    """`0.945 (0.938–0.951)`, without the brackets where there are no limits."""
    text = decimal(value, signed=signed, places=places)
    span = limits_text(limits, signed=signed, places=places)
    return text if span == NONE else f"{text} ({span})"


def duration(seconds: float | None) -> str:
    """`1 h 23 min`, `12 min 5 s` or `8.4 s`."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def level_text(level: float) -> str:
    """`95 %`."""
    return f"{100 * level:g} %"


def data(value: Number, text: str) -> Html:
    """A number with its full precision in the markup; only the text without one."""
    return fragment(text) if value is None else element("data", text, value=repr(value))


def number(value: Number, *, signed: bool = False, places: int = 3) -> Html:
    """A metric."""
    return data(value, decimal(value, signed=signed, places=places))


def share(value: Number, *, signed: bool = False) -> Html:
    """A share, shown in per cent."""
    return data(value, percent(value, signed=signed))


def whole(value: int | None) -> Html:
    """A count."""
    return data(value, count(value))


def span(limits: Limits, *, signed: bool = False, places: int = 3) -> Html:
    """Limits of an interval."""
    low, high = limits or (None, None)
    if low is None or high is None:
        return fragment(NONE)
    between = " to " if signed else "–"
    first, second = (number(each, signed=signed, places=places) for each in (low, high))
    return fragment(first, between, second)


def estimate(value: Number, limits: Limits, *, signed: bool = False, places: int = 3) -> Html:
    """A metric with its interval in brackets."""
    shown = number(value, signed=signed, places=places)
    if not limits or limits[0] is None:
        return shown
    between = fragment(" (", span(limits, signed=signed, places=places), ")")
    return fragment(shown, element("span", between, class_="limits"))
