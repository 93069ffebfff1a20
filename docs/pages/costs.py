"""What it costs to train the networks that are made for the task."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from commands import MAIN
from network import Network
from results import changes, results
from text import paragraph

from einthoven.reproduce.tables import table
from einthoven.stages.recipe import load_recipe

FILE = Path(__file__).with_name("costs.toml")


def costs(networks: Iterable[Network]) -> Iterator[str]:
    """The section of the index: hours, timed and of finished runs."""
    yield "## What training them costs"
    yield paragraph(
        "The whole published schedule on a machine with two CPU cores. *Timed*: a few steps or "
        "epochs on one thread, forward passes in bf16, scaled up. *Finished run*: training and "
        "validation of a run of [results](../results.md) on all-71, mean over seeds, with whatever "
        "the machine did besides; shorter schedules are left out."
    )
    known = tomllib.loads(FILE.read_text())
    head = ("network", "recipe", "epochs", "timed", "finished run")
    yield table(head, (_line(each, known.get(each.name, {})) for each in networks))


def _line(network: Network, timed: dict[str, Any]) -> list[str]:
    recipe = network.about.recipe
    stage = load_recipe(recipe).stage2
    epochs = stage.epochs if stage else 0
    hours = f"{timed['hours']}" if "hours" in timed else "–"
    if each := timed.get("minutes_an_epoch"):
        hours = f"about {each * epochs / 60:.2g} h, {each} minutes an epoch"
    link = f"[`{network.name}`]({network.name}.md)"
    return [link, f"`{recipe}`", str(epochs), hours, _of_run(network.name)]


def _of_run(name: str) -> str:
    whole = [each for each in results(name) if not each.get("short_schedule")]
    said = []
    for each in whole:
        if each["task"] == MAIN and (cost := each.get("cost")):
            seconds = cost["seconds"]
            spent = f"{seconds / 3600:.1f} h" if seconds >= 1800 else f"{seconds / 60:.0f} minutes"
            said.append(", ".join([spent, cost["device"], *changes(each)]))
    return "; ".join(said) or "–"
