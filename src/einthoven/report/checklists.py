"""Reporting checklists: the items that a page fills, and those that the author has to write."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from einthoven.report.format import NONE
from einthoven.report.tables import Cell, Table


@dataclass(frozen=True)
class Item:
    """An item of a checklist.

    Attributes
    ----------
    number, topic : str
    sections : sequence of str
        Sections of a page that fill it, at least in part.
    author : str
        What remains for the author to write; empty where a page with the sections is enough.
    """

    number: str
    topic: str
    sections: Sequence[str] = ()
    author: str = ""


@dataclass(frozen=True)
class Checklist:
    """A published checklist.

    Attributes
    ----------
    identity, name, source : str
    items : tuple of Item
        All of them, in the order of the publication; topics are abridged.
    """

    identity: str
    name: str
    source: str
    items: tuple[Item, ...]

    def filled(self, sections: Mapping[str, str]) -> int:
        """Number of items that need nothing from the author, on a page with these sections."""
        complete = [item for item in self.items if not item.author]
        return sum(any(s in sections for s in item.sections) for item in complete)

    def table(self, sections: Mapping[str, str]) -> Table:
        """Table of the items; `sections` are the headings of a page by identity."""
        rows: list[list[Cell]] = []
        for item in self.items:
            places = [s for s in item.sections if s in sections]
            link = Markup('<a href="#{}">{}</a>')
            links = Markup(", ").join(link.format(place, sections[place]) for place in places)
            author = item.author or ("" if places else "everything: this page has no such section")
            rows.append([item.number, item.topic, links or NONE, author or NONE])
        head = ["Item", "Topic", "On this page", "For the author to write"]
        return Table(self.identity, f"{self.name}: {self.source}.", head, rows, kind="dense items")


def _read_checklists() -> tuple[Checklist, ...]:
    text = Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")
    return tuple(
        Checklist(**entry | {"items": tuple(Item(**item) for item in entry["items"])})
        for entry in tomllib.loads(text)["checklists"]
    )


CHECKLISTS = _read_checklists()
