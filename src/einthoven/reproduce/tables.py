"""Table 2, and the table of every arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from einthoven.report.format import number, percent, with_interval
from einthoven.reproduce import published
from einthoven.reproduce.evidence import METRICS, Evidence, Group, Stratum
from einthoven.reproduce.experiments import OURS, PLAIN
from einthoven.reproduce.sections import Section, table
from einthoven.reproduce.wording import (
    METRIC_NAMES,
    counts,
    footing,
    gain,
    mean_minutes,
    paragraph,
    progress,
    recipes,
    seeds,
    value,
)
from einthoven.reproduce.wording import published as quoted

_BIAS = (
    "AUPRC is average precision; resampling duplicates the positives of rare labels, which biases "
    "it upward by the amount shown and puts its interval high."
)
_PAIRED = (
    "Post-training minus plain fine-tuning, paired: both on the same resamples. Labels: with a "
    "higher value / with an interval above zero / below zero, not corrected for their number. "
    "Relative gains are of the macro values."
)

_BY_FREQUENCY = (
    "The same by how many positives a label has on the test split. Of a rare label one record "
    "decides, and every label counts alike in a macro value."
)
_SAME_SEEDS = "Differences are paired, over the seeds that both have finished."
_SIDE_BY_SIDE = (
    "The same beside other recipes. Values without ± are of one seed; – stands for a recipe that "
    "the experiment does not run there."
)


def table_2(evidence: Evidence) -> Section:
    """Plain fine-tuning against post-training on every task, with paired gains.

    The experiment's other `table_arms` stand in a table of their own below the paper's.
    """
    request = evidence.request
    groups = [
        Group(request.backbone, arm, task)
        for task in request.experiment.tasks
        for arm in request.experiment.table_arms_of(task)
    ]
    pair = [group for group in groups if group.arm in (PLAIN, OURS)]
    numbers = {
        "groups": [_group_numbers(evidence, group) for group in groups],
        "gains": [_gain_numbers(evidence, task) for task in request.experiment.tasks],
        "by_frequency": [
            numbers for task in request.experiment.tasks for numbers in _strata(evidence, task)
        ],
    }
    gains = [line for task in request.experiment.tasks for line in _gain_lines(evidence, task)]
    text = f"""
### Table 2: plain fine-tuning and post-training, `{request.backbone}`

{recipes(evidence, groups)}

{paragraph(footing(evidence, groups), _BIAS, "Published: arXiv 2509.12991, ST-MEM base.")}

{table(_HEAD, [_group_line(evidence, group) for group in pair])}

{paragraph(_PAIRED)}

{table(_GAIN_HEAD, gains)}
{_by_frequency(evidence)}{_side_by_side(evidence, groups)}
{progress(evidence, "table-2", groups)}"""
    return _section(evidence, "table-2", text, numbers)


_HEAD = [
    "task", "recipe", "seeds", "macro AUROC", "published", "macro AUPRC", "bias of AUPRC",
    "published",
]  # fmt: skip
_GAIN_HEAD = [
    "task", "seeds", "AUROC", "relative", "published", "labels", "AUPRC", "relative", "published",
    "labels",
]  # fmt: skip


def _group_line(evidence: Evidence, group: Group) -> list[str]:
    row = published.ROW_OF_ARM[group.arm]
    auroc, auprc = (evidence.macro(group, metric) for metric in METRICS)
    bias = number(None if auprc is None else auprc.bias, signed=True, places=4)
    return [
        group.task,
        f"`{group.arm}`",
        seeds(evidence, group),
        value(auroc),
        quoted(published.AUROC[row].get(group.task)),
        value(auprc),
        bias,
        quoted(published.AUPRC[row].get(group.task)),
    ]


def _by_frequency(evidence: Evidence) -> str:
    """Both recipes on rare, less rare and common labels; nothing while no task has both."""
    lines = []
    for task in evidence.request.experiment.tasks:
        ours, plain = _pair(evidence, task)
        for stratum in _common_strata(evidence, task):
            line = [task, f"{stratum}", f"{len(stratum.labels)}"]
            for metric in METRICS:
                each = (evidence.macro(group, metric, among=stratum) for group in (plain, ours))
                line += ["–" if found is None else f"{found.mean:.4f}" for found in each]
                line.append(gain(evidence.difference(ours, plain, metric, among=stratum)))
            lines.append(line)
    if not lines:
        return ""
    head = ["task", "positives", "labels"]
    for name in METRIC_NAMES.values():
        head += [f"{name}, `{PLAIN}`", f"`{OURS}`", "difference"]
    return f"""
{paragraph(_BY_FREQUENCY, _SAME_SEEDS)}

