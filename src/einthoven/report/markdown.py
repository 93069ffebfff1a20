"""Markdown from plain text: whatever a name contains is shown and does nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from einthoven.report import facts


def escaped(text: str) -> str:
    """Text that Markdown shows as it stands, in one line."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*\[\]|])|(?<!\w)_|_(?!\w)", lambda found: "\\" + found.group(), flat)


def escaped_all(texts: Iterable[str]) -> list[str]:
    """Every text escaped."""
    return [escaped(text) for text in texts]


def code(value: object) -> str:
    """A value that can stand between backticks."""
    return facts.text(value).replace("`", "'").replace("\n", " ")


def items(*entries: tuple[str, object]) -> str:
    """A list of names and values, `not recorded` for what is not."""
    return "\n".join(f"- {name}: {escaped(facts.text(value))}" for name, value in entries)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
