"""Figures 2 to 5: what is drawn, what is said about it, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from einthoven.report.data import stage_history
from einthoven.report.figures import label_differences
from einthoven.report.format import percent
from einthoven.reproduce import drawings, published
from einthoven.reproduce.drawings import Point
from einthoven.reproduce.evidence import METRICS, Evidence, Group, Metric, Pooled
from einthoven.reproduce.experiments import NO_DEPTH, NO_PROBE, OURS, PLAIN, SCRATCH, SCRATCH_OURS
from einthoven.reproduce.grid import ABLATION, WHOLE
from einthoven.reproduce.sections import Section, image, table
from einthoven.reproduce.wording import (
    METRIC_NAMES,
    NOT_RUN,
    footing,
    gain,
    paragraph,
    progress,
    recipes,
    seeds,
    value,
)


def figure_2(evidence: Evidence) -> Section:
    """Paired differences of every label on the main task."""
    ours, plain = _pair(evidence)
    comparison = evidence.comparison(ours, plain)
    pictures, shown, said = {}, [], []
    for metric in METRICS:
        if comparison is None:
            continue
        name = _file(evidence, f"figure-2-{metric}")
        pictures[name] = label_differences(
            comparison, metric, names=(OURS, PLAIN), name=f"figure-2-{metric}"
        )
        found = getattr(comparison, metric)
        shown.append(image(name, f"{METRIC_NAMES[metric]}, {OURS} minus {PLAIN}, by label"))
        higher, above = published.LABELS[metric]
        said.append(
            f"{METRIC_NAMES[metric].removeprefix('macro ')} is higher for {found.improved} of "
            f"{len(comparison.labels)} labels, {found.significantly_better} with an interval above "
            f"zero and {found.significantly_worse} below; published: {higher} and {above} of 71."
        )
    done = evidence.finished(ours, plain)
    text = f"""
### Figure 2: every label, `{OURS}` minus `{PLAIN}`, `{evidence.request.backbone}`

{paragraph(footing(evidence, [ours, plain]), _INTERVALS, *said) if done else _not_run()}

{_list(shown)}

{progress(evidence, "figure-2", [plain, ours])}"""
    numbers = {
        "seeds": list(done),
        "comparison": None if comparison is None else comparison.to_dict(),
    }
    return _section(evidence, "figure-2", text, pictures, numbers)


def figure_3(evidence: Evidence) -> Section:
    """Validation metrics by epoch on the main task."""
    groups = _pair(evidence)[::-1]
    histories = {
        group.arm: [
            stage_history(evidence.request.run_folder(group.cell(seed)))
            for seed in evidence.finished(group)
        ]
        for group in groups
    }
    present = {arm: each for arm, each in histories.items() if each}
    pictures, shown = {}, []
    if present:
        name = _file(evidence, "figure-3")
        pictures[name] = drawings.curves(present, reference=PLAIN, name="figure-3")
        shown.append(image(name, "Validation macro AUROC and AUPRC by epoch"))
    passed = {metric: _passes(present, metric) for metric in METRICS}
    text = f"""
### Figure 3: validation by epoch, `{evidence.request.backbone}`

{paragraph(_CURVES, *_said_of_curves(present, passed)) if present else _not_run()}

{_list(shown)}

