"""The commands that train a network, and those that make or make again a number of ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from network import PEER_EXPERIMENT, Network
from text import paragraph

from einthoven.reproduce.experiment import experiment_names, load_experiment
from einthoven.reproduce.grid import TABLE_1, only, pairs_of_row, row_names, runs_of

ON_CPU = "peers-cpu"
MAIN = "all-71"
_WIDTH = 88


def shell(*lines: str) -> str:
    """A command in lines, as code."""
    return "    " + " \\\n        ".join(filter(None, lines))


def posttrain(
    name: str, recipe: str, weights: str = "", options: Mapping[str, Any] | None = None
) -> str:
    """`einthoven posttrain` of a network by a recipe."""
    given = f" --weights {weights}" if weights else ""
    for key, value in (options or {}).items():
        given += f" --option {key}={json.dumps(value)}"
    return shell(
        "einthoven posttrain data/ptb-xl --store data/ptb-xl.store --task all-71",
        f"--backbone {name}{given}",
        f"--recipe {recipe} --out runs/{name}",
    )


def first_run(network: Network) -> Iterator[str]:
    """Of a network without a number: the command for one, and what it leaves out."""
    row = network.row and network.row.name
    yield from _first(network.name, row, network.experiment.name, network)


def first_run_of_row(row: str) -> Iterator[str]:
    """The same of a row of table 1 that is no network."""
    yield from _first("", row, PEER_EXPERIMENT, None)


def _first(name: str, row: str | None, experiment: str, network: Network | None) -> Iterator[str]:
    few = [f"task={MAIN}", "seed=0"]
    done, whole = (_count(name, row, experiment, more) for more in (few, []))
    runs = "one training" if done == 1 else f"{done} trainings"
    yield paragraph(
        f"Ours: not run yet. This is {runs}; without `--only task` and `--only seed` it is {whole}:"
    )
    yield _reproduce(name, row, experiment, few, network)
    if row and (other := _on_cpu(row)):
        yield paragraph(f"For CPU cores there is `--experiment {ON_CPU}`: {other}.")


def again(name: str, row: str | None, found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Of a network with numbers: the commands that make them, one for each experiment."""
    by_experiment: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        by_experiment.setdefault(each["experiment"], []).append(each)
    for experiment, groups in by_experiment.items():
        if experiment not in experiment_names():
            continue
        filters = [f"task={_joined(each['task'] for each in groups)}"]
        filters += [f"seed={_joined(n for each in groups for n in each['auroc']['seeds'])}"]
        if not row:
            filters.insert(0, f"variant={_joined(each['variant'] for each in groups)}")
        changed = _changed(experiment, row) if row else ""
        told = f", which changes the recipe: {changed}" if changed else ""
        which = "Some of the" if len(by_experiment) > 1 else "The"
        yield paragraph(
            f"{which} numbers above are of the experiment `{experiment}`{told}",
            "([reproduce](../reproduce.md)). This makes them:",
        )
        yield _reproduce(name, row, experiment, filters, None)


def _joined(values: Iterable[Any]) -> str:
    return ",".join(map(str, dict.fromkeys(values)))


def _count(name: str, row: str | None, experiment: str, filters: Sequence[str]) -> int:
    asked, backbone = load_experiment(experiment), "" if row else name
    runs = runs_of(TABLE_1 if row else "table-2", asked, backbone)
    named = [f"row={row}"] if row else []
    return len(only(runs, [*named, *filters], row_names(asked, backbone)))


def _reproduce(
    name: str, row: str | None, experiment: str, filters: Sequence[str], network: Network | None
) -> str:
    if row:
        what, chosen = TABLE_1, f"--only row={row}"
    else:
        # The grid has every variant, table 2 the pair and few others.
        what, chosen = "table-2" if network else "grid", f"--backbone {name}"
        chosen += f" --weights {network.file}" if network and network.is_public else ""
    narrowed = [f"--only {each}" for each in filters]
    line = " ".join([chosen, *narrowed])
    return shell(
        f"einthoven reproduce {what} --cohort data/ptb-xl --experiment {experiment}",
        *([line] if len(line) <= _WIDTH else [chosen, *narrowed]),
        "--write docs/results.md",
    )


def _on_cpu(row: str) -> str:
    """What the experiment for CPU cores changes of a row, in words."""
    return _changed(ON_CPU, row) or "the same on one seed"


def _changed(experiment: str, row: str) -> str:
    asked = load_experiment(experiment)
    (found,) = (each for each in asked.rows if each.name == row)
    changes: dict[str, list[str]] = {}
    for backbone, variant in pairs_of_row(asked, found, ""):
        shorter = asked.short_schedule(variant, backbone)
        for each in (*asked.changes(variant, backbone), *([shorter] if shorter else [])):
            changes.setdefault(each, []).append(backbone)
    if not found.members:
        return ", ".join(changes)
    return "; ".join(f"{each} for {', '.join(names)}" for each, names in changes.items())
