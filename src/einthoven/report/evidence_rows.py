"""The tables on calibration, subgroups, fewer leads and noise: the same rows on page and card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from einthoven.report.format import NONE, Interval, Number
from einthoven.report.wording import MEASURES, condition_text

Json = Mapping[str, Any]

DECISIONS = (
    "Label",
    "Threshold",
    "Positives",
    "Called",
    "Sensitivity",
    "Specificity",
    "Precision",
    "F1",
)
GROUPS = ("Group", "Records", "Patients", "Labels", "Macro AUROC", "Gap", "Macro AUPRC", "Gap")
CONDITIONS = (
    "Condition",
    "Macro AUROC",
    "Difference",
    "Macro AUPRC",
    "Difference",
    "Log loss",
    "ECE",
)
_METRICS = ("auroc", "auprc")


@dataclass(frozen=True)
class Metric:
    """A number that is not a count, and its limits where it has any."""

    value: Number
    limits: Interval = None
    signed: bool = False
    places: int = 3


Cell = str | int | Metric
"""Plain text, a count, or a metric."""


def measure_rows(found: Json) -> list[list[Cell]]:
    """A measure, before calibration, and where there is one after it and the change."""
    after = found["after"]
    rows = []
    for kind, key, name in MEASURES:
        row: list[Cell] = [name, Metric(found["before"][kind][key], places=5)]
        if after:
            moved = found["change"].get(key) if kind == "macro" else None
            row.append(Metric(after[kind][key], places=5))
            row.append(_gap(moved["difference"], moved["interval"], places=5) if moved else NONE)
        rows.append(row)
    return rows


def decision_rows(found: Json) -> list[list[Cell]]:
    """Every label's threshold, and what it comes to; `DECISIONS` heads them."""
    return [
        [
            label,
            Metric(entry["threshold"], places=4),
            found["positives"][label],
            entry["called"],
            *(Metric(entry[key]) for key in ("sensitivity", "specificity", "precision", "f1")),
        ]
        for label, entry in found["decisions"].items()
    ]


def group_rows(found: Json, attribute: str) -> list[list[Cell]]:
    """Every group of an attribute, with its gaps; `GROUPS` heads them."""
    rows = []
    for group in found["attributes"][attribute]:
        row: list[Cell] = [group[key] for key in ("name", "records", "patients", "labels")]
        for metric in _METRICS:
            value, gap = group[metric], group[f"{metric}_gap"]
            row.append(Metric(value["value"], value["interval"]))
            row.append(_gap(gap["value"], gap["interval"]))
        rows.append(row)
    return rows


def condition_rows(found: Json) -> list[list[Cell]]:
    """The clean split, then every condition beside it; `CONDITIONS` heads them."""
    clean = [found["clean"]] if found["clean"] else []
    rows = []
    for each in (*clean, *found["leads"], *found["noise"], *found.get("offsets", ())):
        row: list[Cell] = [condition_text(each)]
        for metric in _METRICS:
            value = each[metric]
            row.append(Metric(value["value"], value["interval"]))
            row.append(_gap(value.get("difference"), value.get("difference_interval")))
        rows.append([*row, Metric(each["log_loss"], places=4), Metric(each["ece"], places=4)])
    return rows


def _gap(value: Number, limits: Interval, places: int = 3) -> Metric:
    return Metric(value, limits, signed=True, places=places)
