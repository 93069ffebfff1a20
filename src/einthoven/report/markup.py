"""HTML from small pure functions: whatever is not markup already is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_VOID = frozenset({"br", "col", "hr", "meta"})


class Html(str):
    """Text that is markup already and is not escaped again."""

    __slots__ = ()


def fragment(*children: str | None) -> Html:
    """Children one after the other; plain text is escaped, None is left out."""
    return Html("".join(_inner(child) for child in children if child is not None))


def element(name: str, /, *children: str | None, **attributes: str | bool | None) -> Html:
    """One element.

    Attribute names lose a trailing underscore and have hyphens for the others (`class_`,
    `aria_label`); True is an attribute without a value, None and False are left out.
    """
    opening = name + "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{fragment(*children)}</{name}>")


def table(
    identity: str,
    caption: str,
    *,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    class_: str | None = None,
    after: str | None = None,
) -> Html:
    """A captioned table in a region of its own that scrolls sideways on narrow screens.

    The first cell of every row is its heading. A cell is the content of a `td`.
    """
    header = element("tr", *(element("th", each, scope="col") for each in head))
    whole = element(
        "table",
        element("caption", caption, id=f"{identity}-caption"),
        element("thead", header),
        element("tbody", *(_row(cells) for cells in rows)),
        id=identity,
        class_=class_,
    )
    label = f"{identity}-caption"
    scroll = element(
        "div", whole, class_="scroll", role="region", aria_labelledby=label, tabindex="0"
    )
    return fragment(scroll, after)


def figure(identity: str, content: str, caption: str, *, class_: str | None = None) -> Html:
    """A figure with its caption below."""
    return element("figure", content, element("figcaption", caption), id=identity, class_=class_)


def definitions(pairs: Iterable[tuple[str, str]], *, class_: str | None = None) -> Html:
    """A list of names and what they stand for, each pair in a `div` of its own."""
    entries = (element("div", element("dt", name), element("dd", value)) for name, value in pairs)
    return element("dl", *entries, class_=class_)


def joined(parts: Iterable[str], separator: str = ", ") -> Html:
    """Parts with a separator between them, escaped where they are plain text."""
    return Html(fragment(separator).join(fragment(part) for part in parts))


def _inner(child: str) -> str:
    return child if isinstance(child, Html) else escape(child)


def _row(cells: Sequence[str]) -> Html:
    first, *others = cells
    return element(
        "tr", element("th", first, scope="row"), *(element("td", cell) for cell in others)
    )


def _attribute(key: str, value: str | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(value)}"'
