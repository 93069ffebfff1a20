"""What every page has around its contents: the head with the style inside, titled sections."""

from __future__ import annotations

from pathlib import Path

from einthoven.report.markup import Html, element

_STYLE = Path(__file__).with_name("page.css")


def framed(title: str, *body: Html) -> str:
    """A whole page that needs nothing but itself."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(_STYLE.read_text(encoding="utf-8"))),
    )
    page = element("html", head, element("body", *body), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def section(identity: str, heading: str, content: Html) -> Html:
    """A section that links reach by its identity."""
    label = f"{identity}-heading"
    return element(
        "section", element("h2", heading, id=label), content, id=identity, aria_labelledby=label
    )
