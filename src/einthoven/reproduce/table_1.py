"""Table 1 in words: networks that were made for the task, beside the best post-trained model."""

from __future__ import annotations

from typing import Any

from einthoven.report.format import minutes
from einthoven.reproduce import published
from einthoven.reproduce.costs import Cost
from einthoven.reproduce.earlier import Earlier
from einthoven.reproduce.evidence import METRICS, Evidence, Metric
from einthoven.reproduce.experiments import TABLE_1
from einthoven.reproduce.folders import State
from einthoven.reproduce.sections import Section, table
from einthoven.reproduce.standings import RowStanding, Standing, Standings, standings
from einthoven.reproduce.wording import (
    command,
    footing,
    gap,
    paragraph,
    progress,
    seeds,
    value,
)
from einthoven.reproduce.wording import published as quoted

SHORT, OUR_READING, CHANGED, KEPT = "†", "‡", "§", "¶"
BEST = "**best post-trained model**"
_QUOTED = (
    "Published values are those of table 1 of arXiv 2509.12991, which quotes its rows from their "
    "own papers, except the last two: its plain and its post-trained ST-MEM."
)
_LEADERBOARD = (
    "Behind a value, (08): the leaderboard's own uncertainty of 0.008, the farther end of a 90 % "
    "interval of 100 record resamples. The leaderboard's models are those of the last epoch, but "
    "for Wavelet+NN, which is that of the lowest validation loss; all on PTB-XL 1.0.1, whose fold "
    "10 has five records more than 1.0.3's. Nobody reports AUPRC of the peers."
)
_IN_FULL = (
    "Task by task. AUPRC is average precision; resampling duplicates the positives of rare labels, "
    "which puts its interval high. Post-trained minus row: both are means over their own seeds, on "
    "the same resamples; above zero, post-training is better. Minutes are of training, with "
    "validation after every epoch and without pretraining; records a second are of its median "
    "epoch. Both tell what the machine was also doing."
)
_BEST = (
    "The best post-trained model is that of the highest macro AUROC on fold 9 among the finished "
    "runs and bundles that this command knows:"
)
_KEPT = (
    "Kept from this page as it was: the runs are not among those that this command knows. A lead "
    "needs the runs of both, and is shown where it was measured with the best post-trained model "
    "that is named here."
)
_NO_BEST = (
    "No finished post-training run is known to hold the rows against: name one, the folder of "
    "another reproduction, or a bundle such as `einthoven-small`, with `--against`."
)
_HEAD = [
    "row", "seeds", "published", "macro AUROC", "macro AUPRC", "post-trained minus row, AUROC",
    "post-trained minus row, AUPRC", "parameters", "minutes", "records/s", "trained on",
]  # fmt: skip


def table_1(evidence: Evidence, earlier: Earlier | None = None) -> Section:
    """Macro AUROC as the paper has it, ours below the rows they stand beside; then every task in
    full, with AUPRC, costs and paired differences.

    Rows whose runs are not at hand have the numbers of an `earlier` table, where there is one.
    """
    request, found = evidence.request, standings(evidence, earlier)
    name = request.backbone or request.experiment.name
    text = f"""
### Table 1: beside the published peers, `{name}`

{paragraph("Macro AUROC.", *_sources(found), footing(evidence, found.models()))}

{table(["row", "whose", *found.tasks], _matrix(found))}

{_notes(found)}

{_in_full(evidence, found)}

{progress(evidence, TABLE_1, found.models())}
{_commands(evidence, found)}"""
    return Section(TABLE_1, request.backbone, request.experiment.name, text, {}, found.to_dict())


def _sources(found: Standings) -> list[str]:
    """Where the published values on the page are from."""
    shown = {each.row.published for each in found.rows}
    rows = [name for name in published.FURTHER if name in shown]
    columns = [task for task in found.tasks if task not in published.TASKS]
    groups = (("the row", rows), ("the column", columns))
    named = [f"{what}{'s' * (len(each) > 1)} {', '.join(each)}" for what, each in groups if each]
    if not named:
        return [_QUOTED, _LEADERBOARD]
    other = f"Of the leaderboard of Strodthoff et al. (2021) alone are {' and '.join(named)}."
    return [_QUOTED, other, _LEADERBOARD]


def _matrix(found: Standings) -> list[list[str]]:
    """Published rows, and ours below the row they stand beside."""
    lines: list[list[str]] = []
    beside: dict[str, list[RowStanding]] = {}
    for each in found.rows:
        beside.setdefault(each.row.published or "", []).append(each)
    for name, values in published.ROWS.items():
        mine = beside.pop(name, [])
        if mine or name in published.AUROC:
            lines.append([name, "published", *(quoted(values.get(task)) for task in found.tasks)])
            lines += [_our_line(each) for each in mine]
    lines += [_our_line(each) for left in beside.values() for each in left]
    if found.strangers:
        known = {task: _value(each) for task, each in found.strangers.items()}
        lines.append([BEST, "ours", *(known.get(task, "–") for task in found.tasks)])
    return lines


