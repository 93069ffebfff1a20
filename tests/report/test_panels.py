"""Figures of the curves of labels."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from einthoven.evaluate import calibration_report
from einthoven.evaluate.curves import curves
from einthoven.files import Json
from einthoven.predictions import Predictions
from einthoven.report.panels import curves_picture, label_panels, macro_panels


def test_panels_say_what_they_show_and_differ_in_their_ids(evaluation: Json) -> None:
    drawn, decisions = evaluation["curves"], evaluation["calibration"]["decisions"]
    first, second = list(drawn["per_label"])[:2]
    figures = macro_panels(drawn)
    for place, label in enumerate((first, second)):
        figures += label_panels(drawn, label, decisions[label], place)
    roots = [ElementTree.fromstring(figure) for figure in figures]
    assert len(roots) == 10
    assert [first in root.attrib["aria-label"] for root in roots] == [False] * 2 + [True] * 4 + [
        False
    ] * 4
    ids = [node.attrib["id"] for root in roots for node in root.iter() if "id" in node.attrib]
    assert len(ids) == len(set(ids))


def test_a_dot_marks_the_threshold_where_there_is_one(evaluation: Json) -> None:
    drawn, decisions = evaluation["curves"], evaluation["calibration"]["decisions"]
    label = next(iter(drawn["per_label"]))
    marked, bare = (label_panels(drawn, label, each, 1)[0] for each in (decisions[label], None))
    assert len(marked) > len(bare)
    never = decisions[label] | {"precision": None}
    assert label_panels(drawn, label, never, 1)[1] == label_panels(drawn, label, None, 1)[1]


@pytest.mark.parametrize("resamples", [0, 20])
def test_the_smallest_set_of_records_is_drawn(resamples: int) -> None:
    """Five positives and five negatives: bins of three records have no interval."""
    targets = np.repeat([0, 1], 5)
    table = Predictions.from_arrays(targets, np.linspace(0.1, 0.9, 10), ["A$B$ & <C>"])
    drawn = curves(table, calibration_report(table, resamples=0), resamples=resamples)
    assert drawn is not None
    stored = drawn.to_dict()
    assert len(label_panels(stored, "A$B$ & <C>", None, 1)) == 4
    root = ElementTree.fromstring(curves_picture(stored, {}))
    assert "A$B$ & <C>" in root.attrib["aria-label"]
    assert root.attrib["color"] == "#000000"


def test_the_calibration_of_a_constant_probability_is_not_drawn() -> None:
    table = Predictions.from_arrays(np.repeat([0, 1], 5), np.full(10, 0.3), ["A"])
    constant = curves(table, calibration_report(table, resamples=0), resamples=0)
    assert constant is not None
    assert len(constant.labels["A"].bins) == 1
    assert len(label_panels(constant.to_dict(), "A", None, 1)) == 3
