"""Tables of the coverage of prediction sets, for page and card."""

from __future__ import annotations

from dataclasses import replace

from einthoven.evaluate.estimate import CONSTANT, MIN_PER_CLASS, TOO_FEW
from einthoven.files import Json
from einthoven.report import format as form
from einthoven.report.tables import ATTRIBUTES, Cell, Table, Value, metric, resamples_of

_SIDES = {
    "present": "Positives with “present”",
    "absent": "Negatives with “absent”",
    "true": "Records with the true answer",
}


def coverage_tables(coverage: Json) -> list[Table]:
    """Coverage overall and by group, and of every label, class or number; empty if unknown for all.

    Parameters
    ----------
    coverage : dict
        From `einthoven.evaluate.conformal.measure_coverage`.
    """
    overall = coverage["overall"]
    sides = [side for side in _SIDES if side in overall]
    outputs = coverage["per_label"].values()
    if not any(entry[side]["records"] for entry in outputs for side in sides):
        return []
    answered = "absent" in sides or overall["undecided"] > 0
    head = [*(_SIDES[side] for side in sides), *["No single answer"] * answered]

    def row(entry: Json) -> list[Cell]:
        cells: list[Cell] = [_share(entry[side]) for side in sides]
        return cells + [metric(entry["undecided"])] * answered

    rows: list[list[Cell]] = [["All records", overall["records"], *row(overall)]]
    for attribute, groups in coverage["attributes"].items():
        name = ATTRIBUTES.get(attribute, attribute)
        rows += [[f"{name}: {group['name']}", group["records"], *row(group)] for group in groups]
    level = form.confidence(coverage["level"])
    caption = (
        f"Coverage of prediction sets, {coverage['coverage']:g} asked for: means over "
        f"outputs with {MIN_PER_CLASS} or more such records, with {level} intervals of "
        f"{resamples_of(coverage)}."
    )
    by_label: list[list[Cell]] = [
        [label, *(cell for side in sides for cell in (entry[side]["records"], _share(entry[side])))]
        + [metric(entry["undecided"])] * answered
        for label, entry in coverage["per_label"].items()
    ]
    counts = [title for side in sides for title in ("Records", _SIDES[side])]
    return [
        Table("table-coverage", caption, ["Group", "Records", *head], rows),
        Table(
            "table-coverage-labels",
            f"Coverage of every output, with {level} Wilson intervals.",
            ["Output", *counts, *["No single answer"] * answered],
            by_label,
            kind="numbers dense",
        ),
    ]


def _share(entry: Json) -> Value:
    reason = CONSTANT if entry["covered"] in (0, 1) else TOO_FEW
    return replace(metric(entry["covered"], entry["interval"]), reason=reason)
