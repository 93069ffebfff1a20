"""Published numbers and our own, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from results import changes, sections_about
from text import paragraph

from einthoven.report.format import interval
from einthoven.reproduce.experiment import experiment_names, load_experiment
from einthoven.reproduce.published import AUPRC, BENCHMARK, ROWS
from einthoven.reproduce.tables import quoted, table


def published(names: Sequence[str], our_reading: str = "") -> Iterator[str]:
    """The published rows that stand for a network."""
    if not names:
        yield "No published number of it on these tasks is known to us."
        return
    rows = {row: ROWS[row] for row in names}
    tasks = [task for task in BENCHMARK if any(task in values for values in rows.values())]
    lines = [
        [row, metric, *(quoted(values.get(task)) for task in tasks)]
        for row in rows
        for metric, values in (("macro AUROC", rows[row]), ("macro AUPRC", AUPRC.get(row, {})))
        if values
    ]
    shown = [value for values in rows.values() for value in values.values()]
    said = ["Published."]
    if any(value.thousandths is not None for value in shown):
        said.append(
            "(08): the leaderboard's uncertainty of 0.008, the farther end of a 90 % interval of "
            "100 record resamples."
        )
    said += ["Brackets: 95 %."] if any(value.interval for value in shown) else []
    if our_reading:
        said.append(f"Ours is a reading of it, not the same network: {our_reading}.")
    yield paragraph(*said)
    yield table(("row", "metric", *tasks), lines)


def ours(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Every finished recipe of a network, and which of them are recipes with something changed."""
    yield "Ours, from [results](../results.md): fold 10, 95 % intervals of 1,000 resamples."
    head = ["task", "recipe", "seeds", "macro AUROC", "macro AUPRC"]
    lines = [_line(each) for each in found]
    if len({each["experiment"] for each in found}) > 1:
        head.append("experiment")
        named = (f"`{each['experiment']}`" for each in found)
        lines = [[*line, name] for line, name in zip(lines, named, strict=True)]
    yield table(head, lines)
    yield from _arms(found)


def elsewhere(name: str) -> str:
    """Links to the sections of the results page that a network without JSON is in; or nothing."""
    links = [f"[{title}](../results.md#{anchor})" for title, anchor in sections_about(name)]
    return f"Ours: {', '.join(links)}." if links else ""


def named(found: dict[str, Any]) -> str:
    """The recipe of numbers, or the variant that changes it, and the changes."""
    if found["backbone"]:
        return ", ".join([f"`{_recipe(found) or found['variant']}`", *changes(found)])
    shorter = found.get("short_schedule")
    told = [f"shorter schedules for {shorter}"] if shorter else []
    return ", ".join(["mean of members", *told, *found.get("changes", [])])


def _line(found: dict[str, Any]) -> list[str]:
    values = [
        f"{each['mean']:.4f} ({interval(each['interval'], places=4)})"
        for each in (found["auroc"], found["auprc"])
    ]
    return [found["task"], named(found), seeds(found), *values]


def seeds(found: dict[str, Any]) -> str:
    """`0, 1, 2`."""
    return ", ".join(map(str, found["auroc"]["seeds"]))


def _recipe(found: dict[str, Any]) -> str:
    """The recipe of a variant that takes it as it is; nothing where the variant changes it."""
    if found["experiment"] not in experiment_names():
        return ""
    experiment, name = load_experiment(found["experiment"]), found["variant"]
    variant = experiment.variants.get(name)
    if (
        variant is None
        or variant.set
        or variant.without
        or variant.recipe.rsplit("/", 1)[-1] != name
    ):
        return ""
    own = experiment.backbones.get(found["backbone"])
    return "" if own and name in own.variants else variant.recipe


def _arms(found: Iterable[dict[str, Any]]) -> Iterator[str]:
    changed: dict[str, dict[str, str]] = {}
    for each in found:
        if each["variant"] and not _recipe(each) and each["experiment"] in experiment_names():
            variants = load_experiment(each["experiment"]).variants
            if each["variant"] in variants:
                changed.setdefault(each["experiment"], {})[each["variant"]] = variants[
                    each["variant"]
                ].recipe
    for experiment, variants in changed.items():
        listed, bases = _listed(variants), _listed(dict.fromkeys(variants.values()))
        file = f"src/einthoven/reproduce/experiments/{experiment}.toml"
        one = len(variants) == 1
        yield paragraph(
            f"{listed} {'is a variant' if one else 'are variants'} of "
            f"[`{file}`](../../{file}), which {'changes' if one else 'change'} "
            f"{bases} ([reproduce](../reproduce.md#experiments)).",
        )


def _listed(names: Iterable[str]) -> str:
    """`a`, `b` and `c`."""
    *before, last = [f"`{name}`" for name in names]
    return f"{', '.join(before)} and {last}" if before else last
