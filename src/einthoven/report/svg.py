"""From a matplotlib figure to SVG that can stand in a page beside others."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

INK = "#010203"
"""Colour that becomes the text colour of the page around the figure."""

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
# Wide fonts are measured, what the reader has is shown.
_FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"


@contextmanager
def drawing() -> Iterator[None]:
    """The look of every figure, for as long as it is built and written."""
    with matplotlib.rc_context(_SETTINGS):  # type: ignore[arg-type]
        yield


def to_svg(figure: Figure, *, name: str, alt: str) -> str:
    """Write a figure as one `<svg>` element, in its true size.

    Text stays text, coordinates are kept to a hundredth of a point (0.004 mm), and `INK` becomes
    `currentColor`.

    Parameters
    ----------
    figure : Figure
    name : str
        Put before every id, so that two figures of one page do not share any.
    alt : str
        What the figure shows, for those who do not see it.
    """
    target = io.StringIO()
    unnamed = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with drawing(), warnings.catch_warnings():
        # Only the width of such a character is unknown: the browser has the glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(target, format="svg", transparent=True, metadata=unnamed)
    root = ElementTree.fromstring(target.getvalue())
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
    return ElementTree.tostring(root, encoding="unicode")


def _flatten(root: ElementTree.Element, name: str) -> None:
    for parent in root.iter():
        # Its one rule, for all elements of the page, is an attribute of the root instead.
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
