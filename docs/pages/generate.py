"""Write `docs/networks/`: a page a network, from the catalogue, the code and the results.

    python docs/pages/generate.py            # writes them; `make docs`
    python docs/pages/generate.py --check    # changes nothing, fails where a page is out of date

Nothing is trained and no weights are drawn. Our own numbers are those of `docs/figures/*.json`,
which `einthoven reproduce ... --write docs/results.md` leaves beside the tables of that page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from network import LABELS, PEER_EXPERIMENT, Network, described, facts, peer_experiment
from results import DOCS, results, sections_about

from einthoven.backbones.registry import backbone_names
from einthoven.files import read_json
from einthoven.inspection import MISSING
from einthoven.reproduce.experiment_files import load_experiment
from einthoven.reproduce.published import AUPRC, BENCHMARK, ROWS
from einthoven.reproduce.sections import table
from einthoven.reproduce.wording import limits, paragraph
from einthoven.reproduce.wording import published as quoted
from einthoven.shipped import ABOUT, SHIPPED, shipped_bundle

FOLDER = DOCS / "networks"
FAMILY_RECIPE = "strodthoff"  # of a network that was made for the task and is in no table
# Presets made for a network: recipe, and experiment of `einthoven reproduce`.
PRESETS = {
    "mtecg_tiny_100hz": ("ptbxl-100hz-cpu/post-training", "ptbxl-100hz-cpu"),
    "s4_small": ("s4-100hz-cpu/post-training", "s4-100hz-cpu"),
    "s4_tiny": ("s4-100hz-cpu/post-training", "s4-100hz-cpu"),
}
STANDARD = ("post-training", "published")
# Presets that pretrain what nobody publishes weights of: by name, otherwise by family.
PRETRAINING = {
    "mtecg_tiny_100hz": "ptbxl-100hz-cpu",
    "mtecg": "mae",
    "s4": "s4-ptbxl-100hz-cpu",
    "st_mem": "mae",
}
_GENERATED = "<!-- written by docs/pages/generate.py; change the code and run `make docs` -->"


def page(network: Network) -> str:
    """The whole page."""
    parts = [
        _GENERATED,
        f"# `{network.name}`",
        paragraph(network.about.summary + "."),
        table(("", ""), facts(network)),
        "## What it is",
        described(network),
        "## Numbers on PTB-XL",
        *_published(network),
        *_ours(network),
        "## Training it",
        *_training(network),
        "## From Python",
        _example(network),
        "## Fewer leads",
        _fewer_leads(network),
    ]
    return "\n\n".join(parts) + "\n"


def index(networks: Iterable[Network]) -> str:
    """The page that lists them."""
    lines: dict[bool, list[list[str]]] = {False: [], True: []}
    for each in networks:
        lines[each.is_peer].append(_index_line(each))
    head = ("network", "input", "parameters", "public weights", "all-71 published", "ours")
    parts = [
        _GENERATED,
        "# Networks",
        paragraph(
            "One page each. Parameters are without a head. The last two columns are macro AUROC on "
            "PTB-XL's fold 10, task all-71; ours is the best finished recipe of",
            "[results](../results.md). The published rows are mostly of version 1.0.1, whose fold",
            "10 has five records more ([protocol](../protocol.md)).",
        ),
        "## Foundation models",
        table(head, lines[False]),
        "## Made for the task, from random weights",
        table(head, lines[True]),
    ]
    return "\n\n".join(parts) + "\n"


def _index_line(network: Network) -> list[str]:
    values = [ROWS[row].get("all-71") for row in network.quotes]
    mine = [each["auroc"]["mean"] for each in results(network.name) if each["task"] == "all-71"]
    elsewhere = sections_about(network.name)
    ours = f"{max(mine):.4f}" if mine else "not run yet"
    if elsewhere and not mine:
        ours = f"[results](../results.md#{elsewhere[0][1]})"
    return [
        f"[`{network.name}`]({network.name}.md)",
        network.input,
        f"{network.about.parameters:,}",
        network.about.weights_licence if network.is_public else "none",
        ", ".join(f"{each.value:.3f}" for each in values if each) or "–",
        ours,
    ]


def _published(network: Network) -> Iterator[str]:
    if not network.quotes:
        yield "No published number of it on these tasks is known to us."
        return
    rows = {row: ROWS[row] for row in network.quotes}
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
    if network.row and network.row.our_reading:
        said.append(f"Ours is a reading of it, not the same network: {network.row.our_reading}.")
    yield paragraph(*said)
    yield table(("row", "metric", *tasks), lines)


def _ours(network: Network) -> Iterator[str]:
    mine, elsewhere = results(network.name), sections_about(network.name)
    if mine:
        yield "Ours, from [results](../results.md): fold 10, 95 % intervals of 1,000 resamples."
        head = ("task", "recipe", "seeds", "macro AUROC", "macro AUPRC")
        yield table(head, map(_result_line, mine))
    elif elsewhere:
        links = [f"[{title}](../results.md#{anchor})" for title, anchor in elsewhere]
        yield f"Ours: {', '.join(links)}."
    else:
        yield "Ours: not run yet. This runs it:"
        yield _reproduce(network)


def _result_line(found: dict[str, Any]) -> list[str]:
    values = [
        f"{each['mean']:.4f}{limits(each['interval'])}" for each in (found["auroc"], found["auprc"])
    ]
    seeds = ", ".join(map(str, found["auroc"]["seeds"]))
    shorter = found.get("short_schedule")
    recipe = f"`{found['arm']}`" + (f", shorter: {shorter}" if shorter else "")
    return [found["task"], recipe, seeds, *values]


def _training(network: Network) -> Iterator[str]:
    name = network.name
    if network.is_peer:
        recipe = _peer_recipe(network)
        yield f"It starts from random weights, by the recipe `{recipe}` ([recipes](../recipes.md))."
        yield _posttrain(name, recipe)
        return
    recipe, experiment = PRESETS.get(name, STANDARD)
    if network.is_public:
        yield paragraph(
            f"`{recipe}` is a linear probe, then fine-tuning with stochastic depth and dropout;",
            "`fine-tuning`, `linear-probe` and `scratch` leave pieces of it out.",
        )
        yield _posttrain(name, recipe, network.file)
        return
    preset = PRETRAINING.get(name, PRETRAINING[network.backbone.family])
    yield "There are no public weights: it is pretrained first, on folds 1 to 8 without labels."
    yield _shell(
        "einthoven pretrain data/ptb-xl --store data/ptb-xl.store",
        f"--backbone {name} --recipe {preset} --out runs/pretrain",
    )
    options = load_experiment(experiment).options_of(name) or {}
    yield _posttrain(name, recipe, "runs/pretrain/encoder.safetensors", options)
    if read_json(shipped_bundle() / ABOUT)["backbone"] == name:
        yield f"A trained one comes with einthoven, `{SHIPPED}`: `einthoven.load_bundle()`."


def _peer_recipe(network: Network) -> str:
    row = network.row
    return peer_experiment().arms[row.arm].recipe if row else FAMILY_RECIPE


def _posttrain(
    name: str, recipe: str, weights: str = "", options: Mapping[str, Any] | None = None
) -> str:
    given = f" --weights {weights}" if weights else ""
    for key, value in (options or {}).items():
        given += f" --option {key}={json.dumps(value)}"
    return _shell(
        "einthoven posttrain data/ptb-xl --store data/ptb-xl.store --task all-71",
        f"--backbone {name}{given}",
        f"--recipe {recipe} --out runs/{name}",
    )


def _reproduce(network: Network) -> str:
    """The command that fills the tables of results, or trains what no table has."""
    name = network.name
    if network.is_peer and not network.row:
        return _posttrain(name, FAMILY_RECIPE)
    if network.row:
        what, experiment = "table-1", PEER_EXPERIMENT
        chosen = f"--only row={network.row.name}"
    else:
        what, experiment = "table-2", PRESETS.get(name, STANDARD)[1]
        given = f" --weights {network.file}" if network.is_public else ""
        chosen = f"--backbone {name}{given}"
    return _shell(
        f"einthoven reproduce {what} --cohort data/ptb-xl --experiment {experiment}",
        f"{chosen} --write docs/results.md",
    )


def _shell(*lines: str) -> str:
    """A command in lines, as code."""
    return "    " + " \\\n        ".join(lines)


def _example(network: Network) -> str:
    preparation = network.backbone.preparation
    shape = f"8, {len(preparation.leads)}, {preparation.window}"
    load = (
        f'backbone = einthoven.load_backbone("{network.name}", weights="{network.file}")'
        if network.is_public
        else f'backbone = einthoven.create_backbone("{network.name}", seed=0)'
    )
    return f"""```python
import torch

import einthoven

{load}
x = torch.zeros({shape})  # eight prepared crops: (batch, leads, samples)
backbone.eval()(x).shape  # (8, {network.backbone.feature_dim})
backbone.preparation.describe()  # how a record becomes such crops

classifier = einthoven.create_classifier("{network.name}", labels={LABELS})
```"""


def _fewer_leads(network: Network) -> str:
    if len(network.backbone.leads) == 1:
        return "It reads one lead: lead I, or the one that `leads=` names."
    policy = MISSING.get(network.backbone.family, "its own policy holds")
    return paragraph(
        f'Built for some of its leads, `create_backbone("{network.name}", leads=("I", "II"))` '
        f"or `posttrain --leads I,II`: {policy}. Limb leads that follow from two others are "
        "computed by `predict` and `doctor` where a record lacks them.",
        "See [backbones](../backbones.md#fewer-leads).",
    )


def pages() -> dict[str, str]:
    """Every file of the folder, by name."""
    networks = [Network.named(name) for name in backbone_names()]
    return {"README.md": index(networks)} | {f"{each.name}.md": page(each) for each in networks}


def out_of_date(wanted: dict[str, str]) -> list[str]:
    """Files that are missing, differ, or stand for no network any more."""
    there = {file.name: file.read_text() for file in FOLDER.glob("*.md")}
    differing = [name for name, text in wanted.items() if there.get(name) != text]
    return sorted([*differing, *(there.keys() - wanted.keys())])


def main() -> None:
    """Write what differs, or only say so."""
    wanted = pages()
    stale = out_of_date(wanted)
    if "--check" in sys.argv[1:]:
        sys.exit(f"out of date: {', '.join(stale)}; run `make docs`" if stale else 0)
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name])
        else:
            (FOLDER / name).unlink()
    print(f"{FOLDER}: {len(wanted)} pages, {len(stale)} written or removed")


if __name__ == "__main__":
    main()
