"""The figures of a report, each as one `<svg>` element that can stand beside others in a page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import cycle, product
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from einthoven.files import Json
from einthoven.report.data import History, best_line
from einthoven.report.tables import SCORES, verdict

INK = "#010203"
"""Colour that becomes the text colour of the page around the figure."""
# Colours of Okabe and Ito, distinct with any colour vision, on light and on dark.
COLOURS = ("#2a7fb8", "#d1602a", "#1f9e77", "#c773a8", "#c9930a", "#8b6fc0")
STYLES = ("-", "--", "-.", ":")
GREY = "#a3a9b0"
BETTER, WORSE, OPEN = COLOURS[0], COLOURS[1], GREY

PANELS = {
    "macro_auroc": "Validation macro AUROC",
    "macro_auprc": "Validation macro AUPRC",
    "train_loss": "Training loss",
}

_NAMESPACE = "http://www.w3.org/2000/svg"
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "einthoven",
    "text.parse_math": False,  # a dollar in a label's name is a dollar
    "path.simplify_threshold": 0.02,  # of a point, 0.007 mm: ECGs keep their shape
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}
# Sizes are measured with a wide font; the page uses what the reader has.
_FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"

_LONGEST_NAME = 26
_BARS_WIDTH = 5.2  # inches
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters, such as control codes in the name of a label, that XML cannot hold."""
_RELIABILITY: dict[str, dict[str, Any]] = {
    "before": {"color": COLOURS[1], "marker": "o", "ls": "--", "ms": 4},
    "after": {"color": COLOURS[0], "marker": "s", "ls": "-", "ms": 4},
}


def drawing() -> AbstractContextManager[None]:
    """Apply the style of every figure while it is built and written."""
    return matplotlib.rc_context(_SETTINGS)  # type: ignore[arg-type]


