"""Figures 2 to 5: their numbers, for the templates, and their drawings as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from einthoven.files import Json
from einthoven.report.data import stage_history
from einthoven.report.figures import COLOURS, INK, drawing, label_differences, to_svg
from einthoven.reproduce import published
from einthoven.reproduce.experiment import NO_DEPTH, NO_PROBE, PLAIN, POST, SCRATCH, SCRATCH_POST
from einthoven.reproduce.grid import ABLATION, PAIR, WHOLE, Group
from einthoven.reproduce.results import AUROC_AUPRC, Metric, Results, Split
from einthoven.reproduce.tables import (
    NAMES,
    Section,
    pair_of,
    section,
)

History = Sequence[Mapping[str, Any]]
STARTS = {"random": (SCRATCH, SCRATCH_POST), "pretrained": (PLAIN, POST)}
_GRID: dict[str, Any] = {"color": "#a3a9b0", "alpha": 0.3, "lw": 0.5}


def figure_2(results: Results) -> Section:
    """Paired differences of every label on the main task."""
    post, plain = pair_of(results, results.reproduction.experiment.main_task)
    comparison = results.comparison(post, plain)
    drawings = {}
    if comparison is not None:
        for name, metric in (("figure-2-auroc", "auroc"), ("figure-2-auprc", "auprc")):
            drawings[_file(results, name)] = label_differences(
                comparison.to_dict(), metric, names=(POST, PLAIN), name=name
            )
    numbers = {
        "seeds": list(results.seeds(plain, post)),
        "comparison": comparison and comparison.to_dict(),
    }
    return section(results, "figure-2", [plain, post], numbers, drawings)


def figure_3(results: Results) -> Section:
    """Validation metrics by epoch on the main task."""
    post_group, plain_group = pair_of(results, results.reproduction.experiment.main_task)
    groups = (plain_group, post_group)
    histories: dict[str, list[Json]] = {
        group.variant: [
            {"seed": seed, "epochs": stage_history(folder)}
            for seed, (folder,) in results.folders(group).items()
        ]
        for group in groups
    }
    epochs = {name: [entry["epochs"] for entry in each] for name, each in histories.items() if each}
    drawings = {}
    best: dict[Metric, float] = {}  # of plain fine-tuning
    passed: dict[Metric, int | None] = dict.fromkeys(AUROC_AUPRC)
    if epochs:
        drawings[_file(results, "figure-3")] = draw_curves(epochs)
    if len(epochs) == len(PAIR):
        for metric in AUROC_AUPRC:
            post, plain = (mean_curve(epochs[name], f"macro_{metric}") for name in (POST, PLAIN))
            best[metric] = max(plain)
            above = (epoch for epoch, mean in enumerate(post, 1) if mean > best[metric])
            passed[metric] = next(above, None)
    numbers = {"histories": histories, "passes_reference_in_epoch": passed}
    return section(results, "figure-3", groups, numbers, drawings, best=best)


def figure_4(results: Results) -> Section:
    """Test values by share of the training records."""
    experiment, backbone = results.reproduction.experiment, results.reproduction.backbone
    shares = sorted({*experiment.fractions, WHOLE})
    groups = [Group(backbone, v, experiment.main_task, share) for share in shares for v in PAIR]
    entries = [_numbers(results, group) | {"published": _quote(group)} for group in groups]
    drawings = {}
    if finished := [entry for entry in entries if entry["auroc"]]:
        drawings[_file(results, "figure-4")] = draw_fractions(finished, entries)
    return section(results, "figure-4", groups, {"groups": entries}, drawings)


def _quote(group: Group) -> dict[Metric, float]:
    if group.task != "all-71":
        return {}
    if group.fraction == WHOLE:
        row = published.ROW_OF_VARIANT[group.variant]
        return {m: published.BY_METRIC[m][row][group.task].value for m in AUROC_AUPRC}
    if group.variant == POST and group.fraction in published.FRACTIONS:
        return {m: published.FRACTIONS[group.fraction][m] for m in AUROC_AUPRC}
    return {}


def figure_5(results: Results) -> Section:
    """The ablation on validation, and {random, pretrained} x {plain, post-training} on test."""
    experiment, backbone = results.reproduction.experiment, results.reproduction.backbone
    groups = {
        variant: Group(backbone, variant, experiment.main_task)
        for variant in ABLATION
        if variant in experiment.variants
    }
    validation = {v: _numbers(results, group, "validation") for v, group in groups.items()}
    pieces = [groups[variant] for variant in (POST, NO_DEPTH, NO_PROBE) if variant in groups]
    corners = [v for pair in STARTS.values() for v in pair if v in groups]
    numbers: Json = {
        "validation": [
            validation[group.variant] | _ablation(results, group, groups[POST]) for group in pieces
        ],
        "test": [_numbers(results, groups[variant]) for variant in corners],
    }
    drawings = {}
    if drawn := {v: entry for v, entry in validation.items() if entry["auroc"]}:
        drawings[_file(results, "figure-5")] = draw_variants(drawn)
    return section(
        results,
        "figure-5",
        list(groups.values()),
        numbers,
        drawings,
        corners=list(_corners(results, groups)),
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


def _corners(results: Results, groups: Mapping[str, Group]) -> Iterator[Json]:
    """Plain fine-tuning and post-training from the same start, and their paired difference."""
    for start, (plain, post) in STARTS.items():
        for metric in AUROC_AUPRC if {plain, post} <= groups.keys() else ():
            yield {
                "start": start,
                "metric": metric,
                "plain": results.macro(groups[plain], metric),
                "post": results.macro(groups[post], metric),
                "gain": results.macro(groups[post], metric, minus=groups[plain]),
            }


def _numbers(results: Results, group: Group, split: Split = "test") -> Json:
    return {
        "variant": group.variant,
        "task": group.task,
        "fraction": group.fraction,
        **{metric: results.macro(group, metric, split) for metric in AUROC_AUPRC},
    }


def _file(results: Results, name: str) -> str:
    reproduction = results.reproduction
    return f"{name}--{reproduction.backbone}--{reproduction.experiment.name}.svg"


def draw_curves(histories: Mapping[str, Sequence[History]]) -> str:
    """Validation macro AUROC and AUPRC by epoch: thin lines are seeds, thick ones their mean.

    Parameters
    ----------
    histories : mapping of str to sequence of history
        Lines of `metrics.jsonl` of every seed, by variant.
    """
    with drawing():
        figure, panels = _two_panels("Validation")
        for axes, metric in zip(panels, AUROC_AUPRC, strict=True):
            for (variant, seeds), colour in zip(histories.items(), COLOURS, strict=False):
                key = f"macro_{metric}"
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
        _legend(figure, list(histories))
        alt = f"Validation macro AUROC and AUPRC by epoch, of {', '.join(histories)}"
        return to_svg(figure, name="figure-3", alt=alt)


def mean_curve(seeds: Sequence[History], key: str) -> list[float]:
    """A metric's mean over seeds for every epoch that all of them have."""
    curves = [[float(line[key]) for line in history] for history in seeds]
    shortest = min(map(len, curves), default=0)
    return np.mean([curve[:shortest] for curve in curves], axis=0).tolist() if shortest else []


