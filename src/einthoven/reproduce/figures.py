"""Figures 2 to 5: their numbers, for the templates, and their drawings as SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from einthoven.cohorts.cohort import Split
from einthoven.files import Json
from einthoven.report.data import History, stage_history
from einthoven.report.figures import COLOURS, INK, drawing, label_differences, to_svg
from einthoven.reproduce import published
from einthoven.reproduce.experiment import NO_DEPTH, NO_PROBE, PLAIN, POST, SCRATCH, SCRATCH_POST
from einthoven.reproduce.grid import PAIR, Group, target_groups
from einthoven.reproduce.results import AUROC_AUPRC, Metric, Results
from einthoven.reproduce.tables import NAMES, Section, pair_of, section

STARTS = {"random": (SCRATCH, SCRATCH_POST), "pretrained": (PLAIN, POST)}
_GRID: dict[str, Any] = {"color": "#a3a9b0", "alpha": 0.3, "lw": 0.5}


def figure_2(results: Results) -> Section:
    """Paired differences of every label on the main task."""
    post, plain = pair_of(results, results.reproduction.experiment.main_task)
    comparison = results.comparison(post, plain)
    changes = None if comparison is None else comparison.to_dict()
    drawings = {}
    if changes is not None:
        for metric in AUROC_AUPRC:
            name = f"figure-2-{metric}"
            drawings[name] = label_differences(changes, metric, names=(POST, PLAIN), name=name)
    numbers = {"seeds": list(results.seeds(plain, post)), "comparison": changes}
    return section(results, "figure-2", numbers, drawings)


def figure_3(results: Results) -> Section:
    """Validation metrics by epoch on the main task."""
    groups = pair_of(results, results.reproduction.experiment.main_task)[::-1]
    histories: dict[str, list[Json]] = {
        group.variant: [
            {"seed": seed, "epochs": stage_history(folder)}
            for seed, (folder,) in results.folders(group).items()
        ]
        for group in groups
    }
    epochs = {name: [run["epochs"] for run in runs] for name, runs in histories.items() if runs}
    best: dict[Metric, float] = {}  # of plain fine-tuning
    passed: dict[Metric, int | None] = dict.fromkeys(AUROC_AUPRC)
    for metric in AUROC_AUPRC if len(epochs) == len(PAIR) else ():
        post, plain = (mean_curve(epochs[name], f"macro_{metric}") for name in (POST, PLAIN))
        best[metric] = max(plain)
        above = (epoch for epoch, mean in enumerate(post, 1) if mean > best[metric])
        passed[metric] = next(above, None)
    drawings = {"figure-3": draw_curves(epochs)} if epochs else {}
    numbers = {"histories": histories, "passes_reference_in_epoch": passed}
    return section(results, "figure-3", numbers, drawings, best=best)


def figure_4(results: Results) -> Section:
    """Test values by share of the training records."""
    experiment, backbone = results.reproduction.experiment, results.reproduction.backbone
    entries = []
    for group in target_groups("figure-4", experiment, backbone):
        recipe = results.reproduction.recipe(group.run(0))
        quote = None
        name = f"{group.backbone}, {group.variant}"
        if group.backbone == backbone:
            name = group.variant
            quote = published.quoted(group.variant, group.task, group.fraction)
        epochs = recipe.stage2 and recipe.stage2.epochs
        numbers = {"name": name, "epochs": epochs, "published": quote}
        entries.append(_numbers(results, group) | numbers)
    has_results = any(entry["auroc"] for entry in entries)
    drawings = {"figure-4": draw_fractions(entries)} if has_results else {}
    return section(results, "figure-4", {"groups": entries}, drawings)


def figure_5(results: Results) -> Section:
    """The ablation on validation, and {random, pretrained} x {plain, post-training} on test."""
    experiment, backbone = results.reproduction.experiment, results.reproduction.backbone
    groups = {group.variant: group for group in target_groups("figure-5", experiment, backbone)}
    validation = {v: _numbers(results, group, "validation") for v, group in groups.items()}
    numbers: Json = {
        "validation": [
            validation[variant] | _ablation(results, groups[variant], groups[POST])
            for variant in (POST, NO_DEPTH, NO_PROBE)
            if variant in groups
        ],
        "test": [
            _numbers(results, groups[variant])
            for pair in STARTS.values()
            for variant in pair
            if variant in groups
        ],
    }
    finished = {variant: entry for variant, entry in validation.items() if entry["auroc"]}
    return section(
        results,
        "figure-5",
        numbers,
        {"figure-5": draw_variants(finished)} if finished else {},
        groups=groups,
        starts=STARTS,
    )


def _ablation(results: Results, group: Group, whole: Group) -> Json:
    """Differences of a variant to post-training on validation; empty for itself."""
    numbers: Json = {}
    comparison = results.comparison(group, whole, "validation")
    for metric in AUROC_AUPRC if group != whole else ():
        difference = results.macro(group, metric, "validation", minus=whole)
        numbers[f"{metric}_difference"] = difference
        numbers[f"{metric}_relative"] = comparison and getattr(comparison, metric).relative_gain
        quote = published.ABLATION.get(group.variant, {}).get(metric)
        numbers[f"{metric}_published_relative"] = quote
    return numbers


def _numbers(results: Results, group: Group, split: Split = "test") -> Json:
    return {
        "variant": group.variant,
        "task": group.task,
        "fraction": group.fraction,
        **{metric: results.macro(group, metric, split) for metric in AUROC_AUPRC},
    }


def draw_curves(histories: Mapping[str, Sequence[History]]) -> str:
    """Draw validation metrics by epoch: seeds of a variant thin, their mean thick."""

    def draw(axes: Axes, metric: Metric) -> None:
        key = f"macro_{metric}"
        for (variant, seeds), colour in zip(histories.items(), COLOURS, strict=False):
            for history in seeds if len(seeds) > 1 else ():
                curve = [line[key] for line in history]
                axes.plot(range(1, len(curve) + 1), curve, color=colour, lw=0.6, alpha=0.5)
            mean = mean_curve(seeds, key)
            marker = "." if len(mean) == 1 else ""
            axes.plot(range(1, len(mean) + 1), mean, color=colour, lw=1.6, marker=marker)
            if variant == PLAIN and mean:
                axes.axhline(max(mean), color=colour, lw=0.7, ls=":")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))

    alt = f"Validation macro AUROC and AUPRC by epoch, of {', '.join(histories)}"
    return _two_panels("figure-3", "Validation", draw, alt, legend=list(histories))


def mean_curve(seeds: Sequence[History], key: str) -> list[float]:
    """A metric's mean over seeds for every epoch that all of them have."""
    curves = [[float(line[key]) for line in history] for history in seeds]
    shortest = min(map(len, curves), default=0)
    return np.mean([curve[:shortest] for curve in curves], axis=0).tolist() if shortest else []


