"""Write `docs/networks/`: a page a network, from the catalogue, the code and the results.

    python docs/pages/generate.py            # writes them; `make docs`
    python docs/pages/generate.py --check    # changes nothing, fails where a page is out of date

Nothing is trained and no weights are drawn. Our own numbers are those of `docs/figures/*.json`,
which `einthoven reproduce ... --write docs/results.md` leaves beside the tables of that page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import ensemble
from commands import MAIN, again, first_run, posttrain, shell
from costs import costs
from ensemble import shown
from measured import elsewhere, ours, published
from network import LABELS, Network, described, facts
from results import DOCS, chosen, results, sections_about
from text import paragraph

from einthoven.backbones.registry import backbone_names, entry
from einthoven.models import SHIPPED, read_config
from einthoven.reproduce.published import ROWS
from einthoven.reproduce.tables import table

FOLDER = DOCS / "networks"
OURS = "post-training"  # the variant of an encoder that the index shows
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
        *published(network.quotes, network.row.our_reading if network.row else ""),
        *_ours(network),
        "## Training it",
        *_training(network),
        "## From Python",
        _example(network),
        "## Fewer leads",
        _fewer_leads(network),
    ]
    return "\n\n".join(parts) + "\n"


def index(networks: Mapping[str, Network]) -> str:
    """The page that lists them."""
    peers = [each for each in networks.values() if each.is_peer]
    others = [each for each in networks.values() if not each.is_peer]
    head = ("network", "input", "parameters", "public weights", "all-71 published", "ours")
    parts = [
        _GENERATED,
        "# Networks",
        paragraph(
            "One page each. Parameters are without a head. The last two columns are macro AUROC on "
            f"PTB-XL's fold 10, task all-71. Ours is of a recipe chosen by rule and not by result: "
            f"`{OURS}` for a foundation model, its own recipe for a network made for the task. The "
            "best of the finished ones on fold 10 would be too high",
            "([protocol](../protocol.md#choices)); a network's page has all of them, and",
            "[results](../results.md) their validation. The published rows are mostly of version",
            "1.0.1, whose fold 10 has five records more.",
        ),
        "## Foundation models",
        table(head, map(index_line, others)),
        "## Made for the task, from random weights",
        table(head, [*map(index_line, peers), ensemble.index_line(networks)]),
        *costs(peers),
    ]
    return "\n\n".join(parts) + "\n"


def index_line(network: Network) -> list[str]:
    """A network in the table of the index."""
    values = [ROWS[row].get(MAIN) for row in network.quotes]
    return [
        f"[`{network.name}`]({network.name}.md)",
        network.input,
        f"{network.about.parameters:,}",
        str(network.about.licence) if network.is_public else "none",
        ", ".join(f"{each.value:.3f}" for each in values if each) or "–",
        _shown(network),
    ]


def _shown(network: Network) -> str:
    """Our number, of the recipe that the rule names."""
    variant = network.row.variant if network.row else OURS
    if mine := chosen(results(network.name), variant, MAIN):
        return shown(mine)
    if links := sections_about(network.name):
        return f"[results](../results.md#{links[0][1]})"
    return "not run yet"


def _ours(network: Network) -> Iterator[str]:
    if mine := results(network.name):
        yield from ours(mine)
    elif links := elsewhere(network.name):
        yield links
    else:
        yield from first_run(network)


def _training(network: Network) -> Iterator[str]:
    name = network.name
    if network.is_peer:
        recipe = network.about.recipe
        yield f"It starts from random weights, by the recipe `{recipe}` ([recipes](../recipes.md))."
        yield posttrain(name, recipe)
        yield from again(name, network.row and network.row.name, results(name))
        return
    experiment = network.experiment
    recipe = str(experiment.variants[OURS].recipe)
    if network.is_public:
        yield paragraph(
            f"`{recipe}` is a linear probe, then fine-tuning with stochastic depth and dropout;",
            "`fine-tuning`, `linear-probe` and `scratch` leave pieces of it out.",
        )
        yield posttrain(name, recipe, network.file)
        yield from again(name, None, results(name))
        return
    yield "There are no public weights: it is pretrained first, on folds 1 to 8 without labels."
    yield shell(
        "einthoven pretrain data/ptb-xl --store data/ptb-xl.store",
        f"--backbone {name} --recipe {experiment.source_of(name).recipe} --out runs/pretrain",
    )
    options = experiment.options_of(name)
    yield posttrain(name, recipe, "runs/pretrain/model", options)
    yield from again(name, None, results(name))
    if read_config(SHIPPED)["backbone"] == name:
        yield f"A trained one comes with einthoven, `{SHIPPED}`: `einthoven.load_model()`."


def _example(network: Network) -> str:
    preparation = network.backbone.preparation
    shape = f"8, {len(preparation.leads)}, {preparation.window}"
    load = (
        f'backbone = einthoven.load_backbone("{network.name}", weights="{network.file}")'
        if network.is_public
        else f'backbone = einthoven.create_backbone("{network.name}", seed=0)'
    )
    measure = (
        f"""batches = [torch.randn({shape})]  # in earnest: prepared training records
backbone.fit_statistics(batches)  # once, before training; posttrain does it
"""
        if network.backbone.fits_statistics
        else ""
    )
    return f"""```python
import torch

import einthoven

{load}
{measure}x = torch.zeros({shape})  # eight prepared crops: (batch, leads, samples)
backbone.eval()(x).shape  # (8, {network.backbone.feature_dim})
backbone.preparation.describe()  # how a record becomes such crops

classifier = einthoven.create_classifier("{network.name}", labels={LABELS})
```"""


def _fewer_leads(network: Network) -> str:
    if len(network.backbone.leads) == 1:
        return "It reads one lead: lead I, or the one that `leads=` names."
    policy = entry(network.name).missing_leads
    return paragraph(
        f'Built for some of its leads, `create_backbone("{network.name}", leads=("I", "II"))` '
        f"or `posttrain --leads I,II`: {policy}. Limb leads that follow from two others are "
        "computed by `predict` and `doctor` where a record lacks them.",
        "See [backbones](../backbones.md#fewer-leads).",
    )


def pages() -> dict[str, str]:
    """Every file of the folder, by name."""
    networks = {name: Network.named(name) for name in backbone_names()}
    parts = [_GENERATED, f"# `{ensemble.NAME}`", *ensemble.page(networks)]
    return {
        "README.md": index(networks),
        **{f"{name}.md": page(each) for name, each in networks.items()},
        f"{ensemble.NAME}.md": "\n\n".join(parts) + "\n",
    }


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
