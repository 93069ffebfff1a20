"""The figures' drawings, as SVG: curves of several seeds, fractions, and the ablation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from einthoven.report.figures import COLOURS, INK, drawing, to_svg
from einthoven.reproduce.evidence import METRICS, Metric

TITLES: dict[Metric, str] = {"auroc": "macro AUROC", "auprc": "macro AUPRC"}
History = Sequence[Mapping[str, Any]]
_GRID: dict[str, Any] = {"color": "#a3a9b0", "alpha": 0.3, "lw": 0.5}


@dataclass(frozen=True)
class Point:
    """A value with its interval, where there is one."""

    value: float
    interval: tuple[float, float] | None = None


def curves(histories: Mapping[str, Sequence[History]], *, reference: str, name: str) -> str:
    """Validation macro AUROC and AUPRC by epoch: thin lines are seeds, thick ones their mean.

    Parameters
    ----------
    histories : mapping of str to sequence of history
        Lines of `metrics.jsonl` of every seed, by arm.
    reference : str
        The arm whose best mean value is drawn as a level.
    name : str
        Put before the ids in the SVG.
    """
    with drawing():
        figure, panels = _two_panels("validation")
        for axes, metric in zip(panels, METRICS, strict=True):
            for (arm, seeds), colour in zip(histories.items(), COLOURS, strict=False):
                _draw_curves(axes, seeds, f"macro_{metric}", colour, level=arm == reference)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _name_arms(figure, list(histories))
        alt = f"Validation macro AUROC and AUPRC by epoch, of {', '.join(histories)}"
        return to_svg(figure, name=name, alt=alt)


def mean_curve(seeds: Sequence[History], key: str) -> list[float]:
    """A metric's mean over seeds for every epoch that all of them have."""
    values = [[float(line[key]) for line in history] for history in seeds]
    shortest = min(map(len, values), default=0)
    return np.mean([each[:shortest] for each in values], axis=0).tolist() if shortest else []


def _draw_curves(
    axes: Axes, seeds: Sequence[History], key: str, colour: str, *, level: bool
) -> None:
    for history in seeds:
        if len(seeds) > 1:
            values = [line[key] for line in history]
            axes.plot(range(1, len(values) + 1), values, color=colour, lw=0.6, alpha=0.5)
    mean = mean_curve(seeds, key)
    marker = "." if len(mean) == 1 else ""
    axes.plot(range(1, len(mean) + 1), mean, color=colour, lw=1.6, marker=marker)
    if level and mean:
        axes.axhline(max(mean), color=colour, lw=0.7, ls=":")


def fractions(
    points: Mapping[str, Mapping[float, Mapping[Metric, Point]]],
    published: Mapping[str, Mapping[float, Mapping[Metric, float]]],
    *,
    name: str,
) -> str:
    """Test macro AUROC and AUPRC by share of the training records; crosses are published.

    Parameters
    ----------
    points : mapping
        By arm, share and metric.
    published : mapping
        The same, of the paper.
    name : str
        Put before the ids in the SVG.
    """
    with drawing():
        figure, panels = _two_panels("test")
        for axes, metric in zip(panels, METRICS, strict=True):
            for i, ((arm, by_share), colour) in enumerate(
                zip(points.items(), COLOURS, strict=False)
            ):
                _draw_points(
                    axes, by_share, metric, colour, aside=0.8 * (i - len(points) / 2 + 0.5)
                )
                known = {s: v[metric] for s, v in published.get(arm, {}).items() if metric in v}
                shares = [100 * share for share in known]
                axes.plot(shares, list(known.values()), ls="", marker="x", ms=5, color=colour)
            axes.set_xlabel("training records, %")
            axes.set_xlim(0, 104)
        _name_arms(figure, list(points), extra=[("published, ST-MEM base", "x")])
        alt = f"Test macro AUROC and AUPRC by share of training records, of {', '.join(points)}"
        return to_svg(figure, name=name, alt=alt)


def _draw_points(
    axes: Axes,
    by_share: Mapping[float, Mapping[Metric, Point]],
    metric: Metric,
    colour: str,
    *,
    aside: float,
) -> None:
    # A little aside of each other, so that intervals at one share can be told apart.
    shares = sorted(by_share)
    found = [by_share[share][metric] for share in shares]
    x = [100 * share + aside for share in shares]
    axes.plot(x, [each.value for each in found], color=colour, lw=1.4, marker="o", ms=3.5)
    for at, each in zip(x, found, strict=True):
        if each.interval:
            axes.plot([at, at], each.interval, color=colour, lw=0.9)


def arms(values: Mapping[str, Mapping[Metric, Point]], *, split: str, name: str) -> str:
    """Macro AUROC and AUPRC of every arm with its interval, one below the other.

    Parameters
    ----------
    values : mapping
        By arm and metric.
    split : str
        Of the values.
    name : str
        Put before the ids in the SVG.
    """
    with drawing():
        figure, panels = _two_panels(split, height=0.7 + 0.24 * len(values), left=0.2, below=0.3)
        places = range(len(values))
        for axes, metric in zip(panels, METRICS, strict=True):
            for place, each in zip(places, values.values(), strict=True):
                point = each[metric]
                axes.plot([point.value], [place], marker="o", ms=4.5, color=COLOURS[0])
                if point.interval:
                    axes.plot(point.interval, [place, place], color=COLOURS[0], lw=1.1)
            axes.set_ylim(len(values) - 0.5, -0.5)
            axes.set_yticks(places, list(values) if axes is panels[0] else [""] * len(values))
            axes.tick_params(axis="y", length=0)
        alt = f"Macro AUROC and AUPRC, {split}, of {', '.join(values)}"
        return to_svg(figure, name=name, alt=alt)


def _two_panels(
    split: str, *, height: float = 3.1, left: float = 0.06, below: float = 0.75
) -> tuple[Figure, Any]:
    figure = Figure(figsize=(8.2, height))
    panels = figure.subplots(1, 2)
    for axes, title in zip(panels, TITLES.values(), strict=True):
        axes.set_title(f"{split.capitalize()} {title}", fontsize=8.5, loc="left")
        axes.grid(**_GRID)
    bottom, top = below / height, 1 - 0.3 / height
    figure.subplots_adjust(left=left, right=0.99, top=top, bottom=bottom, wspace=0.16)
    return figure, panels


def _name_arms(figure: Figure, names: list[str], extra: Sequence[tuple[str, str]] = ()) -> None:
    handles = [Line2D([], [], color=c, lw=1.6) for _, c in zip(names, COLOURS, strict=False)]
    handles += [Line2D([], [], color=INK, ls="", marker=marker, ms=5) for _, marker in extra]
    labels = [*names, *(text for text, _ in extra)]
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=8.5)
