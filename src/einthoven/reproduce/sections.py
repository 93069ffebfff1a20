"""Sections of a page that are written by us, between markers; all else on it is left alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from einthoven.errors import ReproduceError
from einthoven.evaluate.scores import plain
from einthoven.files import lock_beside, locked, write_json, write_text

FIGURES = "figures"


@dataclass(frozen=True)
class Section:
    """One table or figure, ready to be written.

    Attributes
    ----------
    what, backbone, experiment : str
        Whose section it is; the backbone is empty where the experiment names all of them.
    text : str
        Markdown, heading included; `figure(name)` says where a drawing lies.
    drawings : mapping of str to str
        File name to SVG.
    numbers : mapping
        Every number of the section, for JSON.
    """

    what: str
    backbone: str
    experiment: str
    text: str
    drawings: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What its files and markers are called."""
        return "--".join(filter(None, (self.what, self.backbone, self.experiment)))

    @property
    def markers(self) -> tuple[str, str]:
        """The lines before and after it."""
        whose = f"backbone={self.backbone} " if self.backbone else ""
        named = f"reproduce:{self.what} {whose}experiment={self.experiment}"
        return f"<!-- {named} begin -->", f"<!-- {named} end -->"


def write_sections(page: Path, sections: Sequence[Section]) -> list[Path]:
    """Write sections into a page, their figures and numbers into `figures/` beside it.

    A section replaces what stands between its markers; one whose markers the page lacks is added
    at its end, and nothing else is touched.

    Returns
    -------
    list of Path
        Every file that was written, the page first.

    Raises
    ------
    ReproduceError
        When markers are damaged: one without the other, twice, or in the wrong order.
    """
    with locked(lock_beside(page)):  # another process may have a section for it just now
        return _written(page, sections)


def _written(page: Path, sections: Sequence[Section]) -> list[Path]:
    text = page.read_text() if page.is_file() else "# Reproduction\n"
    for section in sections:
        text = with_section(text, section, page)
    folder, written = page.parent / FIGURES, [page]
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for name, drawing in section.drawings.items():
            write_text(folder / name, standalone(drawing))
            written.append(folder / name)
        numbers = folder / f"{section.name}.json"
        write_json(numbers, plain(dict(section.numbers)))
        written.append(numbers)
    write_text(page, text)
    return written


def with_section(text: str, section: Section, page: Path) -> str:
    """A page's text with a section in its place."""
    begin, end = section.markers
    body = f"{begin}\n{section.text.strip()}\n{end}"
    counts = text.count(begin), text.count(end)
    if counts == (0, 0):
        return f"{text.rstrip()}\n\n{body}\n"
    if counts != (1, 1) or text.index(begin) > text.index(end):
        raise ReproduceError(
            f"{page}: the markers of {section.name} are damaged ({counts[0]} begin, {counts[1]} "
            "end)",
            remedy=f"leave one line {begin} and, after it, one line {end}",
        )
    return text[: text.index(begin)] + body + text[text.index(end) + len(end) :]


def standalone(svg: str) -> str:
    """A drawing that was made to stand in a page, as a file of its own: black on white."""
    return re.sub(r'style="', 'style="color: #111; background: #fff; ', svg, count=1)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def image(name: str, alt: str) -> str:
    """A drawing in the text of a section."""
    return f"![{alt}]({FIGURES}/{name})"
