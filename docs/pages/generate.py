"""Write `docs/networks/`: a page for each network, and an index.

    python docs/pages/generate.py    # or `make docs`

The pages come from the catalogue of backbones, the modules' docstrings, the published values, and
the results in `docs/figures/*.json`. Nothing is trained and no weights are drawn.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from einthoven.backbones.contract import Backbone
from einthoven.backbones.registry import Entry, catalogue
from einthoven.cohorts.ptbxl import TASKS
from einthoven.report.tables import templates
from einthoven.reproduce.published import AUROC, LEADERBOARD, Quote

PAGES = Path(__file__).parent
DOCS = PAGES.parent
FOLDER = DOCS / "networks"
LABELS = 71
TASK = "all-71"
BENCHMARK = tuple(TASKS)
# Published rows whose names differ from the backbone's.
PUBLISHED = {
    "hubert_ecg_base": ("HuBERT-ECG-BASE",),
    "st_mem_base": ("Transformer-FM", "Transformer-FM-PT"),
    "multiresnet": ("MULTIRESNET",),
    "wavelet_nn": ("Wavelet+NN",),
    "spacetime": ("SPACETIME",),
    "msw_transformer": ("MSW-Transformer",),
    "chimera": ("Chimera",),
    "ensemble": ("ensemble of 7",),
}
# Options of the backbone after pretraining, as the experiments set them: S4 is pretrained causal.
OPTIONS = dict.fromkeys(("s4_small", "s4_tiny"), "causal=false")
# Networks that are our reading of a publication; their published values are of other networks.
READINGS = ("spacetime", "msw_transformer", "chimera")
MEMBERS = (
    "xresnet1d101",
    "resnet1d_wang",
    "lstm",
    "lstm_bidir",
    "fcn_wang",
    "inception1d",
    "wavelet_nn",
)
"""Members of the benchmark's ensemble."""


@dataclass(frozen=True)
class Result:
    """Our result of a recipe on a task."""

    task: str
    recipe: str
    schedule: str
    changes: tuple[str, ...]
    experiment: str
    seeds: tuple[int, ...]
    auroc: Mapping[str, Any]
    auprc: Mapping[str, Any]

    @property
    def of_ensemble(self) -> bool:
        """Whether the study of the ensemble trained it, as a member."""
        return self.experiment.startswith("ensemble")

    @property
    def title(self) -> str:
        """The recipe and what was changed in it."""
        recipe, schedule = f"`{self.recipe}`", self.schedule
        if not self.recipe:
            recipe, schedule = "mean of members", schedule and f"short schedule for {schedule}"
        return ", ".join(filter(None, [recipe, schedule, *self.changes]))


@dataclass(frozen=True, eq=False)
class Network:
    """A registered backbone, built without weights, and its results."""

    entry: Entry
    backbone: Backbone

    @property
    def input(self) -> str:
        """Leads, rate and duration."""
        preparation = self.backbone.preparation
        count, seconds = len(preparation.leads), preparation.window / preparation.rate
        return f"{count} lead{'s' * (count > 1)}, {preparation.rate:g} Hz, {seconds:g} s"

    @property
    def head(self) -> int:
        """Parameters of a head for the main task."""
        return (self.backbone.feature_dim + 1) * LABELS

    @property
    def posttraining(self) -> str:
        """The default recipe, with the folder of the backbone's settings."""
        folder = f"{self.entry.recipes}/" if self.entry.recipes else ""
        return self.entry.recipe or f"{folder}post-training"

    @property
    def weights(self) -> str:
        """The initial weights that the page's command names."""
        if self.entry.is_supervised:
            return ""
        return self.entry.weights_file or "runs/pretrain/model"

    @property
    def description(self) -> str:
        """The docstring of the network's module as Markdown."""
        source = inspect.getsource(import_module(self.entry.network.__module__))
        return as_markdown(ast.get_docstring(ast.parse(source)) or "")


def build(entry: Entry) -> Network:
    """The network of an entry, on the meta device."""
    with torch.device("meta"):
        return Network(entry, entry.build())


def results(name: str) -> list[Result]:
    """Our results of a backbone, or of the ensemble, in the order of the benchmark's tasks."""
    found = [result for owner, result in all_results() if owner == name]
    return sorted(found, key=lambda result: (BENCHMARK.index(result.task), result.recipe))


def index_result(name: str, recipe: str, *, in_ensemble: bool = False) -> Result | None:
    """The main task's result of a recipe that is fixed in advance, not the best on the test fold.

    Whole schedules come before shortened ones, then unchanged recipes before changed ones, more
    seeds before fewer, and the study of single networks before that of the ensemble;
    `in_ensemble` chooses among the runs that the ensemble consists of.
    """
    matching = [
        result
        for result in results(name)
        if result.task == TASK
        and result.recipe == recipe.rsplit("/", 1)[-1]
        and (result.of_ensemble or not in_ensemble)
    ]

    def rank(result: Result) -> tuple[bool, bool, int, bool]:
        seeds = len(result.seeds)
        return not result.schedule, not result.changes, seeds, not result.of_ensemble

    return max(matching, key=rank, default=None)


