"""Tables 1 and 2 and the table of every variant: their numbers, and their lines on a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from einthoven.evaluate.comparison import Comparison
from einthoven.files import Json
from einthoven.report.format import NONE, count, interval, minutes, number, percent
from einthoven.reproduce import published
from einthoven.reproduce.experiment import PLAIN, POST, Row
from einthoven.reproduce.grid import GRID, PAIR, TABLE_1, Group, pairs_of_row
from einthoven.reproduce.results import (
    AUROC_AUPRC,
    Metric,
    Results,
    Source,
    groups_of,
    with_stored_rows,
)
from einthoven.reproduce.run import Reproduction, weights_sha256

NOT_RUN = "not run yet"
NAMES: dict[Metric, str] = {"auroc": "macro AUROC", "auprc": "macro AUPRC"}
Line = list[str]


@dataclass(frozen=True)
class Section:
    """A table or figure, ready to be written.

    Attributes
    ----------
    target : str
    backbone, experiment : str
        The backbone is empty if the experiment's rows name theirs.
    text : str
        Markdown, heading included.
    numbers : dict
        Every number of the section, for JSON.
    drawings : mapping of str to str
        File name to SVG.
    has_results : bool
        Whether any of its runs is finished.
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
    sources: Sequence[Source],
    numbers: Json,
    drawings: Mapping[str, str] | None = None,
    **context: Any,
) -> Section:
    """Render the template of a table or figure.

    Parameters
    ----------
    sources : sequence of Source
        Everything that the section shows, to count its runs.
    context
        Variables of the template.
    """
    reproduction = results.reproduction
    backbone, experiment = reproduction.backbone, reproduction.experiment
    groups = [group for source in sources for group in groups_of(source)]
    done = sum(len(results.folders(group)) for group in dict.fromkeys(groups))
    total = sum(
        len(experiment.seeds_of(group.variant, group.task, group.fraction))
        for group in dict.fromkeys(groups)
    )
    text = _ENVIRONMENT.get_template(f"{target}.md.j2").render(
        results=results,
        name=backbone or experiment.name,
        file=f"{backbone}--{experiment.name}",
        task=experiment.main_task,
        done=done,
        total=total,
        weights=weights_text(reproduction),
        recipes=_recipes(reproduction, groups) if target != TABLE_1 else {},
        **context,
    )
    return Section(
        target, backbone, experiment.name, text, numbers, drawings or {}, has_results=done > 0
    )


def _recipes(reproduction: Reproduction, groups: Sequence[Group]) -> dict[str, Any]:
    return {group.variant: reproduction.recipe(group.run(0)) for group in groups}


def weights_text(reproduction: Reproduction) -> str:
    """Initial weights of a reproduction, for a page."""
    if reproduction.weights is not None:
        return f"`{reproduction.weights.name}`, SHA-256 {weights_sha256(reproduction.weights)[:12]}"
    if reproduction.experiment.table_1_only:
        return "random"
    recipe = reproduction.experiment.pretraining_recipe(reproduction.backbone)
    return (
        f"pretrained on folds 1 to 8 without labels (`{recipe.objective}`, {recipe.epochs} epochs, "
        f"batch {recipe.batch_size})"
    )


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


