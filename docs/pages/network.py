"""A registered network, and what can be told of it from the code alone."""

from __future__ import annotations

import ast
import inspect as python
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module

import torch

from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import Entry, create_backbone, entry
from einthoven.reproduce.experiment import Experiment, Row, experiment_for, load_experiment

LABELS = 71
PEER_EXPERIMENT = "peers"
STANDARD = "published"  # the experiment of foundation models that none is made for
# Published rows of networks that are in no experiment's table 1.
QUOTED = {
    "hubert_ecg_base": ("HuBERT-ECG-BASE",),
    "st_mem_base": ("Transformer-FM", "Transformer-FM-PT"),
}
_INSIDE = {
    True: "**yes**: results on PTB-XL are not those of an unseen cohort",
    False: "no",
    None: "unknown",
}


@dataclass(frozen=True, eq=False)
class Network:
    """A registered network and what its page needs of it."""

    name: str
    about: Entry
    backbone: Backbone

    @classmethod
    def named(cls, name: str) -> Network:
        """Built without weights."""
        with torch.device("meta"):
            return cls(name, entry(name), create_backbone(name))

    @property
    def is_peer(self) -> bool:
        """Whether it is trained for the task from random weights."""
        return self.about.is_supervised

    @property
    def is_public(self) -> bool:
        """Whether somebody publishes weights."""
        return self.about.has_weights

    @property
    def input(self) -> str:
        """Leads, rate and window in words."""
        found = self.backbone.preparation
        leads = len(found.leads)
        seconds = found.window / found.rate
        return f"{leads} lead{'s' * (leads > 1)}, {found.rate:g} Hz, {seconds:g} s"

    @property
    def row(self) -> Row | None:
        """Its row of table 1."""
        rows = peer_experiment().rows
        return next((each for each in rows if each.backbone == self.name), None)

    @property
    def experiment(self) -> Experiment:
        """What trains it: table 1 of the peers, the experiment made for it, or the paper's own."""
        if self.is_peer:
            return peer_experiment()
        own = load_experiment(experiment_for(self.name))
        return own if self.name in own.made_for else load_experiment(STANDARD)

    @property
    def quotes(self) -> tuple[str, ...]:
        """Published rows that are of this network."""
        row = self.row
        return QUOTED.get(self.name, (row.published,) if row and row.published else ())

    @property
    def file(self) -> str:
        """The public file's name, as far as it is known."""
        return self.about.weights_file


@cache
def peer_experiment() -> Experiment:
    """The grid of table 1's task-specific networks."""
    return load_experiment(PEER_EXPERIMENT)


def facts(network: Network) -> Iterator[tuple[str, str]]:
    """Lines of a page's first table."""
    about, backbone = network.about, network.backbone
    preparation = backbone.preparation
    branches, dropouts = backbone.residual_branches(), backbone.feedforward_dropouts()
    yield "paper", about.paper
    yield "parameters", _parameters(network)
    yield "input", f"{network.input} ({preparation.window:,} samples), in mV before preparation"
    yield "leads", " ".join(preparation.leads)
    yield "preparation", "; ".join(str(step) for step in preparation.steps)
    yield "features", f"{backbone.feature_dim} a crop"
    yield (
        "recipes reach",
        f"{sum(map(len, branches))} residual branches (stochastic depth), {len(dropouts)} "
        "feed-forward dropouts",
    )
    yield "pretrained on", about.pretraining_data or "none"
    if network.is_public:
        yield "PTB-XL among it", _INSIDE[about.contains_ptbxl]
    yield "public weights", _weights(about)
    yield "licence of the weights", str(about.licence or "none: no public weights")


def _parameters(network: Network) -> str:
    """As registered and, where the results are of other options, with those."""
    head = (network.backbone.feature_dim + 1) * LABELS
    said = f"{network.about.parameters:,}; with a head of {LABELS} labels "
    said += f"{network.about.parameters + head:,}"
    experiment = network.experiment
    if not (options := experiment.options_of(network.name)):
        return said
    with torch.device("meta"):
        built = create_backbone(network.name, **options)
    count = sum(each.numel() for each in built.parameters())
    named = ", ".join(f"`{key}={json.dumps(value)}`" for key, value in options.items())
    return f"{said}; with {named}, as `{experiment.name}` trains it, {count:,} and {count + head:,}"


def _weights(about: Entry) -> str:
    known = [about.weights_from or "none"]
    known += [about.weights_size] if about.weights_size else []
    known += [f"SHA-256 `{about.weights_sha256}`"] if about.weights_sha256 else []
    return "; ".join(known)


def described(network: Network) -> str:
    """The docstring of its module, and the first paragraph of its factory's, as Markdown."""
    module, function = network.about.build.__module__, network.about.build.__name__
    source = import_module(module)
    text = ast.get_docstring(ast.parse(python.getsource(source))) or ""
    own = (getattr(source, function).__doc__ or "").strip().split("\n\n")[0]
    here = "/".join(module.split("."))
    where = f"Code: [`{module}`](../../src/{here}.py), `{function}`."
    said = " ".join(own.split())
    return "\n\n".join([as_markdown(text), f"`{network.name}`: {said} {where}"])


def as_markdown(text: str) -> str:
    """A docstring's headings, terms and literals in Markdown."""
    text = re.sub(r"^(.+)\n-{3,}$", r"### \1\n", text, flags=re.MULTILINE)
    text = text.replace("``", "`").replace('`"', '"').replace('"`', '"')
    blocks: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        blocks += _terms(block.split("\n"))
    return "\n\n".join(blocks)


def _terms(lines: list[str]) -> Iterator[str]:
    """A block; as a list where terms are followed by indented lines that define them."""
    if not any(line.startswith("    ") for line in lines):
        yield "\n".join(lines)
        return
    said: list[str] = []
    for line in lines:
        if line.startswith("    "):
            said.append(line.strip())
            continue
        if said:
            yield "* " + "\n  ".join(said)
        said = [f"*{line.strip()}*:"]
    yield "* " + "\n  ".join(said)
