"""Small figures of a label, or of the mean over labels: ROC, precision, benefit, calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from einthoven.files import Json
from einthoven.report.figures import (
    COLOURS,
    GREY,
    INK,
    add_title_and_grid,
    drawing,
    standing_alone,
    to_svg,
)

_SIZE = (3.1, 2.75)  # inches: readable in one column of a phone
_LINE, _POINT = COLOURS[0], COLOURS[1]

Draw = Callable[[Axes, Json, str, Json | None], str]
"""Draws a part of the curves of a label, or of the mean without one; returns what it shows."""


def macro_panels(curves: Json) -> list[Markup]:
    """Draw ROC and precision-recall of the mean over labels."""
    return [_panel(part, curves, "", None, "macro") for part in ("roc", "precision")]


def label_panels(curves: Json, label: str, decision: Json | None, place: int) -> list[Markup]:
    """Draw the curves of a label; a dot marks its threshold, if there is a `decision`.

    `curves` is a `Curves.to_dict()`, `place` makes the ids unique. A calibration of one bin, that
    of a constant probability, is no curve and is not drawn.
    """
    parts = list(_PARTS)
    if len(_curves_of(curves, label)["bins"]) < 2:
        parts.remove("calibration")
    return [_panel(part, curves, label, decision, str(place)) for part in parts]


def curves_picture(curves: Json, decisions: Json) -> str:
    """Draw the ROC and the precision-recall curve of every label for a file, black on white."""
    mean = [""] if curves["averaged"] > 1 else []
    labels = [*mean, *curves["per_label"]]
    rows = -(-len(labels) // 2)
    with drawing():
        figure = Figure(figsize=(4 * _SIZE[0], rows * _SIZE[1]))
        places = figure.subplots(rows, 4, squeeze=False).reshape(-1, 2)
        for (left, right), label in zip_longest(places, labels):
            if label is None:
                left.set_visible(False)
                right.set_visible(False)
                continue
            for axes, draw in ((left, _roc), (right, _precision)):
                draw(axes, curves, label, decisions.get(label))
                axes.set_title(f"{axes.get_title(loc='left')}: {label or 'mean'}", fontsize=8.5)
                axes.set_title("", loc="left")
        edge = 0.5 / rows
        figure.subplots_adjust(0.05, 0.4 * edge, 0.99, 1 - 0.25 * edge, 0.3, 0.4)
        alt = f"ROC and precision-recall curves of {', '.join(curves['per_label'])}"
        alt += ", and their mean" if mean else ""
        return standing_alone(to_svg(figure, name="curves", alt=alt))


def _panel(part: str, curves: Json, label: str, decision: Json | None, place: str) -> Markup:
    with drawing():
        figure = Figure(figsize=_SIZE)
        axes = figure.add_axes((0.2, 0.17, 0.76, 0.72))
        alt = f"{_PARTS[part](axes, curves, label, decision)}: {label or 'mean over labels'}"
        return to_svg(figure, name=f"panel-{place}-{part}", alt=alt)


def _frame(axes: Axes, title: str, x: str, y: str) -> None:
    add_title_and_grid(axes, title)
    axes.set(xlabel=x, ylabel=y)
    axes.tick_params(length=0)  # the grid is enough


def _band(axes: Axes, x: Sequence[float], curve: Json) -> None:
    if curve["low"] is not None:
        low, high = (np.array(curve[k], dtype=float) for k in ("low", "high"))
        axes.fill_between(x, low, high, color=_LINE, alpha=0.22, lw=0)
    axes.plot(x, np.array(curve["value"], dtype=float), color=_LINE, lw=1.5)


def _mark(axes: Axes, x: float | None, y: float | None) -> None:
    if x is not None and y is not None:
        axes.plot([x], [y], ls="", marker="o", ms=6, mfc=_POINT, mec="white", mew=0.9, zorder=4)


def _curves_of(curves: Json, label: str) -> Json:
    """Curves of a label; of the mean over labels without one."""
    entry: Json = curves["per_label"][label] if label else curves["macro"]
    return entry


def _roc(axes: Axes, curves: Json, label: str, decision: Json | None) -> str:
    _frame(axes, "ROC", "1 − specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.9, ls="--")
    _band(axes, curves["false_positive_rates"], _curves_of(curves, label)["roc"])
    if decision and decision["specificity"] is not None:
        _mark(axes, 1 - decision["specificity"], decision["sensitivity"])
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
    return "ROC curve with its band"


def _precision(axes: Axes, curves: Json, label: str, decision: Json | None) -> str:
    _frame(axes, "Precision and recall", "recall (sensitivity)", "precision (PPV)")
    entry = _curves_of(curves, label)
    if label:
        prevalence = entry["positives"] / (entry["positives"] + entry["negatives"])
        axes.axhline(prevalence, color=GREY, lw=0.9, ls="--")
    _band(axes, curves["recalls"], entry["precision"])
    if decision:
        _mark(axes, decision["sensitivity"], decision["precision"])
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.03))
    return "Precision-recall curve with its band"


def _net_benefit(axes: Axes, curves: Json, label: str, decision: Json | None) -> str:
    _frame(axes, "Net benefit", "threshold probability", "net benefit")
    entry = _curves_of(curves, label)
    benefit, everyone = entry["net_benefit"], entry["treat_all"]
    axes.axhline(0, color=INK, lw=0.8, ls=":")
    axes.plot(curves["thresholds"], everyone, color=GREY, lw=1.1, ls="--")
    _band(axes, curves["thresholds"], benefit)
    if decision:
        axes.axvline(decision["threshold"], color=_POINT, lw=1.0, ls="-.")
    top = max(everyone + (benefit["high"] or benefit["value"]))
    axes.set(xlim=(0, 1), ylim=(-0.3 * top, 1.05 * top))
    handles = [axes.plot([], [], color=c, ls=s)[0] for c, s in ((GREY, "--"), (INK, ":"))]
    axes.legend(handles, ["call all", "call none"], fontsize=7, frameon=False, loc="upper right")
    return "Net benefit by threshold, against calling all and calling none"


def _calibration(axes: Axes, curves: Json, label: str, decision: Json | None) -> str:
    _frame(axes, "Calibration", "mean probability", "share of positives")
    bins = _curves_of(curves, label)["bins"]
    x, y = (np.array([entry[key] for entry in bins]) for key in ("probability", "observed"))
    low, high = np.transpose([entry["interval"] or [entry["observed"]] * 2 for entry in bins])
    axes.vlines(x, low, high, color=_LINE, lw=1.2, alpha=0.7)
    axes.plot(x, y, color=_LINE, marker="s", ms=4, lw=1.0, mew=0)
    top = min(1.02, 1.1 * max(x.max(), high.max()))
    axes.plot([0, top], [0, top], color=GREY, lw=0.9, ls="--")
    axes.set(xlim=(0, top), ylim=(0, top))
    return "Share of positives by mean probability, with intervals"


_PARTS: dict[str, Draw] = {
    "roc": _roc,
    "precision": _precision,
    "net-benefit": _net_benefit,
    "calibration": _calibration,
}
