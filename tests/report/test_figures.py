"""Differences by label and curves by epoch."""

from __future__ import annotations

import copy
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from einthoven.files import Json
from einthoven.report.figures import (
    BETTER,
    OPEN,
    WORSE,
    curves,
    has_logarithmic_panel,
    label_differences,
    reliability_diagram,
    reliability_picture,
)


def texts(svg: str) -> list[ElementTree.Element]:
    return [node for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]


def bars(svg: str) -> list[str]:
    return re.findall(rf"fill: ({BETTER}|{WORSE}|{OPEN})[^-]", svg)


def comparison_of(differences: list[float | None], *, intervals: bool = True) -> Json:
    """Every second label has an interval around zero."""
    entries = {
        f"L{i}": {
            "difference": value,
            "interval": [value - 0.1 * (i % 2), value] if intervals and value is not None else None,
        }
        for i, value in enumerate(differences)
    }
    scores = {"per_label": {label: {"positives": 7} for label in entries}}
    return {"a": scores, "auroc": {"improved": 1, "per_label": entries}}


@pytest.mark.parametrize("metric", ["auroc", "auprc"])
def test_labels_are_sorted_and_significant_ones_marked(comparison: Json, metric: str) -> None:
    difference = comparison[metric]
    drawn = label_differences(comparison, metric, names=("new", "old"))
    names = [node.text for node in texts(drawn)]
    entries = difference["per_label"]
    order = sorted(entries, key=lambda label: -entries[label]["difference"])
    shown = [text for text in names if text and re.fullmatch(r".*\(\d+\)", text)]
    assert [text.rpartition(" (")[0][:20] for text in shown] == [label[:20] for label in order]
    bold = [node.text for node in texts(drawn) if "700" in node.attrib["style"]]
    better, worse = (difference[f"significantly_{way}"] for way in ("better", "worse"))
    assert len(bold) == better + worse
    assert bars(drawn).count(BETTER) == better + 1  # and in the legend
    assert any(re.fullmatch(f"{metric}.*new.*{metric}.*old", x or "", re.I) for x in names)
    assert "<script" not in drawn
    assert "currentColor" in drawn


def test_differences_without_resamples_have_no_verdict() -> None:
    drawn = label_differences(comparison_of([0.1, -0.2], intervals=False), "auroc")
    assert bars(drawn) == [OPEN] * 2


def test_labels_without_a_value_are_left_out() -> None:
    drawn = label_differences(comparison_of([0.1, None, -0.2]), "auroc")
    assert not [node.text for node in texts(drawn) if (node.text or "").startswith("L1")]
    assert "<svg" in label_differences(comparison_of([None, None]), "auroc")


def test_a_label_may_hold_characters_that_xml_cannot() -> None:
    comparison = comparison_of([0.1, -0.2])
    for part in (comparison["a"]["per_label"], comparison["auroc"]["per_label"]):
        part["A\x1b\ufffeB"] = part.pop("L0")
    names = [node.text or "" for node in texts(label_differences(comparison, "auroc"))]
    assert any(name.startswith("A\ufffd") and "B" in name for name in names)


def line(epoch: int, auroc: float | None, loss: float = 0.1) -> dict[str, Any]:
    return {"epoch": epoch, "macro_auroc": auroc, "macro_auprc": auroc, "train_loss": loss}


def test_curves_show_every_run_under_its_name() -> None:
    histories = {
        "_new $x$": [line(i, 0.9 - 0.1 / i) for i in range(1, 9)],
        "old": [line(1, 0.7)],
        "loss only": [{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.4}],
    }
    drawn = curves(histories, reference="old")
    names = [node.text for node in texts(drawn)]
    assert {"_new $x$", "old", "loss only", "epoch"} <= set(names)
    assert any("AUPRC" in (name or "") for name in names)
    assert set(re.findall(r' id="(\w+)-', drawn)) == {"curves"}
    assert curves(histories, reference="old") == drawn


def test_the_reliability_diagram_draws_both_series(evaluation: dict[str, Any]) -> None:
    calibration = evaluation["calibration"]
    drawn = reliability_diagram(calibration)
    names = [node.text or "" for node in texts(drawn)]
    assert "0.1" in names
    assert all(i.startswith("reliability-") for i in re.findall(r' id="([^"]+)"', drawn))
    assert "$" not in drawn
    for when, colour in (("before", WORSE), ("after", BETTER)):
        assert any(when in name for name in names)
        bins = calibration[when]["bins_width"]
        bins = bins + [b for b in calibration[when]["bins_mass"] if b["observed"]]
        assert len(re.findall(rf"<use[^>]*{colour}", drawn)) == len(bins) + 1  # and in the legend
    ElementTree.fromstring(reliability_picture(calibration))


def test_a_panel_of_a_single_point_is_left_out(evaluation: Json) -> None:
    calibration = copy.deepcopy(evaluation["calibration"]) | {"after": None}
    both = reliability_diagram(calibration)
    for place, entry in enumerate(calibration["before"]["bins_mass"]):
        entry["observed"] = 0.5 * (place == 0)
    one = reliability_diagram(calibration)
    assert [figure.count("mean probability") for figure in (both, one)] == [2, 1]
    assert has_logarithmic_panel(evaluation["calibration"])
    assert not has_logarithmic_panel(calibration)