def draw_fractions(entries: Sequence[Json]) -> str:
    """Draw test metrics by share of the training records; crosses are published."""
    finished = [entry for entry in entries if entry["auroc"]]
    variants = list(dict.fromkeys(entry["name"] for entry in finished))

    def draw(axes: Axes, metric: Metric) -> None:
        for index, (variant, colour) in enumerate(zip(variants, COLOURS, strict=False)):
            # Side by side, so that intervals at one share can be distinguished.
            offset = 0.8 * (index - len(variants) / 2 + 0.5)
            points = [entry for entry in finished if entry["name"] == variant]
            x = [100 * entry["fraction"] + offset for entry in points]
            means, limits = _means_and_limits([entry[metric] for entry in points])
            axes.plot(x, means, color=colour, lw=1.4, marker="o", ms=3.5)
            axes.vlines(x, *limits, color=colour, lw=0.9)
            quotes = {
                100 * entry["fraction"]: entry["published"][metric]
                for entry in entries
                if entry["name"] == variant and entry["published"]
            }
            axes.plot([*quotes], [*quotes.values()], ls="", marker="x", ms=5, color=colour)
        axes.set_xlabel("training records, %")
        axes.set_xlim(0, 104)

    alt = f"Test macro AUROC and AUPRC by share of training records, of {', '.join(variants)}"
    crosses = "published, ST-MEM base"
    return _two_panels("figure-4", "Test", draw, alt, legend=variants, crosses=crosses)


