"""Millimetre paper: axes whose unit is one millimetre, the grid, strips and calibration pulses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MM_PER_SECOND = 25.0
MM_PER_MV = 10.0
MM_PER_INCH = 25.4
SQUARE = 5  # mm, a large square
LEFT = 10.0  # mm to the left of every row, for the calibration pulse

_PAPER, _FINE, _COARSE, _TRACE = "#fffaf8", "#f8d9d5", "#ecaaa4", "#111111"
_MARGIN, _HEADER = 2.0, 8.0
_LEAST_GAP, _LARGEST_GAP = 20.0, 45.0  # mm between baselines; what is taller overlaps


@dataclass(frozen=True, eq=False)
class Strip:
    """A stretch of one lead.

    Attributes
    ----------
    lead : str
    start : float
        Where it starts, in s from the left end of its row.
    rate : float
        Hz.
    height : array of float64
        mm over the row's baseline; NaN where the signal is not known.
    """

    lead: str
    start: float
    rate: float
    height: Floats

    @property
    def x(self) -> Floats:
        """Place of every sample, in mm from the left edge of the paper."""
        seconds = self.start + np.arange(len(self.height)) / self.rate
        return LEFT + MM_PER_SECOND * seconds


Row = Sequence[Strip]


def paper_figure(
    rows: Sequence[Row], *, title: str, caption: str, pulses: Sequence[float] | None = None
) -> Figure:
    """Rows of strips on paper, in the figure's true size.

    `pulses` are the heights of the rows' calibration pulses in mm, those of 1 mV without.
    """
    pulses = [MM_PER_MV] * len(rows) if pulses is None else pulses
    baselines, height = baselines_and_height(rows)
    width = to_square(max(float(row[-1].x[-1]) for row in rows) + 2)
    axes = _millimetre_axes(width, height)
    for step, colour, line in ((1, _FINE, 0.25), (SQUARE, _COARSE, 0.45)):
        lines = PathPatch(_grid(width, height, step), fill=False, ec=colour, lw=line)
        axes.add_patch(lines).set_gid(f"grid-{step}")
    for i, (row, baseline) in enumerate(zip(rows, baselines, strict=True)):
        _draw_calibration(axes, baseline, pulses[i], name=f"calibration-{i}")
        for j, strip in enumerate(row):
            _draw_strip(axes, strip, baseline, name=f"strip-{i}-{j}")
    axes.text(0, height + 2.5, title, fontsize=9, fontweight="bold")
    axes.text(width, height + 2.5, caption, fontsize=8, ha="right")
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    return figure


def baselines_and_height(rows: Sequence[Row]) -> tuple[list[float], float]:
    """Heights of the baselines over the paper's lower edge, and the paper's height, in mm.

    All are whole large squares, so that calibration pulses sit on the grid; rows make room for
    what is tall in them, within limits.
    """
    above = [max(MM_PER_MV, *(_reach(strip.height) for strip in row)) for row in rows]
    below = [max(_reach(-strip.height) for strip in row) for row in rows]
    gaps = [_gap(down + up) for down, up in zip(below, above[1:], strict=False)]
    bottom = _gap(below[-1]) - _LEAST_GAP / 2
    heights = bottom + np.cumsum([0.0, *gaps[::-1]])[::-1]
    return heights.tolist(), float(heights[0] + _gap(above[0] + SQUARE))


def to_square(millimetres: float) -> float:
    """Up to a whole number of large squares."""
    return float(SQUARE * math.ceil(millimetres / SQUARE))


def _gap(needed: float) -> float:
    return min(max(to_square(needed + 2), _LEAST_GAP), _LARGEST_GAP)


def _reach(height: Floats) -> float:
    known = height[~np.isnan(height)]
    return max(0.0, float(known.max())) if known.size else 0.0


def _millimetre_axes(width: float, height: float) -> Axes:
    size = (width + 2 * _MARGIN) / MM_PER_INCH, (height + _MARGIN + _HEADER) / MM_PER_INCH
    # The axes fill the figure, so that a unit is a millimetre; (0, 0) is the paper's lower left.
    axes = Figure(figsize=size).add_axes((0, 0, 1, 1))
    axes.set(xlim=(-_MARGIN, width + _MARGIN), ylim=(-_MARGIN, height + _HEADER))
    axes.set_axis_off()
    axes.add_patch(Rectangle((0, 0), width, height, fc=_PAPER, ec=_COARSE, lw=0.6))
    return axes


def _grid(width: float, height: float, step: int) -> Path:
    x, y = np.arange(0, width + 0.5, step), np.arange(0, height + 0.5, step)
    upright = [((at, 0), (at, height)) for at in x]
    level = [((0, at), (width, at)) for at in y]
    points = np.array(upright + level).reshape(-1, 2)
    return Path(points, [Path.MOVETO, Path.LINETO] * (len(points) // 2))


def _draw_calibration(axes: Axes, baseline: float, height: float, *, name: str) -> None:
    # 1 mV, or what stands for it, for 200 ms.
    start, end = 2.0, 2.0 + 0.2 * MM_PER_SECOND
    x = [start - 1, start, start, end, end, end + 1]
    y = baseline + height * np.array([0, 0, 1, 1, 0, 0])
    axes.plot(x, y, color=_TRACE, lw=0.8, solid_joinstyle="miter", gid=name)


def _draw_strip(axes: Axes, strip: Strip, baseline: float, *, name: str) -> None:
    x, y = strip.x, baseline + strip.height
    axes.plot(x, y, color=_TRACE, lw=0.75, gid=name)
    if strip.start:
        axes.plot([x[0]] * 2, [baseline - 2, baseline + 2], color=_TRACE, lw=0.8)
    lead = axes.text(x[0] + 1, baseline + _label_height(strip), strip.lead)
    lead.set(fontsize=8.5, fontweight="bold", color=_TRACE)


def _label_height(strip: Strip) -> float:
    # Over what is drawn behind the name, as far as that stays near the row.
    behind = _reach(strip.height[: max(1, round(0.4 * strip.rate))])
    return min(max(behind + 1.5, 5.0), 14.0)