@cache
def all_results() -> tuple[tuple[str, Result], ...]:
    """Every result in `docs/figures`, with the name of its backbone."""
    unique: dict[tuple[str, ...], tuple[str, Result]] = {}
    for file in sorted((DOCS / "figures").glob("*.json")):
        experiment = file.stem.rsplit("--", 1)[-1]
        for group in groups(json.loads(file.read_text())):
            owner = group["backbone"] or group.get("name", "")
            result = Result(
                task=group["task"],
                recipe=group["variant"] if group["backbone"] else "",
                schedule=group.get("short_schedule") or "",
                changes=tuple(group.get("changes", [])),
                experiment=experiment,
                seeds=tuple(group["auroc"]["seeds"]),
                auroc=group["auroc"],
                auprc=group["auprc"],
            )
            unique[owner, result.task, result.recipe, experiment] = owner, result
    return tuple(unique.values())


def groups(numbers: Any) -> Iterator[dict[str, Any]]:
    """Every part of a results file that has a backbone, a task and both metrics."""
    if isinstance(numbers, list):
        for part in numbers:
            yield from groups(part)
    elif isinstance(numbers, dict):
        if {"backbone", "task", "auroc", "auprc"} <= numbers.keys() and numbers["auroc"]:
            yield numbers
        elif {"backbone", "tasks"} <= numbers.keys():
            for task, values in numbers["tasks"].items():
                if values.get("auroc"):
                    yield numbers | values | {"task": task}
        else:
            for part in numbers.values():
                yield from groups(part)


def published(name: str) -> dict[str, dict[str, Quote]]:
    """Published macro AUROC by row and task."""
    rows: dict[str, dict[str, Quote]] = {}
    for row in PUBLISHED.get(name, (name,)):
        if values := AUROC.get(row, {}) | LEADERBOARD.get(row, {}):
            rows[row] = values
    return rows


def as_markdown(text: str) -> str:
    """A docstring's headings and definition lists in Markdown."""
    text = re.sub(r"^(.+)\n-{3,}$", r"### \1\n", text, flags=re.MULTILINE).replace("``", "`")
    text = re.sub(r"^(\S.*)\n((?: {4}.*\n?)+)", _definition, text, flags=re.MULTILINE)
    return text.strip()


def _definition(match: re.Match[str]) -> str:
    lines = [line.strip() for line in match[2].splitlines()]
    if match[1].endswith(","):  # a formula inside a sentence
        return match[0]
    return f"* *{match[1]}*: " + "\n  ".join(lines) + "\n"


def number(value: Quote | None) -> str:
    """A published value with its interval or the leaderboard's uncertainty: `0.925(08)`."""
    if value is None:
        return "–"
    if value.thousandths is not None:
        return f"{value.value:.3f}({value.thousandths:02d})"
    limits = f" ({value.interval[0]:.3f} to {value.interval[1]:.3f})" if value.interval else ""
    return f"{value.value:.3f}{limits}"


def estimate(metric: Mapping[str, Any]) -> str:
    """Our mean over seeds with its 95 % interval."""
    low, high = metric["interval"]
    return f"{metric['mean']:.4f} ({low:.4f} to {high:.4f})"


def pages() -> dict[str, str]:
    """Every page by file name."""
    environment = templates(PAGES, keep_trailing_newline=True)
    environment.globals |= {
        "BENCHMARK": BENCHMARK,
        "LABELS": LABELS,
        "OPTIONS": OPTIONS,
        "READINGS": READINGS,
        "TASK": TASK,
        "estimate": estimate,
        "index_result": index_result,
        "number": number,
        "published": published,
        "results": results,
    }
    networks = {name: build(entry) for name, entry in catalogue().items()}
    costs = tomllib.loads((PAGES / "costs.toml").read_text())
    members = [networks[name] for name in MEMBERS]
    written = {
        f"{name}.md": environment.get_template("network.md.j2").render(name=name, network=network)
        for name, network in networks.items()
    }
    for name in ("README", "ensemble"):
        template = environment.get_template(f"{name}.md.j2")
        written[f"{name}.md"] = template.render(networks=networks, members=members, costs=costs)
    return {name: re.sub(r"\n{3,}", "\n\n", text) for name, text in written.items()}


def main() -> None:
    """Write all pages and remove those of networks that are gone."""
    FOLDER.mkdir(exist_ok=True)
    written = pages()
    for name, text in written.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for file in FOLDER.glob("*.md"):
        if file.name not in written:
            file.unlink()
    print(f"{FOLDER}: {len(written)} pages")


if __name__ == "__main__":
    main()