def to_svg(figure: Figure, *, name: str, alt: str) -> Markup:
    """Write a figure as one `<svg>` element, in its true size, with `alt` as alternative text.

    Text stays text, coordinates are rounded to a hundredth of a point (0.004 mm), and `INK` becomes
    `currentColor`. `name` is the prefix of every id: ids of two figures of one page differ.
    """
    target = io.StringIO()
    unnamed = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with drawing(), warnings.catch_warnings():
        # Only the width of such a character is unknown; the browser has the glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(target, format="svg", transparent=True, metadata=unnamed)
    root = ElementTree.fromstring(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", target.getvalue()))
    _flatten(root, name)
    size = [f"{inches * 25.4:.4g}mm" for inches in figure.get_size_inches()]
    root.attrib |= {
        "xmlns": _NAMESPACE,
        "width": size[0],
        "height": size[1],
        "role": "img",
        "aria-label": alt,
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _flatten(root: ElementTree.Element, name: str) -> None:
    for parent in root.iter():
        # Its rule would apply to the whole page; it is an attribute of the root instead.
        for style in parent.findall(f"{{{_NAMESPACE}}}style"):
            parent.remove(style)
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
        node.tail = None
        if node.tag != "text":
            node.text = None
        node.attrib = {
            key.rpartition("}")[2]: _attribute(key.rpartition("}")[2], value, name)
            for key, value in node.attrib.items()
            if key != "version" and not value.startswith("rotate(-0 ")
        }


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key in ("href", "clip-path"):
        return value.replace("#", f"#{name}-")
    if key == "d":
        return re.sub(r"(\.\d\d)\d+", r"\1", " ".join(value.split()))
    if key == "style":
        return value.replace(INK, "currentColor").replace("'DejaVu Sans', sans-serif", _FONTS)
    return value


def legend(figure: Figure, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """Draw a legend below the panels.

    Matplotlib 3.9 leaves out names that start with an underscore, so they are set afterwards.
    """
    placeholders = [str(i) for i in range(len(names))]
    box = figure.legend(
        handles, placeholders, loc="lower center", ncols=4, frameon=False, fontsize=8.5
    )
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set_text(name)


def curves(
    histories: Mapping[str, History],
    panels: Mapping[str, str] = PANELS,
    *,
    reference: str | None = None,
) -> Markup:
    """Draw numbers by epoch, one panel each; by default as in figure 3 of arXiv 2509.12991.

    A dot marks the best epoch of a run by validation macro AUROC (of classes and numbers, by
    validation loss), the earliest on a tie; a thin
    line is the best value of the run `reference`. `histories` are lines of `metrics.jsonl` by the
    name of the run, `panels` titles by the key in a line; missing values are not drawn.
    """
    handles = [
        Line2D([], [], color=colour, ls=style, lw=1.5)
        for _, (style, colour) in zip(histories, cycle(product(STYLES, COLOURS)), strict=False)
    ]
    with drawing():
        figure = Figure(figsize=(10.2, 3.4))
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (key, title) in zip(places, panels.items(), strict=True):
            add_title_and_grid(axes, title)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            for (run, history), handle in zip(histories.items(), handles, strict=True):
                _draw_curve(axes, history, key, handle, is_reference=run == reference)
        figure.subplots_adjust(left=0.05, right=0.99, top=0.9, bottom=0.24, wspace=0.2)
        legend(figure, handles, list(histories))
        alt = f"{', '.join(panels.values())} by epoch, of {', '.join(histories)}"
        return to_svg(figure, name="curves", alt=alt)


def _draw_curve(
    axes: Axes, history: History, key: str, handle: Line2D, *, is_reference: bool
) -> None:
    lines = [line for line in history if line.get(key) is not None]
    epochs, values = ([line[name] for line in lines] for name in ("epoch", key))
    colour, marker = handle.get_color(), "." if len(lines) == 1 else ""
    axes.plot(epochs, values, color=colour, ls=handle.get_linestyle(), lw=1.3, marker=marker)
    if best := best_line(lines) or best_line(lines, "validation_loss", min):
        point: Json = {"marker": "o", "ms": 5.5, "mfc": colour, "mec": "white", "mew": 0.9}
        axes.plot([best["epoch"]], [best[key]], ls="", **point)
        if is_reference and key != "train_loss":
            axes.axhline(best[key], color=colour, lw=0.7, alpha=0.8)


def add_title_and_grid(axes: Axes, title: str) -> None:
    """Add the title and the grid that all panels have."""
    axes.set_title(title, fontsize=8.5, loc="left")
    axes.grid(color=GREY, alpha=0.3, lw=0.5)


def label_differences(
    comparison: Json,
    metric: str,
    *,
    names: tuple[str, str] = ("a", "b"),
    name: str = "differences",
) -> Markup:
    """Draw the difference of a metric for every label as sorted bars.

    Labels whose interval excludes zero are coloured and in bold; labels without a value are
    omitted. (Figure 2 of arXiv 2509.12991.) `comparison` is a `Comparison.to_dict()`, `metric`
    "auroc" or "auprc", `names` those of the two runs, `name` the prefix of the ids, unique in a
    page.
    """
    difference, title = comparison[metric], SCORES[metric]
    positives = {k: entry["positives"] for k, entry in comparison["a"]["per_label"].items()}
    defined = {k: e for k, e in difference["per_label"].items() if e["difference"] is not None}
    entries = dict(sorted(defined.items(), key=lambda item: -item[1]["difference"]))
    labels = [f"{_short(label)} ({positives[label]})" for label in entries]
    alt = (
        f"Bars of the {title} difference, {names[0]} minus {names[1]}, for every label, "
        f"largest first: {difference['improved']} of {len(positives)} above zero"
    )
    with drawing():
        height = float(np.interp(len(labels), [8, 40], [0.26, 0.155])) * max(len(labels), 2)
        whole = height + 0.85
        figure = Figure(figsize=(_BARS_WIDTH, whole))
        # Inches for the longest name, about 0.065 a character; the legend must fit beside it.
        room = min(0.2 + 0.065 * max(map(len, labels), default=0), 0.42 * _BARS_WIDTH)
        left = room / _BARS_WIDTH
        axes = figure.add_axes((left, 0.45 / whole, 0.98 - left, height / whole))
        _draw_bars(axes, list(entries.values()), labels)
        axes.set_xlabel(f"{title} of {_short(names[0])} minus {title} of {_short(names[1])}")
        return to_svg(figure, name=name, alt=alt)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _draw_bars(axes: Axes, entries: Sequence[Json], labels: Sequence[str]) -> None:
    places, verdicts = range(len(entries)), [verdict(entry) for entry in entries]
    colours = [(OPEN, BETTER, WORSE)[value] for value in verdicts]
    values = [entry["difference"] for entry in entries]
    axes.barh(places, values, height=0.72, color=colours, zorder=2)
    axes.axvline(0, color=INK, lw=0.8, zorder=4)
    axes.set_yticks(places, labels)
    size = float(np.interp(len(labels), [8, 40], [8.0, 6.8]))
    for text, value in zip(axes.get_yticklabels(), verdicts, strict=True):
        text.set(fontsize=size, fontweight="bold" if value else "normal")
    axes.set_ylim(len(entries) - 0.4, -0.6)
    axes.grid(axis="x", color=OPEN, alpha=0.35, lw=0.5, zorder=0)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if any(entry["interval"] for entry in entries):
        low, high = np.transpose([entry["interval"] or [np.nan, np.nan] for entry in entries])
        axes.hlines(places, low, high, color=INK, lw=0.8, zorder=3)
        kinds = ((1, BETTER, "better"), (0, OPEN, "interval contains zero"), (-1, WORSE, "worse"))
        axes.legend(
            [Patch(color=colour) for _, colour, _ in kinds],
            [f"{text}: {verdicts.count(value)}" for value, _, text in kinds],
            loc="lower center",
            bbox_to_anchor=(0.5, 1.0),
            ncols=3,
            frameon=False,
            fontsize=7.5,
            handlelength=1.0,
            columnspacing=1.2,
        )


def reliability_diagram(calibration: Json) -> Markup:
    """Draw a reliability diagram (of `CalibrationReport.to_dict()`) in two panels.

    It counts all record-label pairs. The first has bins of equal width, the second bins of equal
    mass on logarithmic axes, which show the small probabilities of rare labels; it is left out
    where it would have a single point. Points below the diagonal are over-confident.
    """
    series = _reliability_series(calibration)
    names = {when: f"{when} calibration" for when in series} if len(series) > 1 else {}
    alt = f"Observed share of positives against probability, {' and '.join(names.values())}"
    positive = {when: _logarithmic_bins(quality) for when, quality in series.items()}
    is_drawn = has_logarithmic_panel(calibration)
    with drawing():
        figure = Figure(figsize=(8.6 if is_drawn else 4.3, 4.1))
        places = figure.subplots(1, 2 if is_drawn else 1, squeeze=False)[0]
        width, mass = places[0], places[-1]
        for when, quality in series.items():
            _draw_bins(width, quality["bins_width"], when, names.get(when))
            if is_drawn:
                _draw_bins(mass, positive[when], when, names.get(when))
        add_title_and_grid(width, "bins of equal width")
        if is_drawn:
            add_title_and_grid(mass, "bins of equal mass, logarithmic axes")
            mass.set(xscale="log", yscale="log")
            least = 1e-6  # smaller probabilities would compress all others
            mass.set_xlim(max(mass.get_xlim()[0], least), None)
            mass.set_ylim(max(mass.get_ylim()[0], least), None)
            for axis in (mass.xaxis, mass.yaxis):  # plain numbers instead of TeX
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(NullFormatter())
        for axes in places:
            axes.set(xlabel="mean probability", ylabel="share of positives", box_aspect=0.85)
            start = 0.0 if axes is width else min(*axes.get_xlim(), *axes.get_ylim())
            axes.plot([start, 1], [start, 1], color=GREY, lw=0.8, zorder=2)
        left = 0.07 if is_drawn else 0.14
        figure.subplots_adjust(left=left, right=0.98, top=0.92, bottom=0.21, wspace=0.24)
        if names:
            legend(figure, *width.get_legend_handles_labels())
        return to_svg(figure, name="reliability", alt=alt.removesuffix(", "))


def has_logarithmic_panel(calibration: Json) -> bool:
    """Whether the reliability diagram has its second panel."""
    series = _reliability_series(calibration).values()
    return max(len(_logarithmic_bins(quality)) for quality in series) > 1


def _reliability_series(calibration: Json) -> dict[str, Json]:
    return {when: calibration[when] for when in _RELIABILITY if calibration.get(when)}


def _logarithmic_bins(quality: Json) -> list[Json]:
    """Bins of equal mass that a logarithmic axis, which has no zero, can show."""
    return [b for b in quality["bins_mass"] if min(b["probability"], b["observed"]) > 0]


def _draw_bins(axes: Axes, bins: Sequence[Json], when: str, name: str | None) -> None:
    x, y = ([entry[key] for entry in bins] for key in ("probability", "observed"))
    axes.plot(x, y, **_RELIABILITY[when], label=name, lw=1.2, mew=0, zorder=3)


def reliability_picture(calibration: Json) -> str:
    """Draw a reliability diagram for a file."""
    return standing_alone(reliability_diagram(calibration))


def standing_alone(svg: Markup) -> str:
    """A figure as the content of a file: black on white, independent of the page."""
    opening, rest = svg.split(">", 1)
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return f'{opening} color="#000000">{ground}{rest}\n'