_ENVIRONMENT = Environment(
    loader=PackageLoader("einthoven.reproduce"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.globals["table"] = table


def value(pooled: Json | None, *, signed: bool = False) -> str:
    """`0.9107 ± 0.0012 (0.9026 to 0.9187)`: mean, spread over seeds, interval of the mean."""
    if pooled is None:
        return NOT_RUN
    text = number(pooled["mean"], signed=signed, places=4)
    if pooled.get("spread") is not None:
        text += f" ± {number(pooled['spread'], places=4)}"
    if pooled["interval"] is not None:
        text += f" ({interval(pooled['interval'], signed=signed, places=4)})"
    return text


def quoted(published_value: published.Value | None) -> str:
    """A published value with its interval, or with the leaderboard's uncertainty: `0.925(08)`."""
    if published_value is None:
        return NONE
    text = number(published_value.value)
    if published_value.thousandths is not None:
        return f"{text}({published_value.thousandths:02d})"
    limits = published_value.interval
    return text if limits is None else f"{text} ({interval(limits)})"


def seeds_text(pooled: Json | None) -> str:
    """`0, 1, 2`."""
    return NONE if pooled is None else ", ".join(map(str, pooled["seeds"]))


def table_1(results: Results, stored: Json) -> Section:
    """Every row on every task beside the published peers, with costs and paired differences.

    Parameters
    ----------
    results : Results
    stored : dict
        Numbers of table 1 beside the page, for rows whose runs are not at hand; may be empty.
    """
    reproduction = results.reproduction
    experiment = reproduction.experiment
    tasks, rows = experiment.tasks, experiment.table_rows
    groups = {task: results.best_post_trained(task) for task in tasks}
    best = {task: group for task, group in groups.items() if group is not None}
    sources = {row.name: {task: _source(reproduction, row, task) for task in tasks} for row in rows}
    others = {  # best models that are none of the rows
        task: group
        for task, group in best.items()
        if all(sources[row.name][task] != group for row in rows)
    }
    numbers: Json = {
        "published": {
            name: {task: vars(v) for task, v in values.items()}
            for name, values in published.ROWS.items()
        },
        "best_post_trained": {task: results.description(group) for task, group in best.items()},
        "best_post_trained_on": {
            task: _entry(results, group, None, None) for task, group in others.items()
        },
        "rows": [_row_numbers(results, row, sources[row.name], best) for row in rows],
    }
    numbers = with_stored_rows(numbers, stored)
    details = {task: list(_details(numbers, task)) for task in tasks}
    return section(
        results,
        TABLE_1,
        [source for by_task in sources.values() for source in by_task.values()],
        numbers,
        tasks=list(tasks),
        matrix=list(_matrix(numbers, rows, tasks)),
        notes=list(_notes(numbers)),
        best=[_best_line(task, model) for task, model in numbers["best_post_trained"].items()],
        details={task: lines for task, lines in details.items() if lines},
    )


def _source(reproduction: Reproduction, row: Row, task: str) -> Source:
    pairs = pairs_of_row(reproduction.experiment, row, reproduction.backbone)
    groups = tuple(Group(backbone, variant, task) for backbone, variant in pairs)
    return groups[0] if row.variant else groups


def _row_numbers(
    results: Results,
    row: Row,
    sources: Mapping[str, Source],
    best: Mapping[str, Group],
) -> Json:
    reproduction = results.reproduction
    experiment = reproduction.experiment
    pairs = pairs_of_row(experiment, row, reproduction.backbone)
    shorter = [experiment.short_schedule(variant, backbone) for backbone, variant in pairs]
    short = shorter[0]
    if row.members:
        short = f"{sum(map(bool, shorter))} of {len(pairs)} members" if any(shorter) else ""
    counts = Counter(c for backbone, v in pairs for c in experiment.changes(v, backbone))
    changes = [
        change if n == len(pairs) else f"{change} ({n} of {len(pairs)} members)"
        for change, n in counts.items()
    ]
    quotes = published.ROWS.get(row.published or "", {})
    return {
        **row.model_dump(mode="json", include={"name", "variant", "members", "our_reading"}),
        "backbone": "" if row.members else row.backbone or reproduction.backbone,
        "short_schedule": short,
        "changes": changes,
        "tasks": {
            task: _entry(results, source, quotes.get(task), best.get(task))
            for task, source in sources.items()
        },
    }


def _entry(
    results: Results, source: Source, quote: published.Value | None, best: Group | None
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


def _matrix(numbers: Json, rows: Sequence[Row], tasks: Sequence[str]) -> Iterator[Line]:
    """Published rows, and ours below the row that they are compared with."""
    beside: dict[str, list[Json]] = {}
    for row, entry in zip(rows, numbers["rows"], strict=True):
        beside.setdefault(row.published or "", []).append(entry)
    for name, values in published.ROWS.items():
        ours = beside.pop(name, [])
        if ours or name in published.AUROC:
            yield [name, "published", *(quoted(values.get(task)) for task in tasks)]
        yield from (_our_line(entry, tasks) for entry in ours)
    for entries in beside.values():
        yield from (_our_line(entry, tasks) for entry in entries)
    if others := numbers["best_post_trained_on"]:
        shown = [value(others[task]["auroc"]) if task in others else NONE for task in tasks]
        yield ["**best post-trained model**", "ours", *shown]


def _our_line(entry: Json, tasks: Sequence[str]) -> Line:
    return [_name(entry), "ours", *(value(entry["tasks"][task]["auroc"]) for task in tasks)]


def _name(entry: Json) -> str:
    name = f"**{entry['name']}**"
    if entry["backbone"] not in ("", entry["name"]):
        name += f", `{entry['backbone']}`"
    return " ".join([name, *(mark for mark, _ in _marks(entry))])


def _marks(entry: Json) -> list[tuple[str, str]]:
    marks = (
        ("†", entry["short_schedule"]),
        ("‡", entry["our_reading"]),
        ("§", ", ".join(entry["changes"])),
    )
    return [(mark, text) for mark, text in marks if text]


def _notes(numbers: Json) -> Iterator[Line]:
    for entry in numbers["rows"]:
        yield from ([entry["name"], mark, text] for mark, text in _marks(entry))


def _best_line(task: str, model: Json) -> Line:
    name = f"`{model['recipe']}` of `{model['backbone']}`"
    if model.get("model"):
        name = f"`{model['model']}`, {name}"
    weights = (model["weights_sha256"] or "random")[:12]
    validation = number(model["validation_auroc"], places=4)
    return [task, name, seeds_text(model), validation, weights]


def _details(numbers: Json, task: str) -> Iterator[Line]:
    """Lines of a task's table, for the rows that are run on it; none without such a row."""
    if not any(entry["tasks"][task]["auroc"] for entry in numbers["rows"]):
        return
    if task in numbers["best_post_trained_on"]:
        backbone = numbers["best_post_trained"][task]["backbone"]
        name = f"**best post-trained model**, `{backbone}`"
        yield _detail(name, numbers["best_post_trained_on"][task])
    for entry in numbers["rows"]:
        if entry["tasks"][task]["auroc"]:
            yield _detail(_name(entry), entry["tasks"][task])


def _detail(name: str, entry: Json) -> Line:
    quote = entry["published"] and published.Value(**entry["published"])
    gaps = entry["post_trained_minus_this"]
    cost = entry["cost"] or dict.fromkeys(("parameters", "seconds", "rate", "device"))
    return [
        name,
        seeds_text(entry["auroc"]),
        quoted(quote),
        *(value(entry[metric]) for metric in AUROC_AUPRC),
        *(value(gaps[m], signed=True) if m in gaps else NONE for m in AUROC_AUPRC),
        count(cost["parameters"]),
        NONE if cost["seconds"] is None else minutes(cost["seconds"]),
        NONE if cost["rate"] is None else f"{cost['rate']:,.0f}",
        cost["device"] or NONE,
    ]


def table_2(results: Results) -> Section:
    """Plain fine-tuning against post-training on every task, and the other table variants."""
    reproduction = results.reproduction
    experiment, backbone = reproduction.experiment, reproduction.backbone
    groups = [
        Group(backbone, variant, task)
        for task in experiment.tasks
        for variant in experiment.table_variants_of(task)
    ]
    group_numbers = [_group_numbers(results, group) for group in groups]
    gains = [_gain_numbers(results, task) for task in experiment.tasks]
    strata = [entry for task in experiment.tasks for entry in _stratum_numbers(results, task)]
    numbers = {"groups": group_numbers, "gains": gains, "by_frequency": strata}
    everything = len(experiment.table_variants) > len(PAIR)
    return section(
        results,
        "table-2",
        groups,
        numbers,
        pair=[_pair_line(entry) for entry in group_numbers if entry["variant"] in PAIR],
        gains=[line for entry in gains for line in _gain_lines(results, entry)],
        strata=[_stratum_line(entry) for entry in strata],
        variants=[f"`{variant}`" for variant in experiment.table_variants],
        side_by_side=list(_side_by_side(results, group_numbers, gains)) if everything else [],
    )


def pair_of(results: Results, task: str) -> tuple[Group, Group]:
    """Post-training and plain fine-tuning."""
    backbone = results.reproduction.backbone
    return Group(backbone, POST, task), Group(backbone, PLAIN, task)


def _group_numbers(results: Results, group: Group) -> Json:
    numbers: Json = {"backbone": group.backbone, "variant": group.variant, "task": group.task}
    row = published.ROW_OF_VARIANT.get(group.variant, "")
    for metric in AUROC_AUPRC:
        quote = published.BY_METRIC[metric].get(row, {}).get(group.task)
        numbers[metric] = results.macro(group, metric)
        numbers[f"published_{metric}"] = quote and quote.value
    return numbers


def _gain_numbers(results: Results, task: str) -> Json:
    post, plain = pair_of(results, task)
    comparison = results.comparison(post, plain)
    numbers: Json = {"task": task, "comparison": comparison and comparison.to_dict()}
    for metric in AUROC_AUPRC:
        numbers[metric] = results.macro(post, metric, minus=plain)
        numbers[f"published_relative_{metric}"] = published.relative_gain(task, metric)
    return numbers


def _stratum_numbers(results: Results, task: str) -> Iterator[Json]:
    """Both recipes on rare, less rare and common labels; nothing while a task lacks one."""
    post, plain = pair_of(results, task)
    strata = results.strata(post) if results.seeds(post, plain) else []
    for stratum in strata if len(strata) > 1 else []:
        numbers: Json = {"task": task, **stratum}
        for metric in AUROC_AUPRC:
            numbers[metric] = results.macro(post, metric, minus=plain, labels=stratum["labels"])
            for group in (plain, post):
                pooled = results.macro(group, metric, labels=stratum["labels"])
                numbers[f"{metric}_{group.variant}"] = pooled and pooled["mean"]
        yield numbers


def _pair_line(entry: Json) -> Line:
    row, task = published.ROW_OF_VARIANT[entry["variant"]], entry["task"]
    bias = entry["auprc"] and entry["auprc"]["bias"]
    return [
        task,
        f"`{entry['variant']}`",
        seeds_text(entry["auroc"]),
        value(entry["auroc"]),
        quoted(published.AUROC[row].get(task)),
        value(entry["auprc"]),
        number(bias, signed=True, places=4),
        quoted(published.AUPRC[row].get(task)),
    ]


def _gain_lines(results: Results, entry: Json) -> Iterator[Line]:
    """One line for every seed if there are several, and one for their mean."""
    post, plain = pair_of(results, entry["task"])
    seeds = results.seeds(post, plain)
    for index, seed in enumerate(seeds if len(seeds) > 1 else ()):
        line = [entry["task"], f"{seed}"]
        for metric in AUROC_AUPRC:
            base = results.macro(plain, metric)
            assert base is not None
            change = entry[metric]["values"][index]
            single = {"mean": change, "interval": entry[metric]["intervals"][index]}
            relative = change / base["values"][base["seeds"].index(seed)]
            line += [value(single, signed=True), percent(relative, signed=True), "", ""]
        yield line
    comparison = results.comparison(post, plain)
    line = [
        entry["task"],
        f"mean of {len(seeds)}" if len(seeds) > 1 else seeds_text(entry["auroc"]),
    ]
    for metric in AUROC_AUPRC:
        line += [
            value(entry[metric], signed=True),
            percent(relative_gain(comparison, metric), signed=True),
            percent(entry[f"published_relative_{metric}"], signed=True),
            " / ".join(label_counts(comparison, metric)) or NOT_RUN,
        ]
    yield line


def relative_gain(comparison: Comparison | None, metric: Metric) -> float | None:
    """Relative gain of the macro value."""
    return None if comparison is None else getattr(comparison, metric).relative_gain


def label_counts(comparison: Comparison | None, metric: Metric) -> list[str]:
    """Labels with a higher value, with an interval above zero, and with one below zero."""
    if comparison is None:
        return []
    change = getattr(comparison, metric)
    counts = (change.improved, change.significantly_better, change.significantly_worse)
    return [str(n) for n in counts if n is not None]


def _stratum_line(entry: Json) -> Line:
    open_ended = entry["high"] is None
    positives = f"{entry['low']}" + (" and more" if open_ended else f" to {entry['high']}")
    line = [entry["task"], positives, f"{len(entry['labels'])}"]
    for metric in AUROC_AUPRC:
        line += [number(entry[f"{metric}_{variant}"], places=4) for variant in PAIR]
        line.append(value(entry[metric], signed=True))
    return line


def _side_by_side(
    results: Results, groups: Sequence[Json], gains: Sequence[Json]
) -> Iterator[Line]:
    """Every variant on every task, and post-training minus plain fine-tuning."""
    for metric, name in NAMES.items():
        for gain in gains:
            task = gain["task"]
            values = {g["variant"]: value(g[metric]) for g in groups if g["task"] == task}
            variants = results.reproduction.experiment.table_variants
            shown = [values.get(variant, NONE) for variant in variants]
            yield [name, task, *shown, value(gain[metric], signed=True)]


def grid_table(results: Results) -> Section:
    """Every variant on the main task, and its difference to plain fine-tuning."""
    experiment, task = results.reproduction.experiment, results.reproduction.experiment.main_task
    _, plain = pair_of(results, task)
    groups = [Group(plain.backbone, variant, task) for variant in experiment.variants]
    numbers, lines = [], []
    for group in groups:
        cost = results.cost(group)
        entry = _group_numbers(results, group) | {"seconds": cost and cost["seconds"]}
        validation = results.macro(group, "auroc", "validation")
        line = [f"`{group.variant}`", seeds_text(entry["auroc"])]
        line += [value(entry["auroc"]), value(entry["auprc"])]
        line.append(number(None if validation is None else validation["mean"], places=4))
        for metric in AUROC_AUPRC:
            change = None if group == plain else results.macro(group, metric, minus=plain)
            line.append(NONE if group == plain else value(change, signed=True))
        line.append(NONE if entry["seconds"] is None else minutes(entry["seconds"]))
        numbers.append(entry)
        lines.append(line)
    return section(results, GRID, groups, {"groups": numbers}, lines=lines)
