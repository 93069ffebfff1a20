"""The page of the benchmark's ensemble, a row of table 1 that is no network of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from commands import MAIN, again, first_run_of_row, shell
from measured import named, ours, published, seeds
from network import LABELS, Network, peer_experiment
from results import chosen, results
from text import paragraph

from einthoven.reproduce.experiment import Row
from einthoven.reproduce.published import ROWS
from einthoven.reproduce.tables import quoted, table

NAME = "ensemble"


def row() -> Row:
    """Its row of table 1."""
    return next(each for each in peer_experiment().rows if each.name == NAME)


def page(networks: Mapping[str, Network]) -> Iterator[str]:
    """The page's parts, below its heading."""
    about = row()
    members = [networks[name] for name in about.members]
    yield paragraph(
        f"The mean prediction of {len(members)} networks that are made for the task: the ensemble "
        "of the PTB-XL benchmark (Strodthoff et al., IEEE JBHI 25(5) 2021), and no network."
    )
    yield "## What it is"
    yield paragraph(
        "The unweighted mean of its members' probabilities, record by record and label by label. "
        "Each member first joins its own crops by its own recipe: the highest probability of seven "
        "windows for networks that read 2.5 s, while `wavelet_nn` reads a record whole. Nothing is "
        "calibrated, nothing is trained, and no member weighs more than another. In table 1 seed 0 "
        "of the ensemble is the mean of every member's seed 0, and so on. The published one joins "
        "in the same way.",
        "Code: [`einthoven.experiment.ensembles`](../../src/einthoven/experiment/ensembles.py).",
    )
    head = ("member", "recipe", f"parameters, {LABELS} labels", "all-71 published", "ours")
    yield table(head, map(_member, members))
    yield f"Together {sum(map(whole, members)):,} parameters."
    yield "## Numbers on PTB-XL"
    yield from published([about.published] if about.published else [])
    found = results(NAME)
    if found:
        yield from ours(found)
        yield from again("", NAME, found)
    else:
        yield from first_run_of_row(NAME)
    yield "## From runs"
    yield "Of runs that there are already, on the same records, task and labels:"
    yield shell(
        f"einthoven ensemble {' '.join(f'runs/{name}' for name in about.members[:4])}",
        f"{' '.join(f'runs/{name}' for name in about.members[4:])} --out runs/{NAME}",
    )
    yield paragraph(
        "That is a run like any other but for its weights: table of predictions, metrics and "
        "intervals; there is no bundle of it. From Python "
        "`einthoven.experiment.ensembles.ensemble(runs, out)` ([recipes](../recipes.md#ensembles))."
    )


def index_line(networks: Mapping[str, Network]) -> list[str]:
    """Its line in the table of networks that are made for the task."""
    about = row()
    members = [networks[name] for name in about.members]
    quote = ROWS[about.published].get(MAIN) if about.published else None
    return [
        f"[`{NAME}`]({NAME}.md)",
        f"its {len(members)} members'",
        f"{sum(each.about.parameters for each in members):,}",
        "none",
        quoted(quote),
        _shown(results(NAME), ""),
    ]


def whole(network: Network) -> int:
    """Parameters with a head of the main task."""
    return network.about.parameters + (network.backbone.feature_dim + 1) * LABELS


def _member(network: Network) -> list[str]:
    quotes = [ROWS[each].get(MAIN) for each in network.quotes]
    return [
        f"[`{network.name}`]({network.name}.md)",
        f"`{network.about.recipe}`",
        f"{whole(network):,}",
        ", ".join(quoted(each) for each in quotes) or "–",
        _shown(results(network.name), network.row.variant if network.row else ""),
    ]


def _shown(found: list[dict[str, Any]], variant: str) -> str:
    mine = chosen(found, variant, MAIN)
    return shown(mine) if mine else "not run yet"


def shown(found: dict[str, Any]) -> str:
    """A number of ours, and what it is of: ``0.9345 (`post-training`, seeds 0, 1, 2)``."""
    plural = "s" * (len(found["auroc"]["seeds"]) > 1)
    return f"{found['auroc']['mean']:.4f} ({named(found)}, seed{plural} {seeds(found)})"
