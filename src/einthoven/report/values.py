"""Numbers as `<data>` elements that keep their full precision."""

from __future__ import annotations

from einthoven.report.format import NONE, Interval, Number, count, percent
from einthoven.report.format import number as decimal
from einthoven.report.markup import Html, element, fragment


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


def span(limits: Interval, *, signed: bool = False, places: int = 3) -> Html:
    """Interval of an interval."""
    low, high = limits or (None, None)
    if low is None or high is None:
        return fragment(NONE)
    first, second = (number(each, signed=signed, places=places) for each in (low, high))
    return fragment(first, " to ", second)


def estimate(value: Number, limits: Interval, *, signed: bool = False, places: int = 3) -> Html:
    """A metric with its interval in brackets."""
    shown = number(value, signed=signed, places=places)
    if not limits or limits[0] is None:
        return shown
    between = fragment(" (", span(limits, signed=signed, places=places), ")")
    return fragment(shown, element("span", between, class_="limits"))