{table(head, lines)}
"""


def _common_strata(evidence: Evidence, task: str) -> list[Stratum]:
    ours, plain = _pair(evidence, task)
    strata = evidence.strata(ours) if evidence.finished(ours, plain) else []
    return strata if len(strata) > 1 else []


def _strata(evidence: Evidence, task: str) -> list[dict[str, Any]]:
    ours, plain = _pair(evidence, task)
    found = []
    for stratum in _common_strata(evidence, task):
        numbers: dict[str, Any] = {"task": task, **stratum.to_dict()}
        for metric in METRICS:
            pooled = evidence.difference(ours, plain, metric, among=stratum)
            numbers[metric] = None if pooled is None else pooled.to_dict()
        found.append(numbers)
    return found


def _side_by_side(evidence: Evidence, groups: Sequence[Group]) -> str:
    """Every arm on every task, and post-training minus plain; nothing where the pair is all."""
    experiment = evidence.request.experiment
    if len(experiment.table_arms) == len((PLAIN, OURS)):
        return ""
    lines = []
    for metric, name in METRIC_NAMES.items():
        for task in experiment.tasks:
            known = {
                group.arm: value(evidence.macro(group, metric))
                for group in groups
                if group.task == task
            }
            paired = gain(evidence.difference(*_pair(evidence, task), metric))
            row = [name, task, *(known.get(arm, "–") for arm in experiment.table_arms), paired]
            lines.append(row)
    head = ["metric", "task", *(f"`{arm}`" for arm in experiment.table_arms)]
    head.append(f"`{OURS}` minus `{PLAIN}`")
    return f"""
{paragraph(_SIDE_BY_SIDE, _SAME_SEEDS)}

{table(head, lines)}
"""


def _gain_lines(evidence: Evidence, task: str) -> list[list[str]]:
    """One line for every seed where there are several, and one for their mean."""
    ours, plain = _pair(evidence, task)
    done = evidence.finished(ours, plain)
    lines = []
    if len(done) > 1:
        for i, seed in enumerate(done):
            line = [task, f"{seed}"]
            for metric in METRICS:
                found, base = (
                    evidence.difference(ours, plain, metric),
                    evidence.macro(plain, metric),
                )
                assert found is not None
                assert base is not None
                one = base.values[base.seeds.index(seed)]
                each = _single(found.values[i], found.intervals[i])
                line += [each, percent(found.values[i] / one, signed=True), "", ""]
            lines.append(line)
    whole = [task, "–" if not done else f"mean of {len(done)}" if len(done) > 1 else f"{done[0]}"]
    comparison = evidence.comparison(ours, plain)
    for metric in METRICS:
        relative = None if comparison is None else getattr(comparison, metric).relative_gain
        whole += [
            gain(evidence.difference(ours, plain, metric)),
            percent(relative, signed=True),
            percent(published.relative_gain(task, metric), signed=True),
            counts(comparison, metric),
        ]
    return [*lines, whole]


def _single(found: float, interval: tuple[float, float] | None) -> str:
    return with_interval(found, interval, signed=True, places=4)


def grid_table(evidence: Evidence) -> Section:
    """Every arm on the main task, and how it differs from plain fine-tuning."""
    request = evidence.request
    task = request.experiment.main_task
    plain = Group(request.backbone, PLAIN, task)
    groups = [Group(request.backbone, arm, task) for arm in request.experiment.arms]
    lines, numbers = [], []
    for group in groups:
        auroc, auprc = (evidence.macro(group, metric) for metric in METRICS)
        chosen = evidence.macro(group, "auroc", "validation")
        line = [f"`{group.arm}`", seeds(evidence, group), value(auroc), value(auprc)]
        line.append("–" if chosen is None else f"{chosen.mean:.4f}")
        for metric in METRICS:
            same = group == plain
            line.append("–" if same else gain(evidence.difference(group, plain, metric)))
        line.append(mean_minutes(evidence, group))
        lines.append(line)
        numbers.append(_group_numbers(evidence, group) | {"seconds": evidence.seconds(group)})
    head = ["recipe", "seeds", *METRIC_NAMES.values(), "validation AUROC"]
    head += [f"{name} minus `{PLAIN}`" for name in METRIC_NAMES.values()] + ["minutes"]
    text = f"""
### Every recipe on {task}, `{request.backbone}`

{recipes(evidence, groups)}

{paragraph(footing(evidence, groups), _SAME_SEEDS)}

{table(head, lines)}

{progress(evidence, "grid", groups)}"""
    return _section(evidence, "grid", text, {"groups": numbers})


def _pair(evidence: Evidence, task: str) -> tuple[Group, Group]:
    backbone = evidence.request.backbone
    return Group(backbone, OURS, task), Group(backbone, PLAIN, task)


def _group_numbers(evidence: Evidence, group: Group) -> dict[str, Any]:
    found: dict[str, Any] = {"backbone": group.backbone, "arm": group.arm, "task": group.task}
    row = published.ROW_OF_ARM.get(group.arm)
    for metric in METRICS:
        pooled = evidence.macro(group, metric)
        found[metric] = None if pooled is None else pooled.to_dict()
        quoted_value = published.BY_METRIC[metric].get(row or "", {}).get(group.task)
        found[f"published_{metric}"] = None if quoted_value is None else quoted_value.value
    return found


def _gain_numbers(evidence: Evidence, task: str) -> dict[str, Any]:
    ours, plain = _pair(evidence, task)
    comparison = evidence.comparison(ours, plain)
    found: dict[str, Any] = {"task": task}
    for metric in METRICS:
        pooled = evidence.difference(ours, plain, metric)
        found[metric] = None if pooled is None else pooled.to_dict()
        found[f"published_relative_{metric}"] = published.relative_gain(task, metric)
    found["comparison"] = None if comparison is None else comparison.to_dict()
    return found


def _section(evidence: Evidence, what: str, text: str, numbers: dict[str, Any]) -> Section:
    request = evidence.request
    return Section(what, request.backbone, request.experiment.name, text, {}, numbers)
