"""Writing tables and figures into a page, their numbers and drawings beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from einthoven.errors import ReproduceError
from einthoven.evaluate.scores import plain
from einthoven.files import lock_for, locked, read_json, write_json, write_text
from einthoven.reproduce.figures import figure_2, figure_3, figure_4, figure_5
from einthoven.reproduce.grid import GRID, OBJECTIVES, TABLE_1, targets_of
from einthoven.reproduce.objectives import objectives
from einthoven.reproduce.results import Results
from einthoven.reproduce.run import Reproduction
from einthoven.reproduce.tables import Section, grid_table, table_1, table_2

FIGURES = "figures"
_SECTIONS: dict[str, Callable[[Results], Section]] = {
    "table-2": table_2,
    "figure-2": figure_2,
    "figure-3": figure_3,
    "figure-4": figure_4,
    "figure-5": figure_5,
    GRID: grid_table,
    OBJECTIVES: objectives,
}


def write(reproduction: Reproduction, target: str, page: Path) -> list[Path]:
    """Write a table or figure, or all of them (`grid`), from the finished runs.

    A section replaces the text between its markers, or is added at the end of the page. Numbers
    (JSON) and drawings (SVG) go into `figures/` beside it. A section without any finished run is
    left as it is on the page; table 1 keeps the stored numbers of rows without one.

    Returns every file that was written, the page first. Raises ReproduceError if the markers of the
    page are damaged.
    """
    results = Results(reproduction)
    sections = []
    for name in targets_of(reproduction.experiment) if target == GRID else (target,):
        if name == TABLE_1:
            stem = Section(name, reproduction.backbone, reproduction.experiment.name, "", {}).name
            file = page.parent / FIGURES / f"{stem}.json"
            sections.append(table_1(results, read_json(file) if file.is_file() else {}))
        elif not (name == GRID and reproduction.experiment.table_1_only):
            sections.append(_SECTIONS[name](results))
    with locked(lock_for(page)):  # other processes may write their sections
        return write_sections(page, sections)


def write_sections(page: Path, sections: Sequence[Section]) -> list[Path]:
    """Write sections into a page, their numbers and drawings beside it; see `write`."""
    text = page.read_text(encoding="utf-8") if page.is_file() else "# Reproduction\n"
    folder, paths = page.parent / FIGURES, [page]
    for section in sections:
        file = folder / f"{section.name}.json"
        if file.is_file() and not section.has_results and section.target != TABLE_1:
            continue
        text = with_section(text, section, page)
        write_json(file, plain(section.numbers))
        paths.append(file)
        for name, svg in section.drawings.items():
            # As a file of its own a drawing needs its colours: black on white.
            coloured = re.sub(r'style="', 'style="color: #111; background: #fff; ', svg, count=1)
            write_text(folder / name, coloured)
            paths.append(folder / name)
    write_text(page, text)
    return paths


def with_section(text: str, section: Section, page: Path) -> str:
    """A page's text with a section in its place."""
    backbone = f"backbone={section.backbone} " if section.backbone else ""
    marker = f"reproduce:{section.target} {backbone}experiment={section.experiment}"
    begin, end = f"<!-- {marker} begin -->", f"<!-- {marker} end -->"
    body = re.sub(r"\n{3,}", "\n\n", section.text.strip())
    body = f"{begin}\n{body}\n{end}"
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
