"""Calibration, subgroups, fewer leads and noise: on the page and on the card, or not there."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from einthoven.report.reliability import reliability_diagram

from einthoven.evaluate import calibration_report, fit_calibration, score_subgroups
from einthoven.report import ReportRun, build_page, model_card, report_json


def condition(name: str, **about: Any) -> dict[str, Any]:
    value = {
        "value": 0.8125, "interval": [0.7625, 0.8515], "difference": -0.0325,
        "difference_interval": [-0.0515, -0.0125], "worse": 2,
    }  # fmt: skip
    return {"name": name, "log_loss": 0.3125, "ece": 0.0635, "auroc": value, "auprc": value} | about


@pytest.fixture(scope="module")
def evidence(runs: list[ReportRun], labels: tuple[str, ...]) -> dict[str, Any]:
    table = runs[0].predictions
    assert table is not None
    assert table.targets is not None
    fitted = fit_calibration(table.targets, table.probabilities, labels)
    measured = calibration_report(table.targets, table.probabilities, labels, fitted, resamples=20)
    sex = np.where(np.arange(len(table)) % 2, "female", "<b>odd</b>")
    sex[:7] = ""
    groups = score_subgroups(table, {"sex": sex}, resamples=20)
    clean = {key: {"value": 0.845, "interval": [0.8, 0.9]} for key in ("auroc", "auprc")}
    return {
        "split": "test",
        "cohort": {"name": "ptb-xl", "version": "1.0.3", "task": "all-71"},
        "score": runs[0].score,
        "calibration": measured.to_dict(),
        "subgroups": groups.to_dict(),
        "robustness": {
            "records": 120, "resamples": 20, "seed": 0, "by": "record", "undefined_labels": "skip",
            "clean": clean | {"log_loss": 0.25, "ece": 0.0125},
            "leads": [condition("8 leads", leads=["I", "II", "V1"], policy="own"),
                      condition("lead I", leads=["I"], policy="zeroed")],
            "noise": [condition("muscle, 6 dB", noise="muscle", snr=6.0)],
            "left_out": {"6 limb leads": "the bundle does not read III"},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def run(runs: list[ReportRun], evidence: dict[str, Any]) -> ReportRun:
    return replace(runs[0], evidence=evidence)


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="([\w-]+)"', page)


def numbers_in(value: Any) -> set[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return set().union(*map(numbers_in, value))
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return {float(value)} if known else set()


def test_the_page_shows_what_there_is(run: ReportRun, runs: list[ReportRun]) -> None:
    page = build_page([run], title="x")
    parts = sections(page)
    assert parts[parts.index("labels") + 1 :][:3] == ["calibration", "subgroups", "robustness"]
    assert {"calibration", "subgroups", "robustness"}.isdisjoint(
        sections(build_page(runs[:1], title="x"))
    )
    for part in ("calibration", "subgroups", "robustness"):
        one = replace(runs[0], evidence={part: (run.evidence or {})[part]})
        shown = set(sections(build_page([one], title="x")))
        assert shown & {"calibration", "subgroups", "robustness"} == {part}


def test_every_number_is_in_the_json_and_nothing_is_told_twice(run: ReportRun) -> None:
    report = report_json([run], title="x")
    assert set(report["runs"][0]["evidence"]) == {"calibration", "subgroups", "robustness"}
    json.dumps(report, allow_nan=False)
    page = build_page([run], title="x")
    shown = {float(value) for value in re.findall(r'<data value="([^"]+)"', page)}
    assert shown <= numbers_in(report)
    found = (run.evidence or {})["calibration"]
    for kind, name in (("macro", "log_loss"), ("micro", "ece_mass"), ("macro", "ece_width")):
        assert {found["before"][kind][name], found["after"][kind][name]} <= shown
    assert found["change"]["brier"]["difference"] in shown
    assert found["decisions"]["NORM"]["threshold"] in shown
    assert {-0.0515, 0.3125, 0.845} <= shown


def test_the_page_says_how_it_was_measured(run: ReportRun) -> None:
    page = build_page([run], title="x")
    assert "8 leads (I, II, V1; the network&#x27;s own policy)" in page
    assert "lead I (I; zeros for the others)" in page
    assert "Not measured: 6 limb leads (the bundle does not read III)." in page
    assert "7 records without it are in no group." in page
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "<b>odd" not in page
    assert "None" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)


def test_nothing_after_without_a_calibration(
    runs: list[ReportRun], labels: tuple[str, ...]
) -> None:
    table = runs[0].predictions
    assert table is not None
    bare = calibration_report(table.targets, table.probabilities, labels, resamples=0)  # type: ignore[arg-type]
    evidence = {"calibration": bare.to_dict()}
    page = build_page([replace(runs[0], evidence=evidence)], title="x")
    assert "No calibration was fitted" in page
    assert "table-decisions" not in page
    assert "after calibration" not in page
    card = model_card({}, runs[0].score, None, evidence=evidence)
    assert "No calibration was fitted" in card
    assert "Threshold" not in card


def test_the_diagram_draws_both_series(evidence: dict[str, Any]) -> None:
    drawing = reliability_diagram(evidence["calibration"], name="mine")
    root = ElementTree.fromstring(drawing)
    assert root.attrib["aria-label"].endswith("before and after calibration")
    assert all(i.startswith("mine-") for i in re.findall(r' id="([^"]+)"', drawing))
    texts = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"before calibration", "after calibration", "0.1", "1"} <= set(texts)
    assert "$" not in drawing
    dots = {
        style: len(re.findall(rf"<use[^>]*{style}", drawing)) for style in ("#d1602a", "#2a7fb8")
    }
    found = evidence["calibration"]
    for when, colour in (("before", "#d1602a"), ("after", "#2a7fb8")):
        bins = found[when]["bins_width"] + [b for b in found[when]["bins_mass"] if b["observed"]]
        assert dots[colour] == len(bins) + 1  # and one in the legend


def test_the_card_has_the_same_numbers(run: ReportRun, evidence: dict[str, Any]) -> None:
    card = model_card({}, run.score, None, evidence=evidence)
    assert "![" not in card
    drawn = model_card({}, run.score, None, evidence=evidence, reliability="reliability.svg")
    assert "![Reliability before and after calibration:" in drawn
    assert drawn.index("](reliability.svg)") > drawn.index("## Calibration")
    headings = re.findall(r"^## (.+)$", card, flags=re.MULTILINE)
    place = headings.index("Results")
    assert headings[place + 1 : place + 4] == ["Calibration", "Subgroups", "Fewer leads and noise"]
    found = evidence["calibration"]
    before, after = found["before"]["macro"]["brier"], found["after"]["macro"]["brier"]
    assert f"| Brier score | {before:.5f} | {after:.5f} |" in card
    group = evidence["subgroups"]["attributes"]["sex"][1]
    low, high = group["auroc"]["interval"]
    assert f"| {group['auroc']['value']:.3f} ({low:.3f} to {high:.3f}) |" in card
    assert "| muscle, 6 dB | 0.812 (0.762 to 0.852) | −0.033 (−0.051 to −0.013) |" in card
    assert "6 limb leads: the bundle does not read III" in card
    assert "Measured on the test split of ptb-xl 1.0.3, task all-71." in card
    assert "<b>" not in card
    assert "None" not in card
