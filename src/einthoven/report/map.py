"""Maps of a cohort: embeddings in two dimensions, as a figure and as an interactive page."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from einthoven.report.figures import COLOURS, GREY, add_title_and_grid, drawing, to_svg
from einthoven.report.page import render

MOST_CATEGORIES = len(COLOURS)
"""Categories with a colour of their own; the others are grey."""
_PANEL = 2.9  # inches
_DPI = 100


@dataclass(frozen=True, eq=False)
class Colouring:
    """What the points of a map are coloured by.

    Attributes
    ----------
    title : str
    values : list
        One for each point: a category (str), a number, or None where not known.
    kind : {"category", "number"}
    """

    title: str
    values: list[Any]
    kind: Literal["category", "number"] = "category"

    @property
    def categories(self) -> list[str]:
        """The most frequent categories, at most six, the most frequent first."""
        counts = Counter(str(value) for value in self.values if value is not None)
        return [name for name, _ in counts.most_common(MOST_CATEGORIES)]


def map_figure(points: NDArray[np.float64], colourings: Sequence[Colouring]) -> Markup:
    """Draw a map once for each colouring, four in a row; points are an image inside the SVG.

    `points` is (records, 2).
    """
    columns = min(4, len(colourings))
    rows = math.ceil(len(colourings) / columns)
    with drawing():
        figure = Figure(figsize=(_PANEL * columns, 1.1 * _PANEL * rows), dpi=_DPI)
        for place, colouring in enumerate(colourings):
            axes = figure.add_subplot(rows, columns, place + 1)
            _draw(axes, points, colouring)
        figure.subplots_adjust(left=0.01, right=0.99, top=0.92, bottom=0.12, wspace=0.06)
        titles = ", ".join(colouring.title for colouring in colourings)
        alt = f"Map of {len(points)} records, coloured by {titles}"
        return to_svg(figure, name="map", alt=alt)


def _draw(axes: Axes, points: NDArray[np.float64], colouring: Colouring) -> None:
    add_title_and_grid(axes, colouring.title)
    axes.grid(visible=False)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    style: dict[str, Any] = {"s": 2.0, "lw": 0, "rasterized": True}
    if colouring.kind == "number":
        values = np.array([np.nan if v is None else v for v in colouring.values], dtype=float)
        known = np.isfinite(values)
        axes.scatter(*points[~known].T, color=GREY, alpha=0.3, **style)
        low, high = np.quantile(values[known], (0.02, 0.98)) if known.any() else (0.0, 1.0)
        shown = axes.scatter(
            points[known, 0],
            points[known, 1],
            c=values[known],
            cmap="viridis",
            vmin=low,
            vmax=high,
            **style,
        )
        inset = axes.inset_axes((0.3, -0.06, 0.4, 0.025))
        axes.figure.colorbar(shown, cax=inset, orientation="horizontal", ticks=[low, high])
        inset.set_xticklabels([f"{low:.0f}", f"{high:.0f}"])
        return
    names = np.array([str(value) for value in colouring.values])
    categories = colouring.categories
    others = ~np.isin(names, categories)
    axes.scatter(*points[others].T, color=GREY, alpha=0.25, **style)
    for name, colour in zip(categories, COLOURS, strict=False):
        axes.scatter(*points[names == name].T, color=colour, alpha=0.6, **style)
        axes.scatter([], [], color=colour, s=14, label=name)
    if not categories:
        return
    axes.legend(
        frameon=False,
        fontsize=7,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=3,
        handletextpad=0.1,
        columnspacing=0.8,
    )


def map_page(
    points: NDArray[np.float64],
    records: Sequence[str],
    colourings: Sequence[Colouring],
    *,
    title: str,
    details: Sequence[str],
    about: Mapping[str, Any],
) -> str:
    """Render an interactive page without requests to the network.

    Parameters
    ----------
    points : array
        (records, 2).
    records : sequence of str
        Names that are shown under the pointer, with `details`, one text for each.
    colourings : sequence of Colouring
        Alternatives to choose from.
    about : mapping
        Facts about the map, such as the projection, that the page states.
    """
    span = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(span > 0, span, 1)
    data = {
        "x": scaled[:, 0].round(4).tolist(),
        "y": scaled[:, 1].round(4).tolist(),
        "records": list(records),
        "details": list(details),
        "colourings": [
            {
                "title": colouring.title,
                "kind": colouring.kind,
                "categories": colouring.categories if colouring.kind == "category" else [],
                "values": _values(colouring),
            }
            for colouring in colourings
        ],
        "colours": list(COLOURS),
        "grey": GREY,
    }
    # "</" would end the script.
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    return render(
        "map.html.j2",
        title=title,
        simulated=False,
        about=dict(about),
        count=len(points),
        data=Markup(text),
        colourings=[colouring.title for colouring in colourings],
    )


def _values(colouring: Colouring) -> list[Any]:
    """Numbers, or places in the categories; None for others and what is not known."""
    if colouring.kind == "number":
        return [
            None if v is None or not math.isfinite(v) else round(v, 3) for v in colouring.values
        ]
    place = {name: i for i, name in enumerate(colouring.categories)}
    return [place.get(str(value)) for value in colouring.values]
