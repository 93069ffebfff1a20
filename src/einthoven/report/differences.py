"""How every label fares against the reference: the figure of paired differences."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from einthoven.errors import EvaluationError
from einthoven.evaluate.comparison import Comparison, Difference
from einthoven.report.svg import INK, drawing, to_svg

Metric = Literal["auroc", "auprc"]
METRICS: dict[Metric, str] = {"auroc": "AUROC", "auprc": "AUPRC"}

BETTER, WORSE, OPEN = "#2a7fb8", "#d1602a", "#a3a9b0"
_LONGEST_NAME = 26
_WIDTH = 5.2  # inches


def label_differences(
    comparison: Comparison,
    metric: Metric,
    *,
    names: tuple[str, str] = ("a", "b"),
    name: str = "differences",
) -> str:
    """Bars of a metric's difference for every label, sorted, as SVG.

    Labels whose interval leaves out zero are coloured and in bold; labels without a value are left
    out. (Figure 2 of arXiv 2509.12991.)

    Parameters
    ----------
    comparison : Comparison
    metric : {"auroc", "auprc"}
    names : pair of str
        What the two runs are called.
    name : str
        Put before the ids in the SVG; give each figure of a page its own.

    Raises
    ------
    EvaluationError
        For another metric.
    """
    if metric not in METRICS:
        raise EvaluationError(
            f"metric = {metric!r} has no figure of differences",
            remedy=f"use one of {', '.join(METRICS)}",
        )
    found: Difference = getattr(comparison, metric)
    alt = (
        f"Bars of the {METRICS[metric]} difference, {names[0]} minus {names[1]}, for every label, "
        f"largest first: {found.improved} of {len(comparison.labels)} above zero"
    )
    with drawing():
        return to_svg(_figure(comparison, found, METRICS[metric], names), name=name, alt=alt)


def verdicts(found: Difference) -> NDArray[np.int64]:
    """1 where a label's interval lies above zero, -1 where it lies below, else 0."""
    if found.intervals is None:
        return np.zeros(len(found.per_label), dtype=np.int64)
    above, below = found.intervals[:, 0] > 0, found.intervals[:, 1] < 0
    return above.astype(np.int64) - below.astype(np.int64)


def _figure(
    comparison: Comparison, found: Difference, metric: str, names: tuple[str, str]
) -> Figure:
    order = np.argsort(-found.per_label, kind="stable")
    order = order[~np.isnan(found.per_label[order])]
    pitch = float(np.interp(len(order), [8, 40], [0.26, 0.155]))
    height = pitch * max(len(order), 2)
    figure = Figure(figsize=(_WIDTH, height + 0.85))
    left = _room(comparison, order) / _WIDTH
    axes = figure.add_axes((left, 0.45 / (height + 0.85), 0.98 - left, height / (height + 0.85)))
    _draw_bars(axes, found, order)
    _name_labels(axes, comparison, verdicts(found)[order], order)
    _style(axes, f"{metric} of {_short(names[0])} minus {metric} of {_short(names[1])}")
    _explain(axes, verdicts(found)[order], has_intervals=found.intervals is not None)
    return figure


def _room(comparison: Comparison, order: NDArray[np.intp]) -> float:
    # Inches for the longest name; about 0.065 a character, and the legend must fit beside it.
    longest = max((len(_named(comparison, i)) for i in order.tolist()), default=0)
    return min(0.2 + 0.065 * longest, 0.42 * _WIDTH)


def _named(comparison: Comparison, label: int) -> str:
    return f"{_short(comparison.labels[label])} ({comparison.positives[label]})"


def _draw_bars(axes: Axes, found: Difference, order: NDArray[np.intp]) -> None:
    places = np.arange(len(order))
    colours = [(OPEN, BETTER, WORSE)[verdict] for verdict in verdicts(found)[order]]
    axes.barh(places, found.per_label[order], height=0.72, color=colours, zorder=2)
    if found.intervals is not None:
        low, high = found.intervals[order].T
        axes.hlines(places, low, high, color=INK, lw=0.8, zorder=3)
    axes.axvline(0, color=INK, lw=0.8, zorder=4)


def _name_labels(
    axes: Axes, comparison: Comparison, verdict: NDArray[np.int64], order: NDArray[np.intp]
) -> None:
    named = [_named(comparison, i) for i in order.tolist()]
    axes.set_yticks(range(len(order)), named)
    size = float(np.interp(len(order), [8, 40], [8.0, 6.8]))
    for text, significant in zip(axes.get_yticklabels(), verdict != 0, strict=True):
        text.set(fontsize=size, fontweight="bold" if significant else "normal")


def _style(axes: Axes, label: str) -> None:
    axes.set_ylim(len(axes.get_yticks()) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.grid(axis="x", color=OPEN, alpha=0.35, lw=0.5, zorder=0)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _explain(axes: Axes, verdict: NDArray[np.int64], *, has_intervals: bool) -> None:
    if not has_intervals:
        return
    kinds = ((1, BETTER, "better"), (0, OPEN, "interval holds zero"), (-1, WORSE, "worse"))
    counted = [(colour, f"{text}: {int((verdict == k).sum())}") for k, colour, text in kinds]
    axes.legend(
        [Patch(color=colour) for colour, _ in counted],
        [text for _, text in counted],
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=3,
        frameon=False,
        fontsize=7.5,
        handlelength=1.0,
        columnspacing=1.2,
    )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
