"""The tables for a clinical reader: who was studied, and what the thresholds call."""

from __future__ import annotations

from collections.abc import Iterator

from einthoven.files import Json
from einthoven.report.description import UNKNOWN
from einthoven.report.tables import (
    Cell,
    Phrase,
    Table,
    Value,
    count,
    metric,
    metric_of,
    share,
    significant,
)

_PARTS = {"train": "Training", "validation": "Validation", "test": "Test", "all": "All"}
_MOST_VALUES = 8  # rows of one attribute


def clinical_tables(evaluation: Json, prevalence: Json | None = None) -> Json:
    """The population, predictive values and bins as tables by name; None for missing parts.

    `prevalence` has the predictive values of labels at a prevalence (`report_data`).
    """
    population, curves = evaluation.get("population"), evaluation.get("curves")
    per_label, left_out = (curves[k] if curves else {} for k in ("per_label", "left_out"))
    without: dict[str, list[str]] = {}
    for label, reason in left_out.items():
        without.setdefault(reason, []).append(label)
    return {
        "population_table": population_table(population) if population else None,
        "prevalence_table": _prevalence_table(prevalence) if prevalence else None,
        "bins_tables": {
            label: _bins_table(entry["bins"], label, place)
            for place, (label, entry) in enumerate(per_label.items(), 1)
        },
        "without_curves": without,
    }


def _prevalence_table(prevalence: Json) -> Table:
    caption = (
        "Predictive values at a prevalence given by the author, with the sensitivity and "
        "specificity of the test records, which can differ in another population."
    )
    rows: list[list[Cell]] = [
        [label, share(entry["prevalence"]), metric_of(entry, "ppv"), metric_of(entry, "npv")]
        for label, entry in prevalence.items()
    ]
    return Table("table-prevalence", caption, ["Label", "Prevalence", "PPV", "NPV"], rows)


def _bins_table(bins: list[Json], label: str, place: int) -> Table:
    """Records, probability and share of positives in every bin of a label."""
    head = ["Bin", "Records", "Mean probability", "Share of positives"]
    rows: list[list[Cell]] = [
        [
            str(number),
            entry["records"],
            metric(entry["probability"]),
            Value(entry["observed"], entry["interval"], reason=entry["reason"]),
        ]
        for number, entry in enumerate(bins, 1)
    ]
    caption = f"Calibration of {label}, in bins of equal mass."
    return Table(f"table-bins-{place}", caption, head, rows, kind="numbers dense")


def population_table(population: Json) -> Table:
    """Table 1 of a study: the records of every split, and all of them."""
    parts = population["parts"]
    head = ["", *(_PARTS[name] for name in parts)]
    caption = (
        "Records, patients and labels. Numbers are of records unless stated otherwise, with their "
        "share; ages are those at the time of the recording, with the quartiles in brackets."
    )
    if len(parts) > 1:
        caption += " No patient is in two splits."
    rows = list(_population_rows(list(parts.values()), population["descriptions"]))
    return Table("table-population", caption, head, rows, kind="numbers dense")


def _population_rows(parts: list[Json], descriptions: Json) -> Iterator[list[Cell]]:
    for key in ("records", "patients"):
        yield [key.capitalize(), *(part[key] for part in parts)]
    yield from _median_rows("Age, years", "age", parts)
    yield from _count_rows("Sex", "sex", parts)
    for label in parts[-1]["positives"]:
        name, description = f"Label {label}", descriptions.get(label)
        if description and description != label:
            name += f": {description}"
        yield [name, *(_count_and_share(part["positives"][label]) for part in parts)]
    for name in parts[-1].get("numbers") or {}:
        numbers = [part["numbers"] for part in parts]
        yield from _median_rows(name, name, numbers)
    if parts[-1]["positives"] and parts[-1]["without_label"]["records"]:
        yield ["No label", *(_count_and_share(part["without_label"]) for part in parts)]
    if any(part["date"] for part in parts):
        yield ["Recorded", *(_months(part["date"]) for part in parts)]
        yield ["Recorded: missing", *(_count_and_share(part["date"]["missing"]) for part in parts)]
    else:
        yield ["Recorded", *(UNKNOWN for _ in parts)]
    yield from _count_rows("Device", "device", parts)
    yield from _count_rows("Sampling rate, Hz", "rate", parts)
    yield from _median_rows("Length, s", "seconds", parts)


def _months(dates: Json) -> str:
    return f"{dates['first']} to {dates['last']}" if dates["first"] else UNKNOWN


def _median_rows(name: str, key: str, parts: list[Json]) -> Iterator[list[Cell]]:
    """A row of medians, and one of missing values."""
    yield [name, *(_quartiles(part[key]) if part[key] else UNKNOWN for part in parts)]
    if parts[-1][key] and "missing" in parts[-1][key]:
        missing = (_count_and_share(part[key]["missing"]) for part in parts)
        yield [f"{name.split(',')[0]}: missing", *missing]


def _count_rows(name: str, key: str, parts: list[Json]) -> Iterator[list[Cell]]:
    """A row for every value, the most frequent ones of all records; the others together."""
    if not parts[-1][key]:
        yield [name, *(UNKNOWN for _ in parts)]
        return
    values = list(parts[-1][key])
    frequent = [value for value in values if value][:_MOST_VALUES]
    none = {"records": 0, "share": 0.0}
    for value in [*frequent, *([""] if "" in values else [])]:
        row = [_count_and_share(part[key].get(value, none)) for part in parts]
        yield [f"{name}: {value or 'missing'}", *row]
    if others := [value for value in values if value and value not in frequent]:
        yield [f"{name}: {len(others)} others", *("" for _ in parts)]


def _count_and_share(entry: Json) -> Phrase:
    return Phrase([count(entry["records"]), " (", share(entry["share"]), ")"])


def _quartiles(entry: Json) -> Cell:
    if entry["median"] is None:
        return UNKNOWN
    values = (significant(entry[k]) for k in ("median", "lower_quartile", "upper_quartile"))
    median, low, high = values
    return Phrase([median, " (", low, " to ", high, ")"])