{progress(evidence, "figure-3", groups)}"""
    numbers = {
        "histories": {
            arm: [
                {"seed": seed, "epochs": history}
                for seed, history in zip(
                    evidence.finished(group), histories[group.arm], strict=True
                )
            ]
            for arm, group in zip(histories, groups, strict=True)
        },
        "passes_reference_in_epoch": passed,
    }
    return _section(evidence, "figure-3", text, pictures, numbers)


def _passes(histories: dict[str, list[Any]], metric: Metric) -> int | None:
    """First epoch in which post-training's mean is above the best of plain fine-tuning's."""
    ours, plain = (
        drawings.mean_curve(histories.get(arm, ()), f"macro_{metric}") for arm in (OURS, PLAIN)
    )
    if not ours or not plain:
        return None
    return next((epoch for epoch, each in enumerate(ours, 1) if each > max(plain)), None)


def _said_of_curves(histories: dict[str, list[Any]], passed: dict[Metric, int | None]) -> list[str]:
    if not {OURS, PLAIN} <= histories.keys():
        return []
    said = []
    for metric in METRICS:
        best = max(drawings.mean_curve(histories[PLAIN], f"macro_{metric}"))
        when = "in no epoch" if passed[metric] is None else f"in epoch {passed[metric]}"
        said.append(
            f"Post-training passes plain fine-tuning's best {METRIC_NAMES[metric]} ({best:.4f}) "
            f"{when}."
        )
    return [*said, "Published: within 4 of 50 epochs, past 0.909 and 0.318."]


def figure_4(evidence: Evidence) -> Section:
    """Test values by share of the training records."""
    request = evidence.request
    task, shares = request.experiment.main_task, sorted({*request.experiment.fractions, WHOLE})
    groups = [
        Group(request.backbone, arm, task, share) for share in shares for arm in (PLAIN, OURS)
    ]
    lines, numbers = [], []
    points: dict[str, dict[float, dict[Metric, Point]]] = {}
    for group in groups:
        auroc, auprc = (evidence.macro(group, metric) for metric in METRICS)
        known = _published_point(group)
        quoted = [f"{known[metric]:.3f}" if metric in known else "–" for metric in METRICS]
        share = f"{100 * group.fraction:g} %"
        line = [share, f"`{group.arm}`", seeds(evidence, group)]
        lines.append([*line, value(auroc), quoted[0], value(auprc), quoted[1]])
        numbers.append(_numbers(group, auroc, auprc) | {"published": known})
        if auroc is not None and auprc is not None:
            by_share = points.setdefault(group.arm, {})
            by_share[group.fraction] = {"auroc": _point(auroc), "auprc": _point(auprc)}
    pictures, shown = {}, []
    if points:
        known_points = {
            group.arm: {g.fraction: _published_point(g) for g in groups if g.arm == group.arm}
            for group in groups
        }
        name = _file(evidence, "figure-4")
        pictures[name] = drawings.fractions(points, known_points, name="figure-4")
        shown.append(image(name, "Test macro AUROC and AUPRC by share of training records"))
    head = ["training records", "recipe", "seeds", "macro AUROC", "published", "macro AUPRC"]
    text = f"""
### Figure 4: fewer training records, {task}, `{request.backbone}`

{paragraph(footing(evidence, groups), _FRACTIONS)}

{table([*head, "published"], lines)}

{_list(shown)}

{progress(evidence, "figure-4", groups)}"""
    return _section(evidence, "figure-4", text, pictures, {"groups": numbers})


def _published_point(group: Group) -> dict[Metric, float]:
    if group.task != "all-71":
        return {}
    if group.fraction == WHOLE and group.arm in published.ROW_OF_ARM:
        row = published.ROW_OF_ARM[group.arm]
        return {m: published.BY_METRIC[m][row][group.task].value for m in METRICS}
    if group.arm == OURS and group.fraction in published.FRACTIONS:
        return {m: published.FRACTIONS[group.fraction][m] for m in METRICS}
    return {}


def figure_5(evidence: Evidence) -> Section:
    """The ablation on validation, and {random, pretrained} x {plain, post-training} on test."""
    request = evidence.request
    task = request.experiment.main_task
    present = [arm for arm in ABLATION if arm in request.experiment.arms]
    groups = {arm: Group(request.backbone, arm, task) for arm in present}
    drawn: dict[str, dict[Metric, Point]] = {}
    for arm, group in groups.items():
        auroc, auprc = (evidence.macro(group, metric, "validation") for metric in METRICS)
        if auroc is not None and auprc is not None:
            drawn[arm] = {"auroc": _point(auroc), "auprc": _point(auprc)}
    pictures, shown = {}, []
    if drawn:
        name = _file(evidence, "figure-5")
        pictures[name] = drawings.arms(drawn, split="validation", name="figure-5")
        shown.append(image(name, "Validation macro AUROC and AUPRC of every recipe"))
    pieces = [arm for arm in (OURS, NO_DEPTH, NO_PROBE) if arm in groups]
    numbers: dict[str, Any] = {"validation": [], "test": []}
    corners = [arm for arm in (SCRATCH, SCRATCH_OURS, PLAIN, OURS) if arm in groups]
    lines = [_ablation_line(evidence, groups[arm], groups[OURS], numbers) for arm in pieces]
    head = ["recipe", "seeds"]
    for metric in METRIC_NAMES.values():
        head += [metric, f"minus `{OURS}`", "relative", "published"]
    text = f"""
### Figure 5: what the pieces are worth, {task}, `{request.backbone}`

