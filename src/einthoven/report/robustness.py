"""The table of fewer leads, noise and offsets, for page and card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from einthoven.files import Json
from einthoven.report.measures import measured
from einthoven.report.tables import SCORES, Cell, Table, macro_name, metric, resamples_of

_POLICIES = {
    "native": "the network's handling of missing leads",
    "derived": "limb leads that follow from others are computed",
}
_SHOWN = ("accuracy", "balanced_accuracy", "mae", "pearson")
"""Metrics of classes and numbers in the table; all metrics of a kind that has none of them."""


def robustness_table(evaluation: Json, score: Json | None) -> Table | None:
    """Metrics of the clean split, then of every condition with the change; None if not measured.

    `evaluation` is that of a model, and `score` the one in it, or of its run.
    """
    robustness = evaluation.get("robustness")
    if not robustness or not score:
        return None
    conditions = [robustness["clean"]] if robustness["clean"] else []
    conditions += [c for key in ("leads", "noise", "offsets") for c in robustness.get(key, ())]
    columns = [*_columns(score, conditions)]
    head = ["Condition", *(name for _, title, _ in columns for name in (title, "Difference"))]
    others = {"log_loss": "Log loss", "ece": "ECE"} if columns[0][0] in SCORES else {}
    rows: list[list[Cell]] = []
    for condition in conditions:
        row: list[Cell] = [_name(condition)]
        for key, _, places in columns:
            x = condition[key]
            row.append(metric(x["value"], x.get("interval"), places=places))
            change, limits = x.get("difference"), x.get("difference_interval")
            row.append(metric(change, limits, signed=True, places=places))
        rows.append(row + [metric(condition[key], places=4) for key in others])
    caption = (
        f"Fewer leads, noise and offsets on {robustness['records']:,} records, with paired "
        f"differences to the clean signals; intervals of {resamples_of(robustness)}."
    )
    kind = "numbers dense"
    return Table("table-robustness", caption, [*head, *others.values()], rows, kind=kind)


def _columns(score: Json, conditions: Sequence[Json]) -> Iterator[tuple[str, str, int]]:
    """Key, title and decimal places of the metrics in the table."""
    clean = conditions[0] if conditions else {}
    items = [item for item in measured(score) if item.key in clean]
    for item in [item for item in items if item.metric in _SHOWN] or items:
        yield item.key, item.title, item.places
    if not items:
        for key in SCORES:
            yield key, macro_name(key, len(score["per_label"])), 3


def _name(condition: Json) -> str:
    if "leads" not in condition:
        return str(condition.get("name", "all leads, no noise"))
    policy = _POLICIES.get(condition["policy"], condition["policy"])
    return f"{condition['name']} ({', '.join(condition['leads'])}; {policy})"
