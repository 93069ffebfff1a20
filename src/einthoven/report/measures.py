"""Tables and figures of classes and numbers, for page, card and terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from einthoven.files import Json
from einthoven.report import format as form
from einthoven.report.figures import (
    COLOURS,
    GREY,
    INK,
    add_title_and_grid,
    drawing,
    standing_alone,
    to_svg,
)
from einthoven.report.format import confidence
from einthoven.report.tables import Cell, Table, Value, metric_of, resamples_of
from einthoven.tasks import kind_of

MOST_CLASSES_DRAWN = 20
_SIZE = (3.4, 3.0)  # inches
_LIMITS_OF_AGREEMENT = 1.96  # standard deviations, for 95 % of normal errors


class Measured(NamedTuple):
    """A metric: the key of its mean over folds, its name, values that hold it, key and places."""

    key: str
    name: str
    values: Json
    metric: str
    places: int
    unit: str = ""

    @property
    def title(self) -> str:
        """The name with the unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def cell(self, *, signed: bool = False) -> Value:
        """The metric with its interval."""
        value = metric_of(self.values, self.metric, signed=signed)
        write = partial(form.number, signed=signed, places=self.places)
        return Value(value.value, value.limits, write, reason=value.reason)

    def parts(self, *, signed: bool = False) -> tuple[str, str]:
        """The metric, and its interval or the reason for which it has none."""
        cell = self.cell(signed=signed)
        limits = form.interval_text(cell.limits, signed=signed, places=self.places)
        return cell.write(cell.value), cell.reason or limits

    def text(self) -> str:
        """The metric with its unit and interval."""
        value, span = self.parts()
        unit = f" {self.unit}" if self.unit else ""
        return value + unit + (f" ({span})" if span != form.NONE else "")


def measured(score: Json) -> Iterator[Measured]:
    """The metrics of a score of classes, or of each number; none of labels."""
    if "kind" not in score:
        return
    columns = kind_of(score["kind"]).columns
    if "measures" in score:
        for name, column in columns.items():
            if name in score["measures"]:
                yield Measured(name, column.title, score["measures"], name, column.places)
        return
    several = len(score["per_label"]) > 1
    for label, entry in score["per_label"].items():
        for name, column in columns.items():
            title = f"{column.title} of {label}" if several else column.title
            unit = entry["unit"] if column.has_unit else ""
            yield Measured(f"{label}: {name}", title, entry, name, column.places, unit)


def measures_table(scores: Mapping[str, Json], caption: str) -> Table:
    """Metrics of one or more scores, by the name of the run or split."""
    columns = [list(measured(score)) for score in scores.values()]
    rows: list[list[Cell]] = [
        [row[0].title, *(entry.cell() for entry in row)] for row in zip(*columns, strict=True)
    ]
    return Table("table-measures", caption, ["Metric", *scores], rows)


