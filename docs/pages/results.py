"""Our own numbers of a network, from what `einthoven reproduce` left beside `docs/results.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from einthoven.files import read_json
from einthoven.reproduce.experiment import experiment_names, load_experiment
from einthoven.reproduce.published import BENCHMARK

DOCS = Path(__file__).resolve().parents[1]
FIGURES, PAGE = DOCS / "figures", DOCS / "results.md"


def results(name: str) -> list[dict[str, Any]]:
    """Finished runs of a network or row: a recipe on a task each, in the benchmark's order.

    An ensemble has no backbone, and is found by the name of its row.
    """
    known: dict[tuple[str, ...], dict[str, Any]] = {}
    for each in _groups():
        if (each["backbone"] or each.get("name")) == name:
            key = (each["task"], each["variant"], each["experiment"])
            known[key] = known.get(key, {}) | each
    return [known[key] for key in sorted(known, key=lambda key: (BENCHMARK.index(key[0]), key[1:]))]


def chosen(found: list[dict[str, Any]], variant: str, task: str) -> dict[str, Any] | None:
    """The numbers of a recipe that is named beforehand; no result has a say in it.

    Where several experiments have them: of the recipe as it is rather than of a changed one, of the
    whole schedule rather than of a shorter one, then of more seeds.
    """
    mine = [each for each in found if each["variant"] == variant and each["task"] == task]
    return max(mine, key=_worth, default=None)


def _worth(found: dict[str, Any]) -> tuple[bool, bool, int]:
    whole = not found.get("short_schedule")
    return not changes(found), whole, len(found["auroc"]["seeds"])


def changes(found: dict[str, Any]) -> list[str]:
    """What was not as in the recipe, in words: where the numbers do not say, what the experiment
    says."""
    shorter, told = found.get("short_schedule"), found.get("changes")
    if told is None:
        told = _changes(found["experiment"], found["variant"], found["backbone"])
    return [*([shorter] if shorter else []), *told]


def _changes(experiment: str, variant: str, backbone: str) -> list[str]:
    if experiment not in experiment_names():
        return []
    asked = load_experiment(experiment)
    return asked.changes(variant, backbone) if variant in asked.variants else []


@cache
def _groups() -> tuple[dict[str, Any], ...]:
    """Every finished group of runs that some JSON of the results holds, and of which experiment."""
    found: list[dict[str, Any]] = []
    for file in sorted(FIGURES.glob("*.json")):
        experiment = file.stem.rsplit("--", 1)[-1]
        found += [each | {"experiment": experiment} for each in finished(read_json(file))]
    return tuple(found)


def finished(numbers: Any) -> Iterator[dict[str, Any]]:
    """Wherever in a file a backbone, an variant and a task have numbers.

    A group has its task beside them, a row of table 1 has several tasks.
    """
    if isinstance(numbers, dict):
        if {"backbone", "variant", "task", "auroc", "auprc"} <= numbers.keys() and numbers["auroc"]:
            yield numbers
        if {"backbone", "variant", "tasks"} <= numbers.keys():
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