{recipes(evidence, list(groups.values()))}

{paragraph(footing(evidence, [groups[arm] for arm in pieces], "validation"), _ABLATION)}

{table(head, lines)}

{paragraph(_CORNERS, footing(evidence, [groups[arm] for arm in corners]))}

{_corners(evidence, {arm: groups[arm] for arm in corners}, numbers)}

{_list(shown)}

{progress(evidence, "figure-5", list(groups.values()))}"""
    return _section(evidence, "figure-5", text, pictures, numbers)


def _ablation_line(
    evidence: Evidence, group: Group, whole: Group, numbers: dict[str, Any]
) -> list[str]:
    line = [f"`{group.arm}`", seeds(evidence, group)]
    comparison = evidence.comparison(group, whole, "validation")
    found = _numbers(group, *(evidence.macro(group, m, "validation") for m in METRICS))
    for metric in METRICS:
        known = published.ABLATION.get(group.arm, {}).get(metric)
        paired = evidence.difference(group, whole, metric, "validation")
        line.append(value(evidence.macro(group, metric, "validation")))
        if group == whole:
            line += ["–"] * 3
            continue
        relative = None if comparison is None else getattr(comparison, metric).relative_gain
        line += [gain(paired), percent(relative, signed=True), percent(known, signed=True)]
        found[f"{metric}_difference"] = None if paired is None else paired.to_dict()
        found[f"{metric}_relative"] = relative
        found[f"{metric}_published_relative"] = known
    numbers["validation"].append(found)
    return line


def _corners(evidence: Evidence, groups: dict[str, Group], numbers: dict[str, Any]) -> str:
    """Rows: where weights come from. Columns: plain, post-training, and the gain."""
    rows = []
    for start, (plain, ours) in _STARTS.items():
        if plain not in groups or ours not in groups:
            continue
        for metric, name in METRIC_NAMES.items():
            row = [start, name, *(value(evidence.macro(groups[a], metric)) for a in (plain, ours))]
            rows.append([*row, gain(evidence.difference(groups[ours], groups[plain], metric))])
    for group in groups.values():
        numbers["test"].append(_numbers(group, *(evidence.macro(group, m) for m in METRICS)))
    return table(["weights", "metric", "plain", "post-training", "gain, paired"], rows)


_STARTS = {"random": (SCRATCH, SCRATCH_OURS), "pretrained": (PLAIN, OURS)}
_INTERVALS = "Bars: mean over seeds; lines: 95 % intervals, not corrected for their number."
_CURVES = (
    "Validation split (fold 9). Thin lines: seeds; thick lines: their mean; dotted: the best mean "
    "of plain fine-tuning."
)
_FRACTIONS = (
    "Subsets of training patients are nested and stratified; validation and test stay whole. "
    "Every arm keeps its number of epochs, so a tenth of the records is a tenth of the steps. "
    "Published: arXiv 2509.12991, as far as its text names values."
)
_ABLATION = (
    "The paper ablates on validation, so does this table. Without stochastic depth, dropout stays; "
    "without the probe, regularised fine-tuning starts from a new head."
)
_CORNERS = (
    "Random and pretrained weights, plainly fine-tuned and post-trained. Post-training from random "
    "weights is the whole recipe, its probe on the frozen random network included."
)


def _pair(evidence: Evidence) -> tuple[Group, Group]:
    backbone, task = evidence.request.backbone, evidence.request.experiment.main_task
    return Group(backbone, OURS, task), Group(backbone, PLAIN, task)


def _point(found: Pooled) -> Point:
    return Point(found.mean, found.interval)


def _numbers(group: Group, *found: Pooled | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        metric: None if each is None else each.to_dict()
        for metric, each in zip(METRICS, found, strict=True)
    }
    return {"arm": group.arm, "task": group.task, "fraction": group.fraction, **values}


def _list(images: Sequence[str]) -> str:
    return "\n\n".join(images)


def _not_run() -> str:
    return f"{NOT_RUN.capitalize()}."


def _file(evidence: Evidence, name: str) -> str:
    request = evidence.request
    return f"{name}--{request.backbone}--{request.experiment.name}.svg"


def _section(
    evidence: Evidence, what: str, text: str, pictures: dict[str, str], numbers: dict[str, Any]
) -> Section:
    request = evidence.request
    return Section(what, request.backbone, request.experiment.name, text, pictures, numbers)