def compared(pair: Json) -> list[Measured]:
    """Paired differences of a comparison, in the order of `measured`."""
    whole, single = pair["measures"]["whole"], pair["measures"]["per_label"]
    parts = [whole] if "measures" in pair["a"] else list(single.values())
    entries = list(measured(pair["a"]))
    places = [entry for entry in parts for _ in range(len(entries) // len(parts))]
    return [item._replace(values=entry) for item, entry in zip(entries, places, strict=True)]


def differences_table(pair: Json) -> Table:
    """Paired differences of all metrics of two runs."""
    rows: list[list[Cell]] = [[item.name, item.cell(signed=True)] for item in compared(pair)]
    caption = (
        f"{pair['run']} minus {pair['reference']}: paired differences with "
        f"{confidence(pair['a']['level'])} intervals of {resamples_of(pair['a'])}."
    )
    return Table("table-differences", caption, ["Metric", "Difference"], rows)


def classes_table(score: Json) -> Table:
    """Recall, precision and F1 of every class."""
    columns = kind_of(score["kind"]).columns
    names = [name for name in columns if name in next(iter(score["per_class"].values()))]
    rows: list[list[Cell]] = [
        [label, score["per_label"][label]["positives"], *(metric_of(entry, n) for n in names)]
        for label, entry in score["per_class"].items()
    ]
    caption = "Every class: the most probable class of a record is its prediction."
    head = ["Class", "Records", *(columns[name].title for name in names)]
    return Table("table-classes", caption, head, rows, kind="numbers dense")


def confusion_table(score: Json) -> Table:
    """Records by true and by predicted class."""
    labels = list(score["per_label"])
    rows: list[list[Cell]] = [
        [label, *row] for label, row in zip(labels, score["confusion"], strict=True)
    ]
    caption = "Records by true class (rows) and predicted class (columns)."
    return Table("table-confusion", caption, ["True class", *labels], rows, kind="numbers dense")


def class_calibration_table(calibration: Json) -> Table:
    """Quality of the probabilities of classes before and after calibration."""
    where = "on the other folds" if calibration["cross_fitted"] else "on other records"
    caption = (
        f"Probabilities of {calibration['records']:,} records before and after calibration by one "
        f"temperature ({calibration['temperature']:.3g}), fitted {where}. The calibration error "
        "(ECE) is that of the predicted class."
    )
    names = {"log_loss": "Log loss", "brier": "Brier score", "ece": "ECE"}
    rows: list[list[Cell]] = [
        [title, *(Value(calibration[when][name]) for when in ("before", "after"))]
        for name, title in names.items()
    ]
    return Table("table-temperature", caption, ["Measure", "Before", "After"], rows)


def value_subgroup_tables(subgroups: Json) -> list[Table]:
    """Error of numbers by group, a table for every attribute."""
    columns = kind_of(subgroups["kind"]).columns
    tables: list[Table] = []
    for attribute, groups in subgroups["attributes"].items():
        rows: list[list[Cell]] = []
        for group in groups:
            for label, entry in group["per_label"].items():
                name = f"{group['name']}: {label}" if len(group["per_label"]) > 1 else group["name"]
                cells = [Measured("", "", entry, n, columns[n].places).cell() for n in columns]
                rows.append([name, group["records"], group["patients"], *cells])
        head = ["Group", "Records", "Patients", *(column.title for column in columns.values())]
        caption = (
            f"By {attribute}, with {confidence(subgroups['level'])} intervals of "
            f"{resamples_of(subgroups)}."
        )
        if unknown := subgroups["unknown"][attribute]:
            caption += f" {unknown:,} records without a value are in no group."
        identity = f"table-subgroups-{len(tables) + 1}"
        tables.append(Table(identity, caption, head, rows, kind="numbers dense"))
    return tables


def confusion_figure(score: Json, name: str = "confusion") -> Markup:
    """Share of every true class by predicted class, with the number of records."""
    labels, counts = list(score["per_label"]), np.array(score["confusion"])
    total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.45 * len(labels)
    with drawing():
        figure = Figure(figsize=(side, side))
        axes = figure.add_axes((0.25, 0.22, 0.72, 0.72))
        axes.imshow(counts / total, cmap="Blues", vmin=0, vmax=1.3, aspect="auto")
        for (row, column), number in np.ndenumerate(counts):
            axes.text(column, row, f"{number:,}", ha="center", va="center", color=INK, fontsize=7)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(length=0)
        alt = f"Confusion matrix of {', '.join(labels)}"
        return to_svg(figure, name=name, alt=alt)


def agreement_figures(score: Json, label: str, place: int) -> list[Markup]:
    """Predictions by target, and their differences by mean (Bland and Altman 1986)."""
    entry, pairs = score["per_label"][label], score["agreement"][label]
    target, made = (np.array(pairs[key]) for key in ("target", "prediction"))
    unit = f" ({entry['unit']})" if entry["unit"] else ""
    figures = []
    with drawing():
        figure, axes = _panel(f"{label}: prediction and target")
        axes.plot(target, made, **_POINTS)
        ends = [min(target.min(), made.min()), max(target.max(), made.max())]
        axes.plot(ends, ends, color=GREY, lw=0.9, ls="--")
        axes.set(xlabel=f"target{unit}", ylabel=f"prediction{unit}")
        alt = f"Predictions of {label} by target"
        figures.append(to_svg(figure, name=f"scatter-{place}", alt=alt))
        figure, axes = _panel(f"{label}: Bland-Altman")
        axes.plot((target + made) / 2, made - target, **_POINTS)
        bias, spread = entry["bias"], _LIMITS_OF_AGREEMENT * entry["sd"]
        for value, style in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
            axes.axhline(value, color=COLOURS[1], lw=1.0, ls=style)
        axes.set(xlabel=f"mean of both{unit}", ylabel=f"prediction minus target{unit}")
        alt = f"Bland-Altman plot of {label}: difference of prediction and target by their mean"
        figures.append(to_svg(figure, name=f"agreement-{place}", alt=alt))
    return figures


def measures_picture(score: Json) -> str:
    """The figure of a score for a file: the confusion matrix, or agreement of the first number."""
    if "confusion" in score:
        return standing_alone(confusion_figure(score))
    label = next(iter(score["per_label"]))
    return standing_alone(agreement_figures(score, label, 1)[1])


def draws_agreement(score: Json) -> bool:
    """Whether a score of numbers has what a Bland-Altman plot draws."""
    entries = score["per_label"].values()
    return all(entry.get(key) is not None for entry in entries for key in ("bias", "sd"))


_POINTS: dict[str, Any] = {"ls": "", "marker": "o", "ms": 2.2, "mew": 0, "alpha": 0.45,
                           "color": COLOURS[0]}  # fmt: skip


def _panel(title: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=_SIZE)
    axes = figure.add_axes((0.2, 0.17, 0.76, 0.72))
    add_title_and_grid(axes, title)
    return figure, axes