def draw_fractions(entries: Sequence[Json], quotes: Sequence[Json]) -> str:
    """Test macro AUROC and AUPRC by share of the training records; crosses are published.

    Parameters
    ----------
    entries : sequence of dict
        Macro values of the finished groups.
    quotes : sequence of dict
        Groups with a published value.
    """
    variants = list(dict.fromkeys(entry["variant"] for entry in entries))
    with drawing():
        figure, panels = _two_panels("Test")
        for axes, metric in zip(panels, AUROC_AUPRC, strict=True):
            for index, (variant, colour) in enumerate(zip(variants, COLOURS, strict=False)):
                # Side by side, so that intervals at one share can be told apart.
                offset = 0.8 * (index - len(variants) / 2 + 0.5)
                mine = [entry for entry in entries if entry["variant"] == variant]
                x = [100 * entry["fraction"] + offset for entry in mine]
                y = [entry[metric]["mean"] for entry in mine]
                axes.plot(x, y, color=colour, lw=1.4, marker="o", ms=3.5)
                limits = [entry[metric]["interval"] or [np.nan, np.nan] for entry in mine]
                axes.vlines(x, *np.transpose(limits), color=colour, lw=0.9)
                known = {
                    100 * quote["fraction"]: quote["published"][metric]
                    for quote in quotes
                    if quote["variant"] == variant and quote["published"]
                }
                axes.plot([*known], [*known.values()], ls="", marker="x", ms=5, color=colour)
            axes.set_xlabel("training records, %")
            axes.set_xlim(0, 104)
        _legend(figure, variants, [("published, ST-MEM base", "x")])
        alt = f"Test macro AUROC and AUPRC by share of training records, of {', '.join(variants)}"
        return to_svg(figure, name="figure-4", alt=alt)


def draw_variants(entries: Mapping[str, Json]) -> str:
    """Validation macro AUROC and AUPRC of every variant with its interval, one below the other."""
    with drawing():
        height = 0.7 + 0.24 * len(entries)
        figure, panels = _two_panels("Validation", height=height, left=0.2, below=0.3)
        places = range(len(entries))
        for axes, metric in zip(panels, AUROC_AUPRC, strict=True):
            pooled = [entry[metric] for entry in entries.values()]
            limits = [each["interval"] or [np.nan, np.nan] for each in pooled]
            means = [each["mean"] for each in pooled]
            axes.plot(means, places, ls="", marker="o", ms=4.5, color=COLOURS[0])
            axes.hlines(places, *np.transpose(limits), color=COLOURS[0], lw=1.1)
            axes.set_ylim(len(entries) - 0.5, -0.5)
            axes.set_yticks(places, list(entries) if axes is panels[0] else [""] * len(entries))
            axes.tick_params(axis="y", length=0)
        alt = f"Macro AUROC and AUPRC, validation, of {', '.join(entries)}"
        return to_svg(figure, name="figure-5", alt=alt)


def _two_panels(
    split: str, *, height: float = 3.1, left: float = 0.06, below: float = 0.75
) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(8.2, height))
    panels = figure.subplots(1, 2)
    for axes, title in zip(panels, NAMES.values(), strict=True):
        axes.set_title(f"{split} {title}", fontsize=8.5, loc="left")
        axes.grid(**_GRID)
    bottom, top = below / height, 1 - 0.3 / height
    figure.subplots_adjust(left=left, right=0.99, top=top, bottom=bottom, wspace=0.16)
    return figure, panels


def _legend(figure: Figure, names: list[str], markers: Sequence[tuple[str, str]] = ()) -> None:
    handles = [Line2D([], [], color=c, lw=1.6) for _, c in zip(names, COLOURS, strict=False)]
    handles += [Line2D([], [], color=INK, ls="", marker=marker, ms=5) for _, marker in markers]
    labels = [*names, *(text for text, _ in markers)]
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=8.5)
