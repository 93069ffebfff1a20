"""Reliability diagrams: what share of the records that were given a probability are positive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from einthoven.report.curves import COLOURS
from einthoven.report.svg import drawing, to_svg

Json = Mapping[str, Any]

_LOOKS = {"before": (COLOURS[1], "o", "--"), "after": (COLOURS[0], "s", "-")}
_GRID = "#a3a9b0"


def reliability_diagram(calibration: Json, *, name: str = "reliability") -> str:
    """Two panels, as SVG: bins of equal width, and bins of equal mass on logarithmic axes.

    All record-label pairs are taken together. On the diagonal probabilities are right; below it
    they are too high. Most pairs of rare labels have small probabilities, which only the second
    panel shows.

    Parameters
    ----------
    calibration : mapping
        `CalibrationReport.to_dict()`.
    name : str
        Put before the ids in the SVG; give each figure of a page its own.
    """
    series = {when: calibration[when] for when in _LOOKS if calibration.get(when)}
    alt = f"Observed share of positives against probability, {' and '.join(series)} calibration"
    with drawing():
        figure = Figure(figsize=(8.6, 4.1))
        width, mass = figure.subplots(1, 2)
        for when, quality in series.items():
            _draw(width, quality["bins_width"], when)
            _draw(mass, [b for b in quality["bins_mass"] if _positive(b)], when)
        _style(width, "bins of equal width")
        mass.set(xscale="log", yscale="log")
        _style(mass, "bins of equal mass, logarithmic axes")
        for axis in (mass.xaxis, mass.yaxis):  # no mathematics in text that stays text
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        figure.subplots_adjust(left=0.07, right=0.98, top=0.92, bottom=0.21, wspace=0.24)
        _explain(figure, list(series))
        return to_svg(figure, name=name, alt=alt)


def reliability_picture(calibration: Json) -> str:
    """The same drawing as a file of its own: black on white, whatever page shows it.

    An SVG in an `<img>` takes no colour from the page around it.
    """
    opening, rest = reliability_diagram(calibration).split(">", 1)
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return f'{opening} color="#000000">{ground}{rest}\n'


def _draw(axes: Axes, bins: Sequence[Json], when: str) -> None:
    colour, marker, style = _LOOKS[when]
    x, y = ([each[key] for each in bins] for key in ("probability", "observed"))
    axes.plot(x, y, color=colour, marker=marker, ls=style, lw=1.2, ms=4, mew=0, zorder=3)


def _positive(each: Json) -> bool:
    # A logarithmic axis has no place for 0.
    return bool(each["probability"] > 0 and each["observed"] > 0)


def _style(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=8.5, loc="left")
    axes.set(xlabel="mean probability", ylabel="share of positives", box_aspect=0.85)
    low = min(*axes.get_xlim(), *axes.get_ylim())
    start = max(low, 1e-6) if axes.get_xscale() == "log" else 0.0
    axes.plot([start, 1], [start, 1], color=_GRID, lw=0.8, zorder=2)
    axes.grid(color=_GRID, alpha=0.3, lw=0.5)


def _explain(figure: Figure, series: Sequence[str]) -> None:
    handles = [
        Line2D([], [], color=_LOOKS[when][0], marker=_LOOKS[when][1], ls=_LOOKS[when][2], ms=4)
        for when in series
    ]
    named = [f"{when} calibration" for when in series]
    figure.legend(handles, named, loc="lower center", ncols=2, frameon=False, fontsize=8.5)
