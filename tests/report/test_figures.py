"""Differences by label and curves by epoch."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from einthoven.errors import EvaluationError
from einthoven.evaluate import compare
from einthoven.evaluate.comparison import Comparison
from einthoven.predictions import Predictions
from einthoven.report.data import PairedRuns
from einthoven.report.figures import (
    BETTER,
    OPEN,
    WORSE,
    curves,
    label_differences,
    reliability_diagram,
    reliability_picture,
    verdicts,
)


def texts(svg: str) -> list[ElementTree.Element]:
    return [node for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]


def bars(svg: str) -> list[str]:
    return re.findall(rf"fill: ({BETTER}|{WORSE}|{OPEN})[^-]", svg)


def comparison_of(labels: int, **settings: Any) -> Comparison:
    generator = np.random.default_rng(0)
    shape = (60, labels)
    targets = (generator.random(shape) < 0.3).astype(np.uint8)
    names = np.array([f"r{i}" for i in range(60)])
    tables = [
        Predictions(
            labels=tuple(f"L{i}" for i in range(labels)),
            records=names,
            patients=names,
            targets=targets,
            probabilities=np.clip(0.5 + gain * (targets - 0.5) + 0.2 * noise, 0, 1),
        )
        for gain, noise in (
            (0.5, generator.normal(size=shape)),
            (0.1, generator.normal(size=shape)),
        )
    ]
    return compare(*tables, **{"resamples": 20, "undefined_labels": "skip", **settings})


def test_labels_are_sorted_and_significant_ones_marked(paired: list[PairedRuns]) -> None:
    comparison = paired[0].comparison
    for metric in ("auroc", "auprc"):
        difference = getattr(comparison, metric)
        drawn = label_differences(comparison, metric, names=("new", "old"))
        names = [node.text for node in texts(drawn)]
        order = [comparison.labels[i] for i in np.argsort(-difference.per_label, kind="stable")]
        shown = [text for text in names if text and re.fullmatch(r".*\(\d+\)", text)]
        assert [text.rpartition(" (")[0][:20] for text in shown] == [x[:20] for x in order]
        bold = [node.text for node in texts(drawn) if "700" in node.attrib["style"]]
        assert len(bold) == difference.significantly_better + difference.significantly_worse
        assert bars(drawn).count(BETTER) == difference.significantly_better + 1  # and in the legend
        assert f"{metric.upper()} of new minus {metric.upper()} of old" in names
        assert "<script" not in drawn
        assert "currentColor" in drawn


@pytest.mark.parametrize("labels", [1, 5, 71])
def test_every_label_has_room(labels: int) -> None:
    drawn = label_differences(comparison_of(labels), "auroc")
    height = float(re.search(r'height="([\d.]+)mm"', drawn)[1])  # type: ignore[index]
    size = max(float(re.search(r"([\d.]+)px", node.attrib["style"])[1]) for node in texts(drawn))  # type: ignore[index]
    assert height / labels > 0.4 * size * 25.4 / 72
    assert height < 330
    assert len(bars(drawn)) == labels + 3


def test_differences_without_resamples_have_no_verdict() -> None:
    comparison = comparison_of(4, resamples=0)
    drawn = label_differences(comparison, "auprc")
    assert not verdicts(comparison.auprc).any()
    assert bars(drawn) == [OPEN] * 4


def test_labels_without_a_value_are_left_out() -> None:
    comparison = comparison_of(3)
    gone = replace(comparison.auroc, per_label=np.array([0.1, np.nan, -0.2]))
    drawn = label_differences(replace(comparison, auroc=gone), "auroc")
    assert [n.text for n in texts(drawn) if n.text and n.text.startswith("L1")] == []
    nothing = replace(gone, per_label=np.full(3, np.nan))
    assert "<svg" in label_differences(replace(comparison, auroc=nothing), "auroc")


def test_an_unknown_metric_is_refused(paired: list[PairedRuns]) -> None:
    with pytest.raises(EvaluationError, match="f1") as caught:
        label_differences(paired[0].comparison, "f1")
    assert caught.value.remedy


def line(epoch: int, auroc: float | None, loss: float = 0.1) -> dict[str, Any]:
    return {"epoch": epoch, "macro_auroc": auroc, "macro_auprc": auroc, "train_loss": loss}


def test_curves_show_every_run_under_its_name() -> None:
    histories = {
        "_new $x$": [line(i, 0.9 - 0.1 / i) for i in range(1, 9)],
        "old": [line(1, 0.7)],
        "loss only": [{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.4}],
    }
    drawn = curves(histories, reference="old", name="c7")
    names = [node.text for node in texts(drawn)]
    assert {"_new $x$", "old", "loss only", "Validation macro AUPRC", "epoch"} <= set(names)
    assert set(re.findall(r' id="(\w+)-', drawn)) == {"c7"}
    assert curves(histories, reference="old", name="c7") == drawn


def test_many_runs_have_different_styles() -> None:
    histories = {f"run {i}": [line(1, 0.5), line(2, 0.6)] for i in range(8)}
    drawn = curves(histories)
    assert "stroke-dasharray" in drawn


def test_figures_are_self_contained(paired: list[PairedRuns]) -> None:
    drawn = label_differences(paired[0].comparison, "auroc")
    assert re.findall(r"https?://[^\"]*", drawn) == ["http://www.w3.org/2000/svg"]
    assert "<style" not in drawn
    assert 'role="img"' in drawn
    assert "aria-label=" in drawn


def test_the_reliability_diagram_draws_both_series(evaluation: dict[str, Any]) -> None:
    calibration = evaluation["calibration"]
    drawn = reliability_diagram(calibration, name="mine")
    names = {node.text for node in texts(drawn)}
    assert {"before calibration", "after calibration", "0.1", "1"} <= names
    assert all(i.startswith("mine-") for i in re.findall(r' id="([^"]+)"', drawn))
    assert "$" not in drawn
    for when, colour in (("before", WORSE), ("after", BETTER)):
        bins = calibration[when]["bins_width"]
        bins = bins + [b for b in calibration[when]["bins_mass"] if b["observed"]]
        assert len(re.findall(rf"<use[^>]*{colour}", drawn)) == len(bins) + 1  # and in the legend
    ElementTree.fromstring(reliability_picture(calibration))
