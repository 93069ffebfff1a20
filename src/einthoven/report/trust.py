"""The page's sections on calibration, subgroups, fewer leads and noise, from its JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from einthoven.report.evidence_rows import (
    CONDITIONS,
    DECISIONS,
    GROUPS,
    Cell,
    Metric,
    condition_rows,
    decision_rows,
    group_rows,
    measure_rows,
)
from einthoven.report.format import confidence
from einthoven.report.markup import Html, element, figure, fragment, table
from einthoven.report.reliability import reliability_diagram
from einthoven.report.values import estimate, whole
from einthoven.report.wording import ATTRIBUTES, THRESHOLDS, drawn_text

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
        f"Table {place}. Fewer leads, added noise and offsets on {found['records']:,} records, "
        f"with paired differences to the clean signals; intervals of {drawn_text(found)}."
    )
    note = (
        "Fewer leads are prepared as if no others had been recorded. Noise is added to the "
        "recorded signal, before any filter, at the stated signal-to-noise ratio; an offset is one "
        "constant added to every lead."
    )
    left_out = [f" Not measured: {name} ({why})." for name, why in found["left_out"].items()]
    after = element("p", note, *left_out, class_="note")
    return table(
        "table-robustness",
        caption,
        head=CONDITIONS,
        rows=_shown(condition_rows(found)),
        class_="numbers dense",
        after=after,
    )


def _measures(found: Json, place: int) -> Html:
    after = found["after"]
    caption = f"Table {place}. How far probabilities can be taken at their word"
    head = ["Measure", "Before"]
    if after:
        caption += (
            "; before and after the calibration that was fitted on the validation split, with "
            f"{confidence(found['level'])} intervals of {drawn_text(found)}"
        )
        head += ["After", "Change"]
    rows = _shown(measure_rows(found))
    return table("table-calibration", f"{caption}.", head=head, rows=rows, class_="numbers")


def _decisions(found: Json, place: int) -> Html:
    caption = f"Table {place}. {THRESHOLDS} What that comes to on the test split."
    rows = _shown(decision_rows(found))
    return table("table-decisions", caption, head=DECISIONS, rows=rows, class_="numbers dense")


def _groups(found: Json, attribute: str, place: int) -> Html:
    unknown = found["unknown"][attribute]
    caption = (
        f"Table {place}. By {ATTRIBUTES.get(attribute, attribute)}, with "
        f"{confidence(found['level'])} intervals of {drawn_text(found)}."
        + (f" {unknown:,} records without it are in no group." if unknown else "")
    )
    rows = _shown(group_rows(found, attribute))
    identity = f"table-subgroups-{place}"
    return table(identity, caption, head=GROUPS, rows=rows, class_="numbers dense")


def _shown(rows: Iterable[Iterable[Cell]]) -> Iterator[list[Html]]:
    return ([_cell(each) for each in row] for row in rows)


def _cell(each: Cell) -> Html:
    if isinstance(each, Metric):
        return estimate(each.value, each.limits, signed=each.signed, places=each.places)
    return fragment(each) if isinstance(each, str) else whole(each)
