"""Tables 1 and 2 and the table of every variant: their numbers, for the templates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from einthoven.files import RUN_FILE, Json, read_json
from einthoven.report.format import (
    NONE,
    count,
    interval_text,
    minutes,
    number,
    percent,
    with_interval,
)
from einthoven.report.tables import templates
from einthoven.reproduce import published
from einthoven.reproduce.experiment import PLAIN, POST, Row
from einthoven.reproduce.grid import GRID, PAIR, TABLE_1, Group, target_groups
from einthoven.reproduce.results import AUROC_AUPRC, Groups, Metric, Results, with_stored_rows
from einthoven.reproduce.run import Reproduction, weights_sha256

NOT_RUN = "not run yet"
SIMULATED = "> **SIMULATED ECGs: nothing here was measured in patients.**"
NAMES: dict[Metric, str] = {"auroc": "macro AUROC", "auprc": "macro AUPRC"}


@dataclass(frozen=True)
class Section:
    """A table or figure as Markdown, with its numbers for JSON and its drawings (SVG) by file name.

    The backbone is empty if the experiment's rows name theirs. `has_results` tells whether any of
    its runs is finished.
    """

    target: str
    backbone: str
    experiment: str
    text: str
    numbers: Json
    drawings: Mapping[str, str] = field(default_factory=dict)
    has_results: bool = True

    @property
    def name(self) -> str:
        """Stem of its files."""
        return "--".join(filter(None, (self.target, self.backbone, self.experiment)))


def section(
    results: Results,
    target: str,
    numbers: Json,
    drawings: Mapping[str, str] | None = None,
    **context: Any,
) -> Section:
    """Render the template of a table or figure with the variables of `context`.

    `drawings` are SVG by the first part of their file name.
    """
    reproduction = results.reproduction
    backbone, experiment = reproduction.backbone, reproduction.experiment
    groups = dict.fromkeys(target_groups(target, experiment, backbone))
    finished = [run for group in groups for runs in results.folders(group).values() for run in runs]
    finished_runs = len(finished)
    file = "--".join(filter(None, (backbone, experiment.name)))
    text = _ENVIRONMENT.get_template(f"{target}.md.j2").render(
        results=results,
        numbers=numbers,
        drawings=drawings or {},
        metrics=NAMES,
        name=backbone or experiment.name,
        file=file,
        task=experiment.main_task,
        finished_runs=finished_runs,
        total=sum(len(experiment.seeds_of(g.variant, g.task, g.fraction)) for g in groups),
        weights=_weights_text(reproduction),
        recipes={}
        if target == TABLE_1
        else {group.variant: reproduction.recipe(group.run(0)) for group in groups},
        **context,
    )
    if any(read_json(run / RUN_FILE)["request"].get("cohort_synthetic") for run in finished):
        heading, _, rest = text.strip().partition("\n")
        text = f"{heading}\n\n{SIMULATED}\n{rest}"
    files = {f"{name}--{file}.svg": svg for name, svg in (drawings or {}).items()}
    return Section(
        target, backbone, experiment.name, text, numbers, files, has_results=finished_runs > 0
    )


def _weights_text(reproduction: Reproduction) -> str:
    """Initial weights of a reproduction, for a page."""
    if reproduction.weights is not None:
        return f"`{reproduction.weights.name}`, SHA-256 {weights_sha256(reproduction.weights)[:12]}"
    if reproduction.experiment.table_1_only:
        return "random"
    if reproduction.experiment.compares_pretraining:
        return "that of each row"
    if not reproduction.experiment.pretraining:
        return "public weights (`--weights`)"
    recipe, _ = reproduction.experiment.pretraining_of(reproduction.backbone)
    return (
        f"pretrained on folds 1 to 8 without labels (`{recipe.objective}`, {recipe.epochs} epochs, "
        f"batch {recipe.batch_size})"
    )


def value(pooled: Json | None, *, signed: bool = False) -> str:
    """`0.9107 ± 0.0012 (0.9026 to 0.9187)`: mean, spread over seeds, interval of the mean."""
    if pooled is None:
        return NOT_RUN
    text = number(pooled["mean"], signed=signed, places=4)
    if pooled.get("spread") is not None:
        text += f" ± {number(pooled['spread'], places=4)}"
    if pooled["interval"] is not None:
        text += f" ({interval_text(pooled['interval'], signed=signed, places=4)})"
    return text


def seeds_text(pooled: Json | None) -> str:
    """`0, 1, 2`."""
    return NONE if pooled is None else ", ".join(map(str, pooled["seeds"]))


def _marks(entry: Json) -> list[tuple[str, str]]:
    """Marks of a row of table 1, each with its note."""
    notes = entry["short_schedule"], entry["our_reading"], ", ".join(entry["changes"])
    return [(mark, text) for mark, text in zip("†‡§", notes, strict=True) if text]


_ENVIRONMENT = templates(Path(__file__).parent / "templates")
_ENVIRONMENT.filters["marks"] = _marks
_ENVIRONMENT.globals.update(
    count=count, minutes=minutes, number=number, percent=percent, with_interval=with_interval,
    published=published, seeds=seeds_text, value=value,
)  # fmt: skip


def table_1(results: Results, stored: Json) -> Section:
    """Every row on every task beside the published peers, with costs and paired differences.

    `stored` has the numbers of table 1 beside the page, for rows whose runs are not at hand.
    """
    reproduction = results.reproduction
    experiment = reproduction.experiment
    tasks, rows = experiment.tasks, experiment.rows
    pairs = experiment.pairs(reproduction.backbone)
    sources: dict[str, dict[str, Groups]] = {row.name: {} for row in rows}
    for row in rows:
        for task in tasks:
            groups = tuple(Group(*pair, task) for pair in pairs[row.name])
            sources[row.name][task] = groups if row.members else groups[0]
    best = {task: group for task in tasks if (group := results.best_post_trained(task))}
    numbers: Json = {
        "published": {
            name: {task: vars(v) for task, v in values.items()}
            for name, values in published.ROWS.items()
        },
        "best_post_trained": {task: results.description(group) for task, group in best.items()},
        "best_post_trained_on": {
            task: _entry(results, group, None, None)
            for task, group in best.items()
            if all(by_task[task] != group for by_task in sources.values())
        },
        "rows": [_row_numbers(results, row, sources[row.name], best) for row in rows],
    }
    numbers = with_stored_rows(numbers, stored)
    entries = [entry for row in numbers["rows"] for entry in row["tasks"].values()]
    own_rows: dict[str, list[Json]] = {}  # our rows below the published ones
    for row, entry in zip(rows, numbers["rows"], strict=True):
        own_rows.setdefault(row.published or "", []).append(entry)
    return section(
        results,
        TABLE_1,
        numbers,
        tasks=tasks,
        results_available=sum(entry["auroc"] is not None for entry in entries),
        results_total=len(entries),
        own_rows=own_rows,
    )


def _row_numbers(
    results: Results, row: Row, sources: Mapping[str, Groups], best: Mapping[str, Group]
) -> Json:
    backbone, experiment = results.reproduction.backbone, results.reproduction.experiment
    pairs = experiment.pairs(backbone)[row.name]
    shorter, changes = zip(*(experiment.changes(v, name) for name, v in pairs), strict=True)
    counts = Counter(chain.from_iterable(changes))
    of_members = f"of {len(pairs)} members"
    quotes = published.ROWS.get(row.published or "", {})
    return {
        **row.model_dump(mode="json", include={"name", "variant", "members", "our_reading"}),
        "backbone": "" if row.members else pairs[0][0],
        "short_schedule": f"{sum(map(bool, shorter))} {of_members}"
        if row.members and any(shorter)
        else shorter[0],
        "changes": [
            change if n == len(pairs) else f"{change} ({n} {of_members})"
            for change, n in counts.items()
        ],
        "tasks": {
            task: _entry(results, source, quotes.get(task), best.get(task))
            for task, source in sources.items()
        },
    }


def _entry(
    results: Results, source: Groups, quote: published.Quote | None, best: Group | None
) -> Json:
    gaps = {}
    if best is not None and source != best:
        gaps = {metric: results.gap(best, source, metric) for metric in AUROC_AUPRC}
    return {
        "published": quote and vars(quote),
        **{metric: results.macro(source, metric) for metric in AUROC_AUPRC},
        "post_trained_minus_this": gaps,
        "cost": results.cost(source),
    }


def table_2(results: Results) -> Section:
    """Plain fine-tuning against post-training on every task, and the other table variants."""
    experiment, backbone = results.reproduction.experiment, results.reproduction.backbone
    groups = target_groups("table-2", experiment, backbone)
    numbers = {
        "groups": [_group_numbers(results, group) for group in groups],
        "gains": [_gain_numbers(results, task) for task in experiment.tasks],
        "by_frequency": list(
            chain.from_iterable(_stratum_numbers(results, task) for task in experiment.tasks)
        ),
    }
    return section(
        results,
        "table-2",
        numbers,
        pair=PAIR,
        variants=experiment.table_variants,
        by_group={(entry["task"], entry["variant"]): entry for entry in numbers["groups"]},
    )


def pair_of(results: Results, task: str) -> tuple[Group, Group]:
    """Post-training and plain fine-tuning."""
    backbone = results.reproduction.backbone
    return Group(backbone, POST, task), Group(backbone, PLAIN, task)


def _group_numbers(results: Results, group: Group) -> Json:
    numbers: Json = {"backbone": group.backbone, "variant": group.variant, "task": group.task}
    quotes = published.quoted(group.variant, group.task)
    for metric in AUROC_AUPRC:
        numbers[metric] = results.macro(group, metric)
        numbers[f"published_{metric}"] = quotes.get(metric)
    return numbers


def _gain_numbers(results: Results, task: str) -> Json:
    post, plain = pair_of(results, task)
    comparison = results.comparison(post, plain)
    numbers: Json = {"task": task, "comparison": comparison and comparison.to_dict()}
    for metric in AUROC_AUPRC:
        numbers[metric] = results.macro(post, metric, minus=plain)
        numbers[f"published_relative_{metric}"] = published.relative_gain(task, metric)
    return numbers


def _stratum_numbers(results: Results, task: str) -> list[Json]:
    """Both recipes on rare, less rare and common labels; nothing while a task lacks one."""
    post, plain = pair_of(results, task)
    strata = results.strata(post) if results.seeds(post, plain) else []
    if len(strata) < 2:
        return []
    for stratum in strata:
        labels = stratum["labels"]
        for metric in AUROC_AUPRC:
            stratum[metric] = results.macro(post, metric, minus=plain, labels=labels)
            for group in (plain, post):
                pooled = results.macro(group, metric, labels=labels)
                stratum[f"{metric}_{group.variant}"] = pooled and pooled["mean"]
    return [{"task": task} | stratum for stratum in strata]


def grid_table(results: Results) -> Section:
    """Every variant on the main task, and its difference to plain fine-tuning."""
    experiment, backbone = results.reproduction.experiment, results.reproduction.backbone
    _, plain = pair_of(results, experiment.main_task)
    groups = list(target_groups(GRID, experiment, backbone))
    costs = [results.cost(group) or {"seconds": None} for group in groups]
    numbers = [
        _group_numbers(results, group) | {"seconds": cost["seconds"]}
        for group, cost in zip(groups, costs, strict=True)
    ]
    return section(results, GRID, {"groups": numbers}, groups=groups, plain=plain)
