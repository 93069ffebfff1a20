"""Small figures of a label, or of the mean over labels: ROC, precision, benefit, calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from einthoven.files import Json
from einthoven.report.figures import COLOURS, GREY, INK, drawing, to_svg

_SIZE = (3.1, 2.75)  # inches: readable in one column of a phone
_LINE, _POINT = COLOURS[0], COLOURS[1]


def macro_panels(curves: Json) -> list[Markup]:
    """Draw ROC and precision-recall of the mean over labels."""
    macro, name = curves["macro"], "panel-macro"
    return [
        _roc(curves, macro["roc"], None, "mean over labels", name),
        _precision(curves, macro["precision"], None, None, "mean over labels", name),
    ]


def label_panels(curves: Json, label: str, decision: Json | None, place: int) -> list[Markup]:
    """Draw the curves of a label; a dot marks its threshold, if there is a `decision`.

    `curves` is a `Curves.to_dict()`, `place` makes the ids unique.
    """
    entry, name = curves["per_label"][label], f"panel-{place}"
    prevalence = entry["positives"] / (entry["positives"] + entry["negatives"])
    return [
        _roc(curves, entry["roc"], decision, label, name),
        _precision(curves, entry["precision"], decision, prevalence, label, name),
        _net_benefit(curves, entry, decision, label, name),
        _calibration(entry["bins"], label, name),
    ]


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE)
    axes = figure.add_axes((0.2, 0.17, 0.76, 0.72))
    axes.set_title(title, fontsize=8.5, loc="left")
    axes.set(xlabel=x, ylabel=y)
    axes.grid(color=GREY, alpha=0.3, lw=0.5)
    axes.tick_params(length=0)  # the grid is enough
    return figure, axes


def _band(axes: Axes, x: Sequence[float], curve: Json) -> None:
    if curve["low"] is not None:
        low, high = (np.array(curve[k], dtype=float) for k in ("low", "high"))
        axes.fill_between(x, low, high, color=_LINE, alpha=0.22, lw=0)
    axes.plot(x, np.array(curve["value"], dtype=float), color=_LINE, lw=1.5)


def _mark(axes: Axes, x: float | None, y: float | None) -> None:
    if x is not None and y is not None:
        axes.plot([x], [y], ls="", marker="o", ms=6, mfc=_POINT, mec="white", mew=0.9, zorder=4)


def _roc(curves: Json, curve: Json, decision: Json | None, label: str, name: str) -> Markup:
    with drawing():
        figure, axes = _axes("ROC", "1 − specificity", "sensitivity")
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls="--")
        _band(axes, curves["false_positive_rates"], curve)
        if decision and decision["specificity"] is not None:
            _mark(axes, 1 - decision["specificity"], decision["sensitivity"])
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
        return to_svg(figure, name=f"{name}-roc", alt=f"ROC curve with its band: {label}")


def _precision(
    curves: Json, curve: Json, decision: Json | None, prevalence: float | None, label: str,
    name: str,
) -> Markup:  # fmt: skip
    with drawing():
        figure, axes = _axes("Precision and recall", "recall (sensitivity)", "precision (PPV)")
        if prevalence is not None:
            axes.axhline(prevalence, color=GREY, lw=0.9, ls="--")
        _band(axes, curves["recalls"], curve)
        if decision:
            _mark(axes, decision["sensitivity"], decision["precision"])
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
        alt = f"Precision-recall curve with its band: {label}"
        return to_svg(figure, name=f"{name}-precision", alt=alt)


def _net_benefit(curves: Json, entry: Json, decision: Json | None, label: str, name: str) -> Markup:
    with drawing():
        figure, axes = _axes("Net benefit", "threshold probability", "net benefit")
        thresholds = np.array(curves["thresholds"])
        axes.axhline(0, color=INK, lw=0.8, ls=":")
        axes.plot(thresholds, entry["treat_all"], color=GREY, lw=1.1, ls="--")
        _band(axes, curves["thresholds"], entry["net_benefit"])
        if decision:
            axes.axvline(decision["threshold"], color=_POINT, lw=1.0, ls="-.")
        benefit = entry["net_benefit"]
        top = max(entry["treat_all"] + (benefit["high"] or benefit["value"]))
        axes.set(xlim=(0, 1), ylim=(-0.3 * top, 1.05 * top))
        handles = [axes.plot([], [], color=c, ls=s)[0] for c, s in ((GREY, "--"), (INK, ":"))]
        names = ["call all", "call none"]
        axes.legend(handles, names, fontsize=7, frameon=False, loc="upper right")
        alt = f"Net benefit by threshold, against calling all and calling none: {label}"
        return to_svg(figure, name=f"{name}-benefit", alt=alt)


def _calibration(bins: Sequence[Json], label: str, name: str) -> Markup:
    x, y = (np.array([entry[key] for entry in bins]) for key in ("probability", "observed"))
    with drawing():
        figure, axes = _axes("Calibration", "mean probability", "share of positives")
        limits = np.array([entry["interval"] or (np.nan, np.nan) for entry in bins])
        axes.vlines(x, *limits.T, color=_LINE, lw=1.2, alpha=0.7)
        axes.plot(x, y, color=_LINE, marker="s", ms=4, lw=1.0, mew=0)
        top = min(1.02, 1.1 * max(x.max(), np.nanmax(limits), y.max()))
        axes.plot([0, top], [0, top], color=GREY, lw=0.9, ls="--")
        axes.set(xlim=(0, top), ylim=(0, top))
        alt = f"Share of positives by mean probability, with intervals: {label}"
        return to_svg(figure, name=f"{name}-calibration", alt=alt)
