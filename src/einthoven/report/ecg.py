"""ECGs on millimetre paper at 25 mm/s and 10 mm/mV, and a crop before and after preparation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from einthoven.records.limb_leads import derive_limb_leads
from einthoven.records.record import STANDARD_LEADS, Record
from einthoven.report.figures import drawing, to_svg

if TYPE_CHECKING:
    from einthoven.explain import Attribution

ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
RHYTHM = "II"
SHEET = 10.0  # s on a sheet
MM_PER_SECOND = 25.0
MM_PER_MV = 10.0
MM_PER_INCH = 25.4
SQUARE = 5  # mm, a large square
LEFT = 10.0  # mm to the left of every row, for the calibration pulse

_PAPER, _FINE, _COARSE, _TRACE = "#fffaf8", "#f8d9d5", "#ecaaa4", "#111111"
_MARGIN, _HEADER = 2.0, 8.0
_LEAST_GAP, _LARGEST_GAP = 20.0, 45.0  # mm between baselines; taller complexes overlap
_MM_PER_UNIT = (10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
_PULSE = (1.0, 2.0, 2.0, 7.0, 7.0, 8.0)  # mm from the left edge: 200 ms, of 1 mV or one unit
_BUCKET = 0.01  # s
FOR, AGAINST = "#e8590c", "#1c6dd0"
"""Colours under a trace: evidence for a label and against it."""
_LEVELS = (0.2, 0.4, 0.6, 0.8)  # opacity of the colours; each is a quarter of the scale
_LARGEST = 0.995  # quantile of the magnitudes that has the full colour
_BLUR = 0.04  # s, over which an attribution is averaged to be drawn
_MARKER = 4.0  # points, width of the colour under a trace
_TALLEST = 20.0  # mm above or below a baseline, for all but a thousandth of the samples


def ecg_paper(
    record: Record,
    *,
    title: str = "",
    name: str = "ecg",
    small: bool = False,
    attribution: Attribution | None = None,
) -> str:
    """Draw an ECG on paper, as one `<svg>` element in its true size.

    Twelve leads of at least 10 s have the standard layout: 2.5 s of each lead in three rows of
    four, continuous in time between columns, and 10 s of lead II below. Other records have all
    their leads one below the other, up to 10 s. Every lead is centred on its median; no filter is
    applied.

    The title stands above the paper; the record's name and patient are not printed. `name` is the
    prefix of the ids, unique in a page. A drawing to be shown `small` has the lowest and the
    highest sample of every 10 ms, a fraction of the size of all samples.

    An attribution of this record is drawn as colour under the traces of its leads: `FOR` and
    `AGAINST` in four shades, the mean over 40 ms. The full shade is that of the largest magnitudes;
    below an eighth of it there is none. It does not go with `small`.
    """
    rate = record.rate
    record = _extremes(record) if small else record
    shades = {} if attribution is None else _shades(attribution)
    whole = record.signal.shape[1] >= int(SHEET * record.rate)
    if whole and set(STANDARD_LEADS) <= set(record.leads):
        leads, step = "the twelve standard leads", SHEET / 4
        rows: list[Strips] = [
            [
                _strip(record, lead, i * step, seconds=step, shades=shades)
                for i, lead in enumerate(row)
            ]
            for row in ROWS
        ]
        rows.append([_strip(record, RHYTHM, shades=shades)])
    else:
        leads = ", ".join(record.leads)
        rows = [[_strip(record, x, shades=shades)] for x in record.leads]
    caption = f"25 mm/s · 10 mm/mV · {rate:g} Hz · no display filter"
    seconds = min(record.duration, SHEET)
    alt = f"Electrocardiogram, {seconds:.3g} s of {leads}, at 25 mm/s and 10 mm/mV"
    with drawing():
        figure = _paper(rows, [MM_PER_MV] * len(rows), title=title, caption=caption)
        return to_svg(figure, name=name, alt=alt)


def prepared_figure(
    record: Record,
    prepared: NDArray[np.float32],
    leads: Sequence[str],
    *,
    rate: float,
    start: float = 0.0,
    title: str = "Before and after preparation",
) -> Figure:
    """Draw a record (in mV), and below each lead the signal that a backbone receives.

    Recordings are centred on their median, at 10 mm/mV or less where they are taller; leads that
    the preparation computes are marked. Prepared leads share one scale in the unit of the network;
    both calibration pulses are one unit high. The record's name and patient are not printed.

    `prepared` is a crop after preparation, (leads, samples), at `rate` Hz, which begins at `start`
    s of the record.
    """
    whole = derive_limb_leads(record)
    crop = prepared.shape[1] / rate
    begin = 0.0 if start + crop <= SHEET else start  # a long recording is shown around the crop
    section = slice(round(begin * record.rate), round((begin + max(SHEET, crop)) * record.rate))
    before = [_about_median(whole.signal[whole.leads.index(lead)][section]) for lead in leads]
    after = [row.astype(np.float64) for row in prepared]
    per_mv, per_unit = _scale(before), _scale(after)
    rows: list[Strips] = []
    for lead, voltage, row in zip(leads, before, after, strict=True):
        name = lead if lead in record.leads else f"{lead} (computed)"
        rows.append([Strip(name, 0.0, record.rate, per_mv * voltage)])
        rows.append([Strip(f"{lead}, prepared", start - begin, rate, per_unit * row)])
    caption = (
        f"25 mm/s · recorded: {per_mv:g} mm/mV, {record.rate:g} Hz · "
        f"prepared: {per_unit:g} mm/unit, {rate:g} Hz"
    )
    return _paper(rows, [per_mv, per_unit] * len(leads), title=title, caption=caption)


@dataclass(frozen=True, eq=False)
class Strip:
    """A stretch of one lead.

    Attributes
    ----------
    lead : str
    start : float
        Start, s from the left end of the row.
    rate : float
        Hz.
    height : array of float64
        mm above the baseline of the row; NaN where the signal is unknown.
    shade : array of int, optional
        Colour under each sample, -4 to 4: negative against a label, positive for it.
    """

    lead: str
    start: float
    rate: float
    height: NDArray[np.float64]
    shade: NDArray[np.intp] | None = None

    @property
    def x(self) -> NDArray[np.float64]:
        """Position of every sample, in mm from the left edge of the paper."""
        seconds = self.start + np.arange(len(self.height)) / self.rate
        return LEFT + MM_PER_SECOND * seconds


Strips = Sequence[Strip]


def _paper(rows: Sequence[Strips], pulses: Sequence[float], *, title: str, caption: str) -> Figure:
    """Draw rows of strips on paper, in true size, with calibration pulses of these heights, mm."""
    baselines, height = _layout(rows)
    width = _to_square(max(float(row[-1].x[-1]) for row in rows) + 2)
    size = (width + 2 * _MARGIN) / MM_PER_INCH, (height + _MARGIN + _HEADER) / MM_PER_INCH
    figure = Figure(figsize=size)
    # The axes fill the figure, so that a unit is a millimetre; (0, 0) is the lower left corner.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-_MARGIN, width + _MARGIN), ylim=(-_MARGIN, height + _HEADER))
    axes.set_axis_off()
    axes.add_patch(Rectangle((0, 0), width, height, fc=_PAPER, ec=_COARSE, lw=0.6))
    for step, colour, line in ((1, _FINE, 0.25), (SQUARE, _COARSE, 0.45)):
        lines = PathPatch(_grid(width, height, step), fill=False, ec=colour, lw=line)
        axes.add_patch(lines).set_gid(f"grid-{step}")
    for i, (row, baseline, pulse) in enumerate(zip(rows, baselines, pulses, strict=True)):
        y = baseline + pulse * np.array([0, 0, 1, 1, 0, 0])
        axes.plot(_PULSE, y, color=_TRACE, lw=0.8, solid_joinstyle="miter", gid=f"calibration-{i}")
        for j, strip in enumerate(row):
            _draw_strip(axes, strip, baseline, name=f"strip-{i}-{j}")
    axes.text(0, height + 2.5, title, fontsize=9, fontweight="bold")
    axes.text(width, height + 2.5, caption, fontsize=8, ha="right")
    return figure


def _layout(rows: Sequence[Strips]) -> tuple[list[float], float]:
    """Heights of the baselines above the lower edge of the paper, and its height, in mm.

    All are whole large squares, so that calibration pulses are on the grid.
    """
    above = [max(MM_PER_MV, *(_reach(strip.height) for strip in row)) for row in rows]
    below = [max(_reach(-strip.height) for strip in row) for row in rows]
    gaps = [_gap(down + up) for down, up in zip(below, above[1:], strict=False)]
    bottom = min(max(_to_square(below[-1] + 2), _LEAST_GAP / 2), _LARGEST_GAP)
    heights = bottom + np.cumsum([0.0, *gaps[::-1]])[::-1]
    return heights.tolist(), float(heights[0] + _gap(above[0] + SQUARE))


def _strip(
    record: Record,
    lead: str,
    start: float = 0.0,
    *,
    seconds: float = SHEET,
    shades: Mapping[str, NDArray[np.intp]],
) -> Strip:
    voltage = _about_median(record.signal[record.leads.index(lead)])
    first, last = (round(time * record.rate) for time in (start, start + seconds))
    # One sample more, so that a strip reaches the start of the next one.
    height = MM_PER_MV * voltage[first : last + 1]
    shade = shades[lead][first : last + 1] if lead in shades else None
    return Strip(lead, first / record.rate, record.rate, height, shade)


def _shades(attribution: Attribution) -> dict[str, NDArray[np.intp]]:
    """Shade of every sample of every lead, -4 to 4."""
    width = max(1, round(_BLUR * attribution.rate))
    values = uniform_filter1d(attribution.values.astype(np.float64), width, axis=1)
    largest = float(np.quantile(np.abs(values), _LARGEST)) or 1.0
    steps = np.round(len(_LEVELS) * values / largest).astype(np.intp)
    steps = np.clip(steps, -len(_LEVELS), len(_LEVELS))
    return dict(zip(attribution.leads, steps, strict=True))


def _extremes(record: Record) -> Record:
    """The lowest and the highest sample of every 10 ms, in their order; evenly spaced."""
    width = int(_BUCKET * record.rate)
    if width < 3:  # two of two
        return record
    buckets = record.signal.shape[1] // width
    signal = record.signal[:, : buckets * width].reshape(-1, buckets, width)
    places = np.sort([signal.argmin(axis=2), signal.argmax(axis=2)], axis=0)
    values = [np.take_along_axis(signal, p[..., None], 2)[..., 0] for p in places]
    extremes = np.stack(values, axis=2).reshape(len(record.leads), -1)
    return replace(record, signal=extremes, rate=2 * record.rate / width)


def _about_median(voltage: NDArray[np.float32]) -> NDArray[np.float64]:
    values = voltage.astype(np.float64)
    finite = np.isfinite(values)
    centred = values - (np.median(values[finite]) if finite.any() else 0.0)
    return np.where(finite, centred, np.nan)


def _scale(rows: Sequence[NDArray[np.float64]]) -> float:
    """The largest of the round scales at which the rows fit between baselines."""
    values = np.abs(np.concatenate(rows))
    finite = values[~np.isnan(values)]
    reach = float(np.quantile(finite, 0.999)) if finite.size else 0.0
    fitting = (scale for scale in _MM_PER_UNIT if scale * reach <= _TALLEST)
    return next(fitting, _MM_PER_UNIT[-1])


def _to_square(millimetres: float) -> float:
    return float(SQUARE * math.ceil(millimetres / SQUARE))


def _gap(height: float) -> float:
    return min(max(_to_square(height + 2), _LEAST_GAP), _LARGEST_GAP)


def _reach(height: NDArray[np.float64]) -> float:
    return float(np.max(height, initial=0.0, where=~np.isnan(height)))


def _grid(width: float, height: float, step: int) -> Path:
    x, y = np.arange(0, width + 0.5, step), np.arange(0, height + 0.5, step)
    upright = [((at, 0), (at, height)) for at in x]
    level = [((0, at), (width, at)) for at in y]
    points = np.array(upright + level).reshape(-1, 2)
    return Path(points, [Path.MOVETO, Path.LINETO] * (len(points) // 2))


def _draw_strip(axes: Axes, strip: Strip, baseline: float, *, name: str) -> None:
    x, y = strip.x, baseline + strip.height
    if strip.shade is not None:
        _draw_shades(axes, x, y, strip.shade, name=name)
    axes.plot(x, y, color=_TRACE, lw=0.75, gid=name)
    if strip.start:
        axes.plot([x[0]] * 2, [baseline - 2, baseline + 2], color=_TRACE, lw=0.8)
    # Above the trace behind the name, as far as that stays near the row.
    behind = _reach(strip.height[: max(1, round(0.4 * strip.rate))])
    place = baseline + min(max(behind + 1.5, 5.0), 14.0)
    axes.text(x[0] + 1, place, strip.lead, fontsize=8.5, fontweight="bold", color=_TRACE)


def _draw_shades(
    axes: Axes,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    shade: NDArray[np.intp],
    *,
    name: str,
) -> None:
    style: dict[str, Any] = {"lw": _MARKER, "solid_capstyle": "butt", "solid_joinstyle": "round"}
    for step in np.unique(shade[shade != 0]).tolist():
        inside = shade == step
        inside[1:] |= inside[:-1]  # up to the next sample, so that neighbours touch
        colour, side = (FOR, "for") if step > 0 else (AGAINST, "against")
        axes.plot(
            x,
            np.where(inside, y, np.nan),
            color=colour,
            alpha=_LEVELS[abs(step) - 1],
            gid=f"{name}-{side}-{abs(step)}",
            **style,
        )
