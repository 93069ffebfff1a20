"""Our own numbers of a network, from what `einthoven reproduce` left beside `docs/results.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from einthoven.files import read_json
from einthoven.reproduce.published import BENCHMARK

DOCS = Path(__file__).resolve().parents[1]
FIGURES, PAGE = DOCS / "figures", DOCS / "results.md"


def results(name: str) -> list[dict[str, Any]]:
    """Finished runs of a network: a recipe on a task each, tasks in the benchmark's order."""
    known = {
        (each["task"], each["arm"], each.get("short_schedule")): each
        for each in _groups()
        if each["backbone"] == name
    }
    return sorted(known.values(), key=lambda each: (BENCHMARK.index(each["task"]), each["arm"]))


@cache
def _groups() -> tuple[dict[str, Any], ...]:
    """Every finished group of runs that some JSON of the results holds."""
    found: list[dict[str, Any]] = []
    for file in sorted(FIGURES.glob("*.json")):
        found += list(finished(read_json(file)))
    return tuple(found)


def finished(numbers: Any) -> Iterator[dict[str, Any]]:
    """Wherever in a file a backbone, an arm and a task have numbers.

    A group has its task beside them, a row of table 1 has several tasks.
    """
    if isinstance(numbers, dict):
        if {"backbone", "arm", "task", "auroc", "auprc"} <= numbers.keys() and numbers["auroc"]:
            yield numbers
        if {"backbone", "arm", "tasks"} <= numbers.keys():
            for task, values in numbers["tasks"].items():
                if values.get("auroc"):
                    yield numbers | values | {"task": task}
        for each in numbers.values():
            yield from finished(each)
    elif isinstance(numbers, list):
        for each in numbers:
            yield from finished(each)


def sections_about(name: str) -> list[tuple[str, str]]:
    """Headings of the results page, with their anchors, whose text names a network."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    named = [title for title, text in pairs if f"`{name}`" in text and title != "Speed"]
    return [(title, anchor(title)) for title in named]


def anchor(title: str) -> str:
    """A heading's anchor, as the usual renderers of Markdown make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
