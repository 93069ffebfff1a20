"""Maps of a cohort as a figure and as a page."""

from __future__ import annotations

import json
import re

import numpy as np

from einthoven.report.map import Colouring, map_figure, map_page

POINTS = np.array([[0.0, 0.0], [2.0, 1.0], [1.0, 4.0]])
COLOURINGS = [
    Colouring("label", ["A", None, "A"]),
    Colouring("age", [50.0, None, 70.0], "number"),
]


def test_the_page_holds_its_points_and_needs_no_network() -> None:
    names = ["r1", "r2", "</script><b>"]
    page = map_page(POINTS, names, COLOURINGS, title="Map", details=["x", "y", "z"], about={})
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert block is not None
    data = json.loads(block[1])
    assert data["records"] == names
    assert (data["x"], data["y"]) == ([0, 1, 0.5], [0, 0.25, 1])
    label, age = data["colourings"]
    assert (label["categories"], label["values"]) == (["A"], [0, None, 0])
    assert age["values"] == [50, None, 70]
    assert "http" not in page
    assert "<b>" not in page.replace(block[0], "")


def test_the_figure_has_a_panel_for_each_colouring() -> None:
    svg = str(map_figure(POINTS, COLOURINGS))
    assert svg.count("<image") >= 2
    assert "label" in svg
    assert "age" in svg


def test_rare_categories_have_no_colour() -> None:
    values = [*"aabbccddeeff", "g", None]
    assert Colouring("x", values).categories == list("abcdef")
