"""The page's sections on calibration, subgroups, fewer leads and noise, from its JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from einthoven.report.markup import Html, element, figure, fragment, table
from einthoven.report.reliability import reliability_diagram
from einthoven.report.values import NONE, estimate, level_text, number, whole
from einthoven.report.wording import (
    ATTRIBUTES,
    MEASURES,
    THRESHOLDS,
    condition_text,
    drawn_text,
)

Json = Mapping[str, Any]


def calibration(report: Json, tables: Iterator[int], figures: Iterator[int]) -> Html:
    """Every measure before and after, the reliability diagram, and the decisions by label."""
    found = report["runs"][0]["evidence"]["calibration"]
    drawn = figure(
        "figure-reliability",
        element("div", Html(reliability_diagram(found)), class_="wide"),
        f"Figure {next(figures)}. Reliability on the test split, all "
        f"{len(found['positives'])} labels together: the diagonal is what probabilities say, "
        "points below it were promised too much.",
    )
    measured = _measures(found, next(tables))
    if not found["after"]:
        note = element("p", "No calibration was fitted: probabilities are the network's own.")
        return fragment(measured, note, drawn)
    decided = element(
        "details",
        element("summary", "Every label's threshold, and what it comes to"),
        _decisions(found, next(tables)),
    )
    return fragment(measured, drawn, decided)


def subgroups(report: Json, tables: Iterator[int]) -> Html:
    """A table for every attribute."""
    found = report["runs"][0]["evidence"]["subgroups"]
    each = [_groups(found, attribute, next(tables)) for attribute in found["attributes"]]
    note = (
        "Means over the labels that a group has positives and negatives of. A gap is the group "
        "minus everyone else, over the labels that both have, from the same resamples. AUPRC also "
        "depends on how common a label is in a group, so a gap in it may say no more than that. "
        "Gaps are judged one at a time; with many, some intervals leave out zero by chance."
    )
    return fragment(*each, element("p", note, class_="note"))


def robustness(report: Json, tables: Iterator[int]) -> Html:
    """Every condition beside the clean split."""
    found = report["runs"][0]["evidence"]["robustness"]
    place = next(tables)
    caption = (
        f"Table {place}. Fewer leads and added noise on {found['records']:,} records, with paired "
        f"differences to the clean signals; intervals of {drawn_text(found)}."
    )
    head = ["Condition", "Macro AUROC", "Difference", "Macro AUPRC", "Difference"]
    head += ["Log loss", "ECE"]
    clean = [found["clean"]] if found["clean"] else []
    rows = [_condition(each) for each in (*clean, *found["leads"], *found["noise"])]
    note = (
        "Fewer leads are prepared as if no others had been recorded. Noise is added to the "
        "recorded signal, before any filter, at the stated signal-to-noise ratio."
    )
    left_out = [f" Not measured: {name} ({why})." for name, why in found["left_out"].items()]
    after = element("p", note, *left_out, class_="note")
    return table(
        "table-robustness", caption, head=head, rows=rows, class_="numbers dense", after=after
    )


def _measures(found: Json, place: int) -> Html:
    after = found["after"]
    caption = f"Table {place}. How far probabilities can be taken at their word"
    head = ["Measure", "Before"]
    if after:
        caption += (
            "; before and after the calibration that was fitted on the validation split, with "
            f"{level_text(found['level'])} intervals of {drawn_text(found)}"
        )
        head += ["After", "Change"]
    rows = []
    for kind, key, name in MEASURES:
        row = [fragment(name), number(found["before"][kind][key], places=5)]
        if after:
            moved = found["change"].get(key) if kind == "macro" else None
            row.append(number(after[kind][key], places=5))
            row.append(_moved(moved) if moved else fragment(NONE))
        rows.append(row)
    return table("table-calibration", f"{caption}.", head=head, rows=rows, class_="numbers")


def _moved(moved: Json) -> Html:
    return estimate(moved["difference"], moved["interval"], signed=True, places=5)


def _decisions(found: Json, place: int) -> Html:
    head = ["Label", "Threshold", "Positives", "Called", "Sensitivity", "Specificity"]
    head += ["Precision", "F1"]
    rows = [
        [
            fragment(label),
            number(entry["threshold"], places=4),
            whole(found["positives"][label]),
            whole(entry["called"]),
            *(number(entry[key]) for key in ("sensitivity", "specificity", "precision", "f1")),
        ]
        for label, entry in found["decisions"].items()
    ]
    caption = f"Table {place}. {THRESHOLDS} What that comes to on the test split."
    return table("table-decisions", caption, head=head, rows=rows, class_="numbers dense")


def _groups(found: Json, attribute: str, place: int) -> Html:
    unknown = found["unknown"][attribute]
    caption = (
        f"Table {place}. By {ATTRIBUTES.get(attribute, attribute)}, with "
        f"{level_text(found['level'])} intervals of {drawn_text(found)}."
        + (f" {unknown:,} records without it are in no group." if unknown else "")
    )
    head = ["Group", "Records", "Patients", "Labels"]
    head += ["Macro AUROC", "Gap", "Macro AUPRC", "Gap"]
    rows = [_group(each) for each in found["attributes"][attribute]]
    identity = f"table-subgroups-{place}"
    return table(identity, caption, head=head, rows=rows, class_="numbers dense")


def _group(each: Json) -> list[Html]:
    row = [fragment(each["name"]), *(whole(each[key]) for key in ("records", "patients", "labels"))]
    for metric in ("auroc", "auprc"):
        value, gap = each[metric], each[f"{metric}_gap"]
        row.append(estimate(value["value"], value["interval"]))
        row.append(estimate(gap["value"], gap["interval"], signed=True))
    return row


def _condition(each: Json) -> list[Html]:
    row = [fragment(condition_text(each))]
    for metric in ("auroc", "auprc"):
        value = each[metric]
        gap, limits = value.get("difference"), value.get("difference_interval")
        row.append(estimate(value["value"], value["interval"]))
        row.append(estimate(gap, limits, signed=True))
    return [*row, number(each["log_loss"], places=4), number(each["ece"], places=4)]