def _our_line(each: RowStanding) -> list[str]:
    return [_named(each), "ours", *map(_value, each.on.values())]


def _value(each: Standing) -> str:
    return value(each.values["auroc"]) + (f" {KEPT}" if each.is_kept else "")


def _named(each: RowStanding) -> str:
    name = f"**{each.row.name}**"
    if each.backbone and each.backbone != each.row.name:
        name += f", `{each.backbone}`"
    marked = (
        (SHORT, each.short_schedule),
        (OUR_READING, each.row.our_reading),
        (CHANGED, each.changes),
    )
    return " ".join([name, *(mark for mark, said in marked if said)])


def _notes(found: Standings) -> str:
    """What the marks stand for, and which post-trained model it is."""
    short = [f"{each.row.name}: {each.short_schedule}" for each in found.rows]
    ours = [f"{each.row.name}: {each.row.our_reading}" for each in found.rows]
    said = []
    for mark, what, all_of_them in (
        (SHORT, "A shorter schedule than the recipe's.", short),
        (OUR_READING, "Our reading of a network whose sources leave much open.", ours),
    ):
        listed = [each for each in all_of_them if not each.endswith(": ")]
        said += [f"{mark} {what} {'; '.join(listed)}."] if listed else []
    said += _changed(found)
    standing = [each for row in found.rows for each in row.on.values()]
    if any(each.is_kept for each in (*standing, *found.strangers.values())):
        said.append(f"{KEPT} {_KEPT}")
    chosen = "; ".join(_chosen(task, best) for task, best in found.best.items())
    said.append(f"{_BEST} {chosen}." if chosen else _NO_BEST)
    return "\n\n".join(map(paragraph, said))


def _changed(found: Standings) -> list[str]:
    """Every change of a recipe, with the rows that have it."""
    having: dict[str, list[str]] = {}
    for each in found.rows:
        for change in each.changes:
            having.setdefault(change, []).append(each.row.name)
    listed = [f"{change}: {', '.join(names)}" for change, names in having.items()]
    return [f"{CHANGED} Changed in the row's recipe. {'; '.join(listed)}."] if listed else []


def _chosen(task: str, best: dict[str, Any]) -> str:
    done, digest = best["seeds"], best["weights_sha256"]
    weights = "random weights" if digest is None else f"weights {digest[:12]}"
    bundle = f"the bundle `{best['bundle']}`, " if best.get("bundle") else ""
    return (
        f"{task} {bundle}`{best['recipe']}` of `{best['backbone']}`, seed{'s' * (len(done) > 1)} "
        f"{', '.join(map(str, done))} ({best['validation_auroc']:.4f}; {weights})"
    )


def _in_full(evidence: Evidence, found: Standings) -> str:
    """A table of every task on which some row is run, and the names of the others."""
    done = [task for task in found.tasks if any(row.on[task].is_run for row in found.rows)]
    parts = [paragraph(_IN_FULL)] if done else []
    for task in done:
        lines = [_full_line(evidence, _named(row), row.on[task]) for row in found.rows]
        if task in found.strangers:
            name = f"{BEST}, `{found.best[task]['backbone']}`"
            lines.insert(0, _full_line(evidence, name, found.strangers[task]))
        parts.append(f"#### {task}\n\n{table(_HEAD, lines)}")
    left = [task for task in found.tasks if task not in done]
    if left:
        parts.append(paragraph(f"No row is run yet on {', '.join(left)}."))
    return "\n\n".join(parts)


def _full_line(evidence: Evidence, name: str, each: Standing) -> list[str]:
    kept = each.values["auroc"] if each.is_kept else None
    line = [f"{name} {KEPT}" if kept else name, seeds(evidence, each.model, kept)]
    line += [quoted(each.quote)]
    line += [value(each.values[metric]) for metric in METRICS]
    line += [_held_against(each, metric) for metric in METRICS]
    return [*line, *_cost(each.cost)]


def _cost(cost: Cost | None) -> list[str]:
    if cost is None:
        return 4 * ["–"]
    parameters, rate = ("–" if n is None else f"{n:,.0f}" for n in (cost.parameters, cost.rate))
    spent = "–" if cost.seconds is None else minutes(cost.seconds)
    return [parameters, spent, rate, cost.device]


def _held_against(each: Standing, metric: Metric) -> str:
    return gap(each.gaps[metric]) if metric in each.gaps else "–"


def _commands(evidence: Evidence, found: Standings) -> str:
    """For every row of which something is missing, the command that runs it alone."""
    late = [
        each.row.name
        for each in found.rows
        if any(
            evidence.state(cell) is not State.DONE
            for on in each.on.values()
            if not on.is_kept
            for cell in evidence.cells(on.model)
        )
    ]
    if not late or len(found.rows) == 1:
        return ""
    whole = [command(evidence.request, TABLE_1, "--only", f"row={name}") for name in late]
    said = paragraph("Each row of them alone; with `--only task=TASK`, one task of it:")
    return said + "\n\n" + "\n".join(f"    {each}" for each in whole)