def draw_axis(name: str, axis: str, series: Mapping[str, Mapping[float, Json]]) -> str:
    """Draw test metrics over the values of an axis of pretraining, with their intervals."""

    def draw(axes: Axes, metric: Metric) -> None:
        for points, colour in zip(series.values(), COLOURS, strict=False):
            x = sorted(points)
            means, limits = _means_and_limits([points[value][metric] for value in x])
            axes.plot(x, means, color=colour, lw=1.4, marker="o", ms=3.5)
            axes.vlines(x, *limits, color=colour, lw=0.9)
        axes.set_xlabel(axis)

    alt = f"Test macro AUROC and AUPRC over {axis}, of {'; '.join(series)}"
    return _two_panels(name, "Test", draw, alt, legend=list(series))


def draw_variants(entries: Mapping[str, Json]) -> str:
    """Draw validation metrics of every variant with their intervals, one below the other."""
    places = range(len(entries))

    def draw(axes: Axes, metric: Metric) -> None:
        means, limits = _means_and_limits([entry[metric] for entry in entries.values()])
        axes.plot(means, places, ls="", marker="o", ms=4.5, color=COLOURS[0])
        axes.hlines(places, *limits, color=COLOURS[0], lw=1.1)
        axes.set_ylim(len(entries) - 0.5, -0.5)
        axes.set_yticks(places, list(entries) if metric == "auroc" else [""] * len(entries))
        axes.tick_params(axis="y", length=0)

    alt = f"Macro AUROC and AUPRC, validation, of {', '.join(entries)}"
    size: Any = {"height": 0.7 + 0.24 * len(entries), "left": 0.2, "below": 0.3}
    return _two_panels("figure-5", "Validation", draw, alt, **size)


def _means_and_limits(pooled: Sequence[Json]) -> tuple[list[float], Any]:
    limits = [numbers["interval"] or [np.nan, np.nan] for numbers in pooled]
    return [numbers["mean"] for numbers in pooled], np.transpose(limits)


def _two_panels(
    name: str,
    split: str,
    draw: Callable[[Axes, Metric], None],
    alt: str,
    *,
    legend: Sequence[str] = (),
    crosses: str = "",
    height: float = 3.1,
    left: float = 0.06,
    below: float = 0.75,
) -> str:
    """Draw AUROC and AUPRC side by side; sizes in inches, `left` as a share of the width."""
    with drawing():
        figure = Figure(figsize=(8.2, height))
        for axes, (metric, title) in zip(figure.subplots(1, 2), NAMES.items(), strict=True):
            axes.set_title(f"{split} {title}", fontsize=8.5, loc="left")
            axes.grid(**_GRID)
            draw(axes, metric)
        bottom, top = below / height, 1 - 0.3 / height
        figure.subplots_adjust(left=left, right=0.99, top=top, bottom=bottom, wspace=0.16)
        handles = [Line2D([], [], color=c, lw=1.6) for _, c in zip(legend, COLOURS, strict=False)]
        if crosses:
            handles.append(Line2D([], [], color=INK, ls="", marker="x", ms=5))
        if handles:
            labels = [*legend, crosses][: len(handles)]
            place: Json = {"loc": "lower center", "ncols": 4, "frameon": False, "fontsize": 8.5}
            figure.legend(handles, labels, **place)
        return to_svg(figure, name=name, alt=alt)
